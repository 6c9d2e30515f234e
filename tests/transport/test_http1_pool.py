"""HTTP/1.1 connection pool against real servers on loopback."""

from __future__ import annotations

import asyncio
import gc
import os
import random
import socket
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

import pytest
import trustme

from tests.support.http_server import Handle, Server, answer, cut, hang, in_turn, serving
from tilesync.errors import UsageError
from tilesync.runtime.event_loop import loop_factory
from tilesync.transport import http1_connect
from tilesync.transport.http1_connect import Http1Connector
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import HttpPool, PoolRequest, http_pool

T = TypeVar("T")
Run = Callable[[Callable[[HttpPool], Awaitable[Any]]], Any]
Got = Callable[..., list[bytes | None]]

DATA = random.Random(4).randbytes(50_000)
SOON = 20.0
"""Seconds; time limit that only tests of missing responses reach."""

LOOPS = [pytest.param(None, id="asyncio"), pytest.param(loop_factory(), id="uvloop")]
"""Workers run on uvloop if it is installed."""


@pytest.fixture(params=LOOPS)
def with_pool(request: pytest.FixtureRequest) -> Run:
    """Run a coroutine with a new pool, on each kind of event loop."""

    def run(work: Callable[[HttpPool], Awaitable[T]]) -> T:
        async def main() -> T:
            async with http_pool() as pool:
                return await work(pool)

        with asyncio.Runner(loop_factory=request.param) as runner:
            return runner.run(main())

    return run


@pytest.fixture
def got(with_pool: Run) -> Got:
    """Fetch bodies with a new pool."""

    def get(*wanted: PoolRequest, at_once: int = 4, within: float = SOON) -> list[bytes | None]:
        result = with_pool(lambda pool: fetch_all(pool, wanted, at_once=at_once, within=within))
        return [None if response is None else response.body for response in result]

    return get


async def fetch_all(
    pool: HttpPool, requests: Sequence[PoolRequest], *, at_once: int = 4, within: float = SOON
) -> list[PoolResponse | None]:
    """Return the response to each request, reported at most once."""
    result: list[PoolResponse | None] = [None] * len(requests)

    def on_response(number: int, response: PoolResponse) -> None:
        assert result[number] is None
        result[number] = response

    await pool.send_all(requests, on_response, max_connections=at_once, time_limit=timedelta(seconds=within))
    return result


def raw(data: bytes, *, piece: int = 0) -> Handle:
    """Send exactly these bytes, in pieces with a pause after each, then disconnect."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for at in range(0, len(data), piece or len(data)):
            request.wfile.write(data[at : at + (piece or len(data))])
            request.wfile.flush()
            if piece:
                time.sleep(0.001)
        request.close_connection = True

    return handle


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *lines, "", ""]).encode()


@contextmanager
def counting(handle: Handle, then: Handle = lambda request: None) -> Iterator[tuple[Server, set[Any], list[int]]]:
    """Run a server; return the peers of its connections, and how many requests ran at each moment.

    `then` is not counted: a client that has its answer may send the next request over another connection at once.
    """
    peers, under_way, lock = set[Any](), [0], threading.Lock()

    def counted(request: BaseHTTPRequestHandler) -> None:
        with lock:
            peers.add(request.client_address)
            under_way.append(under_way[-1] + 1)
        try:
            handle(request)
        finally:
            with lock:
                under_way.append(under_way[-1] - 1)
        then(request)

    with serving(counted) as server:
        yield server, peers, under_way


def test_body(with_pool: Run) -> None:
    """ETag and bytes arrive as the server sent them, and the request has the expected headers."""
    with serving(answer(DATA, ETag='"0x8D"', Content_Encoding="gzip")) as server:
        pool_request = PoolRequest(server.url("/a%20b%2B?sig=S%2F&x=+"), {"If-Match": '"0x8D"'}, len(DATA))
        (response,) = with_pool(lambda pool: fetch_all(pool, [pool_request]))
    assert response is not None
    assert (response.etag, response.body) == ('"0x8D"', DATA)
    assert 0 <= response.seconds < SOON  # uvloop's clock counts milliseconds
    assert server.paths == ["/a%20b%2B?sig=S%2F&x=+"]
    (headers,) = server.headers
    assert (headers["if-match"], headers["accept-encoding"]) == ('"0x8D"', "identity")
    assert headers["host"] == f"127.0.0.1:{server.server_address[1]}"
    assert headers["user-agent"].startswith("tilesync/")


def test_many_bodies_over_few_connections(with_pool: Run) -> None:
    """Every response arrives once, over no more connections than allowed; callers share them."""
    all_five, complete = threading.Barrier(5), threading.Event()

    def handle(request: BaseHTTPRequestHandler) -> None:
        if not complete.is_set():  # the first five requests wait for one another
            all_five.wait(SOON / 2)
            complete.set()
        answer(request.path.encode() * 400)(request)

    async def work(pool: HttpPool) -> list[list[PoolResponse | None]]:
        return await asyncio.gather(*(fetch_all(pool, wanted, at_once=5) for wanted in groups))

    with counting(handle) as (server, peers, under_way):
        paths = [[f"/{group}/{number}" for number in range(60)] for group in range(4)]
        groups = [[PoolRequest(server.url(path), {}, len(path) * 400) for path in some] for some in paths]
        result = with_pool(work)
    assert [[response and response.body for response in some] for some in result] == [
        [path.encode() * 400 for path in some] for some in paths
    ]
    assert len(peers) == 5
    assert max(under_way) == 5


def test_connections_are_reused(with_pool: Run) -> None:
    """Connections that one call opened serve the next one."""
    with counting(answer(b"x")) as (server, peers, _):

        async def work(pool: HttpPool) -> None:
            for _ in range(20):
                assert await fetch_all(pool, [PoolRequest(server.url(), {}, 1)]) != [None]

        with_pool(work)
        assert len(server.paths) == 20
    assert len(peers) == 1


@pytest.mark.scale
def test_fewer_connections_are_kept_when_fewer_are_allowed(with_pool: Run) -> None:
    """Connections beyond a lower limit are closed when idle, even if requests wait."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        time.sleep(0.005)
        answer(b"x")(request)

    with counting(handle) as (server, peers, under_way):

        async def work(pool: HttpPool) -> None:
            wanted = [PoolRequest(server.url(), {}, 1)] * 60
            first = asyncio.create_task(fetch_all(pool, wanted, at_once=8))
            while max(under_way, default=0) <= 2 and not first.done():
                await asyncio.sleep(0.001)
            await fetch_all(pool, wanted, at_once=2)
            await first
            many = len(peers)
            assert 2 < max(under_way) <= many <= 8
            under_way[:] = [0]
            await fetch_all(pool, wanted, at_once=2)
            assert max(under_way) <= 2
            assert len(peers) == many

        with_pool(work)


def test_closed_connections_are_replaced(got: Got) -> None:
    """If each connection serves one request, the allowed number stays in use, and every response arrives."""
    all_eight = threading.Barrier(8)

    def wait_for_others(request: BaseHTTPRequestHandler) -> None:
        all_eight.wait(SOON / 2)  # every eight requests wait for one another: fewer connections would never answer

    def answer_and_close(request: BaseHTTPRequestHandler) -> None:
        answer(b"x", Connection="close")(request)
        request.close_connection = True

    with counting(wait_for_others, answer_and_close) as (server, _, under_way):
        assert got(*[PoolRequest(server.url(), {}, 1)] * 80, at_once=8) == [b"x"] * 80
    assert max(under_way) == 8


@pytest.mark.parametrize("reset", [True, False])
def test_connections_closed_at_once(with_pool: Run, reset: bool) -> None:
    """Connections that a server closes at once fail only their requests; nothing hangs."""
    import struct

    with socket.create_server(("127.0.0.1", 0), backlog=200) as listener:

        def serve() -> None:
            for number in range(10**6):
                try:
                    sock, _ = listener.accept()
                except OSError:
                    return
                if number % 4 == 3:
                    threading.Thread(target=serve_connection, args=(sock,), daemon=True).start()
                    continue
                if reset:
                    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                sock.close()

        def serve_connection(sock: socket.socket) -> None:
            with sock:
                while b"\r\n\r\n" in sock.recv(65536):
                    sock.sendall(head("Content-Length: 5") + b"hello")

        async def work(pool: HttpPool) -> float:
            url, slowest = f"http://127.0.0.1:{listener.getsockname()[1]}/", 0.0
            for _ in range(40):
                started_at = time.monotonic()
                await fetch_all(pool, [PoolRequest(url, {}, 5)] * 12, at_once=4)
                slowest = max(slowest, time.monotonic() - started_at)
                time.sleep(0.001)  # a busy loop
            return slowest

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        assert with_pool(work) < SOON
        listener.shutdown(socket.SHUT_RDWR)


def test_many_stale_connections(with_pool: Run) -> None:
    """Any number of stale connections is discarded, and the requests succeed over new ones."""
    with serving(answer(b"x")) as server:

        async def work(pool: HttpPool) -> None:
            wanted = [PoolRequest(server.url(), {}, 1)] * 400
            assert None not in await fetch_all(pool, wanted, at_once=400)
            (origin,) = pool._host_pools.values()
            for line in origin._connections:
                line._socket.shutdown(socket.SHUT_RDWR)
            assert None not in await fetch_all(pool, wanted[:20], at_once=400)

        with_pool(work)


def test_hanging_handshake(bundle: trustme.CA, with_pool: Run, monkeypatch: Any) -> None:
    """A connection that cannot be opened is given up, and another one is opened in its place."""
    monkeypatch.setattr(http1_connect, "ADDRESS_TIMEOUT", timedelta(seconds=0.3))
    accepted = []
    context = tls(bundle)
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
            with context.wrap_socket(sock, server_side=True) as secure:
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


OTHERS = {
    "not found": head("Content-Length: 5", status="HTTP/1.1 404 Not Found") + b"hello",
    "a part": head("Content-Length: 5", "Content-Range: bytes 0-4/9", status="HTTP/1.1 206 Partial") + b"hello",
    "a redirect": head("Content-Length: 5", "Location: /x", status="HTTP/1.1 302 Found") + b"hello",
    "throttled": head("Content-Length: 5", status="HTTP/1.1 503 Busy") + b"hello",
    "an interim answer": head(status="HTTP/1.1 100 Continue") + head("Content-Length: 5") + b"hello",
    "another protocol": head("Content-Length: 5", status="HTTP/1.0 200 OK") + b"hello",
    "shorter": head("Content-Length: 4") + b"hell",
    "longer": head("Content-Length: 6") + b"hello!",
    "two lengths": head("Content-Length: 5", "Content-Length: 5") + b"hello",
    "a signed length": head("Content-Length: +5") + b"hello",
    "no length": head("X: y") + b"hello",
    "chunked": head("Transfer-Encoding: chunked") + b"5\r\nhello\r\n0\r\n\r\n",
    "both": head("Content-Length: 5", "Transfer-Encoding: chunked") + b"hello",
    "no answer": b"what?\r\n\r\n",
    "nothing": b"",
    "a head without end": b"HTTP/1.1 200 OK\r\nX: " + b"y" * 70_000,
    "cut in the head": head("Content-Length: 5")[:-3],
    "cut in the body": head("Content-Length: 5") + b"hell",
}


@pytest.mark.parametrize("data", [pytest.param(data, id=name) for name, data in OTHERS.items()])
def test_unexpected_responses_are_not_reported(got: Got, data: bytes) -> None:
    """An unexpected response is dropped at once, and the next request is served."""
    with serving(in_turn(raw(data), answer(b"hello"))) as server:
        wanted = [PoolRequest(server.url("/1"), {}, 5), PoolRequest(server.url("/2"), {}, 5)]
        started_at = time.monotonic()
        assert got(*wanted, at_once=1) == [None, b"hello"]
        assert time.monotonic() - started_at < SOON
        assert server.paths == ["/1", "/2"]


@pytest.mark.parametrize("lines", [["Content-Length: 5"], ["content-length:5", 'ETAG:\t"a"'], ["Content-Length:  5 "]])
def test_response_byte_by_byte(got: Got, lines: list[str]) -> None:
    """The result does not depend on how bytes are split; headers are parsed as in RFC 9110."""
    with serving(raw(head("Date: x", *lines, "X-Content-Length: 9") + b"hello", piece=1)) as server:
        assert got(PoolRequest(server.url(), {}, 5)) == [b"hello"]


def test_closing_connection_is_not_reused(with_pool: Run) -> None:
    """After `Connection: close`, and after surplus bytes, a new connection is used."""
    plain, more = head("Content-Length: 5") + b"hello", head("Content-Length: 5", "Connection: Close") + b"hello"

    def handle(data: bytes) -> Handle:
        def answer(request: BaseHTTPRequestHandler) -> None:
            request.wfile.write(data)

        return answer

    with counting(in_turn(handle(plain), handle(more), handle(plain + plain), handle(plain))) as (server, peers, _):

        async def work(pool: HttpPool) -> None:
            for number in range(6):
                (response,) = await fetch_all(pool, [PoolRequest(server.url(f"/{number}"), {}, 5)])
                assert response is not None
                assert response.body == b"hello"

        with_pool(work)
        assert server.paths == [f"/{number}" for number in range(6)]
    assert len(peers) == 3


def test_stale_connections_are_replaced(got: Got) -> None:
    """A server that closes each connection after one response, unannounced, gets the next request over a new one."""

    def handle(request: BaseHTTPRequestHandler) -> None:
        answer(DATA)(request)
        request.close_connection = True

    with counting(handle) as (server, peers, _):
        wanted = [PoolRequest(server.url(f"/{number}"), {}, len(DATA)) for number in range(30)]
        assert got(*wanted, at_once=3) == [DATA] * 30
        assert sorted(server.paths) == sorted(f"/{number}" for number in range(30))
    assert len(peers) == 30


def test_late_responses_are_dropped(with_pool: Run) -> None:
    """Requests that exceed the time limit end; the others are reported, and the pool remains usable."""
    over = threading.Event()

    def handle(request: BaseHTTPRequestHandler) -> None:
        stuck = request.path == "/0"
        (hang(head("Content-Length: 5") + b"he", over) if stuck else answer(b"hello"))(request)

    with serving(handle) as server:

        async def work(pool: HttpPool) -> list[PoolResponse | None]:
            wanted = [PoolRequest(server.url(f"/{number}"), {}, 5) for number in range(5)]
            result = await fetch_all(pool, wanted, at_once=2, within=1.0)
            assert await fetch_all(pool, [PoolRequest(server.url("/more"), {}, 5)] * 3, at_once=2) != [None] * 3
            return result

        result = with_pool(work)
        over.set()
    assert [response is not None for response in result] == [False, True, True, True, True]


def test_cancellation_closes_connections(with_pool: Run) -> None:
    """A cancelled call reports nothing more, and the server sees the connection end."""
    over, ended = threading.Event(), threading.Event()

    def handle(request: BaseHTTPRequestHandler) -> None:
        request.wfile.write(head("Content-Length: 5") + b"he")
        request.wfile.flush()
        over.set()
        if not request.connection.recv(1):
            ended.set()
        request.close_connection = True

    with serving(handle) as server:

        async def work(pool: HttpPool) -> None:
            task = asyncio.create_task(fetch_all(pool, [PoolRequest(server.url(), {}, 5)]))
            await asyncio.to_thread(over.wait, SOON)
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            assert await asyncio.to_thread(ended.wait, SOON)

        with_pool(work)


def test_closing_the_pool_ends_requests(with_pool: Run) -> None:
    """Closing the pool ends requests in progress at once."""
    over = threading.Event()
    with serving(hang(head("Content-Length: 5") + b"he", over)) as server:

        async def work(pool: HttpPool) -> list[PoolResponse | None]:
            task = asyncio.create_task(fetch_all(pool, [PoolRequest(server.url(), {}, 5)] * 9, at_once=3))
            while len(server.paths) < 3:
                await asyncio.sleep(0.01)
            pool.close()
            async with asyncio.timeout(SOON / 2):
                return await task

        assert with_pool(work) == [None] * 9
        over.set()


def test_refused_connection(got: Got) -> None:
    """If nothing listens, all requests end at once."""
    with serving(answer()) as gone:
        url = gone.url()
    started_at = time.monotonic()
    assert got(*[PoolRequest(url, {}, 5)] * 50, at_once=4) == [None] * 50
    assert time.monotonic() - started_at < SOON / 2


@pytest.mark.parametrize("host", ["nobody.invalid", "a..b", ".a", f"{'a' * 64}.net"])
def test_unknown_host(got: Got, host: str) -> None:
    """A host name that does not resolve, or is invalid, counts as unreachable."""
    started_at = time.monotonic()
    assert got(PoolRequest(f"https://{host}/x", {}, 5)) == [None]
    assert time.monotonic() - started_at < SOON


@pytest.mark.parametrize("error", [LookupError, TimeoutError])
def test_callback_error_is_raised(with_pool: Run, error: type[Exception]) -> None:
    """An error of the callback is raised to the caller."""

    def on_response(number: int, response: PoolResponse) -> None:
        raise error(str(number))

    with serving(answer(b"hello")) as server, pytest.raises(error):
        with_pool(
            lambda pool: pool.send_all(
                [PoolRequest(server.url(), {}, 5)], on_response, max_connections=1, time_limit=timedelta(seconds=SOON)
            )
        )


@pytest.mark.parametrize(
    ("path", "headers"),
    [
        ("/a b", {}),
        ("/a\r\nX: y", {}),
        ("/ü", {}),
        ("/x", {"If-Match": '"a"\r\nX: y'}),
        ("/x", {"If-Match": '"ü"'}),
    ],
)
def test_header_injection_is_refused(got: Got, path: str, headers: dict[str, str]) -> None:
    """No value can add headers or requests; nothing is sent."""
    with serving(answer(b"hello")) as server:
        with pytest.raises(UsageError):
            got(PoolRequest(server.url("/first"), {}, 5), PoolRequest(server.url(path), headers, 5))
        assert server.paths == []


@pytest.mark.parametrize(
    "url",
    ["ftp://127.0.0.1/x", "https:///x", "http://user:word@127.0.0.1/x", "x", "https://h:99999/x", "https://h:x/x",
     "https://[bad/x", "https://[::g]/x"],
)  # fmt: skip
def test_other_urls_are_refused(got: Got, url: str) -> None:
    """Only http and https URLs are accepted."""
    with pytest.raises(UsageError):
        got(PoolRequest(url, {}, 5))


@pytest.fixture
def bundle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> trustme.CA:
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


def test_bodies_over_tls(got: Got, bundle: trustme.CA) -> None:
    """Bodies of many TLS records arrive over reused connections."""
    with serving(answer(DATA), tls(bundle)) as server:
        wanted = [PoolRequest(server.url(f"/{number}", "localhost"), {}, len(DATA)) for number in range(40)]
        assert got(*wanted, at_once=4) == [DATA] * 40
        assert len(server.paths) == 40


def test_tls_session_is_resumed(with_pool: Run, bundle: trustme.CA) -> None:
    """Later connections to a trusted host resume its session without a certificate."""
    resumed = list[bool]()
    together = threading.Barrier(8)

    def handle(request: BaseHTTPRequestHandler) -> None:
        resumed.append(bool(request.connection.session_reused))
        if len(resumed) > 1:
            together.wait(SOON)
        answer(b"hello")(request)

    with serving(handle, tls(bundle)) as server:
        pool_request = PoolRequest(server.url("/a", "localhost"), {}, 5)

        async def work(pool: HttpPool) -> list[PoolResponse | None]:
            return [
                *await fetch_all(pool, [pool_request], at_once=1),
                *await fetch_all(pool, [pool_request] * 8, at_once=8),
            ]

        assert [response.body for response in with_pool(work) if response] == [b"hello"] * 9
    assert sorted(resumed) == [False] * 2 + [True] * 7


@pytest.mark.parametrize("name", ["localhost", "elsewhere.invalid"])
def test_untrusted_server_gets_no_request(got: Got, bundle: trustme.CA, name: str) -> None:
    """A server of an unknown authority, or with another name, sees no request."""
    authority = trustme.CA() if name == "localhost" else bundle
    with serving(answer(b"hello"), tls(authority, name)) as server:
        assert got(PoolRequest(server.url("/?sig=SECRET", "localhost"), {}, 5)) == [None]
        assert server.paths == []


def test_truncated_tls_connection(got: Got, bundle: trustme.CA) -> None:
    """A connection that ends without the closure alert, within or before a body, has failed."""
    with serving(in_turn(cut(DATA, 20_000), answer(DATA)), tls(bundle)) as server:
        wanted = [PoolRequest(server.url(f"/{number}", "localhost"), {}, len(DATA)) for number in range(3)]
        assert got(*wanted, at_once=1) == [None, DATA, DATA]


@pytest.mark.scale
def test_failed_connections_are_closed(bundle: trustme.CA, got: Got) -> None:
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
