"""Commands that run after a run."""

from __future__ import annotations

import json
import shlex
import sys
import time
from datetime import timedelta
from pathlib import Path

import pytest

from tilesync.errors import UsageError
from tilesync.monitoring.outcome_command import parse_command, run_outcome_command


def program(code: str) -> list[str]:
    """Make the words of a command that runs Python code."""
    return parse_command(shlex.join([sys.executable, "-c", code]), "--on-failure")


def test_the_command_gets_the_report(tmp_path: Path) -> None:
    """The report arrives on standard input as one JSON document, with names that are no text; output goes to a file."""
    out = tmp_path / "out"
    words = program(f"import sys; open({str(out)!r}, 'wb').write(sys.stdin.buffer.read()); print('told')")
    report = {"exit": 8, "message": "voilà 橋", "failures": [{"name": "x" * 200_000}]}
    with (tmp_path / "output").open("w") as output:
        assert run_outcome_command(words, "--on-failure", report, output=output) == ""
    assert json.loads(out.read_bytes()) == report
    assert (tmp_path / "output").read_text() == "told\n"


def test_a_failure_is_a_sentence() -> None:
    """A command that fails, or that vanished since it was checked, gives a sentence, not an error."""
    assert run_outcome_command(program("exit(3)"), "--on-failure", {}, output=None) == (
        "the command of --on-failure failed with exit code 3"
    )
    found = run_outcome_command(["/nonexistent/program"], "--on-success", {}, output=None)
    assert found.startswith("the command of --on-success cannot be run (")
    assert "printed too much" in run_outcome_command(program("print('x' * 1_000_000)"), "--on-success", {}, output=None)


def test_a_command_that_hangs_is_ended() -> None:
    """A command that takes longer than the limit is ended."""
    begun = time.monotonic()
    found = run_outcome_command(
        program("import time; time.sleep(60)"), "--on-failure", {}, output=None, time_limit=timedelta(seconds=0.5)
    )
    assert found == "the command of --on-failure was ended: it took longer than 0 s"
    assert time.monotonic() - begun < 10


@pytest.mark.parametrize(
    ("command", "message"),
    [
        ("'", "cannot be read"),
        ("  ", "names no command"),
        ("no-such-program -x", "there is no program no-such-program"),
    ],
)
def test_a_command_that_cannot_work_is_refused(command: str, message: str) -> None:
    """A command that cannot be split, or whose program does not exist, is a usage error."""
    with pytest.raises(UsageError, match=message):
        parse_command(command, "--on-failure")
