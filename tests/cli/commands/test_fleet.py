"""Test `tilesync fleet`: check, choose, plan, run, stop, interrupt, and the first file."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import read_tree
from tests.support.commandline import CommandResult, make_environment, run_tilesync, start_tilesync
from tests.support.fleet_service import Fleet, fill_fleet, make_small_export
from tests.support.fleets import FleetFolder
from tests.support.simulator import Simulator, read_latest

EVENT_KINDS = {
    "mirror-finished", "mirror-failed", "fleet-finished", "fleet-file", "forecast", "notice", "warning",
}  # fmt: skip
"""Kinds of lines that are about the fleet, or are the last one of a mirror."""


class Program:
    """The real program, with a fleet of three iModels: m0, m1 and m2."""

    def __init__(self, sim: Simulator, folder: Path) -> None:
        self.sim, self.folder = sim, FleetFolder(folder, sim)
        self.fleet: Fleet = fill_fleet(sim, 3)
        self.folder.write_models(self.fleet)

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables that the file refers to."""
        return {"FLEET_TOKEN": self.sim.token}

    def run(self, *options: object) -> CommandResult:
        """Run `tilesync fleet FILE` with these options."""
        return run_tilesync("fleet", self.folder.file, *options, sim=self.sim, **self.environment)

    def run_json(self, *options: object, exit_code: int = 0) -> list[dict[str, Any]]:
        """Run it with --json; return the lines, the last of which ends the run."""
        done = self.run("--json", *options)
        assert done.exit_code == exit_code, done.stderr
        return check_lines(done.stdout, exit_code)

    def start(self, *options: object) -> subprocess.Popen[str]:
        """Start it with --json."""
        return start_tilesync("fleet", self.folder.file, "--json", *options, sim=self.sim, **self.environment)

    def files(self) -> set[str]:
        """Return the names of everything in the folder of the fleet."""
        return {str(path.relative_to(self.folder.path)) for path in self.folder.path.rglob("*")}

    def holds(self, number: int) -> bool:
        """Return whether the destination of a mirror has its export."""
        dest = self.folder.dest(f"m{number}")
        return (dest / "latest.json").exists() and (read_latest(dest)["version"] == self.fleet.models[number].export_id)


def check_lines(stdout: str, exit_code: int) -> list[dict[str, Any]]:
    """Return the JSON lines. Each has a kind; exactly one, the last, ends the run; events of mirrors have a name."""
    lines: list[dict[str, Any]] = [json.loads(line) for line in stdout.splitlines()]
    assert all(isinstance(line["kind"], str) for line in lines)
    assert [line["kind"] for line in lines].count("fleet-finished") == 1
    assert (lines[-1]["kind"], lines[-1]["exit"]) == ("fleet-finished", exit_code)
    assert all("mirror" in line for line in lines if line["kind"] not in EVENT_KINDS)
    return lines


def outcomes_of(lines: list[dict[str, Any]]) -> dict[str, str]:
    """Return the result of each mirror."""
    return {line["mirror"]: line["result"] for line in lines if line["kind"] in {"mirror-finished", "mirror-failed"}}


@pytest.fixture
def program(tmp_path: Path) -> Iterator[Program]:
    """Start a simulator with a fleet."""
    with Simulator() as sim:
        yield Program(sim, tmp_path)


# --- the file ---


def test_check_reads_the_file_and_nothing_else(program: Program) -> None:
    """--check says that a file is good, makes no call, needs no secret, and writes nothing, not even the report."""
    before = program.files()
    done = run_tilesync("fleet", program.folder.file, "--check", "--report", program.folder.path / "r.json")
    assert (done.exit_code, done.stdout) == (0, "")
    assert done.stderr == f"{program.folder.file}: 3 [[mirror]] tables, no mistakes\n"
    assert (program.sim.requests, program.files()) == ([], before)
    assert program.run_json("--check")[0]["mirrors"] == 0


@pytest.mark.parametrize("option", [["--check"], [], ["-n"], ["-q"]])
def test_all_mistakes_are_listed_before_anything_runs(program: Program, option: list[str]) -> None:
    """A file with mistakes ends with 2; each mistake has its line, table and key; nothing is called or written."""
    program.folder.write_models(program.fleet, settings='jobs = 0\nuntil = "6"', defaults="layuot = 1")
    before = program.files()
    done = program.run(*option)
    file = program.folder.file
    assert done.exit_code == 2
    assert done.stderr.startswith(f"error: {file} has 3 mistakes:\n  {file}:4: [fleet] jobs: '0' is")
    assert f"{file}:5: [fleet] until: '6' is not a time" in done.stderr
    assert f"{file}:10: [defaults] layuot: there is no such key; did you mean layout?" in done.stderr
    assert (program.sim.requests, program.files()) == ([], before)
    (last,) = program.run_json(*option, exit_code=2)
    assert (last["error"], last["message"].count("\n")) == ("InvalidFleetFile", 3)


def test_a_report_of_a_file_with_mistakes(program: Program) -> None:
    """The report of the command line is written for a file with mistakes too."""
    program.folder.file.write_text("x = 1\n")
    report = program.folder.path / "r.json"
    assert program.run("--report", report).exit_code == 2
    written = json.loads(report.read_text())
    assert (written["kind"], written["exit"], written["outcomes"]) == ("fleet-finished", 2, [])
    assert written["file"] == str(program.folder.file)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["/nonexistent/fleet.toml"], "/nonexistent/fleet.toml cannot be read: No such file"),
        (["/"], "/ cannot be read"),
        ([""], "FILE is empty"),
        (["https://host/fleet.toml"], "this must be a local path, not a URL"),
        (["fleet.toml", "--itwin", "x"], "--itwin belongs to `tilesync fleet init`"),
        (["fleet.toml", "--until", "25:00"], "'25:00' is not a time of day"),
        (["fleet.toml", "--jobs", "0"], "'0' is neither 'auto' nor a number"),
        (["init", "--itwin", "Harbour"], "'Harbour' is not an iTwin id"),
    ],
)
def test_usage_errors(words: list[str], message: str) -> None:
    """A missing file and wrong options end with 2, a message, and a last JSON line of a fleet."""
    done = run_tilesync("fleet", *words, "--json")
    assert done.exit_code == 2
    assert message in done.stderr
    (last,) = check_lines(done.stdout, 2)
    assert message in last["message"]


def test_a_file_from_a_pipe(program: Program, tmp_path: Path) -> None:
    """The file may be a pipe, as from a program that makes it: it is read once."""
    pipe, text = tmp_path / "pipe", program.folder.file.read_text()
    os.mkfifo(pipe)
    writer = threading.Thread(target=pipe.write_text, args=(text,))
    writer.start()
    done = run_tilesync("fleet", pipe, "--json", sim=program.sim, **program.environment)
    writer.join(10)
    assert outcomes_of(check_lines(done.stdout, 0)) == {"m0": "updated", "m1": "updated", "m2": "updated"}


OUTPUT_OPTIONS = ["--report", "--log-file", "--metrics-file"]


@pytest.mark.parametrize("option", OUTPUT_OPTIONS)
@pytest.mark.parametrize("name", ["fleet.toml", "state/fleet.sqlite3", "state/new.prom", "default/fleet.prom"])
@pytest.mark.parametrize("problem", ["", "mistake", "usage", "check"])
def test_outputs_replace_no_file_of_a_fleet(program: Program, option: str, name: str, problem: str) -> None:
    """An output over the fleet file, or in a state folder, is refused, also if the file or an option has a mistake."""
    folder = program.folder.path
    if problem == "mistake":
        program.folder.write_models(program.fleet, settings="jobs = 0")
    home = folder / "home"
    for place in (folder / "state", home / "tilesync/fleets"):
        place.mkdir(parents=True)
        (place / "fleet.sqlite3").write_bytes(b"state")
    before = read_tree(folder)
    if (problem, option) == ("check", "--report"):
        option = "--log-file"  # --check writes no report
    more = {"usage": ["--until", "25:00"], "check": ["--check"]}.get(problem, [])
    output = home / "tilesync/fleets/fleet.prom" if name.startswith("default") else folder / name
    words = ["fleet", program.folder.file, option, output, *more, "--json"]
    done = run_tilesync(*words, sim=program.sim, XDG_STATE_HOME=str(home), **program.environment)
    (last,) = check_lines(done.stdout, 2)
    assert (option in last["message"]) is (problem != "usage")
    assert read_tree(folder) == before
    assert program.sim.requests == []


def test_a_state_that_cannot_be_used(program: Program) -> None:
    """A file in place of the state folder ends with 8, and the hint names the key to change."""
    (program.folder.path / "state").write_text("x")
    for options in ([], ["-n"]):
        (last,) = program.run_json(*options, exit_code=8)
        assert str(program.folder.path / "state") in last["message"]
        assert "write another state-dir into [fleet]" in last["hint"]


def test_a_deleted_working_directory(tmp_path: Path) -> None:
    """A relative path in a working directory that was deleted is a usage error."""
    script = 'cd "$1" && rmdir "$1" && shift && exec "$@"'
    for number, words in enumerate(
        (["fleet", "f.toml"], ["fleet", "../f.toml"], ["status", "f.toml"], ["status", "d"])
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        program = [sys.executable, "-P", "-m", "tilesync", *words, "--json"]
        done = subprocess.run(["sh", "-c", script, "sh", folder, *program], capture_output=True, text=True, check=False)
        assert done.returncode == 2, done.stderr
        assert "Traceback" not in done.stderr
        assert "the working directory cannot be used" in json.loads(done.stdout)["message"]


def test_lost_output(program: Program) -> None:
    """If the JSON lines cannot be written, the hint says that the mirrors are done, and how to see them."""
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [sys.executable, "-m", "tilesync", "fleet", program.folder.file, "--json"],
            env=make_environment(program.sim, **program.environment),
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
            check=False,
        )
    assert f"the mirrors are done: `tilesync status {program.folder.file}` shows them" in done.stderr
    assert all(map(program.holds, range(3)))


# --- runs ---


def test_a_first_and_an_unchanged_run(program: Program) -> None:
    """The first run mirrors all, the second finds nothing new; the table and the summary say so."""
    first = program.run()
    assert first.exit_code == 0, first.stderr
    assert first.stdout == ""
    assert "3 mirrors: 3 with a new export, at most 2.0 kB; 0 unchanged" in first.stderr
    assert re.search(r"^m1: updated, 3 files fetched, 677 B in \d\.\d s$", first.stderr, re.MULTILINE)
    assert re.search(
        r"^3 mirrors: 3 updated; 9 files fetched, 2.0 kB in .* s; 3 API calls$", first.stderr, re.MULTILINE
    )
    assert all(map(program.holds, range(3)))
    second = program.run()
    assert "3 mirrors: nothing to move" in second.stderr
    assert "m1: " not in second.stderr, "an unchanged mirror is in the table alone"
    assert re.search(r"^m1 +unchanged ", second.stderr, re.MULTILINE)


def test_json(program: Program) -> None:
    """The events of `mirror` have the name of their mirror, each mirror ends with a line, the fleet with the last."""
    lines = program.run_json()
    assert outcomes_of(lines) == {"m0": "updated", "m1": "updated", "m2": "updated"}
    for number, model in enumerate(program.fleet.models):
        own = [line for line in lines if line.get("mirror") == f"m{number}"]
        assert own[-1]["kind"] == "mirror-finished"
        assert {"resolved", "published"} <= {line["kind"] for line in own}, "as `mirror` has them"
        assert (own[-1]["export"], own[-1]["fetched"]) == (model.export_id, 3)
    last = lines[-1]
    assert {key: last[key] for key in ("mirrors", "updated", "unchanged", "failed", "stopped", "calls", "fetched")} == {
        "mirrors": 3, "updated": 3, "unchanged": 0, "failed": 0, "stopped": 0, "calls": 3, "fetched": 9,
    }  # fmt: skip
    assert not any(line["kind"] == "file" for line in lines)


def test_quiet_and_verbose(program: Program) -> None:
    """-q prints only problems, -v every file too, and -v with --json has every file."""
    assert program.run("-q").stderr == ""
    program.fleet.invalidate(1)
    program.sim.regenerate(make_small_export(0, edition=2), export_id=program.fleet.models[0].export_id)
    quiet = program.run("-q")
    assert quiet.exit_code == 4
    assert {line.partition(":")[0] for line in quiet.stderr.splitlines() if not line.startswith("  ")} == {"m1"}
    program.fleet.add_invalid_newest(2)
    program.sim.regenerate(make_small_export(0, edition=3), export_id=program.fleet.models[0].export_id)
    verbose = program.run("-v")
    assert "m0: export " in verbose.stderr
    assert "m0: stored 0.glb (" in verbose.stderr
    assert "m2: unchanged" in verbose.stderr
    program.sim.regenerate(make_small_export(0, edition=4), export_id=program.fleet.models[0].export_id)
    lines = program.run_json("-v", exit_code=4)
    assert {line["mirror"] for line in lines if "name" in line and line["kind"] not in EVENT_KINDS} == {"m0"}


def test_only(program: Program) -> None:
    """--only chooses mirrors by globs on names and ids; a glob that chooses none is a usage error."""
    assert outcomes_of(program.run_json("--only", "m[01]")) == {"m0": "updated", "m1": "updated"}
    chosen = ("--only", program.fleet.models[2].id, "--only", "m0")
    assert outcomes_of(program.run_json(*chosen)) == {"m0": "unchanged", "m2": "updated"}
    lines = program.run_json("--only", "M0", "--only", "x*", exit_code=2)
    assert lines[-1]["message"] == "no mirror matches --only M0 --only 'x*'"


def test_failed(program: Program) -> None:
    """--failed chooses the mirrors whose last run failed, until it is good; with none there is nothing to do."""
    model = program.fleet.invalidate(1)
    assert outcomes_of(program.run_json(exit_code=4)) == {"m0": "updated", "m1": "failed", "m2": "updated"}
    assert outcomes_of(program.run_json("--failed", exit_code=4)) == {"m1": "failed"}
    next(row for row in program.sim.exports if row["id"] == model.export_id).update(status="Complete")
    assert outcomes_of(program.run_json("--failed")) == {"m1": "updated"}
    assert outcomes_of(program.run_json("--failed")) == {}
    assert "0 mirrors: nothing to do" in program.run("--failed").stderr


def test_the_exit_code_is_the_gravest(program: Program) -> None:
    """One mirror that fails does not stop the others; the exit code, the table and the hint are its own."""
    program.fleet.invalidate(0)
    program.folder.path.joinpath("tiles").mkdir()
    program.folder.dest("m1").write_text("a file where a folder should be")
    done = program.run()
    assert done.exit_code == 8
    rows = [line.split()[0] for line in done.stderr.partition("mirror  outcome")[2].splitlines()[1:4]]
    assert rows == ["m1", "m0", "m2"], "problems come first, the gravest before all"
    assert re.search(r"^m1: failed \(8\): .*\n  \S", done.stderr, re.MULTILINE)
    assert program.holds(2)
    failed = [line for line in program.run_json(exit_code=8) if line["kind"] == "mirror-failed"]
    assert {line["mirror"]: line["exit"] for line in failed} == {"m0": 4, "m1": 8}
    assert all(line["command"].endswith(f"--only {line['mirror']}") for line in failed)


def test_a_dry_run_writes_nothing(program: Program) -> None:
    """-n plans each mirror and sums up; it writes no destination, no state and no metrics, and requests no blob."""
    before = program.files()
    metrics = program.folder.path / "f.prom"
    done = program.run("-n", "--metrics-file", metrics)
    assert done.exit_code == 0, done.stderr
    assert re.search(r"^m0: planned, 3 files to fetch, 677 B$", done.stderr, re.MULTILINE)
    assert "0.glb" not in done.stderr
    assert "m0: fetch 0.glb (132 B): not stored yet\n" in program.run("-n", "-v").stderr
    assert "3 mirrors: 3 planned; 9 files to fetch, 2.0 kB; 3 API calls" in done.stderr
    lines = program.run_json("-n")
    assert outcomes_of(lines) == {"m0": "planned", "m1": "planned", "m2": "planned"}
    assert lines[-1]["planned"] == 3
    assert program.files() == before
    assert program.sim.blob_requests() == []
    program.run()
    known = {name: (program.folder.path / name).stat().st_mtime_ns for name in program.files()}
    assert outcomes_of(program.run_json("-n")) == {"m0": "planned", "m1": "planned", "m2": "planned"}
    assert {name: (program.folder.path / name).stat().st_mtime_ns for name in program.files()} == known


# --- stops ---


@pytest.mark.parametrize("option", ["--max-duration", "--until", "file"])
def test_the_end_of_the_window_is_a_clean_stop(program: Program, option: str) -> None:
    """When the window ends, what runs and what waits is stopped, told as such, and continued by the next run."""
    program.fleet.hang_container(1)
    limit = time.strftime("%H:%M:%S", time.localtime(time.time() + 3))
    options = ["--max-duration", "2"] if option == "--max-duration" else ["--until", limit]
    if option == "file":
        program.folder.write_models(program.fleet, settings=f"until = {limit}")
        options = []
    lines = program.run_json(*options, exit_code=14)
    assert outcomes_of(lines) == {"m0": "updated", "m1": "stopped", "m2": "updated"}
    assert lines[0]["kind"] == "notice"
    assert "this run stops at" in lines[0]["message"]
    (stopped,) = [line for line in lines if line["kind"] == "mirror-failed"]
    assert (stopped["exit"], stopped["error"]) == (14, "WindowEnded")
    assert "the next run continues" in stopped["message"]
    program.fleet.release_hanging()
    program.folder.write_models(program.fleet)
    assert outcomes_of(program.run_json("--failed")) == {"m1": "updated"}
    assert all(map(program.holds, range(3)))


@pytest.mark.parametrize(("number", "exit_code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_an_interruption(program: Program, number: signal.Signals, exit_code: int) -> None:
    """A signal stops all mirrors with a last line; destinations are unlocked, and the next run continues."""
    program.fleet.hang_container(0)
    program.fleet.hang_container(1)
    report = program.folder.path / "r.json"
    running = program.start("--report", report)
    out = read_until(running, "mirror-finished")
    running.send_signal(number)
    out += read_until(running, "fleet-finished")
    assert running.wait(30) == exit_code
    lines = check_lines(out, exit_code)
    results = outcomes_of(lines)
    assert (results["m0"], results["m1"]) == ("stopped", "stopped")
    assert lines[-1]["stopped"] == 2
    assert json.loads(report.read_text())["exit"] == exit_code
    program.fleet.release_hanging()
    again = program.run_json("--failed")
    assert outcomes_of(again) == {"m0": "updated", "m1": "updated"}, "no destination is locked"
    assert all(map(program.holds, range(3)))


def test_two_signals_end_at_once(program: Program) -> None:
    """A second signal ends the run at once, with the last line."""
    program.fleet.hang_container(0)
    running = program.start()
    out = read_until(running, "mirror-finished")
    running.send_signal(signal.SIGTERM)
    running.send_signal(signal.SIGINT)
    out += read_until(running, "fleet-finished")
    assert running.wait(30) in {130, 143}
    check_lines(out, running.returncode)
    program.fleet.release_hanging()
    assert program.run("-q").exit_code == 0


def read_until(running: subprocess.Popen[str], kind: str) -> str:
    """Read the output of a run up to a line of this kind, or to its end."""
    assert running.stdout is not None
    lines = []
    for line in running.stdout:
        lines.append(line)
        if f'"kind":"{kind}"' in line:
            break
    return "".join(lines)


# --- the first file ---


def test_the_first_file(program: Program, tmp_path: Path) -> None:
    """`fleet init` prints a file for what this identity can see, whatever its name; it passes the check, and runs."""
    program.sim.rename_imodel(program.fleet.models[0].id, "Quay \ud800")
    for words in (("init",), ("init", "--itwin", program.fleet.itwins[0])):
        done = run_tilesync("fleet", *words, sim=program.sim)
        assert done.exit_code == 0, done.stderr
        (entry,) = tomllib.loads(done.stdout)["mirror"]
        assert entry["itwin"] == program.fleet.itwins[0]
        assert "Bridge 0002" in done.stdout
        assert "Quay \ufffd" in done.stdout
    new = tmp_path / "new" / "fleet.toml"
    new.parent.mkdir()
    new.write_text(done.stdout)
    assert run_tilesync("fleet", new, "--check").exit_code == 0
    ran = run_tilesync("fleet", new, "--json", "--state-dir", tmp_path / "state", sim=program.sim)
    assert set(outcomes_of(check_lines(ran.stdout, 0)).values()) == {"updated"}
    assert len(list(new.parent.glob("tiles/*/*/latest.json"))) == 3
    again = run_tilesync("fleet", "init", "--json", sim=program.sim)
    lines = check_lines(again.stdout, 0)
    assert [line["kind"] for line in lines] == ["fleet-file", "fleet-finished"]


def test_the_first_file_for_a_refused_identity(program: Program) -> None:
    """If the identity may not list an iTwin, `fleet init` ends with 5 and prints no file."""
    program.fleet.refuse_itwin(0, 403)
    done = run_tilesync("fleet", "init", "--itwin", program.fleet.itwins[0], sim=program.sim)
    assert (done.exit_code, done.stdout) == (5, "")
