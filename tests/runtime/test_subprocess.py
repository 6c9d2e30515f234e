"""Commands that print secrets, or are told something: real ones."""

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
from tilesync.runtime import subprocess as commands
from tilesync.runtime.subprocess import CommandCancelled, run_command, run_secret_command
from tilesync.runtime.threads import STOP_EVENT


def python(code: str) -> list[str]:
    """A command that runs some lines."""
    return [sys.executable, "-c", code]


def test_what_it_prints() -> None:
    """Its output without the blanks around it."""
    assert run_secret_command(shlex.join(python("print(' secret ')")), "--x") == "secret"


@pytest.mark.parametrize(
    ("command", "error", "said"),
    [
        ("'", UsageError, "cannot be read"),
        (" ", UsageError, "names no command"),
        ("no-such-program-at-all", NotAuthorised, "cannot be run"),
        (shlex.join(python("import sys; sys.exit(3)")), NotAuthorised, "exit code 3"),
    ],
)
def test_what_gives_no_secret(command: str, error: type[Exception], said: str) -> None:
    """Each with its reason, and the name of the option."""
    with pytest.raises(error, match=said) as raised:
        run_secret_command(command, "--link-command")
    assert "--link-command" in str(raised.value)


def test_one_that_takes_too_long_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also one that does not want to end."""
    monkeypatch.setattr(commands, "SECRET_TIMEOUT", timedelta(seconds=0.3))
    monkeypatch.setattr(commands, "_TERMINATE_TIMEOUT_S", 0.3)
    stubborn = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(60)"
    began = time.monotonic()
    with pytest.raises(NotAuthorised, match="has not ended within"):
        run_secret_command(shlex.join(python(stubborn)), "--x")
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("then", ["", "; time.sleep(60)"], ids=["ends", "goes on"])
def test_one_that_prints_without_end_is_ended(then: str) -> None:
    """More than a secret can have is no secret: told as such, at once, in little memory."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    code = f"import os, time; [os.write(1, b'x' * 1_000_000) for _ in range(1000)]{then}"
    began = time.monotonic()
    with pytest.raises(NotAuthorised, match="--x printed more than 64 KiB"):
        run_secret_command(shlex.join(python(code)), "--x")
    assert time.monotonic() - began < 20
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100_000


@pytest.mark.parametrize(("size", "fits"), [(1 << 16, True), ((1 << 16) + 1, False)])
def test_how_much_one_may_print(size: int, fits: bool) -> None:
    """Just as much as is said, not a byte more."""
    command = shlex.join(python(f"print('x' * {size}, end='')"))
    if fits:
        assert run_secret_command(command, "--x") == "x" * size
    else:
        with pytest.raises(NotAuthorised, match="printed more than"):
            run_secret_command(command, "--x")


def test_one_that_leaves_a_process_behind() -> None:
    """Its own end counts, though what it started, such as an agent, holds its stdout open for as long as it lives."""
    began = time.monotonic()
    left_behind = int(run_secret_command("sh -c 'sleep 60 & echo $!'", "--x"))
    os.kill(left_behind, signal.SIGKILL)
    assert time.monotonic() - began < 20


def test_one_whose_end_nobody_waits_for_is_ended() -> None:
    """Where the result is wanted no more."""
    stop = threading.Event()
    threading.Timer(0.3, stop.set).start()
    token = STOP_EVENT.set(stop)
    began = time.monotonic()
    try:
        with pytest.raises(CommandCancelled):
            run_command(python("import time; time.sleep(60)"), on_poll=lambda seconds: None)
    finally:
        STOP_EVENT.reset(token)
    assert time.monotonic() - began < 20


@pytest.mark.parametrize("code", ["import sys; sys.stdin.close()", "pass", "import time; time.sleep(0.5)"])
def test_one_that_does_not_listen(code: str) -> None:
    """What it does not read is lost, and that is all, however much it is and however long it takes."""
    assert run_command(python(code), b"x" * 300_000, on_poll=lambda seconds: None) == (0, b"")


def test_one_that_listens_slowly() -> None:
    """All of it arrives, also across looks."""
    code = "import sys, time; time.sleep(0.5); print(len(sys.stdin.buffer.read()))"
    looks: list[float] = []
    code_, out = run_command(python(code), b"x" * 300_000, on_poll=looks.append)
    assert (code_, out.split(), bool(looks)) == (0, [b"300000"], True)
