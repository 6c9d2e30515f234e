"""Test a server whose output nobody reads: it answers, it ends, and later it says how much is missing."""

from __future__ import annotations

import http.client
import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.support.builders import export
from tests.support.commandline import start_tilesync
from tests.support.tile_server import mirror_files
from tilesync.cli.output.queued_output import MAX_QUEUED_CHARS

REQUESTS = 2_000
LONG_PATH = "/" + "x" * 2_000
"""The lines of all requests are twice as long as a pipe and all that may wait for it: the queue, and what was taken."""

assert REQUESTS * len(LONG_PATH) > 1.5 * (2 * MAX_QUEUED_CHARS + (1 << 16))


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_files(tmp_path_factory.mktemp("output") / "d", export(1))


@contextmanager
def unread_server(dest: Path, *words: object) -> Iterator[tuple[int, subprocess.Popen[str]]]:
    """Run a server, and read its stderr only until it has printed its port, which is yielded."""
    with start_tilesync("serve", dest, "--port", 0, *words) as process:
        assert process.stderr is not None
        try:
            lines = iter(process.stderr.readline, "")
            yield next(int(match[1]) for line in lines if (match := re.search(r"viewer: \S+:(\d+)/", line))), process
        finally:
            process.kill()


def request_often(port: int) -> None:
    """Request a file that does not exist many times; each request must be answered."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    for _ in range(REQUESTS):
        connection.request("GET", LONG_PATH)
        response = connection.getresponse()
        response.read()
        assert response.status == 404
    connection.close()


def test_nobody_reads_the_output(dest: Path, tmp_path: Path) -> None:
    """With stderr and stdout full, all requests are answered, the log file has them all, and SIGTERM ends it soon."""
    log = tmp_path / "log.jsonl"
    with unread_server(dest, "-v", "--json", "--log-file", log) as (port, process):
        request_often(port)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        assert time.monotonic() - began < 20
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds == ["serving", *["request"] * REQUESTS, "finished"]


def test_a_reader_who_comes_late(dest: Path) -> None:
    """The lines that are there and the number of those that were dropped are all requests, on stderr and stdout."""
    with unread_server(dest, "-v", "--json") as (port, process):
        request_often(port)
        outputs: dict[str, list[str]] = {"stdout": [], "stderr": []}
        readers = [
            threading.Thread(target=lambda name=name: outputs[name].extend(getattr(process, name))) for name in outputs
        ]
        for reader in readers:
            reader.start()
        deadline = time.monotonic() + 20
        while not all(any("dropped" in line for line in lines) for lines in outputs.values()):
            assert time.monotonic() < deadline
            time.sleep(0.02)
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
        for reader in readers:
            reader.join()
    message = r"([\d,]+) lines were dropped here, because nobody read this output in time"
    shown = sum(" GET " in line for line in outputs["stderr"])
    dropped = [
        int(match[1].replace(",", "")) for line in outputs["stderr"] if (match := re.match(f"warning: {message}", line))
    ]
    assert len(dropped) == 1
    assert shown + dropped[0] == REQUESTS
    events = [json.loads(line) for line in outputs["stdout"]]
    warned = [re.match(message, each["message"]) for each in events if each["kind"] == "warning"]
    assert warned[0] is not None
    shown = sum(each["kind"] == "request" for each in events)
    assert shown + int(warned[0][1].replace(",", "")) == REQUESTS
    assert events[-1]["kind"] == "finished"


@pytest.mark.parametrize("words", [(), ("-v",)])
def test_requests_in_the_log_file(dest: Path, tmp_path: Path, words: tuple[str, ...]) -> None:
    """The log file has a line for each request with `-v` only."""
    log = tmp_path / "log.jsonl"
    with unread_server(dest, "--log-file", log, *words) as (port, process):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
        connection.request("GET", "/tileset.json")
        assert connection.getresponse().read()
        connection.close()
        process.send_signal(signal.SIGTERM)
        assert process.wait(30) == 0
    kinds = [json.loads(line)["kind"] for line in log.read_text().splitlines()]
    assert kinds == ["serving", *["request"] * len(words), "finished"]
