"""Real shells that complete the command line: bash and zsh on a pseudo-terminal, fish by its own command."""

from __future__ import annotations

import contextlib
import os
import re
import select
import shlex
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commandline import make_environment

pty = pytest.importorskip("pty", reason="this system has no pseudo-terminals")

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT_S = 60
READY = "shell-is-ready"

SETUP = {
    "bash": "source <(tilesync completion bash)",
    "zsh": "autoload -Uz compinit; compinit -D -u; source <(tilesync completion zsh); PS1='> '",
    "fish": "tilesync completion fish | source",
}
"""What a user writes in the file that the shell reads at its start."""

ARGUMENTS = {"bash": ["--norc", "--noprofile", "-i"], "zsh": ["-f", "-i"], "fish": ["--no-config"]}
"""Arguments with which a shell does not read the files of the person who runs the tests."""


def require_shell(name: str) -> str:
    """Return the path of a shell; skip the test if it is not installed, and fail if it is required."""
    path = shutil.which(name)
    if path is None:
        reason = f"{name} is not installed"
        if name in os.environ.get("TILESYNC_REQUIRE", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return path


class CompletionShell:
    """A shell with the completion of tilesync, in a folder. `setup`: other commands for it; HOME is another folder."""

    def __init__(self, name: str, folder: Path, *, setup: str | None = None, **variables: str) -> None:
        self._name = name
        self._setup = SETUP[name] if setup is None else setup
        self._path = require_shell(name)
        self._folder = folder
        programs = folder.parent / f"{folder.name}-programs"
        programs.mkdir()
        program = programs / "tilesync"
        program.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m tilesync "$@"\n')
        program.chmod(0o755)
        self._environment = make_environment() | {
            "PATH": f"{programs}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "HOME": str(programs),
            "TERM": "dumb",
            "PS1": "> ",
            "INPUTRC": "/dev/null",
            **variables,
        }

    def complete(self, line: str, expected: str) -> str:
        """Complete a line by the Tab key; return what the shell shows, up to `expected` if it comes in time."""
        if self._name == "fish":
            code = f"{self._setup}; complete -C {shlex.quote(line)}"
            done = subprocess.run(
                [self._path, *ARGUMENTS["fish"], "-c", code],
                cwd=self._folder, env=self._environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=True,
            )  # fmt: skip
            return done.stdout
        with self._start() as terminal:
            start, end = READY[:5], READY[5:]
            os.write(terminal, f"{self._setup}; echo {start}''{end}\n".encode())
            _read_until(terminal, READY)
            os.write(terminal, f"{line}\t".encode())
            return _read_until(terminal, expected)

    @contextlib.contextmanager
    def _start(self) -> Iterator[int]:
        """Start the shell on a terminal; return our end of it."""
        outer, inner = pty.openpty()
        running = subprocess.Popen(
            [self._path, *ARGUMENTS[self._name]],
            cwd=self._folder, env=self._environment, stdin=inner, stdout=inner, stderr=inner, start_new_session=True,
        )  # fmt: skip
        os.close(inner)
        try:
            yield outer
        finally:
            os.close(outer)
            running.kill()
            running.wait()


def _read_until(terminal: int, expected: str) -> str:
    """Read the output up to a text; return what came, without it if the shell did not write it in time."""
    output, deadline = b"", time.monotonic() + TIMEOUT_S
    while expected not in (text := re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", output.decode(errors="replace"))):
        if not select.select([terminal], [], [], max(0.0, deadline - time.monotonic()))[0]:
            break
        output += os.read(terminal, 65536)
    return text
