"""HTTP client for API calls and tokens, each with retries.

It sends requests by the client for blobs, over HTTP/1.1 only. httpx was dropped: to load it and to open its first
transport took 85 ms, a fifth of a mirror that has nothing to do.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import field
from datetime import datetime, timedelta
from typing import TypeVar

from tilesync.core.backoff import RetryPolicy
from tilesync.core.http_status import parse_http_date
from tilesync.core.urls import check_scheme
from tilesync.errors import Transient, UsageError
from tilesync.protocols import Clock, Observer
from tilesync.transport.blob_client import BlobClient, BlobResponse, create_blob_client
from tilesync.transport.content_decoding import ContentDecoder
from tilesync.transport.retry import retry_async
from tilesync.values import dataclass

T = TypeVar("T")

API_READ_TIMEOUT = timedelta(seconds=60)
"""Longest silence of a server, after which the request has failed."""

API_RESPONSE_TIMEOUT = timedelta(seconds=120)
"""Time limit for the headers of a response, and for a body that is read whole: such a body is small, so one that takes
longer has stalled.
"""

MAX_RESPONSE_BYTES = 1 << 24
MAX_TOKEN_RESPONSE_BYTES = 1 << 20
MAX_ERROR_RESPONSE_BYTES = 1 << 16
"""Maximum decoded bytes of a response that is read whole, of a token response, and of an error."""

MAX_CONNECTIONS = 24
"""Maximum connections of a client: API calls of several runs at once."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One API request, built anew for each attempt: each attempt has a fresh token and the current link."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    form: bytes | None = None


class ApiResponse:
    """API response whose body is not read yet."""

    def __init__(self, response: BlobResponse) -> None:
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str | None:
        """Return the first value of a header; None when it is absent or not ASCII."""
        return self._response.header(name)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, with transfer and content codings removed.

        Raises Transient for a body that stalls.
        """
        decoder = ContentDecoder(self.header("content-encoding"))
        async for chunk in self._response.chunks():
            for piece in decoder.feed(bytes(chunk)):
                yield piece
        decoder.finish()

    async def read(self, max_bytes: int = MAX_RESPONSE_BYTES, *, time_limit: timedelta = API_RESPONSE_TIMEOUT) -> bytes:
        """Read the whole body, or the first bytes of an error's body.

        Raises Transient for a body of more than `max_bytes`, and for one that takes longer than `time_limit`.
        """
        body = bytearray()
        with timeout_as_transient("no complete response", time_limit):
            async with asyncio.timeout(time_limit.total_seconds()):
                async for piece in self.chunks():
                    body += piece
                    if self.status >= 400 and len(body) >= MAX_ERROR_RESPONSE_BYTES:
                        break
                    if len(body) > max_bytes:
                        raise Transient(f"a response of more than {max_bytes:,} bytes")
        return bytes(body)

    def server_time(self) -> datetime | None:
        """Return the server's time from its `Date` header (whole seconds); None if that is absent or invalid."""
        return parse_http_date(self.header("date"))


ResponseReader = Callable[[ApiResponse], Awaitable[T]]
"""Reader of a response, which returns its parsed value. Raises Transient to retry, and RunError to end the run."""


class ApiConnections:
    """Connections to the service, opened on first use.

    API clients may share them: a connection then serves many runs.
    """

    def __init__(self) -> None:
        self._client: BlobClient | None = None

    @property
    def client(self) -> BlobClient:
        """Return the client. Raises UsageError for invalid proxy settings."""
        if self._client is None:
            self._client = create_blob_client(API_READ_TIMEOUT, max_connections=MAX_CONNECTIONS)
        return self._client

    async def aclose(self) -> None:
        """Close all connections."""
        if self._client is not None:
            await self._client.aclose()


class ApiClient:
    """API client with retries. Redirects are not followed: a signature must not reach another host."""

    def __init__(
        self,
        connections: ApiConnections,
        clock: Clock,
        observe: Observer,
        *,
        budget: timedelta,
    ) -> None:
        self._connections = connections
        self._clock = clock
        self._observe = observe
        self._budget = budget.total_seconds()

    @property
    def budget(self) -> timedelta:
        """Return how long failures are retried."""
        return timedelta(seconds=self._budget)

    async def request(
        self,
        server: str,
        build_request: Callable[[], Awaitable[ApiRequest]],
        read_response: ResponseReader[T],
        *,
        take_turn: Callable[[], AbstractAsyncContextManager[None]] = nullcontext,
    ) -> T:
        """Send a request until `read_response` accepts a response, or the retry budget is spent.

        `server` names the server in messages: "the Mesh Export API". `take_turn`: each attempt is made in
        such a context; waiting to enter it does not count towards the budget, since a queue is no failure. Raises
        Unavailable when the budget is spent, and every error of `build_request` and `read_response` except Transient.
        """
        queued_s = 0.0

        async def attempt() -> T:
            nonlocal queued_s
            queued_at = self._clock.monotonic()
            async with take_turn():
                queued_s += self._clock.monotonic() - queued_at
                return await self._attempt(await build_request(), read_response)

        def now() -> float:
            return self._clock.monotonic() - queued_s

        policy = RetryPolicy(server, self._budget, self._observe)
        return await retry_async(policy, attempt, now=now, sleep=self._clock.sleep)

    async def _attempt(self, api_request: ApiRequest, read_response: ResponseReader[T]) -> T:
        check_scheme(api_request.url)
        _check_sendable(api_request)
        client, url, headers = self._connections.client, api_request.url, api_request.headers
        with timeout_as_transient("no response", API_RESPONSE_TIMEOUT):
            async with asyncio.timeout(API_RESPONSE_TIMEOUT.total_seconds()):
                response = await (
                    client.get(url, headers)
                    if api_request.form is None
                    else client.post(url, headers, api_request.form)
                )
        try:
            return await read_response(ApiResponse(response))
        finally:
            await response.aclose()


def _check_sendable(request: ApiRequest) -> None:
    """Raise UsageError for characters that the client would encode: they are a mistake in a token or a setting."""
    if not request.url.isprintable() or not "".join(request.headers.values()).isascii():
        raise UsageError("the URL or a header contains characters that cannot be sent")


@contextmanager
def timeout_as_transient(message: str, timeout: timedelta) -> Iterator[None]:
    """Raise Transient in place of TimeoutError."""
    try:
        yield
    except TimeoutError:
        raise Transient(f"{message} within {timeout.total_seconds():.0f} s") from None


@asynccontextmanager
async def open_api_connections() -> AsyncIterator[ApiConnections]:
    """Open connections that use HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's certificate authorities."""
    connections = ApiConnections()
    try:
        yield connections
    finally:
        await connections.aclose()


@asynccontextmanager
async def open_api_client(clock: Clock, observe: Observer, *, budget: timedelta) -> AsyncIterator[ApiClient]:
    """Open an API client with connections of its own."""
    async with open_api_connections() as connections:
        yield ApiClient(connections, clock, observe, budget=budget)
