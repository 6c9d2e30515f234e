"""Requests through a connection pool, and servers that count them."""

from __future__ import annotations

import random
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import timedelta
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.support.http_server import Handle, RecordingServer, serving
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import HttpPool, PoolRequest

DATA = random.Random(4).randbytes(50_000)
SOON = 20.0
"""Seconds; time limit that only tests of missing responses reach."""
Run = Callable[[Callable[[HttpPool], Awaitable[Any]]], Any]
Got = Callable[..., list[bytes | None]]


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


def head(*lines: str, status: str = "HTTP/1.1 200 OK") -> bytes:
    return "\r\n".join([status, *lines, "", ""]).encode()


@contextmanager
def counting(
    handle: Handle, then: Handle = lambda request: None
) -> Iterator[tuple[RecordingServer, set[Any], list[int]]]:
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
