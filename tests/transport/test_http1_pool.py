"""HTTP/1.1 connection pool against real servers on loopback."""

from __future__ import annotations

import asyncio
import socket
import threading
import time
from datetime import timedelta
from http.server import BaseHTTPRequestHandler

import pytest

from tests.support.http1_pools import DATA, SOON, Got, Run, counting, fetch_all, head
from tests.support.http_server import answer, hang, serving
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import HttpPool, PoolRequest


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
def test_fewer_connections_are_used_when_fewer_are_allowed(with_pool: Run) -> None:
    """Connections beyond a lower limit stay idle, even if requests wait, and are used again when more are allowed."""

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
            await fetch_all(pool, wanted, at_once=8)
            assert len(peers) <= 8  # those that were idle, and the missing ones

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
