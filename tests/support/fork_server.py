"""A process that has tilesync loaded and forks for each command: a run without the half second of imports.

The child has the arguments, the environment, the folder and the streams of a new process, and ends like one. Tests
of signals, terminals, loading and killed processes start a real one.
"""

from __future__ import annotations

import atexit
import faulthandler
import functools
import gc
import importlib
import json
import os
import pkgutil
import runpy
import select
import selectors
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

_READ_AT_START = ("PYTHON", "LC_", "LANG", "TQDM_", "SSL_", "SSLKEYLOGFILE")
"""Variables that the interpreter or a package reads when it is loaded."""

_FORKED_COMMAND = Path(__file__).with_name("forked_command.py")

_STREAMS = ("stdout", "stderr", "exit code")

_MAX_STDIN_BYTES = 60_000
"""Fits the buffer of a pipe, so that it can be written before the child reads."""


def run_forked(
    arguments: Sequence[str],
    env: dict[str, str],
    *,
    stdin: str = "",
    stdout: Path | None = None,
    cwd: Path | None = None,
    timeout_s: float = 120,
) -> subprocess.CompletedProcess[str]:
    """Run `python -m tilesync` with these arguments and this environment; return its exit code and output.

    `stdout` names a file or device instead of a pipe. A process is started where a fork would differ.
    """
    at_start = _environment_at_start()
    differs = any(name.startswith(_READ_AT_START) and value != at_start.get(name) for name, value in env.items())
    if sys.platform != "linux" or differs:
        return _run_process(arguments, env, stdin=stdin, stdout=stdout, cwd=cwd, timeout_s=timeout_s)
    data = stdin.encode()
    assert len(data) <= _MAX_STDIN_BYTES, "does not fit the pipe"
    status = os.pipe()
    pipes = [os.pipe() for _ in range(3)]
    (stdin_read, stdin_write), (stdout_read, stdout_write), (stderr_read, stderr_write) = pipes
    if stdout is not None:
        os.close(stdout_write)
        stdout_write = os.open(stdout, os.O_WRONLY)
    given = [stdin_read, stdout_write, stderr_write, status[1]]
    request = {"arguments": list(arguments), "env": {**at_start, **env}, "cwd": str(cwd or Path.cwd())}
    try:
        pid = _start_server().start_command(request, given, status[0])
    finally:
        for number in given:
            os.close(number)
    os.write(stdin_write, data)
    os.close(stdin_write)
    try:
        output = _read_all([stdout_read, stderr_read, status[0]], pid, timeout_s)
    finally:
        for number in (stdout_read, stderr_read, status[0]):
            os.close(number)
    return subprocess.CompletedProcess(["tilesync", *arguments], int(output[2]), output[0].decode(), output[1].decode())


def write_forking_program(folder: Path) -> int:
    """Write a program `tilesync` that runs by a fork; return the number of the socket that it must inherit.

    What the interpreter reads from the environment when it starts is that of the server.
    """
    number = _start_server().fileno()
    arguments = shlex.join([sys.executable, "-IS", str(_FORKED_COMMAND), str(number)])
    folder.mkdir()
    program = folder / "tilesync"
    program.write_text(f'#!/bin/sh\nexec {arguments} "$@"\n', encoding="utf-8")
    program.chmod(0o755)
    return number


@functools.cache
def _environment_at_start() -> dict[str, str]:
    """Return the environment of the server, which its children add theirs to."""
    kept = {name: os.environ[name] for name in ("PYTHONPATH", "SSL_CERT_FILE") if name in os.environ}
    return {"LC_ALL": "C.UTF-8", **kept}


def _run_process(
    arguments: Sequence[str],
    env: dict[str, str],
    *,
    stdin: str,
    stdout: Path | None,
    cwd: Path | None,
    timeout_s: float,
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "tilesync", *arguments]
    with open(stdout or os.devnull, "wb") as named:
        done = subprocess.run(
            command,
            env=env,
            cwd=cwd,
            input=stdin,
            stdout=named if stdout else subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            encoding="utf-8",
            timeout=timeout_s,
            check=False,
        )
    return subprocess.CompletedProcess(done.args, done.returncode, done.stdout or "", done.stderr)


def _read_all(numbers: list[int], pid: int, timeout_s: float) -> list[bytes]:
    """Read pipes until their ends; kill the child after the timeout."""
    read = {number: bytearray() for number in numbers}
    ends_at = time.monotonic() + timeout_s
    with selectors.DefaultSelector() as selector:
        for number in numbers:
            selector.register(number, selectors.EVENT_READ)
        while selector.get_map():
            ready = selector.select(max(ends_at - time.monotonic(), 0))
            if not ready and time.monotonic() >= ends_at:
                left = [name for name, each in zip(_STREAMS, numbers, strict=True) if each in selector.get_map()]
                stack = _abort(pid, numbers[1])
                raise AssertionError(f"after {timeout_s} s still open: {', '.join(left)}; {read} {stack}")
            for key, _ in ready:
                data = os.read(key.fd, 65536)
                read[key.fd] += data
                if not data:
                    selector.unregister(key.fd)
    return [bytes(data) for data in read.values()]


def _abort(pid: int, stderr: int) -> str:
    """Kill a command that hangs; return the stacks of its threads, which faulthandler prints."""
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGABRT)
    stack = b""
    while select.select([stderr], [], [], 5)[0] and (data := os.read(stderr, 65536)):
        stack += data
    with suppress(ProcessLookupError):
        os.kill(pid, signal.SIGKILL)
    return stack.decode(errors="replace")


class ForkServer:
    """The process that forks, and the socket on which it gets commands."""

    def __init__(self) -> None:
        self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._lock = threading.Lock()
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, __file__, str(theirs.fileno())],
                env={"PATH": os.environ["PATH"], **_environment_at_start()},
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )

    def start_command(self, request: dict[str, Any], streams: list[int], status: int) -> int:
        """Start a command on these streams; return its process id."""
        with self._lock:
            socket.send_fds(self._socket, [json.dumps(request).encode()], streams)
            return int.from_bytes(os.read(status, 4), "big")

    def fileno(self) -> int:
        """Return the number of the socket for requests, which other processes may inherit."""
        return self._socket.fileno()

    def stop(self) -> None:
        """End the process."""
        with self._socket:
            self._socket.shutdown(socket.SHUT_WR)  # also for the processes that inherited it
            self._process.wait(10)


@functools.cache
def _start_server() -> ForkServer:
    server = ForkServer()
    atexit.register(server.stop)
    return server


# --- in the server ---


def _serve(commands: socket.socket) -> dict[str, Any]:
    """Fork for each request; return in the child, with the request.

    The end of a child is seen on its pidfd: a SIGCHLD just before the server waits for requests would be noticed only
    with the next request.
    """
    running: dict[int, tuple[int, int]] = {}
    with selectors.DefaultSelector() as selector:
        selector.register(commands, selectors.EVENT_READ)
        while True:
            for key, _ in selector.select():
                if key.fd != commands.fileno():
                    selector.unregister(key.fd)
                    _report_exit(key.fd, *running.pop(key.fd))
                    continue
                message, streams = _receive(commands)
                pid = os.fork()
                if not pid:
                    statuses = (status for _, status in running.values())
                    _become_command(streams, [commands.fileno(), streams[3], *running, *statuses])
                    return dict(json.loads(message))
                ended = os.pidfd_open(pid)
                running[ended] = pid, streams[3]
                selector.register(ended, selectors.EVENT_READ)
                os.write(streams[3], pid.to_bytes(4, "big"))
                for number in streams[:3]:
                    os.close(number)


def _receive(commands: socket.socket) -> tuple[bytes, list[int]]:
    """Receive a request and its streams; end the server if there will be none."""
    message, streams, *_ = socket.recv_fds(commands, 1 << 20, 4)
    if not message:
        os._exit(0)
    return message, streams


def _report_exit(ended: int, pid: int, status: int) -> None:
    """Write the exit code of a child, and close what belongs to it."""
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    with suppress(OSError):  # nobody waits any more
        os.write(status, str(code).encode())
    os.close(status)
    os.close(ended)


def _become_command(streams: list[int], others: list[int]) -> None:
    """Give the child the descriptors of a new process."""
    for number in range(3):
        os.dup2(streams[number], number)
    for number in {*streams[:3], *others}:
        os.close(number)


def _load_tilesync() -> None:
    import tilesync

    for module in pkgutil.walk_packages(tilesync.__path__, "tilesync."):
        if not module.name.endswith("__main__"):
            importlib.import_module(module.name)


def _run_command(request: dict[str, Any]) -> NoReturn:
    faulthandler.enable()
    os.environ.clear()
    os.environ.update(request["env"])
    time.tzset()
    os.chdir(request["cwd"])
    sys.path[0] = request["cwd"]
    sys.argv = ["tilesync", *request["arguments"]]
    runpy.run_module("tilesync", run_name="__main__", alter_sys=True)
    sys.exit()


if __name__ == "__main__":
    sys.path[0] = str(Path(__file__).parents[2])
    _load_tilesync()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as given:
        asked = _serve(given)
        given.detach()
    _run_command(asked)
