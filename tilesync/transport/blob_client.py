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
from tilesync.transport.connect_errors import permanent_error
from tilesync.transport.low_speed import LowSpeedGuard
from tilesync.transport.proxies import Proxies
from tilesync.transport.rate_limit import RateLimiter
from tilesync.transport.tls import fallback_ca_bundle, load_proxies, user_agent

Value = TypeVar("Value")
Builder = TypeVar("Builder", bound=BaseClientBuilder)

BLOB_READ_TIMEOUT: Final = timedelta(seconds=30)
"""A body that stays silent for this long is broken."""

MIN_UPLOAD_BYTES_PER_S: Final = 1 << 14
"""Bytes a second with which a body may leave; a slower line than that carries nothing."""

MIN_READ_BYTES_PER_S: Final = 1 << 11
"""Bytes a second with which a body that is awaited at once may come; one that comes slower is better streamed."""

CONNECT_TIMEOUT: Final = timedelta(seconds=20)
"""How long a connection may take to be made."""

_MAX_ERROR_BODY_BYTES: Final = 4096

LARGE_READS_AFTER_BYTES: Final = 1 << 22
LARGE_READ_BYTES: Final = 1 << 20
"""What of a long body is taken at once: a quarter of the work of taking it as it comes."""

_FAST_CHUNK_S: Final = 0.1
"""Seconds within which a part comes where the next one may be a whole piece."""


def first_header_value(get_header: Callable[[str], str | None], name: str) -> str | None:
    """What `get` gives as the first value of a header; None when it is absent, or holds bytes that are no ASCII: the
    engine raises for these, and no service means anything by them (RFC 9110, section 5.5).
    """
    try:
        return get_header(name)
    except ValueError:
        return None


class BlobResponse:
    """An answer whose body is still on the wire. Errors met while reading are Transient and name no URL."""

    def __init__(
        self, request: StreamRequest, response: Response, bandwidth: RateLimiter | None, *, prepaid_bytes: int
    ) -> None:
        self._request: StreamRequest | None = request
        self._bandwidth = bandwidth
        self._prepaid_bytes = prepaid_bytes
        self._response = response
        self.status: Final = response.status

    @property
    def http_version(self) -> str:
        """The version of HTTP that it came by: `HTTP/1.1`."""
        return self._response.version

    def header(self, name: str) -> str | None:
        """The first value of a header, None when it is absent or holds bytes that are no ASCII."""
        return first_header_value(self._response.get_header, name)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The body as it comes, undecoded; what came before a break is given out first.

        A long one that comes fast is taken in larger pieces from LONG bytes on: a break then costs one of them.
        """
        reader, now, progress = self._response.body_reader, asyncio.get_running_loop().time, LowSpeedGuard()
        most, total, began = 0, 0, now()
        try:
            while (chunk := await (_await_bytes(reader.read(most), most) if most else reader.read_chunk())) is not None:
                _raise_if_cancelled()
                progress.record(len(chunk), now() - began)
                await self._wait_for_bandwidth(len(chunk))
                data, came = bytes(chunk), now()
                yield data
                total += len(data)
                most = LARGE_READ_BYTES if total >= LARGE_READS_AFTER_BYTES and came - began < _FAST_CHUNK_S else 0
                began = now()
        except PyreqwestError as error:
            raise _transient_error(error) from None

    async def read(self, max_bytes: int) -> bytes:
        """The whole body, undecoded; of one that is longer than `most` bytes no more than shows that it is."""
        length = self.header("content-length") or ""
        try:
            if length.isdecimal() and int(length) <= max_bytes:
                body = bytes(await _await_bytes(self._response.bytes(), int(length)))
                _raise_if_cancelled()
                await self._wait_for_bandwidth(len(body))
                return body
        except PyreqwestError as error:
            raise _transient_error(error) from None
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) > max_bytes:
                break
        return body

    async def _wait_for_bandwidth(self, count: int) -> None:
        """Wait for the bandwidth of these bytes, but for what was paid ahead."""
        if self._bandwidth is not None:
            due, self._prepaid_bytes = max(0, count - self._prepaid_bytes), max(0, self._prepaid_bytes - count)
            await self._bandwidth.wait_for_bandwidth(due)

    async def read_error_body(self) -> bytes:
        """The beginning of the body, for the message of an error."""
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) >= _MAX_ERROR_BODY_BYTES:
                break
        return body

    async def aclose(self) -> None:
        """Release the connection; one whose body was read to its end is used again. May be called twice."""
        request, self._request = self._request, None
        if request is not None:
            await request.__aexit__(None, None, None)


class PutResponse(NamedTuple):
    """An answer to something that was sent, its body read: headers in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class BlobClient:
    """A pool of connections that GETs and PUTs bodies: no redirects, no decoding, no retries."""

    def __init__(self, client: Client, bandwidth: RateLimiter | None) -> None:
        self._client = client
        self._bandwidth = bandwidth
        self._has_connected = False
        self.piece_bytes = bandwidth.piece_bytes if bandwidth is not None else None
        """How many bytes of a large body are better asked for at once; None where it makes no difference."""

    async def get(self, url: str, headers: Mapping[str, str], *, prefetch_bytes: int = 1) -> BlobResponse:
        """Ask and return as soon as the headers are in, and `ahead` bytes of the body: a small one is whole then.

        Raises Transient when no answer came, or not so much of it.
        """
        if self._bandwidth is not None:
            await self._bandwidth.wait_for_bandwidth(prefetch_bytes)
        try:
            request = self._client.get(url).headers(headers).streamed_read_buffer_limit(prefetch_bytes).build_streamed()
            response = await (
                request.__aenter__() if prefetch_bytes == 1 else _await_bytes(request.__aenter__(), prefetch_bytes)
            )
            answer = BlobResponse(request, response, self._bandwidth, prepaid_bytes=prefetch_bytes)
            self._has_connected = True
        except (BuilderError, ValueError):
            raise UsageError("not a URL, or not a header, that can be sent") from None
        except PyreqwestError as error:
            raise request_error(error, url, host_answered=self._has_connected) from None
        try:
            _raise_if_cancelled()
        except asyncio.CancelledError:
            await answer.aclose()
            raise
        return answer

    async def put(
        self, url: str, headers: Mapping[str, str], body: bytes, *, timeout: timedelta = timedelta(seconds=60)
    ) -> PutResponse:
        """Send a body, and return with the answer; its pace is the caller's concern. Raises Transient without one: that
        it took too long, `within` and the time that the bytes may take, is a sign of pressure.
        """
        timeout += timedelta(seconds=len(body) / MIN_UPLOAD_BYTES_PER_S)
        try:  # the engine leaves the length of an empty body out
            said = {**headers, "Content-Length": str(len(body))}
            request = self._client.put(url).headers(said).body_bytes(body).timeout(timeout)
            async with request.streamed_read_buffer_limit(_MAX_ERROR_BODY_BYTES).build_streamed() as response:
                self._has_connected = True
                beginning = await response.body_reader.read(
                    _MAX_ERROR_BODY_BYTES
                )  # of one that is granted nothing is used
                found = ((name, first_header_value(response.get_header, name)) for name in set(response.headers))
                readable = {name: value for name, value in found if value is not None}
                told = PutResponse(response.status, readable, bytes(beginning or b""))
        except (BuilderError, ValueError):
            raise UsageError("not a URL, or not a header, that can be sent") from None
        except RequestTimeoutError as error:
            raise Transient(describe_error(error, timeout=timeout), is_throttled=True) from None
        except PyreqwestError as error:
            raise request_error(error, url, host_answered=self._has_connected) from None
        _raise_if_cancelled()
        return told


async def _await_bytes(awaitable: Awaitable[Value], byte_count: int) -> Value:
    """What comes of so many bytes that are awaited at once. Raises Transient where that trickles."""
    within = BLOB_READ_TIMEOUT.total_seconds() + byte_count / MIN_READ_BYTES_PER_S
    try:
        async with asyncio.timeout(within):
            return await awaitable
    except TimeoutError:
        raise Transient(f"fewer than {byte_count:,} bytes within {within:.0f} s") from None


def _raise_if_cancelled() -> None:
    """Raise the CancelledError that the engine swallows when a result comes in the same moment (pyreqwest 0.15.1)."""
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError


def request_error(
    error: PyreqwestError, url: str, *, host_answered: bool, timeout: timedelta | None = None
) -> TilesyncError:
    """The error of ours for a request that got no answer. `reached`: the host answered before; `within`: as for
    `explained`.
    """
    lasting = (
        permanent_error(_innermost_cause(error), url, host_answered=host_answered)
        if isinstance(error, ConnectError)
        else None
    )
    return lasting or _transient_error(error, timeout)


def _transient_error(error: PyreqwestError, timeout: timedelta | None = None) -> Transient:
    """A server that falls silent may have too much to do."""
    return Transient(describe_error(error, timeout=timeout), is_throttled=isinstance(error, RequestTimeoutError))


def describe_error(error: PyreqwestError, *, timeout: timedelta | None = None) -> str:
    """A sentence about `error` without what its details hold: the whole URL, signature and all. `within`: what limit
    an answer had, where that is not the one for silence.
    """
    if isinstance(error, RequestTimeoutError):
        if any("(Connect)" in cause for cause in _causes(error)):  # its class is ConnectTimeoutError for every timeout
            return f"no connection within {CONNECT_TIMEOUT.total_seconds():.0f} s"
        return f"no bytes within {(timeout or BLOB_READ_TIMEOUT).total_seconds():.0f} s"
    if isinstance(error, ConnectError):
        return f"no connection ({_innermost_cause(error)})"
    return "the body broke off" if isinstance(error, RequestError) else "the connection broke"


def _innermost_cause(error: DetailedPyreqwestError) -> str:
    cause = (_causes(error) or ["://"])[-1]
    return "unknown reason" if "://" in cause else cause


def _causes(error: DetailedPyreqwestError) -> list[str]:
    """From the outermost to the innermost; the outer ones hold the URL."""
    return [cause["message"] for cause in (error.details or {}).get("causes") or []]


@asynccontextmanager
async def open_blob_client(
    *, bandwidth: RateLimiter | None = None, for_uploads: bool = False
) -> AsyncIterator[BlobClient]:
    """An engine that honours HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's authorities. `sends`: it puts
    bodies; that a server which takes them in says nothing is no silence.
    """
    silence = None if for_uploads else BLOB_READ_TIMEOUT
    try:
        client = configure_builder(ClientBuilder(), silence).build()
    except BuilderError:
        client = configure_builder(ClientBuilder(), silence).add_root_certificate_pem(fallback_ca_bundle()).build()
    async with client:
        yield BlobClient(client, bandwidth)


def configure_builder(builder: Builder, read_timeout: timedelta | None) -> Builder:
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
        .connect_timeout(CONNECT_TIMEOUT)
        .no_proxy()  # the engine's own reading of the environment is another one
    )
    chosen = load_proxies()
    if chosen:
        chosen.check_usable()  # what is asked below must not raise
        plain = plain.proxy(ProxyBuilder.custom(partial(_proxy_url_for, chosen)))
    return plain if read_timeout is None else plain.read_timeout(read_timeout)


def _proxy_url_for(configured_proxies: Proxies, url: Url) -> str | None:
    proxy = configured_proxies.proxy_for(str(url))
    return proxy.url if proxy is not None else None
