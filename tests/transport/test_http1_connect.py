"""Connections: addresses, TLS handshakes, and sessions that resume."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import threading
import time
from contextlib import suppress
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any

import pytest
import trustme

from tests.support.http1_pools import DATA, SOON, Got, Run, fetch_all, head
from tests.support.http_server import answer, cut, in_turn, raw, serving
from tilesync.transport import http1_connect
from tilesync.transport.http1_connect import Http1Connector
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import HttpPool, PoolRequest


def test_hanging_handshake(trusted_authority: trustme.CA, with_pool: Run, monkeypatch: Any) -> None:
    """A connection that cannot be opened is given up, and another one is opened in its place."""
    monkeypatch.setattr(http1_connect, "ADDRESS_TIMEOUT", timedelta(seconds=0.3))
    accepted = []
    context = tls(trusted_authority)
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            while True:
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                accepted.append(sock)
                if len(accepted) > 2:
                    threading.Thread(target=serve_connection, args=(sock,), daemon=True).start()

        def serve_connection(sock: socket.socket) -> None:
            # on a busy machine the client may give this connection up too
            with suppress(OSError), context.wrap_socket(sock, server_side=True) as secure:
                while b"\r\n\r\n" in secure.recv(65536):
                    secure.sendall(head("Content-Length: 5") + b"hello")

        async def work(pool: HttpPool) -> list[PoolResponse | None]:
            url = f"https://localhost:{listener.getsockname()[1]}/"
            await fetch_all(pool, [PoolRequest(url, {}, 5)] * 4, at_once=2, within=0.1)
            # this call waits for the hanging connections, and fails with them
            await fetch_all(pool, [PoolRequest(url, {}, 5)] * 4, at_once=2)
            return await fetch_all(pool, [PoolRequest(url, {}, 5)] * 4, at_once=2)

        threading.Thread(target=serve, daemon=True).start()
        result = with_pool(work)
        listener.shutdown(socket.SHUT_RDWR)
    assert [response and response.body for response in result] == [b"hello"] * 4


def test_every_address_is_tried(monkeypatch: Any) -> None:
    """Addresses that cannot be used, or where nothing listens, do not prevent the one that answers."""

    async def work(port: int) -> int:
        dialler, inet = Http1Connector("localhost", port, None), socket.AF_INET
        dialler._addresses = [(socket.AF_UNIX, ("/none",)), (inet, ("127.0.0.1", 9)), (inet, ("127.0.0.1", port))]
        with await dialler.connect() as sock:
            return int(sock.getpeername()[1])

    with serving(answer()) as server:
        port = server.server_address[1]
        assert asyncio.run(work(port)) == port


@pytest.fixture
def trusted_authority(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
    """Authority that this process trusts by SSL_CERT_FILE."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(tmp_path / "ca.pem"))
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "ca.pem"))
    return authority


def tls(authority: trustme.CA, name: str = "localhost") -> Any:
    import ssl

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    authority.issue_cert(name).configure_cert(context)
    return context


def test_bodies_over_tls(got: Got, trusted_authority: trustme.CA) -> None:
    """Bodies of many TLS records arrive over reused connections."""
    with serving(answer(DATA), tls(trusted_authority)) as server:
        wanted = [PoolRequest(server.url(f"/{number}", "localhost"), {}, len(DATA)) for number in range(40)]
        assert got(*wanted, at_once=4) == [DATA] * 40
        assert len(server.paths) == 40


def test_tls_session_is_resumed(with_pool: Run, trusted_authority: trustme.CA) -> None:
    """Later connections to a trusted host resume its session without a certificate."""
    resumed = list[bool]()
    together = threading.Barrier(8)

    def handle(request: BaseHTTPRequestHandler) -> None:
        resumed.append(bool(request.connection.session_reused))
        if len(resumed) > 1:
            together.wait(SOON)
        answer(b"hello")(request)

    with serving(handle, tls(trusted_authority)) as server:
        pool_request = PoolRequest(server.url("/a", "localhost"), {}, 5)

        async def work(pool: HttpPool) -> list[PoolResponse | None]:
            return [
                *await fetch_all(pool, [pool_request], at_once=1),
                *await fetch_all(pool, [pool_request] * 8, at_once=8),
            ]

        assert [response.body for response in with_pool(work) if response] == [b"hello"] * 9
    assert sorted(resumed) == [False] * 2 + [True] * 7


@pytest.mark.parametrize("name", ["localhost", "elsewhere.invalid"])
def test_untrusted_server_gets_no_request(got: Got, trusted_authority: trustme.CA, name: str) -> None:
    """A server of an unknown authority, or with another name, sees no request."""
    authority = trustme.CA() if name == "localhost" else trusted_authority
    with serving(answer(b"hello"), tls(authority, name)) as server:
        assert got(PoolRequest(server.url("/?sig=SECRET", "localhost"), {}, 5)) == [None]
        assert server.paths == []


def test_truncated_tls_connection(got: Got, trusted_authority: trustme.CA) -> None:
    """A connection that ends without the closure alert, within or before a body, has failed."""
    with serving(in_turn(cut(DATA, 20_000), answer(DATA)), tls(trusted_authority)) as server:
        wanted = [PoolRequest(server.url(f"/{number}", "localhost"), {}, len(DATA)) for number in range(3)]
        assert got(*wanted, at_once=1) == [None, DATA, DATA]


@pytest.mark.parametrize(("piece", "size"), [(1, 100), (7, 700), (16_384, 32_768)])
def test_tls_records_of_any_size(got: Got, trusted_authority: trustme.CA, piece: int, size: int) -> None:
    """The result does not depend on how a response is cut into TLS records, nor on where the head ends."""
    body = DATA[:size]
    answer_in_records = raw(head(f"Content-Length: {len(body)}") + body, piece=piece)
    with serving(answer_in_records, tls(trusted_authority)) as server:
        wanted = [PoolRequest(server.url(f"/{number}", "localhost"), {}, len(body)) for number in range(2)]
        assert got(*wanted, at_once=1) == [body] * 2


@pytest.mark.parametrize("surplus", [b"x", head("Content-Length: 5") + b"wrong"], ids=["a byte", "a response"])
def test_bytes_after_a_body_over_tls(with_pool: Run, trusted_authority: trustme.CA, surplus: bytes) -> None:
    """A body that ends with its record is whole; what comes after it is never the response to the next request."""
    body = DATA[: 16_384 * 2]

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(head(f"Content-Length: {len(body)}"))
        request.wfile.write(body + surplus)

    async def work(pool: HttpPool) -> list[bytes | None]:
        bodies = list[bytes | None]()
        for number in range(3):
            wanted = PoolRequest(server.url(f"/{number}", "localhost"), {}, len(body))
            (response,) = await fetch_all(pool, [wanted])
            bodies.append(response and response.body)
            await asyncio.sleep(0.05)
        return bodies

    with serving(handle, tls(trusted_authority)) as server:
        assert with_pool(work) == [body] * 3
        assert server.accepted == 3


@pytest.mark.parametrize("at", [0, 10, 20_000])
def test_closure_alert_within_a_response(got: Got, trusted_authority: trustme.CA, at: int) -> None:
    """A closure alert ends a response at once, even if the TCP connection stays open."""
    over = threading.Event()

    def close_within(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write((head(f"Content-Length: {len(DATA)}") + DATA)[:at])
        request.connection.settimeout(0.2)
        with suppress(OSError):
            request.connection.unwrap()  # sends the alert, and waits for the other one
        over.wait(SOON)

    with serving(in_turn(close_within, answer(DATA)), tls(trusted_authority)) as server:
        wanted = [PoolRequest(server.url(f"/{number}", "localhost"), {}, len(DATA)) for number in range(2)]
        started_at = time.monotonic()
        assert got(*wanted, at_once=1) == [None, DATA]
        assert time.monotonic() - started_at < SOON / 2
        over.set()


@pytest.mark.scale
def test_failed_connections_are_closed(trusted_authority: trustme.CA, got: Got) -> None:
    """Descriptors are closed at once, not by the garbage collector."""
    gc.collect()
    gc.disable()
    try:
        before = len(os.listdir("/proc/self/fd"))
        with serving(answer(), tls(trustme.CA())) as server:
            wanted = [PoolRequest(server.url("/", "localhost"), {}, 5)] * 20
            for _ in range(5):
                assert got(*wanted) == [None] * 20
        assert len(os.listdir("/proc/self/fd")) <= before + 5
    finally:
        gc.enable()
