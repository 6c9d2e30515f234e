"""Conversations: API calls, tokens and listing pages, with the one retry loop they share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

import httpx

from tilesync.core.backoff import RetryBudget
from tilesync.core.http_status import parse_http_date
from tilesync.core.urls import check_scheme
from tilesync.errors import Transient, Unavailable, UsageError
from tilesync.events import Notice, Retried
from tilesync.protocols import Clock, Observer
from tilesync.transport.connect_errors import permanent_error
from tilesync.transport.content_decoding import ContentDecoder
from tilesync.transport.low_speed import LowSpeedGuard
from tilesync.transport.proxies import Proxy
from tilesync.transport.rate_limit import RateLimiter
from tilesync.transport.tls import create_tls_context, load_proxies, user_agent

T = TypeVar("T")

API_READ_TIMEOUT = timedelta(seconds=60)
"""A server that says nothing for this long hangs."""

API_RESPONSE_TIMEOUT = timedelta(seconds=120)
"""How long the headers of an answer may take, and how long an answer that is read whole: it is small, so one that takes
longer trickles.
"""

MAX_RESPONSE_BYTES = 1 << 24
MAX_TOKEN_RESPONSE_BYTES = 1 << 20
MAX_ERROR_RESPONSE_BYTES = 1 << 16
"""Decoded bytes of an answer that is read whole, of one with a token, and of an error, at most."""

MAX_LISTING_PAGE_BYTES = 48 << 20
"""Decoded bytes of a page of a listing at most: 5,000 blobs with names of 1,024 characters, each of them three bytes,
percent-encoded. Source: "List Blobs" (REST); "Naming and Referencing Containers, Blobs, and Metadata".
"""

CONNECT_TIMEOUT = timedelta(seconds=20)
"""How long a connection may take to be made."""


@dataclass(frozen=True, slots=True)
class ApiRequest:
    """One request. Made anew for each attempt, so that each has a fresh token and the link of that moment."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    form: bytes | None = None


class ApiResponse:
    """An answer, its body not read yet."""

    def __init__(self, response: httpx.Response, bandwidth: RateLimiter | None) -> None:
        self._response = response
        self._bandwidth = bandwidth
        self.status = response.status_code

    def header(self, name: str) -> str | None:
        """The value of a header, None when it is absent."""
        value: str | None = self._response.headers.get(name)
        return value

    async def chunks(self, *, rate_limited: bool = True) -> AsyncIterator[bytes]:
        """The body as it comes, its transfer and content codings undone. Raises Transient for one that trickles.

        `paid`: it counts towards the bandwidth.
        """
        decoder, progress, now = (
            ContentDecoder(self.header("content-encoding")),
            LowSpeedGuard(),
            asyncio.get_running_loop().time,
        )
        began = now()
        async for chunk in self._response.aiter_raw():
            progress.record(len(chunk), now() - began)
            if self._bandwidth is not None and rate_limited:
                await self._bandwidth.wait_for_bandwidth(len(chunk))
            for piece in decoder.feed(chunk):
                yield piece
            began = now()
        decoder.finish()

    async def read(
        self, max_bytes: int = MAX_RESPONSE_BYTES, *, timeout: timedelta | None = API_RESPONSE_TIMEOUT
    ) -> bytes:
        """The whole body; of an error its beginning.

        Raises Transient for more than `most` bytes, and for one that takes longer than `within`.
        """
        body = bytearray()
        with timeout_as_transient("no whole answer", timeout):
            async with asyncio.timeout(None if timeout is None else timeout.total_seconds()):
                async for piece in self.chunks(rate_limited=timeout is None):
                    body += piece
                    if self.status >= 400 and len(body) >= MAX_ERROR_RESPONSE_BYTES:
                        break
                    if len(body) > max_bytes:
                        raise Transient(f"an answer of more than {max_bytes:,} bytes")
        return bytes(body)

    def server_time(self) -> datetime | None:
        """The server's clock as its `Date` header says (whole seconds); None when it says nothing readable."""
        return parse_http_date(self.header("date"))


ResponseReader = Callable[[ApiResponse], Awaitable[T]]
"""Reads an answer and gives its meaning; raises Transient for another attempt, a RunError to end the run."""


class ApiClient:
    """An httpx client for each way (directly, or through a proxy), from when something is asked, and the retry loop
    around it. Redirects are not followed: a signature stays where it belongs.
    """

    def __init__(
        self, clock: Clock, observe: Observer, *, budget: timedelta, bandwidth: RateLimiter | None = None
    ) -> None:
        self._proxies = load_proxies()
        self._transports: dict[Proxy | None, httpx.AsyncHTTPTransport] = {}
        self._bandwidth = bandwidth
        self._clock = clock
        self._observe = observe
        self._budget = budget.total_seconds()
        self._reached_hosts: set[str] = set()

    @property
    def budget(self) -> timedelta:
        """How long a failing answer is borne with."""
        return timedelta(seconds=self._budget)

    async def request(
        self, server: str, build_request: Callable[[], Awaitable[ApiRequest]], read_response: ResponseReader[T]
    ) -> T:
        """Ask until `accept` takes an answer. `what` names the server in messages: "the Mesh Export API".

        Raises Unavailable past the retry budget, and whatever `make` and `accept` raise but Transient.
        """
        patience = RetryBudget(self._budget)
        while True:
            began = self._clock.monotonic()
            try:
                return await self._attempt(await build_request(), read_response)
            except Transient as error:
                wait = patience.next_delay(
                    self._clock.monotonic(), error.retry_after, began_at=began, limit_s=error.retry_limit_s
                )
                if wait is None:
                    asked = f"; it asks to wait {error.retry_after:.0f} s" if error.retry_after else ""
                    raise Unavailable(f"{server} kept failing: {error}{asked}", hint=error.hint or None) from error
                if patience.failures == 1:
                    self._observe(Notice(f"{server}: {error}; trying again for up to {self._budget:.0f} s"))
                self._observe(Retried(server, str(error), wait))
            await self._clock.sleep(wait)

    async def _attempt(self, api_request: ApiRequest, read_response: ResponseReader[T]) -> T:
        check_scheme(api_request.url)
        proxy = self._proxies.proxy_for(api_request.url)
        transport = self._transports.get(proxy)
        if transport is None:
            transport = self._transports[proxy] = _build_transport(proxy)
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
            raise UsageError("not a URL, or not a header, that can be sent") from None
        try:
            with timeout_as_transient("no answer", API_RESPONSE_TIMEOUT):
                async with asyncio.timeout(API_RESPONSE_TIMEOUT.total_seconds()):
                    response = await transport.handle_async_request(request)
                    response.request = request
            self._reached_hosts.add(request.url.host)
            try:
                return await read_response(ApiResponse(response, self._bandwidth))
            finally:
                await response.aclose()
        except httpx.LocalProtocolError:
            raise UsageError("a token, key or link holds a character that no header can carry") from None
        except httpx.ConnectTimeout as error:
            raise Transient(f"no connection within {CONNECT_TIMEOUT.total_seconds():.0f} s") from error
        except httpx.TimeoutException as error:
            raise Transient(f"no answer within {API_READ_TIMEOUT.total_seconds():.0f} s") from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            lasting = permanent_error(
                str(error), api_request.url, host_answered=request.url.host in self._reached_hosts
            )
            raise lasting or _connection_error(error) from error
        except httpx.RequestError as error:
            raise _connection_error(error) from error

    async def aclose(self) -> None:
        """End the connections."""
        for transport in self._transports.values():
            await transport.aclose()


@contextmanager
def timeout_as_transient(message: str, timeout: timedelta | None) -> Iterator[None]:
    """Tell a time that ran out as Transient."""
    try:
        yield
    except TimeoutError:
        limit = "in time" if timeout is None else f"within {timeout.total_seconds():.0f} s"
        raise Transient(f"{message} {limit}") from None


def _connection_error(error: httpx.RequestError) -> Transient:
    return Transient(f"the connection failed ({str(error) or type(error).__name__})")


def _default_headers() -> dict[str, str]:
    return {"User-Agent": user_agent(), "Accept": "*/*", "Accept-Encoding": "identity"}


def _timeout() -> httpx.Timeout:
    return httpx.Timeout(API_READ_TIMEOUT.total_seconds(), connect=CONNECT_TIMEOUT.total_seconds())


def _build_transport(proxy: Proxy | None) -> httpx.AsyncHTTPTransport:
    """Open connections of httpx without its client, which logs each URL at INFO, signature and all: to silence that
    would change the logging of the host program.
    """
    limits = httpx.Limits(max_connections=8)
    try:
        trusted = create_tls_context()
        secure = trusted if proxy is not None and proxy.url.startswith("https:") else None
        through = httpx.Proxy(proxy.url, ssl_context=secure) if proxy is not None else None
        return httpx.AsyncHTTPTransport(verify=trusted, trust_env=False, proxy=through, limits=limits)
    except ImportError:  # httpx speaks SOCKS by another package
        assert proxy is not None
        raise UsageError(
            f"the proxy of {proxy.setting} speaks SOCKS, and the package socksio is missing",
            hint=f"pip install socksio pysocks (which is what tilesync[socks] stands for), or set {proxy.setting} to an"
            " http:// proxy",
        ) from None
    except (ValueError, OSError) as error:
        raise UsageError(f"a proxy or certificate setting cannot be used ({error})") from error


@asynccontextmanager
async def open_api_client(
    clock: Clock, observe: Observer, *, budget: timedelta, bandwidth: RateLimiter | None = None
) -> AsyncIterator[ApiClient]:
    """A conversation that honours HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's authorities."""
    conversation = ApiClient(clock, observe, budget=budget, bandwidth=bandwidth)
    try:
        yield conversation
    finally:
        await conversation.aclose()
