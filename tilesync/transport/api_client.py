"""Conversations: API calls, tokens and listing pages, with the one retry loop they share."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import TypeVar

import httpx

from tilesync.core.backoff import Patience
from tilesync.core.http_status import header_date
from tilesync.core.urls import check_scheme
from tilesync.errors import Transient, Unavailable, UsageError
from tilesync.events import Notice, Retried
from tilesync.protocols import Clock, Observer
from tilesync.transport.connect_errors import lasting_error
from tilesync.transport.content_decoding import Decoder
from tilesync.transport.low_speed import Progress
from tilesync.transport.proxies import Proxy
from tilesync.transport.rate_limit import Bandwidth
from tilesync.transport.tls import proxies, roots, user_agent

T = TypeVar("T")

HANG = timedelta(seconds=60)
"""A server that says nothing for this long hangs."""

WHOLE = timedelta(seconds=120)
"""How long the headers of an answer may take, and how long an answer that is read whole: it is small, so one that takes
longer trickles.
"""

LARGEST_ANSWER = 1 << 24
LARGEST_TOKEN = 1 << 20
LARGEST_ERROR = 1 << 16
"""Decoded bytes of an answer that is read whole, of one with a token, and of an error, at most."""

LARGEST_PAGE = 48 << 20
"""Decoded bytes of a page of a listing at most: 5,000 blobs with names of 1,024 characters, each of them three bytes,
percent-encoded. Source: "List Blobs" (REST); "Naming and Referencing Containers, Blobs, and Metadata".
"""

CONNECT = timedelta(seconds=20)
"""How long a connection may take to be made."""


@dataclass(frozen=True, slots=True)
class Ask:
    """One request. Made anew for each attempt, so that each has a fresh token and the link of that moment."""

    url: str
    headers: dict[str, str] = field(default_factory=dict)
    form: bytes | None = None


class Reply:
    """An answer, its body not read yet."""

    def __init__(self, response: httpx.Response, bandwidth: Bandwidth | None) -> None:
        self._response = response
        self._bandwidth = bandwidth
        self.status = response.status_code

    def header(self, name: str) -> str | None:
        """The value of a header, None when it is absent."""
        value: str | None = self._response.headers.get(name)
        return value

    async def chunks(self, *, paid: bool = True) -> AsyncIterator[bytes]:
        """The body as it comes, its transfer and content codings undone. Raises Transient for one that trickles.

        `paid`: it counts towards the bandwidth.
        """
        decoder, progress, now = Decoder(self.header("content-encoding")), Progress(), asyncio.get_running_loop().time
        began = now()
        async for chunk in self._response.aiter_raw():
            progress.note(len(chunk), now() - began)
            if self._bandwidth is not None and paid:
                await self._bandwidth.take(len(chunk))
            for piece in decoder.feed(chunk):
                yield piece
            began = now()
        decoder.finish()

    async def read(self, most: int = LARGEST_ANSWER, *, within: timedelta | None = WHOLE) -> bytes:
        """The whole body; of an error its beginning.

        Raises Transient for more than `most` bytes, and for one that takes longer than `within`.
        """
        body = bytearray()
        with in_time("no whole answer", within):
            async with asyncio.timeout(None if within is None else within.total_seconds()):
                async for piece in self.chunks(paid=within is None):
                    body += piece
                    if self.status >= 400 and len(body) >= LARGEST_ERROR:
                        break
                    if len(body) > most:
                        raise Transient(f"an answer of more than {most:,} bytes")
        return bytes(body)

    def server_time(self) -> datetime | None:
        """The server's clock as its `Date` header says (whole seconds); None when it says nothing readable."""
        return header_date(self.header("date"))


Accept = Callable[[Reply], Awaitable[T]]
"""Reads an answer and gives its meaning; raises Transient for another attempt, a RunError to end the run."""


class Conversation:
    """An httpx client for each way (directly, or through a proxy), from when something is asked, and the retry loop
    around it. Redirects are not followed: a signature stays where it belongs.
    """

    def __init__(
        self, clock: Clock, observe: Observer, *, budget: timedelta, bandwidth: Bandwidth | None = None
    ) -> None:
        self._proxies = proxies()
        self._clients: dict[Proxy | None, httpx.AsyncClient] = {}
        self._bandwidth = bandwidth
        self._clock = clock
        self._observe = observe
        self._budget = budget.total_seconds()
        self._reached: set[str] = set()

    @property
    def budget(self) -> timedelta:
        """How long a failing answer is borne with."""
        return timedelta(seconds=self._budget)

    async def ask(self, what: str, make: Callable[[], Awaitable[Ask]], accept: Accept[T]) -> T:
        """Ask until `accept` takes an answer. `what` names the server in messages: "the Mesh Export API".

        Raises Unavailable past the retry budget, and whatever `make` and `accept` raise but Transient.
        """
        patience = Patience(self._budget)
        while True:
            began = self._clock.monotonic()
            try:
                return await self._attempt(await make(), accept)
            except Transient as error:
                wait = patience.next_wait(self._clock.monotonic(), error.retry_after, began=began, limit=error.limit)
                if wait is None:
                    asked = f"; it asks to wait {error.retry_after:.0f} s" if error.retry_after else ""
                    raise Unavailable(f"{what} kept failing: {error}{asked}", hint=error.hint or None) from error
                if patience.failures == 1:
                    self._observe(Notice(f"{what}: {error}; trying again for up to {self._budget:.0f} s"))
                self._observe(Retried(what, str(error), wait))
            await self._clock.sleep(wait)

    async def _attempt(self, ask: Ask, accept: Accept[T]) -> T:
        check_scheme(ask.url)
        proxy = self._proxies.proxy_for(ask.url)
        client = self._clients.get(proxy)
        if client is None:
            client = self._clients[proxy] = _client(proxy)
        method = "GET" if ask.form is None else "POST"
        try:
            request = client.build_request(method, ask.url, headers=ask.headers, content=ask.form)
        except (httpx.InvalidURL, ValueError):
            raise UsageError("not a URL, or not a header, that can be sent") from None
        try:
            with in_time("no answer", WHOLE):
                async with asyncio.timeout(WHOLE.total_seconds()):
                    response = await client.send(request, stream=True)
            self._reached.add(request.url.host)
            try:
                return await accept(Reply(response, self._bandwidth))
            finally:
                await response.aclose()
        except httpx.LocalProtocolError:
            raise UsageError("a token, key or link holds a character that no header can carry") from None
        except httpx.ConnectTimeout as error:
            raise Transient(f"no connection within {CONNECT.total_seconds():.0f} s") from error
        except httpx.TimeoutException as error:
            raise Transient(f"no answer within {HANG.total_seconds():.0f} s") from error
        except (httpx.ConnectError, httpx.ProxyError) as error:
            lasting = lasting_error(str(error), ask.url, reached=request.url.host in self._reached)
            raise lasting or _broken(error) from error
        except httpx.RequestError as error:
            raise _broken(error) from error

    async def aclose(self) -> None:
        """End the connections."""
        for client in self._clients.values():
            await client.aclose()


@contextmanager
def in_time(what: str, within: timedelta | None) -> Iterator[None]:
    """Tell a time that ran out as Transient."""
    try:
        yield
    except TimeoutError:
        limit = "in time" if within is None else f"within {within.total_seconds():.0f} s"
        raise Transient(f"{what} {limit}") from None


def _broken(error: httpx.RequestError) -> Transient:
    return Transient(f"the connection failed ({str(error) or type(error).__name__})")


def _client(proxy: Proxy | None) -> httpx.AsyncClient:
    logging.getLogger("httpx").addFilter(_keep_urls_out)
    limits = httpx.Limits(max_connections=8)
    timeout = httpx.Timeout(HANG.total_seconds(), connect=CONNECT.total_seconds())
    headers = {"User-Agent": user_agent(), "Accept-Encoding": "identity"}
    try:
        trusted = roots()
        secure = trusted if proxy is not None and proxy.url.startswith("https:") else None
        through = httpx.Proxy(proxy.url, ssl_context=secure) if proxy is not None else None
        return httpx.AsyncClient(
            verify=trusted, trust_env=False, proxy=through, timeout=timeout, limits=limits, headers=headers
        )
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
async def conversations(
    clock: Clock, observe: Observer, *, budget: timedelta, bandwidth: Bandwidth | None = None
) -> AsyncIterator[Conversation]:
    """A conversation that honours HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's authorities."""
    conversation = Conversation(clock, observe, budget=budget, bandwidth=bandwidth)
    try:
        yield conversation
    finally:
        await conversation.aclose()


def _keep_urls_out(record: logging.LogRecord) -> bool:
    """Httpx logs each URL with its query, signature and all, at INFO: such records go nowhere."""
    return record.levelno > logging.INFO
