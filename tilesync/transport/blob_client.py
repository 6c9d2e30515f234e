"""Bodies: the engine that streams them, with its work per chunk outside the interpreter lock.

The engine is pyreqwest (Rust, hyper, rustls); this file is the seam at which another can take its place.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from datetime import timedelta
from functools import partial
from typing import Final, NamedTuple, TypeVar

from pyreqwest.client import BaseClientBuilder, Client, ClientBuilder
from pyreqwest.exceptions import (
    BuilderError,
    ConnectError,
    DetailedPyreqwestError,
    PyreqwestError,
    RequestError,
    RequestTimeoutError,
)
from pyreqwest.http import Url
from pyreqwest.proxy import ProxyBuilder
from pyreqwest.request import StreamRequest
from pyreqwest.response import Response

from tilesync.errors import TilesyncError, Transient, UsageError
from tilesync.transport.connect_errors import lasting_error
from tilesync.transport.low_speed import Progress
from tilesync.transport.proxies import Proxies
from tilesync.transport.rate_limit import Bandwidth
from tilesync.transport.tls import fallback_bundle, proxies, user_agent

Value = TypeVar("Value")
Builder = TypeVar("Builder", bound=BaseClientBuilder)

SILENCE: Final = timedelta(seconds=30)
"""A body that stays silent for this long is broken."""

SLOWEST: Final = 1 << 14
"""Bytes a second with which a body may leave; a slower line than that carries nothing."""

SLOW: Final = 1 << 11
"""Bytes a second with which a body that is awaited at once may come; one that comes slower is better streamed."""

CONNECT: Final = timedelta(seconds=20)
"""How long a connection may take to be made."""

_ERROR_BODY: Final = 4096

LONG: Final = 1 << 22
PIECE: Final = 1 << 20
"""What of a long body is taken at once: a quarter of the work of taking it as it comes."""

_FAST: Final = 0.1
"""Seconds within which a part comes where the next one may be a whole piece."""


def first_value(get: Callable[[str], str | None], name: str) -> str | None:
    """What `get` gives as the first value of a header; None when it is absent, or holds bytes that are no ASCII: the
    engine raises for these, and no service means anything by them (RFC 9110, section 5.5).
    """
    try:
        return get(name)
    except ValueError:
        return None


class Answer:
    """An answer whose body is still on the wire. Errors met while reading are Transient and name no URL."""

    def __init__(self, request: StreamRequest, response: Response, bandwidth: Bandwidth | None, *, paid: int) -> None:
        self._request: StreamRequest | None = request
        self._bandwidth = bandwidth
        self._paid = paid
        self._response = response
        self.status: Final = response.status

    @property
    def version(self) -> str:
        """The version of HTTP that it came by: `HTTP/1.1`."""
        return self._response.version

    def header(self, name: str) -> str | None:
        """The first value of a header, None when it is absent or holds bytes that are no ASCII."""
        return first_value(self._response.get_header, name)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, undecoded; what came before a break is given out first.

        A long one that comes fast is taken in larger pieces from LONG bytes on: a break then costs one of them.
        """
        reader, now, progress = self._response.body_reader, asyncio.get_running_loop().time, Progress()
        most, total, began = 0, 0, now()
        try:
            while (chunk := await (_in_time(reader.read(most), most) if most else reader.read_chunk())) is not None:
                _obey_cancellation()
                progress.note(len(chunk), now() - began)
                await self._pay(len(chunk))
                data, came = bytes(chunk), now()
                yield data
                total += len(data)
                most = PIECE if total >= LONG and came - began < _FAST else 0
                began = now()
        except PyreqwestError as error:
            raise _broken(error) from None

    async def read(self, most: int) -> bytes:
        """The whole body, undecoded; of one that is longer than `most` bytes no more than shows that it is."""
        length = self.header("content-length") or ""
        try:
            if length.isdecimal() and int(length) <= most:
                body = bytes(await _in_time(self._response.bytes(), int(length)))
                _obey_cancellation()
                await self._pay(len(body))
                return body
        except PyreqwestError as error:
            raise _broken(error) from None
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) > most:
                break
        return body

    async def _pay(self, count: int) -> None:
        """Wait for the bandwidth of these bytes, but for what was paid ahead."""
        if self._bandwidth is not None:
            due, self._paid = max(0, count - self._paid), max(0, self._paid - count)
            await self._bandwidth.take(due)

    async def text(self) -> bytes:
        """The beginning of the body, for the message of an error."""
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) >= _ERROR_BODY:
                break
        return body

    async def aclose(self) -> None:
        """Release the connection; one whose body was read to its end is used again. May be called twice."""
        request, self._request = self._request, None
        if request is not None:
            await request.__aexit__(None, None, None)


class Told(NamedTuple):
    """An answer to something that was sent, its body read: headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Bulk:
    """A pool of connections that GETs and PUTs bodies: no redirects, no decoding, no retries."""

    def __init__(self, client: Client, bandwidth: Bandwidth | None) -> None:
        self._client = client
        self._bandwidth = bandwidth
        self._reached = False
        self.piece = bandwidth.piece if bandwidth is not None else None
        """How many bytes of a large body are better asked for at once; None where it makes no difference."""

    async def get(self, url: str, headers: Mapping[str, str], *, ahead: int = 1) -> Answer:
        """Ask and return as soon as the headers are in, and `ahead` bytes of the body: a small one is whole then.

        Raises Transient when no answer came, or not so much of it.
        """
        if self._bandwidth is not None:
            await self._bandwidth.take(ahead)
        try:
            request = self._client.get(url).headers(headers).streamed_read_buffer_limit(ahead).build_streamed()
            response = await (request.__aenter__() if ahead == 1 else _in_time(request.__aenter__(), ahead))
            answer = Answer(request, response, self._bandwidth, paid=ahead)
            self._reached = True
        except (BuilderError, ValueError):
            raise UsageError("not a URL, or not a header, that can be sent") from None
        except PyreqwestError as error:
            raise unanswered(error, url, reached=self._reached) from None
        try:
            _obey_cancellation()
        except asyncio.CancelledError:
            await answer.aclose()
            raise
        return answer

    async def put(
        self, url: str, headers: Mapping[str, str], body: bytes, *, within: timedelta = timedelta(seconds=60)
    ) -> Told:
        """Send a body, and return with the answer; its pace is the caller's concern. Raises Transient without one: that
        it took too long, `within` and the time that the bytes may take, is a sign of pressure.
        """
        within += timedelta(seconds=len(body) / SLOWEST)
        try:  # the engine leaves the length of an empty body out
            said = {**headers, "Content-Length": str(len(body))}
            request = self._client.put(url).headers(said).body_bytes(body).timeout(within)
            async with request.streamed_read_buffer_limit(_ERROR_BODY).build_streamed() as response:
                self._reached = True
                beginning = await response.body_reader.read(_ERROR_BODY)  # of one that is granted nothing is used
                found = ((name, first_value(response.get_header, name)) for name in set(response.headers))
                readable = {name: value for name, value in found if value is not None}
                told = Told(response.status, readable, bytes(beginning or b""))
        except (BuilderError, ValueError):
            raise UsageError("not a URL, or not a header, that can be sent") from None
        except RequestTimeoutError as error:
            raise Transient(explained(error, within=within), pressure=True) from None
        except PyreqwestError as error:
            raise unanswered(error, url, reached=self._reached) from None
        _obey_cancellation()
        return told


async def _in_time(coming: Awaitable[Value], count: int) -> Value:
    """What comes of so many bytes that are awaited at once. Raises Transient where that trickles."""
    within = SILENCE.total_seconds() + count / SLOW
    try:
        async with asyncio.timeout(within):
            return await coming
    except TimeoutError:
        raise Transient(f"fewer than {count:,} bytes within {within:.0f} s") from None


def _obey_cancellation() -> None:
    """Raise the CancelledError that the engine swallows when a result comes in the same moment (pyreqwest 0.15.1)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def unanswered(error: PyreqwestError, url: str, *, reached: bool, within: timedelta | None = None) -> TilesyncError:
    """The error of ours for a request that got no answer. `reached`: the host answered before; `within`: as for
    `explained`.
    """
    lasting = lasting_error(_last_cause(error), url, reached=reached) if isinstance(error, ConnectError) else None
    return lasting or _broken(error, within)


def _broken(error: PyreqwestError, within: timedelta | None = None) -> Transient:
    """A server that falls silent may have too much to do."""
    return Transient(explained(error, within=within), pressure=isinstance(error, RequestTimeoutError))


def explained(error: PyreqwestError, *, within: timedelta | None = None) -> str:
    """A sentence about `error` without what its details hold: the whole URL, signature and all. `within`: what limit
    an answer had, where that is not the one for silence.
    """
    if isinstance(error, RequestTimeoutError):
        if any("(Connect)" in cause for cause in _causes(error)):  # its class is ConnectTimeoutError for every timeout
            return f"no connection within {CONNECT.total_seconds():.0f} s"
        return f"no bytes within {(within or SILENCE).total_seconds():.0f} s"
    if isinstance(error, ConnectError):
        return f"no connection ({_last_cause(error)})"
    return "the body broke off" if isinstance(error, RequestError) else "the connection broke"


def _last_cause(error: DetailedPyreqwestError) -> str:
    cause = (_causes(error) or ["://"])[-1]
    return "unknown reason" if "://" in cause else cause


def _causes(error: DetailedPyreqwestError) -> list[str]:
    """From the outermost to the innermost; the outer ones hold the URL."""
    return [cause["message"] for cause in (error.details or {}).get("causes") or []]


@asynccontextmanager
async def engine(*, bandwidth: Bandwidth | None = None, sends: bool = False) -> AsyncIterator[Bulk]:
    """An engine that honours HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's authorities. `sends`: it puts
    bodies; that a server which takes them in says nothing is no silence.
    """
    silence = None if sends else SILENCE
    try:
        client = plain_builder(ClientBuilder(), silence).build()
    except BuilderError:
        client = plain_builder(ClientBuilder(), silence).add_root_certificate_pem(fallback_bundle()).build()
    async with client:
        yield Bulk(client, bandwidth)


def plain_builder(builder: Builder, silence: timedelta | None) -> Builder:
    """With everything off that decodes or follows: length, MD5 and Range refer to the stored bytes. `silence`: how long
    a server may say nothing, which counts from the beginning of what is sent. Raises UsageError for a proxy that cannot
    be used.
    """
    plain = (
        builder.gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .follow_redirects(False)
        .referer(False)
        .user_agent(user_agent())
        .default_headers({"Accept-Encoding": "identity"})
        .connect_timeout(CONNECT)
        .no_proxy()  # the engine's own reading of the environment is another one
    )
    chosen = proxies()
    if chosen:
        chosen.demand_usable()  # what is asked below must not raise
        plain = plain.proxy(ProxyBuilder.custom(partial(_proxy_of, chosen)))
    return plain if silence is None else plain.read_timeout(silence)


def _proxy_of(chosen: Proxies, url: Url) -> str | None:
    proxy = chosen.proxy_for(str(url))
    return proxy.url if proxy is not None else None
