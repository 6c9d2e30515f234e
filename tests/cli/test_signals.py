"""Signals: a closed terminal, a signal while the program loads, and a signal to the whole process group."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
import tomllib
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import (
    CommandResult,
    make_environment,
    run_tilesync,
    start_tilesync,
)
from tests.support.faults import call_before, is_blob
from tests.support.simulator import EXPORT, Simulator

ROOT = Path(__file__).parents[2]


def read_report(path: Path) -> dict[str, Any]:
    """Read a report."""
    report: dict[str, Any] = json.loads(path.read_text())
    return report


class BlockedService:
    """Simulator that serves nine files and then blocks, so that a run stays in the middle."""

    def __init__(self, service: Simulator) -> None:
        self.release, self.is_blocked = threading.Event(), threading.Event()
        service.add_fault(is_blob, call_before(self.is_blocked.set, lambda: self.release.wait(30)), skip=9)


# --- SIGHUP ---


@pytest.mark.parametrize("times", [1, 2])
def test_a_hangup_is_reported_and_resumable(service: Simulator, tmp_path: Path, times: int) -> None:
    """SIGHUP, once or twice, ends a run with 129, a report and a last line; the next run keeps the stored files."""
    halted, report = BlockedService(service), tmp_path / "r"
    running = subprocess.Popen(
        [sys.executable, "-m", "tilesync", "mirror", IMODEL, str(tmp_path / "d"), "--json", "--transfers", "1",
         "--report", str(report)],
        env=make_environment(service), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert halted.is_blocked.wait(20)
    for _ in range(times):
        running.send_signal(signal.SIGHUP)
    out, err = running.communicate(timeout=30)
    halted.release.set()
    last = json.loads(out.splitlines()[-1])
    assert (running.returncode, last["exit"], last["error"]) == (129, 129, "HungUp"), err
    assert "run the same command again" in last["hint"]
    assert read_report(report)["error"] == "HungUp"
    again = run_tilesync("mirror", IMODEL, tmp_path / "d", "--json", sim=service).last_line
    assert (again["kept"], again["published"]) == (9, True)


def test_a_closed_terminal_ends_a_run_with_its_report(service: Simulator, tmp_path: Path) -> None:
    """After SIGHUP from a closed terminal the bar cannot be drawn, but the report is written."""
    pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")
    halted, report = BlockedService(service), tmp_path / "r"
    pid, master = pty.fork()
    if pid == 0:
        arguments = ["mirror", IMODEL, str(tmp_path / "d"), "--transfers", "1", "--report", str(report)]
        command = [sys.executable, "-m", "tilesync", *arguments]
        os.execve(sys.executable, command, make_environment(service, TERM="xterm"))
    assert halted.is_blocked.wait(20)
    while b"/" not in os.read(master, 4096):
        pass  # until the bar is there
    os.close(master)
    _, status = os.waitpid(pid, 0)
    halted.release.set()
    assert os.waitstatus_to_exitcode(status) == 129
    assert (read_report(report)["error"], read_report(report)["exit"]) == ("HungUp", 129)


def test_a_hangup_that_is_ignored_stays_ignored(service: Simulator, tmp_path: Path) -> None:
    """Under `nohup` a run and its workers continue to the end."""
    halted = BlockedService(service)
    running = subprocess.Popen(
        ["nohup", sys.executable, "-m", "tilesync", "mirror", IMODEL, str(tmp_path / "d"), "--transfers", "1", "-q"],
        env=make_environment(service), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        text=True, start_new_session=True,
    )  # fmt: skip
    assert halted.is_blocked.wait(20)
    os.killpg(running.pid, signal.SIGHUP)
    halted.release.set()
    _, err = running.communicate(timeout=30)
    assert (running.returncode, err) == (0, "nohup: ignoring input\n" if "ignoring" in err else "")
    assert (tmp_path / "d" / "versions" / EXPORT).is_dir()


# --- a signal while the program loads ---


INTERRUPTED_IMPORT = """
import os, runpy, sys
module, how, number = sys.argv[1:4]
class Interrupt:
    def find_spec(self, name, path=None, target=None):
        if name == module:
            sys.meta_path.remove(self)
            os.kill(os.getpid(), int(number))
sys.meta_path.insert(0, Interrupt())
sys.argv = ["tilesync", *sys.argv[4:]]
if how == "module":
    runpy.run_module("tilesync", run_name="__main__")
else:
    from tilesync.__main__ import main
    main()
"""


def run_interrupted(module: str, how: str, number: int, *arguments: str) -> CommandResult:
    """Run tilesync with a signal that arrives when the import of a module begins."""
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_IMPORT, module, how, str(int(number)), *arguments],
        env=make_environment(TILESYNC_TOKEN="t", TILESYNC_API_URL="http://127.0.0.1:9"), capture_output=True, text=True,
        timeout=60, check=False,
    )  # fmt: skip
    return CommandResult(done.returncode, done.stdout, done.stderr)


@pytest.mark.parametrize("how", ["module", "script"])
def test_ctrl_c_before_the_handlers_are_there(how: str) -> None:
    """SIGINT during the very first imports ends with 130 and without a traceback."""
    assert run_interrupted("tilesync.errors", how, signal.SIGINT) == CommandResult(130, "", "")


@pytest.mark.parametrize("how", ["module", "script"])
@pytest.mark.parametrize(
    "module", ["click", "tilesync.cli.commands.mirror", "asyncio.base_events", "uvloop", "tilesync.jobs.mirror"]
)
@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_signal_during_an_import_is_reported(
    tmp_path: Path, module: str, how: str, number: int, code: int, kind: str
) -> None:
    """A signal during an import waits for its end, and then ends the run with its exit code and a last line."""
    done = run_interrupted(module, how, number, "mirror", IMODEL, str(tmp_path / "d"), "--json")
    assert (done.exit_code, done.last_line["error"]) == (code, kind), done.stderr
    assert "Traceback" not in done.stderr


# --- a signal while the event loop starts or closes ---


INTERRUPTED_CALL = """
import os, pkgutil, sys
module, function, number, times, has_uvloop = sys.argv[1:6]
signals = [int(number)] * int(times)
if has_uvloop == "False":
    sys.modules["uvloop"] = None
owner = pkgutil.resolve_name(module)
call = getattr(owner, function)
def interrupt(*arguments):
    while signals:
        os.kill(os.getpid(), signals.pop())
    return call(*arguments)
setattr(owner, function, interrupt)
sys.argv = ["tilesync", *sys.argv[6:]]
from tilesync.__main__ import main
main()
"""
LOOP_STARTS, LOOP_CLOSES = ("socket", "socketpair"), ("asyncio.runners", "_cancel_all_tasks")


@pytest.mark.parametrize("has_uvloop", [True, False])
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("function", [LOOP_STARTS, LOOP_CLOSES])
@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_signal_while_the_loop_starts_or_closes_is_reported(
    service: Simulator,
    tmp_path: Path,
    number: int,
    code: int,
    kind: str,
    function: tuple[str, str],
    times: int,
    has_uvloop: bool,
) -> None:
    """One or two signals while the event loop starts or closes end the run with its exit code and a last line."""
    command = ["mirror", IMODEL, str(tmp_path / "d"), "--json"]
    injection = [*function, str(int(number)), str(times), str(has_uvloop)]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_CALL, *injection, *command], env=make_environment(service),
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    last = CommandResult(done.returncode, done.stdout, done.stderr).assert_failed(code, kind)
    assert last["published"] == (function == LOOP_CLOSES)
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr


FLUSH, SHUTDOWN = ("tilesync.cli.output.queued_output:OutputQueues", "flush"), ("tilesync.cli.main", "_exit_process")


@pytest.mark.parametrize("function", [FLUSH, SHUTDOWN])
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_after_the_last_line_changes_nothing(
    service: Simulator, tmp_path: Path, number: int, function: tuple[str, str]
) -> None:
    """A signal after the last line leaves the exit code that this line has, and prints nothing."""
    injection = [*function, str(int(number)), "1", "True"]
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED_CALL, *injection, "mirror", IMODEL, str(tmp_path / "d"), "--json", "-q"],
        env=make_environment(service), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert CommandResult(done.returncode, done.stdout, done.stderr).last_line["exit"] == 0
    assert done.stderr == ""


def test_the_script_is_the_quiet_entry_point() -> None:
    """The installed `tilesync` loads the commands only inside its main function."""
    scripts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["scripts"]
    assert scripts == {"tilesync": "tilesync.__main__:main"}
    loaded = (
        "import sys, tilesync.__main__; print(*sorted(n for n in sys.modules if n.partition('.')[0] == 'tilesync'))"
    )
    done = subprocess.run([sys.executable, "-c", loaded], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["tilesync", "tilesync.__main__"]


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGINT, 130, "Interrupted"), (signal.SIGTERM, 143, "Terminated")]
)
def test_a_signal_stops_cleanly_and_the_next_run_resumes(
    service: Simulator, tmp_path: Path, number: int, code: int, kind: str
) -> None:
    """A signal ends a run with 130 or 143 and a hint to resume; stored files are kept, and the next run continues."""
    release, inside = threading.Event(), threading.Event()
    service.add_fault(is_blob, call_before(inside.set, lambda: release.wait(30)), skip=9)
    running = start_tilesync("mirror", IMODEL, tmp_path, "--json", "--transfers", "1", sim=service)
    assert inside.wait(20)
    running.send_signal(number)
    out, err = running.communicate(timeout=20)
    release.set()
    last = CommandResult(running.returncode, out, err).assert_failed(code, kind)
    assert "again" in last["hint"]
    assert not (tmp_path / "tileset.json").exists()
    service.clear_requests()
    again = run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service).last_line
    assert (again["kept"], again["fetched"], again["published"]) == (9, len(service.containers[EXPORT]) - 9, True)
    assert len(service.blob_requests()) == again["fetched"]


def test_a_signal_while_waiting_for_an_export(service: Simulator, tmp_path: Path) -> None:
    """SIGINT during --wait ends at once with 130."""
    service.exports[0]["status"] = "InProgress"
    running = start_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service)
    assert running.stdout is not None
    while '"waiting"' not in (line := running.stdout.readline()):
        assert line
    running.send_signal(signal.SIGINT)
    running.communicate(timeout=20)
    assert running.returncode == 130
