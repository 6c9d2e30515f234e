"""`tilesync mirror` with monitors, at each of its ends."""

from __future__ import annotations

import json
import os
import shlex
import signal
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.builders import IMODEL
from tests.support.commandline import run_tilesync, start_tilesync
from tests.support.faults import call_before, flip_last_bit, is_api, is_blob_named
from tests.support.http_server import RecordingServer, answer, hang, serving
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator
from tilesync.cli.mirror_reporters import format_mirror_outcome


class Monitors:
    """Folder and server of the monitors of a run."""

    def __init__(self, folder: Path, server: RecordingServer) -> None:
        self.folder, self.server = folder, server
        self.metrics_file = folder / "m.prom"
        self._out = folder / "reports"

    def options(self, *more: object) -> tuple[object, ...]:
        """Return the options of all monitors."""
        return (
            *("--metrics-file", self.metrics_file, "--ping", self.server.url("/s3cret?rid=1"), "--name", "office"),
            *("--on-success", self.command("success"), "--on-failure", self.command("failure"), *more),
        )

    def command(self, word: str) -> str:
        """Make a command that appends a word and the report to a file."""
        code = f"import sys; open({str(self._out)!r}, 'a').write({word!r} + ' ' + sys.stdin.read())"
        return shlex.join([sys.executable, "-c", code])

    @property
    def metrics(self) -> dict[str, float]:
        """Return the metrics of the mirror, without the prefix of their names."""
        families = text_string_to_metric_families(self.metrics_file.read_text())
        samples = [sample for family in families for sample in family.samples]
        assert {sample.labels["mirror"] for sample in samples} == {"office"}
        return {sample.name.removeprefix("tilesync_"): sample.value for sample in samples if len(sample.labels) == 1}

    @property
    def reports(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the word and the report of each command that ran."""
        lines = self._out.read_text().splitlines() if self._out.exists() else []
        return [(line.partition(" ")[0], json.loads(line.partition(" ")[2])) for line in lines]


@pytest.fixture
def monitors(tmp_path: Path) -> Any:
    """Start the server of pings."""
    with serving(answer()) as server:
        yield Monitors(tmp_path, server)


def test_a_good_run(service: Simulator, monitors: Monitors, tmp_path: Path) -> None:
    """A good run is told as success, with its numbers, and each monitor by its own way."""
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", *monitors.options("--json"), sim=service)
    assert (done.exit_code, done.lines_of_kind("warning")) == (0, [])
    assert monitors.server.paths == ["/s3cret/start?rid=1", "/s3cret?rid=1"]
    ((word, report),) = monitors.reports
    assert (word, report["published"], report["failures"]) == ("success", True, [])
    assert {key: report[key] for key in done.last_line} == done.last_line
    metrics = monitors.metrics
    assert (metrics["last_run_exit_code"], metrics["last_run_fetched_files"]) == (0, done.last_line["fetched"])
    assert metrics["last_run_transferred_bytes"] == done.last_line["bytes"]
    assert metrics["last_success_timestamp_seconds"] >= metrics["last_run_timestamp_seconds"]
    assert metrics["disk_free_bytes"] > 0
    assert metrics["newest_export_age_seconds"] > 0


def test_a_failed_run(service: Simulator, monitors: Monitors, tmp_path: Path) -> None:
    """A failed run is told as failure, with its failed files; the report file is there when the command runs."""
    service.add_fault(is_blob_named("tiles/001.glb"), flip_last_bit, times=None)
    report_file = tmp_path / "report.json"
    copy = shlex.join(["cp", str(report_file), str(tmp_path / "copy.json")])
    more = ("--report", report_file, "--on-failure", copy)
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", *monitors.options(*more), sim=service)
    assert done.exit_code == 3
    assert monitors.server.paths == ["/s3cret/start?rid=1", "/s3cret/fail?rid=1"]
    assert json.loads((tmp_path / "copy.json").read_text())["failures"][0]["name"] == "tiles/001.glb"
    metrics = monitors.metrics
    assert (metrics["last_run_exit_code"], metrics["last_run_failed_files"]) == (3, 1)
    assert metrics["consecutive_failures"] >= 1


def test_facts_of_earlier_runs_stay(service: Simulator, monitors: Monitors, tmp_path: Path) -> None:
    """The metrics of a failed run have the last success and what is held, and count the failures since."""
    assert run_tilesync("mirror", IMODEL, tmp_path / "d", *monitors.options(), sim=service).exit_code == 0
    good = monitors.metrics
    assert (good["held_files"], good["consecutive_failures"]) == (good["last_run_fetched_files"], 0)
    assert good["published_export_age_seconds"] == good["newest_export_age_seconds"] > 0
    for count in (1, 2):
        failing = ("--export-id", OTHER_EXPORT, "--wait", "0s")
        done = run_tilesync("mirror", IMODEL, tmp_path / "d", *monitors.options(*failing), sim=service)
        assert (done.exit_code, monitors.metrics["last_run_exit_code"]) == (4, 4)
        assert monitors.metrics["consecutive_failures"] == count
    for name in ("last_success_timestamp_seconds", "held_files", "held_bytes", "published_export_timestamp_seconds"):
        assert monitors.metrics[name] == good[name]


def test_facts_of_earlier_runs_stay_if_dest_is_in_use(service: Simulator, monitors: Monitors, tmp_path: Path) -> None:
    """A run that is refused, since another one holds DEST, knows the last success and what is held."""
    assert run_tilesync("mirror", IMODEL, tmp_path / "d", *monitors.options(), sim=service).exit_code == 0
    good = monitors.metrics
    service.offer_changed_export(OTHER_EXPORT, 2)
    release, inside = threading.Event(), threading.Event()
    service.add_fault(is_blob_named("tiles/003.glb"), call_before(inside.set, lambda: release.wait(30)))
    first = start_tilesync("mirror", IMODEL, tmp_path / "d", *monitors.options(), sim=service)
    try:
        assert inside.wait(20)
        assert run_tilesync("mirror", IMODEL, tmp_path / "d", *monitors.options(), sim=service).exit_code == 9
        refused = monitors.metrics
    finally:
        release.set()
    first.communicate(timeout=30)
    assert (refused["last_run_exit_code"], refused["consecutive_failures"]) == (9, 1)
    for name in ("last_success_timestamp_seconds", "held_files"):
        assert refused[name] == good[name]
    assert (monitors.metrics["last_run_exit_code"], monitors.metrics["consecutive_failures"]) == (0, 0)


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run(
    service: Simulator, monitors: Monitors, tmp_path: Path, number: signal.Signals, exit_code: int
) -> None:
    """A run that a signal ended is told as failure."""
    inside, release = threading.Event(), threading.Event()
    service.add_fault(is_blob_named("tileset.json"), call_before(inside.set, lambda: release.wait(30)))
    process = start_tilesync(
        "mirror", IMODEL, tmp_path / "d", *monitors.options("--report", tmp_path / "r"), sim=service
    )
    try:
        assert inside.wait(20)
        process.send_signal(number)
        process.communicate(timeout=30)
    finally:
        release.set()
    assert process.returncode == exit_code
    assert monitors.server.paths == ["/s3cret/start?rid=1", "/s3cret/fail?rid=1"]
    assert [(word, report["exit"]) for word, report in monitors.reports] == [("failure", exit_code)]
    assert monitors.metrics["last_run_exit_code"] == exit_code
    assert json.loads((tmp_path / "r").read_text())["exit"] == exit_code


def test_a_second_signal(service: Simulator, monitors: Monitors, tmp_path: Path) -> None:
    """A run that two signals stopped at once is told as failure too, within a few seconds."""
    held = tmp_path / "held"
    held.touch()
    command = ("--on-publish", f"sh -c 'trap \"\" TERM; echo begun >&2; while test -e {held}; do sleep 0.1; done'")
    process = start_tilesync("mirror", IMODEL, tmp_path / "d", *monitors.options(*command), sim=service)
    assert process.stderr is not None
    while "begun" not in (line := process.stderr.readline()):
        assert line, "the command has begun"
    process.send_signal(signal.SIGTERM)
    while "once more" not in (line := process.stderr.readline()):
        assert line, "the first signal has arrived"
    begun = time.monotonic()
    process.send_signal(signal.SIGTERM)
    process.wait(timeout=30)
    assert time.monotonic() - begun < 10
    held.unlink()  # the command still holds the pipes
    process.communicate()
    assert process.returncode == 143
    assert [(word, report["exit"]) for word, report in monitors.reports] == [("failure", 143)]
    assert monitors.metrics["last_run_exit_code"] == 143


def test_a_usage_error_of_the_run(service: Simulator, monitors: Monitors, tmp_path: Path) -> None:
    """A mistake that is found after the run began is told as failure."""
    dest = tmp_path / "d"
    done = run_tilesync("mirror", dest, dest, *monitors.options(), sim=service)
    assert done.exit_code == 2, done.stderr
    assert [(word, report["exit"]) for word, report in monitors.reports] == [("failure", 2)]
    assert monitors.metrics["last_run_exit_code"] == 2


def test_a_dry_run_reports_nothing(service: Simulator, monitors: Monitors, tmp_path: Path) -> None:
    """A plan is no run: monitors learn nothing of it. Its options are checked nevertheless."""
    assert run_tilesync("mirror", IMODEL, tmp_path / "d", "-n", *monitors.options(), sim=service).exit_code == 0
    assert (monitors.server.paths, monitors.reports, monitors.metrics_file.exists()) == ([], [], False)
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", "-n", "--ping", "ftp://x", sim=service)
    assert done.exit_code == 2


def test_monitors_that_fail_change_no_exit_code(service: Simulator, tmp_path: Path) -> None:
    """A refused ping and a failing command are warnings: in stderr, JSON and report, before the last line."""
    with serving(answer(status=404)) as server:
        options = ("--ping", server.url("/s3cret"), "--on-success", "false", "--on-failure", "false")
        outputs = ("--json", "--report", tmp_path / "r", "--log-file", tmp_path / "log")
        good = run_tilesync("mirror", IMODEL, tmp_path / "d", *options, *outputs, sim=service)
        service.exports.clear()
        bad = run_tilesync("mirror", IMODEL, tmp_path / "e", *options, *outputs, "--wait", "0s", sim=service)
    assert (good.exit_code, bad.exit_code) == (0, 4)
    for done, option in ((good, "--on-success"), (bad, "--on-failure")):
        warnings = [line["message"] for line in done.lines_of_kind("warning")]
        assert warnings == [
            *["the ping to 127.0.0.1 failed: HTTP 404: check the URL of --ping"] * 2,
            f"the command of {option} failed with exit code 1",
        ]
        assert done.lines[-1]["kind"] in {"finished", "failed"}
        assert all(warning in done.stderr for warning in warnings)
    report = json.loads((tmp_path / "r").read_text())
    assert (report["exit"], len(report["warnings"])) == (4, 3)
    assert json.loads((tmp_path / "log").read_text().splitlines()[-1])["exit"] == 4
    assert "s3cret" not in good.stdout + good.stderr + (tmp_path / "r").read_text() + (tmp_path / "log").read_text()


def test_a_start_ping_that_hangs_does_not_delay_the_run(service: Simulator, tmp_path: Path) -> None:
    """The first request of the run arrives while the ping of its start still hangs."""
    over = threading.Event()
    with serving(hang(b"", over)) as server:
        asked_at: list[float] = []
        service.add_fault(is_api, call_before(lambda: asked_at.append(time.monotonic())), times=1)
        process = start_tilesync("mirror", IMODEL, tmp_path / "d", "--ping", server.url("/u"), sim=service)
        try:
            _, err = process.communicate(timeout=40)
        finally:
            over.set()
        ended_at = time.monotonic()
    assert process.returncode == 0
    assert "the ping to 127.0.0.1 was given up: it had no answer when the run ended" in err
    assert 8 < ended_at - asked_at[0] < 15, "the run went on, and its end waited for the limit of the ping"


@pytest.mark.scale
def test_a_resolver_that_hangs_does_not_keep_the_process(service: Simulator, tmp_path: Path) -> None:
    """If the name of the service is not resolved, the process ends within the limit all the same."""
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\n"
        "def resolve(host, *rest, real=socket.getaddrinfo, **more):\n"
        "    time.sleep(60 if host in ('hang.example', b'hang.example') else 0)\n"
        "    return real(host, *rest, **more)\n"
        "socket.getaddrinfo = resolve\n"
    )
    service.exports.clear()
    path = os.pathsep.join(filter(None, [str(tmp_path), os.environ.get("PYTHONPATH", "")]))
    options = ("--wait", "0s", "--ping", "https://hang.example/s3cret")
    begun = time.monotonic()
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", *options, sim=service, PYTHONPATH=path)
    assert 8 < time.monotonic() - begun < 20
    assert done.exit_code == 4
    assert done.stderr.count("warning: the ping to hang.example ") == 2


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--metrics-file", "m.txt"), "does not end in .prom"),
        (("--metrics-file", "missing/m.prom"), "there is no folder for the metrics file missing/m.prom"),
        (
            ("--metrics-file", "d/tileset.json.prom"),
            "would overwrite a file in d that is no report, log, metrics file or status page",
        ),
        (("--metrics-file", "d/.tilesync/m.prom"), "would overwrite a file that tilesync keeps in d"),
        (("--metrics-file", "m.prom", "--report", "m.prom"), "--report and --metrics-file name the same file: m.prom"),
        (("--ping", "http://hc.example/s3cret"), "plain http is accepted on this machine only"),
        (("--on-failure", "no-such-program"), "there is no program no-such-program"),
        (("--on-success", "'"), "the command of --on-success cannot be read"),
    ],
)
def test_mistakes_end_with_2_before_the_run(
    service: Simulator, tmp_path: Path, options: tuple[str, ...], message: str
) -> None:
    """A mistake in an option of the monitors ends with exit 2 and says so; the service is not asked."""
    (tmp_path / "d" / ".tilesync").mkdir(parents=True)
    (tmp_path / "d" / "tileset.json.prom").write_text("{}")
    done = run_tilesync("mirror", IMODEL, "d", "--json", *options, sim=service, cwd=tmp_path)
    assert message in done.assert_failed(2, "UsageError")["message"]
    assert service.requests == []
    assert "s3cret" not in done.stdout + done.stderr


def test_a_metrics_file_is_replaced_each_night(service: Simulator, tmp_path: Path) -> None:
    """A metrics file of an earlier run is no foreign file, even in a folder of the destination."""
    for _ in range(2):
        options = ("--metrics-file", tmp_path / "d" / "m.prom")
        (tmp_path / "d").mkdir(exist_ok=True)
        done = run_tilesync("mirror", IMODEL, tmp_path / "d", "--adopt", *options, sim=service)
        assert done.exit_code == 0, done.stderr


def test_the_address_of_the_pings_from_the_environment(service: Simulator, monitors: Monitors, tmp_path: Path) -> None:
    """TILESYNC_PING is as --ping, and no warning calls it unknown."""
    url = monitors.server.url("/s3cret")
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", "--json", sim=service, TILESYNC_PING=url)
    assert (done.exit_code, done.lines_of_kind("warning")) == (0, [])
    assert monitors.server.paths == ["/s3cret/start", "/s3cret"]


def test_the_summary_says_what_happened() -> None:
    """The first line says how the run ended; failures, warnings, hint and counts follow."""
    report = {
        **{"exit": 8, "error": "DiskFull", "message": "the disk is full", "hint": "free some space", "seconds": 3.04},
        **{"export": EXPORT, "published": False, "behind": True, "newest": "e2", "listed": 3, "fetched": 1},
        **{"bytes": 5_000_000, "reused": 0, "kept": 1, "deleted": 0, "failed": 1, "source": IMODEL, "dest": "/d"},
        **{"host": "vm", "tilesync": "1.0", "failures": [{"name": "a.glb", "message": "HTTP 404"}] * 60},
        "warnings": ["slow"],
    }
    text = format_mirror_outcome("office", report)
    assert text.splitlines()[:5] == [
        "office: failed after 3.0 s with exit code 8 (DiskFull)",
        "the disk is full",
        "free some space",
        f"export {EXPORT}",
        "the newest export e2 could not be mirrored yet",
    ]
    assert "3 files: 1 fetched (5.0 MB), 0 reused, 1 kept, 0 deleted, 1 failed" in text
    assert text.count("failed: a.glb: HTTP 404") == 50
    assert text.endswith(f"warning: slow\n{IMODEL} -> /d on vm, tilesync 1.0\n")
