"""Write output in threads, through bounded queues, so that a reader who is slow or gone delays nobody."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import Final

from tilesync.core.wording import format_count

WriteText = Callable[[str], object]

FormatMessage = Callable[[str], str]
"""Formats a message as a text of one output: a sentence for people, or a JSON line."""

AddQueue = Callable[[WriteText, FormatMessage], WriteText]
"""Makes a function that writes texts of the function that writes them now."""

MAX_QUEUED_CHARS: Final = 1 << 20
"""Characters that wait in a queue: some thousand lines of an access log."""

COLLECT_S: Final = 0.02
"""Seconds in which texts are collected, to be written at once: a thread that wakes for each line costs a third more."""

CLOSE_TIMEOUT_S: Final = 1.0
"""Seconds that the readers have for what is queued when the process ends."""


def write_at_once(write: WriteText, _: FormatMessage) -> WriteText:
    """Return the function itself: without a queue, a text is written before it returns."""
    return write


class OutputQueues:
    """The outputs of a server, each with a queue and a thread: a terminal that stalls costs the log file no line."""

    def __init__(self) -> None:
        self._writers: list[QueuedWriter] = []

    def add(self, write: WriteText, format_message: FormatMessage) -> WriteText:
        """Add an output; return the function that queues a text for it."""
        writer = QueuedWriter(write, format_message)
        self._writers.append(writer)
        return writer.write

    def flush(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Wait until all texts are written; return False if they are not after `timeout_s`."""
        deadline_s = time.monotonic() + timeout_s
        return all(each.flush(max(0.0, deadline_s - time.monotonic())) for each in self._writers)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Write what is queued, and end the threads; return False if a reader did not take all within `timeout_s`."""
        is_written = self.flush(timeout_s)
        for each in self._writers:
            each.close()
        return is_written


class QueuedWriter:
    """Bounded queue of texts, and a thread that writes them.

    A text for which there is no room is dropped. As soon as the output is read again, a message says how many were.
    """

    def __init__(
        self, write: WriteText, format_message: FormatMessage, *, max_queued_chars: int = MAX_QUEUED_CHARS
    ) -> None:
        self._write = write
        self._format_message = format_message
        self._max_chars = max_queued_chars
        self._changed = threading.Condition()
        self._texts: list[str] = []
        self._queued_chars = 0
        self._dropped = 0
        self._is_writing = False
        self._is_urgent = False
        self._is_closed = False
        self._thread: threading.Thread | None = None

    def write(self, text: str) -> None:
        """Queue a text, or drop it. Does not wait."""
        with self._changed:
            # After one that was dropped all others are, so that the message stands where texts are missing.
            is_full = bool(self._texts) and self._queued_chars + len(text) > self._max_chars
            if self._is_closed or self._dropped or is_full:
                self._dropped += 1
                return
            self._texts.append(text)
            self._queued_chars += len(text)
            if len(self._texts) == 1:
                self._changed.notify_all()
            if self._thread is None:  # a daemon: a write that hangs must not keep the process alive
                self._thread = threading.Thread(target=self._run, daemon=True, name="tilesync-output")
                self._thread.start()

    def flush(self, timeout_s: float) -> bool:
        """Wait until all texts are written; return False if they are not after `timeout_s`."""
        with self._changed:
            self._is_urgent = True
            self._changed.notify_all()
            is_written = self._changed.wait_for(lambda: not (self._texts or self._is_writing), timeout_s)
            self._is_urgent = False
            return is_written

    def close(self) -> None:
        """End the thread as soon as it has written what is queued. Later texts are dropped."""
        with self._changed:
            self._is_closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while (text := self._take()) is not None:
            self._write(text)

    def _take(self) -> str | None:
        """Wait for texts, and take all of them from the queue; None when it is closed."""
        with self._changed:
            self._is_writing = False
            self._changed.notify_all()
            self._changed.wait_for(lambda: self._texts or self._is_closed)
            if not self._texts:
                return None
            self._changed.wait_for(lambda: self._is_urgent or self._is_closed, COLLECT_S)
            self._is_writing = True
            texts, dropped = self._texts, self._dropped
            self._texts, self._queued_chars, self._dropped = [], 0, 0
        if dropped:
            lines = format_count(dropped, "line was", "lines were")
            texts.append(self._format_message(f"{lines} dropped here, because nobody read this output in time"))
        return "".join(texts)
