"""Run tilesync on a pseudo-terminal."""

from __future__ import annotations

import os
import select
import struct
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.support.commandline import make_environment
from tilesync.demo.fake_service import FakeBackend

fcntl, pty, termios = (
    pytest.importorskip(name, reason="this system has no pseudo-terminals") for name in ("fcntl", "pty", "termios")
)


def resize(terminal: int, rows: int, columns: int) -> None:
    """Change the size of a terminal."""
    fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def run_in_terminal(
    *arguments: object,
    sim: FakeBackend,
    size: tuple[int, int] = (24, 100),
    on_output: Callable[[int, bytes], None] = lambda terminal, output: None,
    **more: str,
) -> tuple[int, str]:
    """Run tilesync on a terminal of this size (rows, columns); return the exit code and the output.

    `on_output` gets the terminal and the output so far, and may resize the terminal.
    """
    outer, inner = pty.openpty()
    resize(inner, *size)
    command = [sys.executable, "-m", "tilesync", *map(str, arguments)]
    environment = make_environment(sim, **{"TERM": "xterm", **more})
    running = subprocess.Popen(command, env=environment, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    output = b""
    try:
        while select.select([outer], [], [], 30)[0]:
            try:
                data = os.read(outer, 65536)
            except OSError:
                break
            if not data:
                break
            output += data
            on_output(outer, output)
    finally:
        os.close(outer)
    return running.wait(20), output.decode(errors="replace")
