"""Test ports, hosts and the end of a server."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from typing import Any

import pytest

from tilesync.errors import UsageError
from tilesync.serving.server import bound_sockets, require_server_packages, run_server


def test_a_free_port_is_chosen() -> None:
    """Port 0 is any free port, the same one on all addresses of the host."""
    with bound_sockets("localhost", 0) as sockets:
        ports = {each.getsockname()[1] for each in sockets}
        assert len(ports) == 1
        assert ports != {0}


def test_a_port_in_use() -> None:
    """The error names the port and the next step; the port of a server that ended is free at once."""
    with bound_sockets("127.0.0.1", 0) as sockets:
        port = sockets[0].getsockname()[1]
        with (
            pytest.raises(UsageError, match=f"port {port} of 127.0.0.1 is in use") as caught,
            bound_sockets("127.0.0.1", port),
        ):
            pass
        assert f"--port {port + 1}" in caught.value.hint
        with socket.create_connection(("127.0.0.1", port)):
            pass
    with bound_sockets("127.0.0.1", port):
        pass


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", "a" * 300, "x..y"])
def test_a_host_that_is_not_this_machine(host: str) -> None:
    """A name without an address, and an address of another machine, are errors with a hint."""
    with pytest.raises(UsageError) as caught, bound_sockets(host, 0):
        pass
    assert "--host" in caught.value.hint


def test_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the error has the command that installs it."""
    require_server_packages()
    monkeypatch.setattr("tilesync.serving.server.find_spec", lambda name: None)
    with pytest.raises(UsageError, match="starlette and uvicorn") as caught:
        require_server_packages()
    assert "pip install 'tilesync[serve]'" in caught.value.hint


@pytest.mark.parametrize("path", ["/started", "/not-started"])
def test_answers_that_do_not_end(caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, path: str) -> None:
    """A server that ends cancels the answers that do not end, waits for them, and logs nothing about it."""
    monkeypatch.setattr("tilesync.serving.server.END_TIMEOUT_S", 0.2)
    answering, ended = asyncio.Event(), list[str]()

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        """Send more than the client reads, or nothing."""
        if scope["path"] == "/started":
            await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"99000000")]})
            await send({"type": "http.response.body", "body": bytes(50_000_000), "more_body": True})
        try:
            answering.set()
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)  # as if it closed a file
            ended.append(scope["path"])

    async def check() -> None:
        with bound_sockets("127.0.0.1", 0) as sockets:
            running = asyncio.ensure_future(run_server(answer, sockets, on_listening=lambda: None))
            reader, writer = await asyncio.open_connection(*sockets[0].getsockname(), limit=100)
            writer.write(f"GET {path} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            await answering.wait()
            running.cancel()
            with suppress(asyncio.CancelledError):
                await running
            assert ended == [path]
            with suppress(ConnectionError):
                while await reader.read(1 << 20):
                    pass
            writer.close()

    asyncio.run(asyncio.wait_for(check(), 30))
    assert caplog.messages == []
