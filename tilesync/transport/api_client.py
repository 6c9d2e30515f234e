"""HTTP client for API calls and tokens, each with retries."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager, contextmanager, nullcontext
from dataclasses import field
from datetime import datetime, timedelta
from typing import TypeVar

import httpx

from tilesync.core.backoff import LowSpeedGuard, RetryPolicy
from tilesync.core.http_status import parse_http_date
from tilesync.core.urls import check_scheme
from tilesync.errors import Transient, UsageError
from tilesync.protocols import Clock, Observer
from tilesync.transport.connect_errors import permanent_error
from tilesync.transport.content_decoding import ContentDecoder
from tilesync.transport.proxies import Proxy
from tilesync.transport.retry import retry_async
from tilesync.transport.tls import create_empty_tls_context, create_tls_context, load_proxies, user_agent
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

CONNECT_TIMEOUT = timedelta(seconds=20)
"""Time limit to open a connection."""

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

    def __init__(self, response: httpx.Response) -> None:
        self._response = response
        self.status = response.status_code

    def header(self, name: str) -> str | None:
        """Return the value of a header, None when it is absent."""
        value: str | None = self._response.headers.get(name)
        return value

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield the body as it arrives, with transfer and content codings removed.

        Raises Transient for a body that stalls.
        """
        decoder = ContentDecoder(self.header("content-encoding"))
        speed_guard = LowSpeedGuard()
        now = asyncio.get_running_loop().time
        started_at = now()
        async for chunk in self._response.aiter_raw():
            speed_guard.record(len(chunk), now() - started_at)
            for piece in decoder.feed(chunk):
                yield piece
            started_at = now()
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


class ApiTransports:
    """HTTP transports, one for each route (direct or through a proxy, plain or TLS), opened on first use.

    API clients may share them: a connection to the service then serves many runs.
    """

    def __init__(self) -> None:
        self._proxies = load_proxies()
        self._transports: dict[tuple[Proxy | None, bool], httpx.AsyncHTTPTransport] = {}
        self.reached_hosts: set[str] = set()
        """Hosts that have answered."""

    def transport_for(self, url: str) -> httpx.AsyncHTTPTransport:
        """Return the transport of the route to a URL. Raises UsageError for invalid proxy settings."""
        proxy = self._proxies.proxy_for(url)
        uses_tls = not url.startswith("http:") or (proxy is not None and proxy.url.startswith("https:"))
        transport = self._transports.get((proxy, uses_tls))
        if transport is None:
            transport = self._transports[proxy, uses_tls] = _build_transport(proxy, uses_tls=uses_tls)
        return transport

    async def aclose(self) -> None:
        """Close all connections."""
        for transport in self._transports.values():
            await transport.aclose()


class ApiClient:
    """API client with retries. Redirects are not followed: a signature must not reach another host."""

    def __init__(
        self,
        transports: ApiTransports,
        clock: Clock,
        observe: Observer,
        *,
        budget: timedelta,
    ) -> None:
        self._transports = transports
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
        transport, reached_hosts = self._transports.transport_for(api_request.url), self._transports.reached_hosts
        method = "GET" if api_request.form is None else "POST"
        try:
            request = httpx.Request(
                method,
                api_request.url,
                headers={**_default_headers(), **api_request.headers},
                content=api_request.form,
                extensions={"timeout": _timeout().as_dict()},
            )
        except (httpx.InvalidURL, ValueError):
            raise UsageError("the URL or a header contains characters that cannot be sent") from None
        try:
            with timeout_as_transient("no response", API_RESPONSE_TIMEOUT):
                async with asyncio.timeout(API_RESPONSE_TIMEOUT.total_seconds()):
                    response = await transport.handle_async_request(request)
                    response.request = request
            reached_hosts.add(request.url.host)
            try:
                return await read_response(ApiResponse(response))
            finally:
                await response.aclose()
        except httpx.LocalProtocolError:
            raise UsageError("a token, key or link contains a character that is not allowed in a header") from None
        except httpx.ConnectTimeout as error:
            raise Transient(f"no connection within {CONNECT_TIMEOUT.total_seconds():.0f} s") from error
        except httpx.TimeoutException as error:
            raise Transient(f"no response within {API_READ_TIMEOUT.total_seconds():.0f} s") from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            permanent = permanent_error(str(error), api_request.url, host_answered=request.url.host in reached_hosts)
            raise permanent or _connection_error(error) from error
        except httpx.RequestError as error:
            raise _connection_error(error) from error


@contextmanager
def timeout_as_transient(message: str, timeout: timedelta) -> Iterator[None]:
    """Raise Transient in place of TimeoutError."""
    try:
        yield
    except TimeoutError:
        raise Transient(f"{message} within {timeout.total_seconds():.0f} s") from None


def _connection_error(error: httpx.RequestError) -> Transient:
    return Transient(f"the connection failed ({str(error) or type(error).__name__})")


def _default_headers() -> dict[str, str]:
    return {"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "identity"}


def _timeout() -> httpx.Timeout:
    return httpx.Timeout(API_READ_TIMEOUT.total_seconds(), connect=CONNECT_TIMEOUT.total_seconds())


def _build_transport(proxy: Proxy | None, *, uses_tls: bool) -> httpx.AsyncHTTPTransport:
    """Build an httpx transport, without a client: that logs each URL with its signature at INFO.

    A filter on its logger was rejected: it would change the logging of the host program.
    """
    limits = httpx.Limits(max_connections=MAX_CONNECTIONS)
    try:
        tls_context = create_tls_context() if uses_tls else create_empty_tls_context()
        proxy_tls_context = tls_context if proxy is not None and proxy.url.startswith("https:") else None
        httpx_proxy = httpx.Proxy(proxy.url, ssl_context=proxy_tls_context) if proxy is not None else None
        return httpx.AsyncHTTPTransport(verify=tls_context, trust_env=False, proxy=httpx_proxy, limits=limits)
    except ImportError:  # httpx needs the package socksio for SOCKS
        assert proxy is not None
        raise UsageError(
            f"the proxy in {proxy.setting} uses SOCKS, which needs the package socksio",
            hint=f"pip install socksio pysocks (the extra tilesync[socks]), or set {proxy.setting} to an http:// proxy",
        ) from None
    except (ValueError, OSError) as error:
        raise UsageError(f"a proxy or certificate setting is invalid ({error})") from error


@asynccontextmanager
async def open_api_transports() -> AsyncIterator[ApiTransports]:
    """Open transports that use HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's certificate authorities."""
    transports = ApiTransports()
    try:
        yield transports
    finally:
        await transports.aclose()


@asynccontextmanager
async def open_api_client(clock: Clock, observe: Observer, *, budget: timedelta) -> AsyncIterator[ApiClient]:
    """Open an API client with transports of its own."""
    async with open_api_transports() as transports:
        yield ApiClient(transports, clock, observe, budget=budget)
