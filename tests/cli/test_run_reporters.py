"""Reporters of a run: what monitors get, and that nothing that they do fails a run."""

from __future__ import annotations

import json
import os
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.http_server import answer, serving
from tilesync.cli.run_reporters import ReporterOptions, RunFacts, RunReporters
from tilesync.errors import UsageError
from tilesync.model.history import MirrorHistory, RunRecord
from tilesync.monitoring.status import MirrorStatus, make_status

GOOD: dict[str, Any] = {"kind": "finished", "exit": 0}
BAD: dict[str, Any] = {"kind": "failed", "exit": 8}


def make_statuses(count: int = 1) -> list[MirrorStatus]:
    """Make the statuses of mirrors that have run."""
    history = MirrorHistory().with_run(RunRecord("2026-11-30T02:00:00Z", "2026-11-30T02:05:00Z", exit=0))
    return [make_status(f"m{number}", "/d", history, now=datetime.now(UTC)) for number in range(count)]


def make_reporters(options: ReporterOptions, warnings: list[str]) -> RunReporters:
    """Make the reporters of a run of one mirror; warnings go into a list."""

    def collect_facts(report: Mapping[str, Any]) -> RunFacts:
        return RunFacts(f"ended with {report['exit']}\nmore", make_statuses(), {"m0": 7})

    return RunReporters(options, title="mirroring m0", collect_facts=collect_facts, warn=warnings.append)


def write_stdin_to(path: Path, word: str) -> str:
    """Make a command that appends a word and its standard input to a file."""
    code = f"import sys; open({str(path)!r}, 'a').write({word!r} + sys.stdin.read())"
    return shlex.join([sys.executable, "-c", code])


@pytest.mark.parametrize(("report", "word", "path"), [(GOOD, "good", "/u"), (BAD, "bad", "/u/fail")])
def test_every_monitor_learns_of_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, report: dict[str, Any], word: str, path: str
) -> None:
    """Metrics, ping, the command of this outcome and the service manager get the end of the run."""
    out, warnings = tmp_path / "out", list[str]()
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
    with serving(answer()) as server, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(str(tmp_path / "notify"))
        manager.settimeout(5)
        reporters = make_reporters(
            ReporterOptions(
                tmp_path / "m.prom", server.url("/u"), write_stdin_to(out, "good"), write_stdin_to(out, "bad")
            ),
            warnings,
        )
        reporters.start()
        assert manager.recv(4096) == b"READY=1\nSTATUS=mirroring m0"
        reporters.finish(report)
        assert manager.recv(4096) == f"STOPPING=1\nSTATUS=ended with {report['exit']}".encode()
    assert warnings == []
    assert server.paths == ["/u/start", path]
    assert out.read_text() == word + json.dumps(report) + "\n"
    samples = [s for f in text_string_to_metric_families((tmp_path / "m.prom").read_text()) for s in f.samples]
    assert ("tilesync_disk_free_bytes", {"mirror": "m0"}, 7.0) in [tuple(sample)[:3] for sample in samples]


def test_nothing_is_done_without_options(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without options, or with empty ones, no file is written and nothing is sent."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    warnings: list[str] = []
    for options in (ReporterOptions(), ReporterOptions(None, " ", "", "")):
        reporters = make_reporters(options, warnings)
        reporters.start()
        reporters.finish(GOOD)
    assert (warnings, list(tmp_path.iterdir())) == ([], [])


def test_problems_are_warnings(tmp_path: Path) -> None:
    """A folder that vanished, a service that refuses and a command that fails give a warning each."""
    folder, warnings = tmp_path / "gone", list[str]()
    folder.mkdir()
    with serving(answer(status=404)) as server:
        options = ReporterOptions(folder / "m.prom", server.url("/u"), on_failure="false")
        reporters = make_reporters(options, warnings)
        folder.rmdir()
        reporters.finish(BAD)
    assert warnings == [
        f"the metrics file {folder / 'm.prom'} cannot be written (No such file or directory)",
        "the ping to 127.0.0.1 failed: HTTP 404: check the URL of --ping",
        "the command of --on-failure failed with exit code 1",
    ]


def test_a_bug_in_a_monitor_is_a_warning(tmp_path: Path) -> None:
    """An error that nobody expects does not fail the run, and the other monitors still learn of it."""
    warnings: list[str] = []

    def collect_facts(report: Mapping[str, Any]) -> RunFacts:
        raise KeyError("seconds")

    with serving(answer()) as server:
        reporters = RunReporters(
            ReporterOptions(tmp_path / "m.prom", server.url("/u")),
            title="mirroring m0",
            collect_facts=collect_facts,
            warn=warnings.append,
        )
        reporters.finish(GOOD)
        assert server.paths == ["/u"]
    assert warnings == ["the facts of the run for monitors are missing: KeyError('seconds')"]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_cuts_a_command_short(monkeypatch: pytest.MonkeyPatch, number: signal.Signals) -> None:
    """A signal during a command ends the command, not the process, and the handlers are those of before."""
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    before, warnings = signal.getsignal(number), list[str]()
    reporters = make_reporters(ReporterOptions(on_success="sleep 60"), warnings)
    begun = time.monotonic()
    timer = threading.Timer(0.5, signal.raise_signal, [number])
    timer.start()
    reporters.finish(GOOD)
    assert time.monotonic() - begun < 10
    assert warnings == ["the report to the monitor (command) was cut short by a signal"]
    assert signal.getsignal(number) == before


def test_an_urgent_end_takes_a_few_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """If a second signal asked to stop at once, a command that hangs is ended soon."""
    monkeypatch.setattr(sys, "stderr", sys.__stderr__)
    warnings: list[str] = []
    begun = time.monotonic()
    make_reporters(ReporterOptions(on_failure="sleep 60"), warnings).finish(BAD, is_urgent=True)
    assert time.monotonic() - begun < 10
    assert warnings == ["the command of --on-failure was ended: it took longer than 3 s"]


@pytest.mark.parametrize(
    "options",
    [
        ReporterOptions(metrics_file=Path("m.txt")),
        ReporterOptions(ping="http://hc.example/u"),
        ReporterOptions(on_failure="no-such-program"),
        ReporterOptions(on_success="'"),
    ],
)
def test_options_that_cannot_work_are_refused(options: ReporterOptions) -> None:
    """A mistake in an option is a usage error before the run begins."""
    with pytest.raises(UsageError):
        make_reporters(options, [])


def test_metrics_are_readable_by_others(tmp_path: Path) -> None:
    """The file has mode 0644 whatever the umask is, also if it replaces one that had another mode."""
    path = tmp_path / "m.prom"
    path.touch(mode=0o600)
    before = os.umask(0o077)
    try:
        make_reporters(ReporterOptions(path), []).finish(GOOD)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o644
    assert list(tmp_path.iterdir()) == [path]


def test_a_reader_never_sees_half_a_file(tmp_path: Path) -> None:
    """While one process writes again and again, and after it was killed while it wrote, the file is whole."""
    path = tmp_path / "m.prom"
    code = f"""
import itertools
from pathlib import Path
from datetime import UTC, datetime
from tilesync.cli.run_reporters import ReporterOptions, RunFacts, RunReporters
from tilesync.model.history import MirrorHistory
from tilesync.monitoring.status import make_status
reporters = RunReporters(ReporterOptions(Path({str(path)!r})), title="", collect_facts=None, warn=print)
for round in itertools.count(1):
    statuses = [make_status(f"m{{n}}", "/d", MirrorHistory(), now=datetime.now(UTC)) for n in range(300)]
    reporters.write_metrics(statuses, {{status.name: round for status in statuses}})
    if round == 1:
        print("written", flush=True)
"""
    whole = 0
    for _ in range(4):
        with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE) as writer:
            try:
                assert writer.stdout is not None
                assert writer.stdout.readline() == b"written\n"
                end = time.monotonic() + 0.3
                while time.monotonic() < end:
                    whole += assert_whole(path.read_text())
            finally:
                writer.kill()
        whole += assert_whole(path.read_text())
    assert whole > 8


def assert_whole(text: str) -> bool:
    """Assert that metrics have 300 mirrors of one round."""
    families = {family.name: family.samples for family in text_string_to_metric_families(text)}
    free = families["tilesync_disk_free_bytes"]
    assert len(free) == 300
    assert len({sample.value for sample in free}) == 1
    assert len(families["tilesync_health"]) == 1200
    return True
