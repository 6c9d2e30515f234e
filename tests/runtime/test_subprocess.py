"""Commands of the user, with real processes: output, limits, cancellation."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import sys
import threading
import time
from datetime import timedelta

import pytest

from tilesync.errors import NotAuthorised, UsageError
from tilesync.runtime import subprocess
from tilesync.runtime.subprocess import CommandCancelled, run_command, run_secret_command
from tilesync.runtime.threads import STOP_EVENT


def python(code: str) -> list[str]:
    """Return a command that runs Python code."""
    return [sys.executable, "-c", code]


def test_output_is_stripped() -> None:
    """The secret is the output without surrounding blanks."""
    assert run_secret_command(shlex.join(python("print(' secret ')")), "--x") == "secret"


@pytest.mark.parametrize(
    ("command", "error", "message"),
    [
        ("'", UsageError, "cannot be read"),
        (" ", UsageError, "names no command"),
        ("no-such-program-at-all", NotAuthorised, "cannot be run"),
        (shlex.join(python("import sys; sys.exit(3)")), NotAuthorised, "exit code 3"),
    ],
)
def test_commands_without_a_secret(command: str, error: type[Exception], message: str) -> None:
    """Each failure has its reason and the name of the option."""
    with pytest.raises(error, match=message) as raised:
        run_secret_command(command, "--link-command")
    assert "--link-command" in str(raised.value)


def test_a_slow_command_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """A command that takes too long is ended, even if it ignores SIGTERM."""
    monkeypatch.setattr(subprocess, "SECRET_TIMEOUT", timedelta(seconds=0.3))
    monkeypatch.setattr(subprocess, "_TERMINATE_TIMEOUT_S", 0.3)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    started_at = time.monotonic()
    with pytest.raises(NotAuthorised, match="has not ended within"):
        run_secret_command(shlex.join(python(stubborn)), "--x")
    assert time.monotonic() - started_at < 20


@pytest.mark.parametrize("then", ["", "; time.sleep(60)"], ids=["ends", "goes on"])
def test_endless_output_is_ended(then: str) -> None:
    """More output than a secret can have is refused at once, in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = f"import os, time; [os.write(1, b'x' * 1_000_000) for _ in range(1000)]{then}"
    started_at = time.monotonic()
    with pytest.raises(NotAuthorised, match="--x printed more than 64 KiB"):
        run_secret_command(shlex.join(python(code)), "--x")
    assert time.monotonic() - started_at < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(("size", "fits"), [(1 << 16, True), ((1 << 16) + 1, False)])
def test_output_limit(size: int, fits: bool) -> None:
    """Exactly the limit is accepted, one byte more is not."""
    command = shlex.join(python(f"print('x' * {size}, end='')"))
    if fits:
        assert run_secret_command(command, "--x") == "x" * size
    else:
        with pytest.raises(NotAuthorised, match="printed more than"):
            run_secret_command(command, "--x")


def test_a_child_that_outlives_the_command_is_not_waited_for() -> None:
    """The end of the command itself counts, even if a child such as an agent keeps its stdout open."""
    started_at = time.monotonic()
    left_behind = int(run_secret_command("sh -c 'sleep 60 & echo $!'", "--x"))
    os.kill(left_behind, signal.SIGKILL)
    assert time.monotonic() - started_at < 20


def test_a_cancelled_command_is_ended() -> None:
    """A command is ended when its result is no longer wanted."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    token = STOP_EVENT.set(stop)
    started_at = time.monotonic()
    try:
        with pytest.raises(CommandCancelled):
            run_command(python("import time; time.sleep(60)"), on_poll=lambda seconds: None)
    finally:
        STOP_EVENT.reset(token)
    assert time.monotonic() - started_at < 20


@pytest.mark.parametrize("code", ["import sys; sys.stdin.close()", "pass", "import time; time.sleep(0.5)"])
def test_a_command_that_ignores_stdin(code: str) -> None:
    """Input that the command does not read is dropped, however much it is and however long the command runs."""
    assert run_command(python(code), b"x" * 300_000, on_poll=lambda seconds: None) == (0, b"")


def test_a_command_that_reads_slowly() -> None:
    """All input arrives, even across polls."""
    code = "import sys, time; time.sleep(0.5); print(len(sys.stdin.buffer.read()))"
    polls: list[float] = []
    exit_code, out = run_command(python(code), b"x" * 300_000, on_poll=polls.append)
    assert (exit_code, out.split(), bool(polls)) == (0, [b"300000"], True)
