"""Command `tilesync` of a shell in tests: sends its arguments, environment, folder and streams to the fork server.

Run by itself, with `python -IS`, so that it starts in a few milliseconds. Arguments: the number of the inherited socket
of the server, then those of the command. Signals go on to the command; it ends as the command ends.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from typing import NoReturn

FORWARDED = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP)


def run_command(server: socket.socket, arguments: list[str]) -> NoReturn:
    """Let the server run a command on the streams of this process, and end with its exit code or signal."""
    signal.pthread_sigmask(signal.SIG_BLOCK, FORWARDED)
    ended, status = os.pipe()
    request = {"arguments": arguments, "env": dict(os.environ), "cwd": os.getcwd()}
    socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2, status])
    os.close(status)
    pid = int.from_bytes(os.read(ended, 4), "big")
    for number in FORWARDED:
        signal.signal(number, lambda received, _: os.kill(pid, received))
    signal.pthread_sigmask(signal.SIG_UNBLOCK, FORWARDED)
    code = int(os.read(ended, 16))
    if code < 0:
        signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    os._exit(code)


if __name__ == "__main__":
    run_command(socket.socket(fileno=int(sys.argv[1])), sys.argv[2:])
