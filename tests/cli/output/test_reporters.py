"""Lost output gives an exit code of its own, and every exit writes the report."""

from __future__ import annotations

import json
import shlex
import signal
import socket
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import (
    make_environment,
    run_tilesync,
)
from tests.support.faults import error_response, is_blob, is_blob_named, wait_for
from tests.support.fork_server import run_forked
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator
from tilesync import __version__

LOST = "error: standard output cannot be written (No space left on device)"


def run_in_shell(
    sim: Simulator | None, command: str, *, redirected: str = "", **more: str
) -> subprocess.CompletedProcess[str]:
    """Run tilesync with its streams redirected, by a shell unless stdout alone goes to a file."""
    if "<<" not in command and (not redirected or redirected == ">/dev/full"):
        stdout = Path(redirected[1:]) if redirected else None
        return run_forked(shlex.split(command), make_environment(sim, **more), stdout=stdout, timeout_s=60)
    return subprocess.run(
        ["sh", "-c", f'exec "{sys.executable}" -m tilesync {command} {redirected}'],
        env=make_environment(sim, **more), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip


# --- standard output ---


@pytest.mark.parametrize(
    "command",
    [
        "versions {held}", f"versions {{held}} --sha256sums {EXPORT}", "versions {held} --json",
        f"exports {IMODEL}", f"exports {IMODEL} --json", f"link {IMODEL}", "doctor --json",
        f"mirror {IMODEL} {{new}} -n", f"mirror {IMODEL} {{new}} --json", f"mirror {IMODEL} {{new}} -n --json",
        "verify {held} --json", "rollback {held} --latest --json", "--version", "mirror --help",
    ],
)  # fmt: skip
def test_output_to_a_full_disk_ends_with_8(service: Simulator, tmp_path: Path, command: str) -> None:
    """On a full disk each command with output ends with 8 and prints one message."""
    assert run_in_shell(service, f"mirror {IMODEL} {tmp_path / 'held'}").returncode == 0
    words = command.format(held=tmp_path / "held", new=tmp_path / "new")
    done = run_in_shell(service, words, redirected=">/dev/full")
    assert done.returncode == 8, done.stderr
    assert done.stderr.count(LOST) == 1
    acts = command.startswith(("mirror", "rollback")) and " -n" not in command and "--help" not in command
    assert ("run the same command again" in done.stderr) != acts
    assert ("DEST is already changed: `tilesync versions DEST` shows its versions" in done.stderr) == acts
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr


def two_versions(service: Simulator, dest: Path) -> list[str]:
    """Make a destination with two versions."""
    assert run_in_shell(service, f"mirror {IMODEL} {dest}").returncode == 0
    service.offer_export(export_id=OTHER_EXPORT)
    assert run_in_shell(service, f"mirror {IMODEL} {dest}").returncode == 0
    return [OTHER_EXPORT, EXPORT]


@pytest.mark.parametrize("how", ["lost", "interrupted"])
def test_a_rollback_that_moved_the_pointer_does_not_ask_to_be_repeated(
    service: Simulator, tmp_path: Path, how: str
) -> None:
    """After a rollback whose output is lost, no hint asks to run it again: that would go one version further."""
    _, older = two_versions(service, tmp_path / "d")
    hook = f"--on-publish {tmp_path / 'hook'}" if how == "interrupted" else ""
    (tmp_path / "hook").write_text("#!/bin/sh\nkill -INT $PPID\nexec sleep 60\n")
    (tmp_path / "hook").chmod(0o700)
    done = run_in_shell(
        service, f"rollback {tmp_path / 'd'} --json {hook}", redirected=">/dev/full" if how == "lost" else ""
    )
    assert done.returncode == (130 if how == "interrupted" else 8), done.stderr
    assert json.loads((tmp_path / "d/latest.json").read_text())["version"] == older
    assert "again" not in done.stderr
    assert "DEST is already changed: `tilesync versions DEST` shows its versions" in done.stderr


def test_a_closed_standard_output(service: Simulator, tmp_path: Path) -> None:
    """A closed stdout gives 8 if the command has output, otherwise 0."""
    done = run_in_shell(service, f"mirror {IMODEL} {tmp_path / 'd'}", redirected=">&-")
    assert (done.returncode, "error" in done.stderr) == (0, False)
    done = run_in_shell(service, f"versions {tmp_path / 'd'}", redirected=">&-")
    assert done.returncode == 8
    assert "standard output cannot be written (it is closed)" in done.stderr


def test_a_pipe_closed_by_its_reader_is_no_failure(service: Simulator, tmp_path: Path) -> None:
    """A pipe whose reader went away is no failure, and prints no message."""
    assert run_in_shell(service, f"mirror {IMODEL} {tmp_path / 'd'}").returncode == 0
    script = f'"{sys.executable}" -m tilesync versions {tmp_path / "d"} --json -q; echo $? >&2'
    done = subprocess.run(
        ["sh", "-c", f"({script}) | true"],
        env=make_environment(service), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert done.stderr.strip() == "0"


def test_the_report_has_the_exit_code_of_lost_output(service: Simulator, tmp_path: Path) -> None:
    """A mirror whose JSON lines were lost is published; its report has the exit code of the process."""
    done = run_in_shell(
        service, f"mirror {IMODEL} {tmp_path / 'd'} --json --report {tmp_path / 'r'}", redirected=">/dev/full"
    )
    written = json.loads((tmp_path / "r").read_text())
    assert (done.returncode, written["exit"], written["error"], written["published"]) == (8, 8, "OutputLost", True)
    assert f"version {EXPORT} was published" not in done.stderr or done.stderr.count("was published") == 1


def test_a_failure_keeps_its_exit_code(service: Simulator, tmp_path: Path) -> None:
    """Lost output does not hide the error of the run."""
    service.add_fault(is_blob_named("tiles/001.glb"), error_response(404, "BlobNotFound"), times=None)
    assert run_in_shell(service, f"mirror {IMODEL} {tmp_path / 'd'} --json", redirected=">/dev/full").returncode == 3


@pytest.mark.scale
@pytest.mark.parametrize("word", ["mirror", "no-such-command", "verify"])
def test_a_usage_error_with_stderr_full_or_closed_ends_with_2(word: str) -> None:
    """With stderr full or closed, a usage error still ends with 2."""
    for streams in ("2>/dev/full", "2>&-", ">/dev/full 2>/dev/full"):
        assert run_in_shell(None, word, redirected=streams).returncode == 2


def test_no_message_steers_the_terminal(service: Simulator, tmp_path: Path) -> None:
    """Foreign texts, here the owner of a destination, are printed without control characters."""
    assert run_in_shell(service, f"mirror {IMODEL} {tmp_path / 'd'}").returncode == 0
    latest = tmp_path / "d/latest.json"
    written = json.loads(latest.read_text())
    latest.write_text(json.dumps({**written, "owner": "a\x1b]0;x\x07b"}))
    for words in (f"versions {tmp_path / 'd'}", f"mirror {IMODEL} {tmp_path / 'd'}"):
        done = run_in_shell(service, words)
        assert "the iModel a\ufffd]0;x\ufffdb" in done.stderr
        assert "\x1b" not in done.stdout + done.stderr


def test_a_log_file_on_a_full_disk(service: Simulator, tmp_path: Path) -> None:
    """A log file that fails gives one warning, and the mirror continues."""
    done = run_in_shell(service, f"mirror {IMODEL} {tmp_path / 'd'} --log-file /dev/full --json")
    last = json.loads(done.stdout.splitlines()[-1])
    assert (done.returncode, last["exit"], last["published"]) == (0, 0, True)
    assert done.stderr.count("warning: the log file /dev/full cannot be written (No space left on device)") == 1
    assert "Traceback" not in done.stderr


# --- reports ---


def read_report(path: Path) -> dict[str, Any]:
    """Read a report and check its facts about the run."""
    written: dict[str, Any] = json.loads(path.read_text())
    assert (written["host"], written["tilesync"]) == (socket.gethostname(), __version__)
    started, finished = (datetime.fromisoformat(written[key]) for key in ("started", "finished"))
    assert started <= finished <= datetime.now(UTC)
    assert datetime.now(UTC) - started < timedelta(minutes=2)
    return written


def read_report_of_run(sim: Simulator | None, path: Path, command: str, **more: str) -> dict[str, Any]:
    """Run a command that replaces an old report; return the new one."""
    path.write_text('{"kind": "finished", "exit": 0}')
    done = run_in_shell(sim, command, **more)
    written = read_report(path)
    assert written["exit"] == done.returncode
    assert "Exception" not in done.stderr
    return written


def test_a_good_run_and_an_audit(service: Simulator, tmp_path: Path) -> None:
    """The report and the last line have the time, SOURCE, DEST, host and version."""
    report, dest = tmp_path / "r", tmp_path / "d"
    written = read_report_of_run(service, report, f"mirror {IMODEL} {dest} --report {report}")
    assert (written["kind"], written["source"], written["dest"]) == ("finished", IMODEL, str(dest))
    written = read_report_of_run(None, report, f"verify {dest} --report {report}")
    assert (written["kind"], written["source"], written["dest"]) == ("finished", None, str(dest))


@pytest.mark.parametrize(
    "words",
    [
        "--no-such-option --report {report}", "--report {report} --wait soon", "--report={report} --layout round",
        "--report {report} --all-exports --layout flat", "--report {report} --json --keep-for=-1",
    ],
)  # fmt: skip
def test_usage_errors_write_a_report(tmp_path: Path, words: str) -> None:
    """A usage error replaces the old report, with SOURCE and DEST of the command."""
    report, dest = tmp_path / "r", tmp_path / "d"
    written = read_report_of_run(None, report, f"mirror {IMODEL} {dest} {words.format(report=report)}")
    assert (written["kind"], written["exit"], written["error"]) == ("failed", 2, "UsageError")
    assert (written["source"], written["dest"]) == (IMODEL, str(dest))
    assert written["message"]


@pytest.mark.parametrize("words", ["mirorr {dest} --report {report}", "--report {report} mirror {dest}"])
def test_a_misspelt_command_writes_a_report(tmp_path: Path, words: str) -> None:
    """A misspelt command, or an option before it, replaces the old report; SOURCE is not guessed."""
    report = tmp_path / "r"
    written = read_report_of_run(None, report, words.format(dest=tmp_path / "d", report=report))
    assert (written["kind"], written["exit"], written["source"], written["dest"]) == ("failed", 2, None, None)


def test_a_report_that_the_environment_names(tmp_path: Path) -> None:
    """TILESYNC_REPORT works too, and commands without a report ignore it."""
    report = tmp_path / "r"
    settings = {"TILESYNC_REPORT": str(report), "TILESYNC_SOURCE": IMODEL, "TILESYNC_DEST": str(tmp_path / "d")}
    written = read_report_of_run(None, report, "mirror --wait soon", **settings)
    assert (written["exit"], written["source"], written["dest"]) == (2, IMODEL, str(tmp_path / "d"))
    report.write_text("mine")
    assert run_in_shell(None, "versions --no-such-option", **settings).returncode == 2
    assert report.read_text() == "mine"


def test_the_report_has_a_link_without_its_signature(service: Simulator, tmp_path: Path) -> None:
    """The report has SOURCE as a URL without query, or not at all, also for stdin and usage errors."""
    report, link = tmp_path / "r", service.create_link(EXPORT)
    base = link.partition("?")[0]
    written = read_report_of_run(service, report, f"mirror '{link}' {tmp_path / 'd'} --report {report}")
    assert written["source"] == base
    written = read_report_of_run(
        service, report, f"mirror - {tmp_path / 'd'} --report {report} <<< x".replace(" <<< x", f" <<E\n{link}\nE")
    )
    assert written["source"] == base
    written = read_report_of_run(service, report, f"mirror '{link}' {tmp_path / 'd'} --report {report} --bogus")
    assert written["source"] == base
    assert "sig=" not in report.read_text()


def test_a_bug_writes_a_report(tmp_path: Path) -> None:
    """A bug before or in the session ends with 1 and a report."""
    report = tmp_path / "r"
    for where in ("tilesync.api.inputs.create_service", "tilesync.cli.commands.mirror.create_session"):
        module, _, name = where.rpartition(".")
        code = f"import {module} as m; m.{name} = None; from tilesync.cli.main import main; main()"
        report.write_text("{}")
        done = subprocess.run(
            [sys.executable, "-c", code, "mirror", IMODEL, str(tmp_path / "d"), "--report", str(report), "--json"],
            env=make_environment(TILESYNC_TOKEN="t"), capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        written = read_report(report)
        assert (done.returncode, written["exit"], written["error"]) == (1, 1, "TypeError")
        assert json.loads(done.stdout.splitlines()[-1])["error"] == "TypeError"
        assert "Traceback" in done.stderr


@pytest.mark.parametrize(
    ("number", "code", "kind"), [(signal.SIGTERM, 143, "Terminated"), (signal.SIGINT, 130, "Interrupted")]
)
@pytest.mark.parametrize("times", [1, 2])
def test_signals_write_a_report(
    service: Simulator, tmp_path: Path, number: int, code: int, kind: str, times: int
) -> None:
    """A run that is stopped, once or twice, writes its report."""
    import threading

    release = threading.Event()
    service.add_fault(is_blob, wait_for(release), times=None)
    report = tmp_path / "r"
    report.write_text("{}")
    running = subprocess.Popen(
        [sys.executable, "-m", "tilesync", "mirror", IMODEL, str(tmp_path / "d"), "--report", str(report)],
        env=make_environment(service), stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while not service.blob_requests("tileset.json") and not any(is_blob(each) for each in service.requests):
        time.sleep(0.01)
    for _ in range(times):
        running.send_signal(number)
    _, said_to_people = running.communicate(timeout=30)
    release.set()
    written = read_report(report)
    assert (running.returncode, written["exit"], written["error"]) == (code, code, kind), said_to_people
    assert written["dest"] == str(tmp_path / "d")


@pytest.mark.parametrize(("name", "exit_code", "wrong"), [("SIGTERM", 143, "Terminated"), ("SIGHUP", 129, "HungUp")])
def test_a_signal_before_the_session(tmp_path: Path, name: str, exit_code: int, wrong: str) -> None:
    """A signal while the command loads writes a report too."""
    report = tmp_path / "r"
    code = (
        "import os, signal, tilesync.__main__ as c, tilesync.cli.commands.mirror as m\n"
        f"def slow(*a, **k): os.kill(os.getpid(), signal.{name})\n"
        "m.create_session = slow\n"
        "c.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, "mirror", IMODEL, str(tmp_path / "d"), "--report", str(report)],
        env=make_environment(), capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    written = read_report(report)
    assert (done.returncode, written["exit"], written["error"]) == (exit_code, exit_code, wrong)


def test_people_read_stderr(service: Simulator, tmp_path: Path) -> None:
    """Without --json stdout is empty and stderr ends with a summary; a pipe gets no bar and no control character."""
    done = run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    assert (done.exit_code, done.stdout) == (0, "")
    assert "published" in done.stderr
    assert "\r" not in done.stderr
    assert "\x1b" not in done.stderr


def test_quiet_prints_nothing_after_a_successful_run(service: Simulator, tmp_path: Path) -> None:
    """-q: a successful run prints nothing."""
    done = run_tilesync("mirror", IMODEL, tmp_path, "-q", sim=service)
    assert (done.exit_code, done.stdout, done.stderr) == (0, "", "")


def test_verbose_names_every_file(service: Simulator, tmp_path: Path) -> None:
    """-v: each stored file is printed."""
    done = run_tilesync("mirror", IMODEL, tmp_path, "-v", sim=service)
    assert all(name in done.stderr for name in service.containers[EXPORT])
