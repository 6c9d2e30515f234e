"""Small bodies by the shortest way: HTTP/1.1 over connections of our own, for all that comes as it should.

A body of some kilobytes costs the bulk engine more in handing over than in bytes. Here a request is one write, an
answer a read or two, and the next request leaves before the answer is looked at. Whatever is not the plain case
(another status, a body of another length, a connection that breaks) is told as such, and left to others.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import NamedTuple
from urllib.parse import urlsplit

from tilesync.errors import UsageError
from tilesync.transport.http1_connect import Http1Connector
from tilesync.transport.http1_connection import Http1Connection, PendingRequest, PoolResponse
from tilesync.transport.tls import create_tls_context, user_agent


class PoolRequest(NamedTuple):
    """A body of `size` bytes that is wanted; or, where there is a `body`, one that is to be put there."""

    url: str
    headers: Mapping[str, str]
    size: int = 0
    body: bytes | None = None

    def __repr__(self) -> str:
        return f"Wish({self.size} bytes)"  # the URL is a secret


class _HostPool:
    """The connections to one host, and what waits for one of them."""

    def __init__(self, scheme: str, authority: str, context: ssl.SSLContext) -> None:
        try:
            parts = urlsplit(f"{scheme}://{authority}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if scheme not in {"http", "https"} or not host or "@" in authority or not _is_sendable(authority):
            raise UsageError("not a URL that can be asked")
        secure = scheme == "https"
        self._connector = Http1Connector(host, port or (443 if secure else 80), context if secure else None)
        self._idle: list[Http1Connection] = []
        self._connections = set[Http1Connection]()
        self._opening = 0
        self._tasks = set[asyncio.Task[None]]()
        self._pending = deque[PendingRequest]()
        self._max_connections = 1
        agent = f"Host: {authority}\r\nUser-Agent: {user_agent()}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        self.common_headers = f" HTTP/1.1\r\n{agent}"

    def set_max_connections(self, max_connections: int) -> None:
        """So many connections from now on; those beyond that end when they are free."""
        self._max_connections = max_connections
        while len(self._connections) > max_connections and self._idle:
            self._idle[-1].close()

    def enqueue(self, request: PendingRequest) -> None:
        """It waits for its turn, which `serve` gives."""
        self._pending.append(request)

    def requeue(self, request: PendingRequest) -> None:
        """It has had its turn, in vain: the next one is its."""
        self._pending.appendleft(request)

    def release(self, connection: Http1Connection) -> None:
        """A connection has nothing to do."""
        if len(self._connections) > self._max_connections:
            connection.close()
        else:
            self._idle.append(connection)

    def remove(self, connection: Http1Connection) -> None:
        """A connection is no more."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def dispatch(self) -> None:
        """Give what waits to the connections that are free, and open more where these are too few."""
        while self._idle and (ask := self._next_pending()) is not None:
            if not self._idle.pop().send(ask):
                self.requeue(ask)
        for _ in range(min(len(self._pending), self._max_connections - len(self._connections)) - self._opening):
            self._opening += 1
            task = asyncio.create_task(self._open_connection())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_pending(self) -> PendingRequest | None:
        while self._pending:
            ask = self._pending.popleft()
            if not ask.is_done:
                return ask
        return None

    async def _open_connection(self) -> None:
        """One more connection; where there is none, and none can be had, nothing waits for one."""
        self._connector.tls_session = next(
            filter(None, (line.tls_session for line in self._connections)), self._connector.tls_session
        )
        try:
            sock = await self._connector.connect()
        except OSError:
            self._opening -= 1
            if not self._connections and not self._opening:
                self.fail_pending()
            return
        self._opening -= 1
        line = Http1Connection(sock, self)
        self._connections.add(line)
        self.release(line)
        self.dispatch()
        line.may_be_stale = True

    def fail_pending(self) -> None:
        """Nothing waits any more."""
        while (ask := self._next_pending()) is not None:
            ask.finish(None)

    def close(self) -> None:
        """End every connection."""
        for task in self._tasks:
            task.cancel()
        for line in tuple(self._connections):
            line.close()
        self.fail_pending()


class HttpPool:
    """GETs of small bodies: no redirects, no decoding, no retries, no proxies."""

    def __init__(self) -> None:
        self._tls_context = create_tls_context()
        self._tls_context.set_alpn_protocols(["http/1.1"])
        self._host_pools: dict[tuple[str, str], _HostPool] = {}

    async def send_all(
        self,
        requests: Sequence[PoolRequest],
        on_response: Callable[[int, PoolResponse], None],
        *,
        max_connections: int,
        timeout: timedelta,
    ) -> None:
        """Tell `hear` each answer by its number as it comes, all within that time; of others nothing is told.

        Over `at_once` connections to one host, shared by all who ask. Raises UsageError for what is no URL, and what
        `hear` raises.
        """
        everything: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        left = len(requests)

        def tell(number: int, reply: PoolResponse | None) -> None:
            nonlocal left
            left -= 1
            try:
                if reply is not None:
                    on_response(number, reply)
            except Exception as error:  # noqa: BLE001 - of the one who waits, not of the loop that reads
                if not everything.done():
                    everything.set_exception(error)
            if not left and not everything.done():
                everything.set_result(None)

        asks = dict[PendingRequest, _HostPool]()
        for number, wish in enumerate(requests):
            origin, request = self._encode_request(wish)
            status = b"200" if wish.body is None else b"201"
            asks[PendingRequest(request, wish.size, partial(tell, number), expected_status=status)] = origin
        try:
            for ask, origin in asks.items():
                origin.enqueue(ask)
            for origin in set(asks.values()):
                origin.set_max_connections(max_connections)
                origin.dispatch()
            if requests:
                await _wait_until_done(everything, timeout)
        finally:
            late = [ask for ask in asks if not ask.is_done]
            for ask in late:
                ask.is_done = True
                if ask.connection is not None:
                    ask.connection.close()
            for origin in {asks[ask] for ask in late}:
                origin.dispatch()

    def _encode_request(self, request: PoolRequest) -> tuple[_HostPool, bytes]:
        scheme, _, rest = request.url.partition("://")
        authority, _, path = rest.partition("/")
        origin = self._host_pools.get((scheme, authority))
        if origin is None:
            origin = self._host_pools[scheme, authority] = _HostPool(scheme, authority, self._tls_context)
        lines = [f"{name}: {value}\r\n" for name, value in request.headers.items()]
        if " " in path or not _is_sendable(path) or not all(map(_is_sendable, request.headers.values())):
            raise UsageError("not a URL, or not a header, that can be sent")
        if request.body is None:
            return origin, f"GET /{path}{origin.common_headers}{''.join(lines)}\r\n".encode()
        lines.append(f"Content-Length: {len(request.body)}\r\n")
        return origin, f"PUT /{path}{origin.common_headers}{''.join(lines)}\r\n".encode() + request.body

    def close(self) -> None:
        """End every connection."""
        for origin in self._host_pools.values():
            origin.close()


async def _wait_until_done(all_done: asyncio.Future[None], timeout: timedelta) -> None:
    limit = asyncio.timeout(timeout.total_seconds())
    try:
        async with limit:
            await all_done
    except TimeoutError:
        if not limit.expired():
            raise


def _is_sendable(text: str) -> bool:
    return text.isascii() and text.isprintable()


@asynccontextmanager
async def http_pool() -> AsyncIterator[HttpPool]:
    """A pool for as long as the context is open, with the authorities of SSL_CERT_FILE or of the system."""
    pool = HttpPool()
    try:
        yield pool
    finally:
        pool.close()
