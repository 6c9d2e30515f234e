"""Test the limits of connections over raw sockets, with both parsers of requests."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest

from tilesync.serving.connections import ConnectionLimits
from tilesync.serving.server import bound_sockets, run_server

LIMIT = 2000
KEPT = b"GET /a HTTP/1.1\r\nHost: x\r\n\r\n"
LAST = KEPT[:-2] + b"Connection: close\r\n\r\n"
LARGE_ANSWER = bytes(20_000_000)


async def answer(scope: Any, receive: Any, send: Any) -> None:
    """Answer with two bytes, or with many below /large."""
    body = LARGE_ANSWER if scope["path"] == "/large" else b"ok"
    length = (b"content-length", str(len(body)).encode())
    await send({"type": "http.response.start", "status": 200, "headers": [length]})
    await send({"type": "http.response.body", "body": body})


@contextmanager
def serving(limits: ConnectionLimits) -> Iterator[tuple[str, int]]:
    """Run a server in a thread; yield its address."""
    with bound_sockets("127.0.0.1", 0) as sockets:
        listening = threading.Event()
        stop: list[Any] = []

        async def main() -> None:
            running = asyncio.ensure_future(run_server(answer, sockets, on_listening=listening.set, limits=limits))
            loop = asyncio.get_running_loop()
            stop.append(lambda: loop.call_soon_threadsafe(running.cancel))
            with suppress(asyncio.CancelledError):
                await running

        thread = threading.Thread(target=lambda: asyncio.run(main()))
        thread.start()
        assert listening.wait(30)
        try:
            yield sockets[0].getsockname()
        finally:
            stop[0]()
            thread.join(30)
            assert not thread.is_alive()


@pytest.fixture(params=["httptools", "h11"])
def parser(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Name of the parser that uvicorn uses."""
    if request.param == "h11":
        from uvicorn.protocols.http.h11_impl import H11Protocol

        monkeypatch.setattr("uvicorn.protocols.http.auto.AutoHTTPProtocol", H11Protocol)
    name: str = request.param
    return name


def receive_all(client: socket.socket) -> bytes:
    """Return what comes until the server closes the connection."""
    received = bytearray()
    while data := client.recv(1 << 20):
        received += data
    return bytes(received)


def ask(client: socket.socket) -> None:
    """Send a request, and wait for its answer."""
    client.sendall(KEPT)
    received = b""
    while not received.endswith(b"ok"):
        received += client.recv(1000)
    assert received.startswith(b"HTTP/1.1 200")


def headers_of(size: int) -> bytes:
    """Return a request whose request line and headers have this size."""
    begin = b"GET /a HTTP/1.1\r\nHost: x\r\nA: "
    return begin + b"a" * (size - len(begin) - 4) + b"\r\n\r\n"


def test_large_headers_are_refused(parser: str) -> None:
    """Headers over the limit end the connection, also if they never end; those within it are answered."""
    large = headers_of(LIMIT + 100)
    is_h11 = parser == "h11"  # it refuses headers that are not complete
    refused = b"HTTP/1.1 400" if is_h11 else b"HTTP/1.1 431"
    with serving(ConnectionLimits(header_bytes=LIMIT)) as address:
        for data in (large[:-4],) if is_h11 else (large[:-4], large, KEPT + large):
            with socket.create_connection(address, timeout=30) as client:
                client.sendall(data)
                assert refused in receive_all(client)
        with socket.create_connection(address, timeout=30) as client:
            client.sendall(headers_of(LIMIT - 100) + KEPT * 200 + LAST)
            assert receive_all(client).count(b"HTTP/1.1 200") == 202


def test_headers_without_an_end_take_little_memory(parser: str) -> None:
    """A client that sends headers without an end is stopped after some hundred kilobytes."""
    sent = 0
    with serving(ConnectionLimits()) as address, socket.create_connection(address, timeout=30) as client:
        client.sendall(b"GET /a HTTP/1.1\r\n")
        with suppress(ConnectionError):
            while sent < 100_000_000:
                client.sendall(b"A: " + b"a" * 1000 + b"\r\n")
                sent += 1005
    assert sent < 20_000_000  # the buffers of the kernel are a part of it


@pytest.mark.parametrize(
    "begin", [b"", b"GET /a HT", KEPT + b"GET /b HTTP/1.1\r\nHo", KEPT[:-2] + b"Content-Length: 9\r\n\r\nx"]
)
def test_half_a_request_ends(parser: str, begin: bytes) -> None:
    """A connection whose request does not become complete in time is closed."""
    with (
        serving(ConnectionLimits(request_timeout_s=0.2)) as address,
        socket.create_connection(address, timeout=30) as client,
    ):
        client.sendall(begin)
        assert receive_all(client).count(b"HTTP/1.1 200") == (KEPT[:-2] in begin)


def test_idle_and_slow_clients_are_kept(parser: str) -> None:
    """The time of a request does not end an idle connection, nor an answer that is read slowly."""
    with (
        serving(ConnectionLimits(request_timeout_s=0.1)) as address,
        socket.create_connection(address, timeout=30) as client,
        socket.create_connection(address, timeout=30) as idle,
    ):
        ask(idle)
        client.sendall(KEPT.replace(b"/a", b"/large") + KEPT.replace(b"/a", b"/large") + LAST[:9])
        start = client.recv(1000)
        with socket.create_connection(address, timeout=30) as unfinished:
            assert unfinished.recv(1000) == b""  # so more than the time of a request is over
        client.sendall(LAST[9:])
        assert (start + receive_all(client)).count(b"HTTP/1.1 200") == 3
        ask(idle)
