"""Commands of the user's own: secrets that they print, and what they are told."""

from __future__ import annotations

import os
import shlex
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Final, TextIO

from tilesync.errors import NotAuthorised, UsageError
from tilesync.runtime.threads import STOP_EVENT

SECRET_TIMEOUT: Final = timedelta(minutes=5)
"""How long a secret may be on its way: all others wait for it."""

_POLL_INTERVAL_S: Final = 0.2
"""Seconds between two looks whether its end is waited for still."""

MAX_OUTPUT_BYTES: Final = 1 << 16
"""Bytes that a command may print: tokens and links have a few thousand at most."""

_DRAIN_TIMEOUT_S: Final = 1.0
"""Seconds for what an ended command has printed, where a process that it left behind keeps its stdout open."""

_TERMINATE_TIMEOUT_S: Final = 5.0
"""Seconds for a command that was asked to end."""

_QUOTING_HINT: Final = (
    "give one program with its arguments; no shell sees them, so a pipe or a redirection wants a script"
)


class CommandCancelled(Exception):
    """The command was ended: nobody waits for it any more."""


class OutputTooLarge(Exception):
    """The command was ended: it printed more than MOST bytes."""


def split_command(command: str, option: str) -> list[str]:
    """The words of a command, which no shell sees. Raises UsageError when there are none."""
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise UsageError(f"the command of {option} cannot be read ({error})", hint=_QUOTING_HINT) from None
    if not words:
        raise UsageError(f"{option} names no command", hint=_QUOTING_HINT)
    return words


def run_secret_command(command: str, option: str) -> str:
    """What a command prints on stdout; it blocks. Raises UsageError, NotAuthorised when it fails or takes too long."""
    words, hint = (
        split_command(command, option),
        f"run the command of {option} by hand; it must print the secret and exit 0",
    )

    def look(seconds: float) -> None:
        if seconds > SECRET_TIMEOUT.total_seconds():
            raise NotAuthorised(f"the command of {option} has not ended within {seconds:.0f} s", hint=hint)

    try:
        code, out = run_command(words, on_poll=look)
    except (OSError, ValueError) as error:
        raise NotAuthorised(f"the command of {option} cannot be run ({error})", hint=hint) from error
    except CommandCancelled:
        raise NotAuthorised(f"the command of {option} was ended", hint=hint) from None
    except OutputTooLarge:
        raise NotAuthorised(
            f"the command of {option} printed more than {MAX_OUTPUT_BYTES >> 10} KiB", hint=hint
        ) from None
    if code != 0:
        raise NotAuthorised(f"the command of {option} failed with exit code {code}", hint=hint)
    return out.decode(errors="replace").strip()


def run_command(
    words: list[str], stdin_data: bytes = b"", *, stdout: TextIO | None = None, on_poll: Callable[[float], None]
) -> tuple[int, bytes]:
    """Exit code of a command, and what it printed on stdout, unless that goes `into` a file; it blocks. `data` is its
    standard input. `look` is called with the seconds that it has run, again and again: what that raises ends it.

    The end of the command itself is waited for, not that of processes that it leaves behind, though they may hold its
    stdout open. Raises OSError and ValueError where it cannot be run, Abandoned where its end is waited for no more,
    PrintsTooMuch.
    """
    stop, began = STOP_EVENT.get() or threading.Event(), time.monotonic()
    with tempfile.TemporaryFile() as giving:  # a pipe would want someone who writes while others wait
        giving.write(stdin_data)
        giving.seek(0)
        output = _OutputReader() if stdout is None else None
        try:
            process = subprocess.Popen(words, stdin=giving, stdout=output.write_end if output else stdout)  # noqa: S603 - the user's own
        finally:
            if output is not None:
                output.start()
        with process:
            try:
                while True:
                    if output is not None and output.is_too_large:
                        raise OutputTooLarge
                    with suppress(subprocess.TimeoutExpired):
                        code = process.wait(_POLL_INTERVAL_S)
                        return code, output.read_all() if output else b""
                    if stop.is_set():
                        raise CommandCancelled
                    on_poll(time.monotonic() - began)
            except BaseException:
                _terminate(process)
                raise


class _OutputReader:
    """What comes out of a pipe, up to MOST bytes, read by a thread of its own: that works on every system, and where
    the pipe outlives the command the thread waits for its end, not the caller.
    """

    def __init__(self) -> None:
        self._read_end, self.write_end = os.pipe()
        self._thread = threading.Thread(target=self._read_pipe, daemon=True)
        self._chunks: list[bytes] = []
        self.is_too_large = False

    def start(self) -> None:
        """Read; the command has its end of the pipe now, or there is no command."""
        os.close(self.write_end)
        self._thread.start()

    def _read_pipe(self) -> None:
        left = MAX_OUTPUT_BYTES
        while left >= 0 and (data := os.read(self._read_end, MAX_OUTPUT_BYTES)):
            self._chunks.append(data)
            left -= len(data)
        self.is_too_large = left < 0
        os.close(self._read_end)

    def read_all(self) -> bytes:
        """All of it; the command has ended. Raises PrintsTooMuch."""
        self._thread.join(_DRAIN_TIMEOUT_S)
        if self.is_too_large:
            raise OutputTooLarge
        return b"".join(self._chunks)


def _terminate(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(_TERMINATE_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
