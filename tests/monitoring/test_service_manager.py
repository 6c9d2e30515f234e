"""Notifications to the service manager, received by a real socket."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from tilesync.monitoring.service_manager import (
    MAX_STATUS_CHARACTERS,
    SEND_TIMEOUT_S,
    notify_ready,
    notify_status,
    notify_stopping,
)

pytestmark = pytest.mark.skipif(not hasattr(socket, "AF_UNIX"), reason="this system has no Unix sockets")


@pytest.fixture(params=["path", "abstract"])
def manager(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[socket.socket, dict[str, str]]]:
    """Listen as a service manager; yield the socket, and the environment of the service."""
    name = str(tmp_path / "notify") if request.param == "path" else f"@tilesync-test-{tmp_path}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as receiver:
        receiver.bind(name.replace("@", "\0", 1) if name.startswith("@") else name)
        receiver.settimeout(5)
        yield receiver, {"NOTIFY_SOCKET": name}


def test_ready_and_stopping_arrive(manager: tuple[socket.socket, dict[str, str]]) -> None:
    """The start is READY=1, the end STOPPING=1, each with a status in one line; between them there is the status."""
    receiver, environ = manager
    notify_ready("mirroring office", environ)
    notify_status("1 of 3", environ)
    notify_stopping("office: failed\nREADY=0 Gebäude", environ)
    assert receiver.recv(4096) == b"READY=1\nSTATUS=mirroring office"
    assert receiver.recv(4096) == b"STATUS=1 of 3"
    assert receiver.recv(4096).decode() == "STOPPING=1\nSTATUS=office: failed READY=0 Gebäude"


def test_a_long_status_is_cut(manager: tuple[socket.socket, dict[str, str]]) -> None:
    """A status of any length fits one datagram."""
    receiver, environ = manager
    notify_ready("x" * 1_000_000, environ)
    assert len(receiver.recv(1 << 20)) == len("READY=1\nSTATUS=") + MAX_STATUS_CHARACTERS


@pytest.mark.parametrize("address", ["", "/nonexistent/notify", "@nobody-listens", "vsock:2:1234", "/" + "x" * 500])
def test_errors_are_ignored(address: str) -> None:
    """A socket that is missing, not supported or not valid changes nothing."""
    notify_ready("mirroring office", {"NOTIFY_SOCKET": address})
    notify_stopping("office: ended well", {})


def test_a_full_socket_delays_a_run_only_shortly(manager: tuple[socket.socket, dict[str, str]]) -> None:
    """A manager that reads nothing does not stop the run."""
    _, environ = manager
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as filling:
        filling.setblocking(False)
        name = environ["NOTIFY_SOCKET"]
        filling.connect(name.replace("@", "\0", 1) if name.startswith("@") else name)
        with suppress(BlockingIOError):
            while True:
                filling.send(b"x")
        begun = time.monotonic()
        notify_ready("mirroring office", environ)
    assert time.monotonic() - begun < SEND_TIMEOUT_S + 2
