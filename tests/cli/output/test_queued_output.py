"""Test output that threads write through bounded queues."""

from __future__ import annotations

import threading

from tilesync.cli.output.queued_output import OutputQueues, QueuedWriter

WAIT_S = 10.0


class StalledOutput:
    """Output whose reader takes nothing until `resume` is set."""

    def __init__(self) -> None:
        self.texts: list[str] = []
        self.resume = threading.Event()
        self.begun = threading.Event()

    def write(self, text: str) -> None:
        self.begun.set()
        assert self.resume.wait(WAIT_S)
        self.texts.append(text)


def test_texts_are_written_in_order() -> None:
    """All texts of a reader who keeps up are written, in their order."""
    written: list[str] = []
    writer = QueuedWriter(written.append, str)
    for number in range(1000):
        writer.write(f"{number}\n")
    assert writer.flush(WAIT_S)
    writer.close()
    assert "".join(written) == "".join(f"{number}\n" for number in range(1000))


def test_texts_beyond_the_queue_are_counted() -> None:
    """What has no room is dropped, even if something shorter would fit; later a message stands in its place."""
    output = StalledOutput()
    writer = QueuedWriter(output.write, "<{}>\n".format, max_queued_chars=10)
    writer.write("taken\n")
    assert output.begun.wait(WAIT_S)
    for text in ("queued\n", "dropped\n", "d\n"):
        writer.write(text)
    assert not writer.flush(0)
    output.resume.set()
    assert writer.flush(WAIT_S)
    writer.write("later\n")
    assert writer.flush(WAIT_S)
    writer.close()
    message = "<2 lines were dropped here, because nobody read this output in time>\n"
    assert "".join(output.texts) == f"taken\nqueued\n{message}later\n"


def test_a_text_larger_than_the_queue() -> None:
    """A text that is larger than the whole queue is written when nothing else waits."""
    written: list[str] = []
    writer = QueuedWriter(written.append, str, max_queued_chars=10)
    writer.write("a" * 50)
    assert writer.flush(WAIT_S)
    writer.close()
    assert written == ["a" * 50]


def test_one_stalled_output_costs_the_others_nothing() -> None:
    """While one output stalls, the other one is written; closing waits no longer than it may, and tells it."""
    stalled, written = StalledOutput(), list[str]()
    queues = OutputQueues()
    write_stalled, write = queues.add(stalled.write, str), queues.add(written.append, str)
    write_stalled("never\n")
    assert stalled.begun.wait(WAIT_S)
    write("log line\n")
    assert not queues.close(0.2)
    assert written == ["log line\n"]
    stalled.resume.set()
    assert queues.flush(WAIT_S)


def test_close_writes_what_is_queued() -> None:
    """Closing writes what is queued and ends the threads; a later text is dropped."""
    written: list[str] = []
    queues = OutputQueues()
    write = queues.add(written.append, str)
    write("last\n")
    assert queues.close(WAIT_S)
    write("too late\n")
    assert queues.flush(WAIT_S)
    assert written == ["last\n"]
