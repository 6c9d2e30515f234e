"""HTTP/1.1 connection pool for small bodies: the fast path for responses that are as expected.

For a body of some kilobytes the per-request overhead of pyreqwest exceeds the cost of its bytes. Here a request is one
write, a response one or two reads, and the next request is sent before the response is handled. Any other case (another
status, a body of another length, a failed connection) is only reported as not done; the caller repeats it through
`blob_client`.

Measured (`scripts/bench/pool.py`, 20,000 files of 8 kB): with pyreqwest in its place a worker takes 1.2 times the CPU.
"""

from __future__ import annotations

import asyncio
import ssl
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import cached_property
from typing import Final, NamedTuple
from urllib.parse import urlsplit

from tilesync.errors import UsageError
from tilesync.transport.http1_connect import Http1Connector
from tilesync.transport.http1_connection import Http1Connection, PendingRequest, PoolResponse
from tilesync.transport.tls import create_tls_context, user_agent

SESSION_RENEWAL_S: Final = 10.0
"""Seconds for which connections resume the same TLS session: servers forget sessions after minutes."""


class PoolRequest(NamedTuple):
    """GET of a body of `size` bytes, or PUT of `body` if there is one.

    The response to a PUT is an empty 201; with `expects_document` it is 200, with a small body of any size.
    """

    url: str
    headers: Mapping[str, str]
    size: int = 0
    body: bytes | None = None
    expects_document: bool = False

    def __repr__(self) -> str:
        return f"PoolRequest({self.size} bytes)"  # the URL is a secret


class _HostPool:
    """Connections to one host, and the requests that wait for one."""

    def __init__(self, scheme: str, authority: str, context: ssl.SSLContext | None) -> None:
        try:
            parts = urlsplit(f"{scheme}://{authority}")
            host, port = parts.hostname, parts.port
        except ValueError:
            host, port = None, None
        if scheme not in {"http", "https"} or not host or "@" in authority or not _is_sendable(authority):
            raise UsageError("the URL is not a valid http or https URL")
        self._connector = Http1Connector(host, port or (443 if scheme == "https" else 80), context)
        self._idle: list[Http1Connection] = []
        self._connections = set[Http1Connection]()
        self._session_renewed_at = 0.0
        self._opening = 0
        self._tasks = set[asyncio.Task[None]]()
        self._pending = deque[PendingRequest]()
        self._max_connections = 1
        lines = f"Host: {authority}\r\nUser-Agent: {user_agent()}\r\nAccept: */*\r\nAccept-Encoding: identity\r\n"
        self.common_headers = f" HTTP/1.1\r\n{lines}"

    def set_max_connections(self, max_connections: int) -> None:
        """Set the maximum number of connections in use; those beyond it stay open, idle.

        The limit often rises again soon, and a new connection costs more than a small file: 0.6 to 0.9 ms of CPU
        time, where a file costs 0.4.
        """
        self._max_connections = max_connections

    def enqueue(self, request: PendingRequest) -> None:
        """Append a request to the queue; `dispatch` sends it."""
        self._pending.append(request)

    def requeue(self, request: PendingRequest) -> None:
        """Put a request that was not answered back at the front of the queue."""
        self._pending.appendleft(request)

    def release(self, connection: Http1Connection) -> None:
        """Keep an idle connection."""
        self._idle.append(connection)

    def remove(self, connection: Http1Connection) -> None:
        """Forget a closed connection."""
        self._connections.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)

    def dispatch(self) -> None:
        """Send waiting requests over idle connections, and open more connections if these are too few."""
        idle, pending, connections = self._idle, self._pending, self._connections
        while idle and pending and len(connections) - len(idle) < self._max_connections:
            request = pending.popleft()
            if not request.is_done and not idle.pop().send(request):
                self.requeue(request)
        if pending:
            self._open_connections()

    def _open_connections(self) -> None:
        """Open connections for the waiting requests, up to the limit."""
        for _ in range(min(len(self._pending), self._max_connections - len(self._connections)) - self._opening):
            self._opening += 1
            task = asyncio.create_task(self._open_connection())
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def _next_pending(self) -> PendingRequest | None:
        while self._pending:
            request = self._pending.popleft()
            if not request.is_done:
                return request
        return None

    async def _open_connection(self) -> None:
        """Open one more connection. If it fails and there is no other, all waiting requests fail."""
        self._renew_tls_session()
        try:
            sock = await self._connector.connect()
        except OSError:
            self._opening -= 1
            if not self._connections and not self._opening:
                self.fail_pending()
            return
        self._opening -= 1
        connection = Http1Connection(sock, self)
        self._connections.add(connection)
        self.release(connection)
        self.dispatch()
        connection.may_be_stale = True  # if it was not used at once, the server may close it meanwhile

    def _renew_tls_session(self) -> None:
        """Keep a recent TLS session for further connections. To export one takes a quarter of a handshake."""
        now = asyncio.get_running_loop().time()
        if self._connector.tls_session is None or now - self._session_renewed_at > SESSION_RENEWAL_S:
            sessions = (connection.tls_session for connection in self._connections)
            self._connector.tls_session = next(filter(None, sessions), self._connector.tls_session)
            self._session_renewed_at = now

    def fail_pending(self) -> None:
        """Report all waiting requests as failed."""
        while (request := self._next_pending()) is not None:
            request.finish(None)

    def close(self) -> None:
        """Close all connections."""
        for task in self._tasks:
            task.cancel()
        for connection in tuple(self._connections):
            connection.close()
        self.fail_pending()


class HttpPool:
    """Connection pool for small bodies: no redirects, no decoding, no retries, no proxies.

    `ca_certificates`: authorities that are trusted besides the usual ones (PEM).
    """

    def __init__(self, *, ca_certificates: bytes | None = None) -> None:
        self._ca_certificates = ca_certificates
        self._host_pools: dict[tuple[str, str], _HostPool] = {}

    @cached_property
    def _tls_context(self) -> ssl.SSLContext:
        context = create_tls_context()
        if self._ca_certificates is not None:
            context.load_verify_locations(cadata=self._ca_certificates.decode("ascii", "ignore"))
        context.set_alpn_protocols(["http/1.1"])
        return context

    async def send_all(
        self,
        requests: Sequence[PoolRequest],
        on_response: Callable[[int, PoolResponse], None],
        *,
        max_connections: int,
        time_limit: timedelta,
    ) -> None:
        """Send requests, and call `on_response` with the index and response of each one answered in time.

        Responses that are unexpected, or later than `time_limit`, are not reported. `max_connections` is the limit of
        connections in use to one host, shared by all callers. Raises UsageError for an invalid URL, and the errors of
        `on_response`.
        """
        all_done: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        remaining = len(requests)

        def report(index: int, response: PoolResponse | None) -> None:
            nonlocal remaining
            remaining -= 1
            try:
                if response is not None:
                    on_response(index, response)
            except Exception as error:  # noqa: BLE001 - it belongs to the caller, not to the event loop
                if not all_done.done():
                    all_done.set_exception(error)
            if not remaining and not all_done.done():
                all_done.set_result(None)

        sent = list[tuple[PendingRequest, _HostPool]]()
        for index, request in enumerate(requests):
            host_pool, encoded = self._encode_request(request)
            status = b"200" if request.body is None or request.expects_document else b"201"
            size = None if request.expects_document else request.size
            sent.append((PendingRequest(encoded, size, report, index=index, expected_status=status), host_pool))
        host_pools = {host_pool for _, host_pool in sent}
        try:
            for pending, host_pool in sent:
                host_pool.enqueue(pending)
            for host_pool in host_pools:
                host_pool.set_max_connections(max_connections)
                host_pool.dispatch()
            if requests:
                await _wait_until_done(all_done, time_limit)
        finally:
            if remaining:
                for pending, _ in sent:
                    if not pending.is_done:
                        pending.is_done = True
                        if pending.connection is not None:
                            pending.connection.close()
                for host_pool in host_pools:
                    host_pool.dispatch()

    def _encode_request(self, request: PoolRequest) -> tuple[_HostPool, bytes]:
        scheme, _, rest = request.url.partition("://")
        authority, _, path = rest.partition("/")
        host_pool = self._host_pools.get((scheme, authority))
        if host_pool is None:
            context = self._tls_context if scheme == "https" else None
            host_pool = self._host_pools[scheme, authority] = _HostPool(scheme, authority, context)
        lines = [f"{name}: {value}\r\n" for name, value in request.headers.items()]
        if " " in path or not _is_sendable(path) or not all(map(_is_sendable, request.headers.values())):
            raise UsageError("the URL or a header contains characters that cannot be sent")
        if request.body is None:
            return host_pool, f"GET /{path}{host_pool.common_headers}{''.join(lines)}\r\n".encode()
        lines.append(f"Content-Length: {len(request.body)}\r\n")
        return host_pool, f"PUT /{path}{host_pool.common_headers}{''.join(lines)}\r\n".encode() + request.body

    def close(self) -> None:
        """Close all connections."""
        for host_pool in self._host_pools.values():
            host_pool.close()


async def _wait_until_done(all_done: asyncio.Future[None], time_limit: timedelta) -> None:
    limit = asyncio.timeout(time_limit.total_seconds())
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
    """Open a pool that trusts the certificate authorities of SSL_CERT_FILE or of the system."""
    pool = HttpPool()
    try:
        yield pool
    finally:
        pool.close()
