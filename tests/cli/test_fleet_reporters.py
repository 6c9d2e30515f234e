"""`tilesync fleet` with monitors: metrics, pings, commands and the report, at each of its ends."""

from __future__ import annotations

import json
import shlex
import signal
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.support.commandline import CommandResult, run_tilesync, start_tilesync
from tests.support.fleet_service import fill_fleet
from tests.support.fleets import FleetFolder
from tests.support.http_server import RecordingServer, answer, serving
from tests.support.simulator import Simulator
from tilesync.cli.fleet_reporters import collect_fleet_facts, format_fleet_outcome
from tilesync.fleets.monitor import FleetMonitor
from tilesync.fleets.outcome import MirrorOutcome, Result


class MonitoredFleet:
    """A fleet of three iModels whose file names all monitors."""

    def __init__(self, sim: Simulator, folder: Path, server: RecordingServer) -> None:
        self.sim, self.server, self.folder = sim, server, FleetFolder(folder, sim)
        self.fleet = fill_fleet(sim, 3)
        self._out = folder / "reports"
        self.write()

    def write(self, more: str = "", **replaced: str) -> None:
        """Write the file. `replaced`: TOML values of keys, in place of the usual ones."""
        values = {
            "report": '"r.json"', "metrics-file": '"f.prom"', "ping": '{ env = "PING" }',
            "on-success": json.dumps(self.command("success")), "on-failure": json.dumps(self.command("failure")),
        }  # fmt: skip
        values |= {name.replace("_", "-"): value for name, value in replaced.items()}
        lines = "\n".join(f"{name} = {value}" for name, value in values.items())
        self.folder.write_models(self.fleet, settings=f"{lines}\n{more}")

    def command(self, word: str) -> str:
        """Make a command that appends a word and the report to a file."""
        code = f"import sys; open({str(self._out)!r}, 'a').write({word!r} + ' ' + sys.stdin.read())"
        return shlex.join([sys.executable, "-c", code])

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that the file refers to."""
        return {"FLEET_TOKEN": self.sim.token, "PING": self.server.url("/s3cret?rid=1")}

    def run(self, *options: object, **more: str) -> CommandResult:
        """Run the fleet."""
        return run_tilesync("fleet", self.folder.file, *options, sim=self.sim, **{**self.environment, **more})

    @property
    def report(self) -> dict[str, Any]:
        """Return the report."""
        report: dict[str, Any] = json.loads((self.folder.path / "r.json").read_text())
        return report

    @property
    def reports(self) -> list[tuple[str, dict[str, Any]]]:
        """Return the word and the report of each command that ran."""
        lines = self._out.read_text().splitlines() if self._out.exists() else []
        return [(line.partition(" ")[0], json.loads(line.partition(" ")[2])) for line in lines]

    def metrics(self) -> dict[str, dict[str, float]]:
        """Return the metrics of each mirror, without the prefix of their names."""
        text = (self.folder.path / "f.prom").read_text()
        found: dict[str, dict[str, float]] = {}
        for family in text_string_to_metric_families(text):
            for sample in family.samples:
                assert sample.name.startswith("tilesync_")
                found.setdefault(sample.labels["mirror"], {})[sample.name.removeprefix("tilesync_")] = sample.value
        return found


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[MonitoredFleet]:
    """Start a simulator with a fleet, and the server of pings."""
    with Simulator() as sim, serving(answer()) as server:
        yield MonitoredFleet(sim, tmp_path, server)


@pytest.mark.parametrize("file", ["mistake", "missing"])
def test_a_file_that_cannot_be_used(fleet: MonitoredFleet, file: str) -> None:
    """The monitors of the command line are told of a file with a mistake, and of a missing one; metrics are kept."""
    metrics = fleet.folder.path / "f.prom"
    metrics.write_text("# HELP tilesync_x\n")
    if file == "missing":
        fleet.folder.file.unlink()
    else:
        fleet.write("jobs = 0")
    options = ("--ping", fleet.server.url("/s3cret"), "--metrics-file", metrics)
    for more in (("--check",), ("-n",)):
        assert fleet.run(*options, *more, TILESYNC_ON_FAILURE=fleet.command("failure")).exit_code == 2
    assert (fleet.reports, fleet.server.paths) == ([], [])
    done = fleet.run(*options, "--json", TILESYNC_ON_FAILURE=fleet.command("failure"))
    assert done.exit_code == 2
    ((word, report),) = fleet.reports
    assert (word, report["kind"], report["exit"]) == ("failure", "fleet-finished", 2)
    assert report["message"] == done.lines[-1]["message"]
    assert fleet.server.paths == ["/s3cret/start", "/s3cret/fail"]
    assert metrics.read_text() == "# HELP tilesync_x\n"


def test_a_good_run(fleet: MonitoredFleet) -> None:
    """A good run is told as success by each monitor, with the report of all mirrors."""
    done = fleet.run()
    assert done.exit_code == 0, done.stderr
    assert fleet.server.paths == ["/s3cret/start?rid=1", "/s3cret?rid=1"]
    ((word, report),) = fleet.reports
    assert word == "success"
    assert report == fleet.report
    assert (report["kind"], report["exit"], report["updated"]) == ("fleet-finished", 0, 3)
    assert [outcome["mirror"] for outcome in report["outcomes"]] == ["m0", "m1", "m2"]
    metrics = fleet.metrics()
    assert metrics.keys() == {"m0", "m1", "m2"}
    for values in metrics.values():
        assert (values["last_run_exit_code"], values["last_run_fetched_files"]) == (0, 3)
        assert values["disk_free_bytes"] > 0
        assert values["last_success_timestamp_seconds"] > 0
    assert "s3cret" not in done.stderr + json.dumps(report)


def test_a_run_with_a_failure(fleet: MonitoredFleet) -> None:
    """One failed mirror is told as failure of the fleet; the metrics say which one."""
    fleet.fleet.invalidate(1)
    assert fleet.run().exit_code == 4
    assert fleet.server.paths == ["/s3cret/start?rid=1", "/s3cret/fail?rid=1"]
    ((word, report),) = fleet.reports
    assert (word, report["exit"], report["failed"]) == ("failure", 4, 1)
    assert report["outcomes"][0]["mirror"] == "m1", "problems come first"
    codes = {name: values["last_run_exit_code"] for name, values in fleet.metrics().items()}
    assert codes == {"m0": 0, "m1": 4, "m2": 0}
    assert "last_success_timestamp_seconds" not in fleet.metrics()["m1"]


def test_failures_of_the_past_count(fleet: MonitoredFleet) -> None:
    """Metrics have the history of the mirror: consecutive failures, and the last success though this run failed."""
    fleet.run()
    good = fleet.metrics()["m0"]
    fleet.fleet.refuse_itwin(0)
    for _ in range(2):
        assert fleet.run("-q").exit_code == 5
    bad = fleet.metrics()["m0"]
    assert bad["consecutive_failures"] == 2
    assert bad["last_success_timestamp_seconds"] == good["last_success_timestamp_seconds"]
    assert bad["last_run_timestamp_seconds"] >= good["last_run_timestamp_seconds"]


def test_an_interrupted_run(fleet: MonitoredFleet) -> None:
    """A signal is told as failure, with the outcomes so far."""
    fleet.fleet.hang_container(0)
    running = start_tilesync("fleet", fleet.folder.file, "--json", sim=fleet.sim, **fleet.environment)
    assert running.stdout is not None
    for line in running.stdout:
        if '"mirror-finished"' in line:
            break
    running.send_signal(signal.SIGTERM)
    running.stdout.read()
    assert running.wait(30) == 143
    assert fleet.server.paths[-1] == "/s3cret/fail?rid=1"
    ((word, report),) = fleet.reports
    assert (word, report["exit"], report["error"]) == ("failure", 143, "Terminated")
    assert fleet.metrics().keys() == {"m0", "m1", "m2"}
    fleet.fleet.release_hanging()


def test_a_dry_run_tells_nobody(fleet: MonitoredFleet) -> None:
    """A dry run pings nobody, runs no command, and writes no metrics."""
    assert fleet.run("-n").exit_code == 0
    assert (fleet.server.paths, fleet.reports) == ([], [])
    assert not (fleet.folder.path / "f.prom").exists()


def test_the_command_line_comes_before_the_file(fleet: MonitoredFleet, tmp_path: Path) -> None:
    """Monitors of the command line replace those of the file."""
    done = fleet.run(
        *("--report", tmp_path / "other.json", "--metrics-file", tmp_path / "other.prom"),
        *("--ping", fleet.server.url("/other"), "--on-success", fleet.command("other")),
    )
    assert done.exit_code == 0, done.stderr
    assert fleet.server.paths == ["/other/start", "/other"]
    assert [word for word, _ in fleet.reports] == ["other"]
    assert (tmp_path / "other.json").exists()
    assert (tmp_path / "other.prom").exists()
    assert not (tmp_path / "r.json").exists()
    assert not (tmp_path / "f.prom").exists()


def test_monitors_that_fail(fleet: MonitoredFleet) -> None:
    """A ping and a command that fail are warnings; the mirrors are good, and so is the exit code."""
    fleet.write(on_success='"false"')
    done = fleet.run(PING="http://127.0.0.1:9/s3cret")
    assert done.exit_code == 0, done.stderr
    assert "the command of --on-success failed" in done.stderr
    assert "warning: the ping" in done.stderr
    assert len(fleet.report["warnings"]) == 3
    assert "s3cret" not in done.stderr + json.dumps(fleet.report)


@pytest.mark.parametrize(
    ("replaced", "environment", "message"),
    [
        ({"on_failure": '"no-such-program"'}, {}, "there is no program no-such-program"),
        ({}, {"PING": ""}, "the variable PING of ping is empty or not set"),
        ({}, {"PING": "ftp://h/s3cret"}, "the URL of --ping must begin with https://"),
        ({"metrics_file": '"missing/f.prom"'}, {}, "there is no folder for the metrics file"),
        ({"report": '"f.prom"'}, {}, "--report and --metrics-file name the same file"),
        ({"report": '"state/r.json"'}, {}, "is in the state folder"),
    ],
)
def test_mistakes_end_with_2_before_the_run(
    fleet: MonitoredFleet, replaced: dict[str, str], environment: dict[str, str], message: str
) -> None:
    """A monitor that cannot work ends with 2 before anything runs, and shows no secret."""
    fleet.write(**replaced)
    (fleet.folder.path / "state").mkdir()
    done = fleet.run("--json", **environment)
    assert (done.exit_code, done.lines[-1]["kind"]) == (2, "fleet-finished")
    assert message in done.lines[-1]["message"]
    assert fleet.sim.requests == []
    assert "s3cret" not in done.stdout + done.stderr


def test_facts_without_mirrors() -> None:
    """An iTwin that could not be listed has no metrics, but stands in the summary."""
    monitor = FleetMonitor("fleet.toml")
    line = dict.fromkeys(("fetched", "reused", "bytes", "seconds"), 0)
    failed = {**line, "exit": 5, "message": "refused", "hint": "ask"}
    monitor.add_outcome(MirrorOutcome("p1", "", "", Result.FAILED, failed))
    facts = collect_fleet_facts(monitor, {"exit": 5})
    assert (facts.statuses, facts.disk_free) == ([], {})
    assert facts.summary.splitlines()[0] == "fleet fleet.toml: ended with exit code 5"
    assert "refused -> ask" in facts.summary
    assert format_fleet_outcome(FleetMonitor("f"), {"exit": 0}).startswith("fleet f: ended well\n0 mirrors: nothing")


def test_a_part_of_a_fleet_keeps_the_metrics_of_the_others(tmp_path: Path) -> None:
    """With `--only`, the metrics file still has all mirrors of the fleet: those that did not run as they were."""
    with Simulator() as sim:
        folder = FleetFolder(tmp_path, sim)
        folder.write_models(fill_fleet(sim, 3), settings='metrics-file = "fleet.prom"')
        assert folder.run_program()[0] == 0
        before = (tmp_path / "fleet.prom").read_text()
        assert folder.run_program("--only", "m1")[0] == 0
        after = (tmp_path / "fleet.prom").read_text()
    for name in ("m0", "m1", "m2"):
        assert f'tilesync_last_run_exit_code{{mirror="{name}"}} 0.0' in after
        assert f'tilesync_disk_free_bytes{{mirror="{name}"}}' in after
    assert len(after.splitlines()) == len(before.splitlines())
