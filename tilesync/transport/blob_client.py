"""HTTP client that streams bodies (GET and PUT), with its work per chunk outside the interpreter lock.

It wraps pyreqwest (Rust, hyper, rustls). Together with `blob_client_sync` it is the only user of that library, so that
another one can take its place.
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

from tilesync.core.backoff import LowSpeedGuard
from tilesync.errors import TilesyncError, Transient, UsageError
from tilesync.model import Chunk
from tilesync.transport.connect_errors import permanent_error
from tilesync.transport.proxies import Proxies
from tilesync.transport.rate_limit import RateLimiter
from tilesync.transport.tls import fallback_ca_bundle, load_proxies, user_agent

Value = TypeVar("Value")
Builder = TypeVar("Builder", bound=BaseClientBuilder)

BLOB_READ_TIMEOUT: Final = timedelta(seconds=30)
"""Longest silence within a body, after which the transfer has failed."""

MIN_UPLOAD_BYTES_PER_S: Final = 1 << 14
"""Lowest upload rate, in bytes a second; a slower connection counts as dead."""

MIN_READ_BYTES_PER_S: Final = 1 << 11
"""Lowest rate, in bytes a second, of a body that is read in one call; a slower body should be streamed."""

CONNECT_TIMEOUT: Final = timedelta(seconds=20)
"""Time limit to open a connection."""

_MAX_ERROR_BODY_BYTES: Final = 4096

LARGE_READS_AFTER_BYTES: Final = 1 << 22
LARGE_READ_BYTES: Final = 1 << 20
"""Size of one read of a long body, and the bytes after which it applies: a quarter of the work of small reads."""

_FAST_CHUNK_S: Final = 0.1
"""Seconds; a chunk that arrives within this time lets the next read be a large one."""


def first_header_value(get_header: Callable[[str], str | None], name: str) -> str | None:
    """Return the first value of a header; None when it is absent or not ASCII.

    pyreqwest raises ValueError for other bytes, and no service gives them a meaning (RFC 9110, section 5.5).
    """
    try:
        return get_header(name)
    except ValueError:
        return None


class BlobResponse:
    """Response whose body is still to be received. Read errors are Transient, and name no URL."""

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
        """Return the HTTP version of the response: `HTTP/1.1`."""
        return self._response.version

    def header(self, name: str) -> str | None:
        """Return the first value of a header; None when it is absent or not ASCII."""
        return first_header_value(self._response.get_header, name)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the body as it arrives, undecoded; the bytes before a failure are yielded first.

        After LARGE_READS_AFTER_BYTES a fast body is read in large pieces: a failure then loses one of them at most.
        They are views, not copies: a copy holds the interpreter lock, and with it all other bodies.
        """
        reader, now, speed_guard = self._response.body_reader, asyncio.get_running_loop().time, LowSpeedGuard()
        read_bytes, total_bytes, started_at = 0, 0, now()  # read_bytes 0: take each chunk as it arrives
        try:
            while True:
                cancels = _count_cancels()
                chunk = await (_await_bytes(reader.read(read_bytes), read_bytes) if read_bytes else reader.read_chunk())
                if chunk is None:
                    return
                _raise_if_cancelled(cancels)
                speed_guard.record(len(chunk), now() - started_at)
                await self._wait_for_bandwidth(len(chunk))
                data, received_at = memoryview(chunk) if read_bytes else bytes(chunk), now()
                yield data
                total_bytes += len(data)
                is_fast = received_at - started_at < _FAST_CHUNK_S
                read_bytes = LARGE_READ_BYTES if total_bytes >= LARGE_READS_AFTER_BYTES and is_fast else 0
                started_at = now()
        except PyreqwestError as error:
            raise _transient_error(error) from None

    async def read(self, max_bytes: int) -> bytes:
        """Read the whole body, undecoded; a body of more than `max_bytes` is read only until that is known."""
        length = self.header("content-length") or ""
        try:
            if length.isdecimal() and int(length) <= max_bytes:
                cancels = _count_cancels()
                body = bytes(await _await_bytes(self._response.bytes(), int(length)))
                _raise_if_cancelled(cancels)
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
        """Wait until the bandwidth limit allows these bytes; prefetched bytes were counted before."""
        if self._bandwidth is not None:
            due_bytes, self._prepaid_bytes = max(0, count - self._prepaid_bytes), max(0, self._prepaid_bytes - count)
            await self._bandwidth.wait_for_bandwidth(due_bytes)

    async def read_error_body(self) -> bytes:
        """Read the first bytes of the body, for an error message."""
        body = b""
        async for chunk in self.chunks():
            body += chunk
            if len(body) >= _MAX_ERROR_BODY_BYTES:
                break
        return body

    async def aclose(self) -> None:
        """Release the connection; it is reused if the body was read to its end. May be called twice."""
        request, self._request = self._request, None
        if request is not None:
            await request.__aexit__(None, None, None)


class PutResponse(NamedTuple):
    """Response to an upload, with its body read and its header names in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class BlobClient:
    """Connection pool for GET and PUT of bodies: no redirects, no decoding, no retries."""

    def __init__(self, client: Client, bandwidth: RateLimiter | None) -> None:
        self._client = client
        self._bandwidth = bandwidth
        self._has_connected = False
        self.piece_bytes = bandwidth.piece_bytes if bandwidth is not None else None
        """Bytes to request at once of a large body; None without a bandwidth limit."""

    async def get(self, url: str, headers: Mapping[str, str], *, prefetch_bytes: int = 1) -> BlobResponse:
        """Send a GET, and return with the headers and `prefetch_bytes` of the body: a small body is then complete.

        Raises Transient when no response arrives, or fewer bytes than that.
        """
        if self._bandwidth is not None:
            await self._bandwidth.wait_for_bandwidth(prefetch_bytes)
        cancels = _count_cancels()
        try:
            request = self._client.get(url).headers(headers).streamed_read_buffer_limit(prefetch_bytes).build_streamed()
            response = await (
                request.__aenter__() if prefetch_bytes == 1 else _await_bytes(request.__aenter__(), prefetch_bytes)
            )
            blob_response = BlobResponse(request, response, self._bandwidth, prepaid_bytes=prefetch_bytes)
            self._has_connected = True
        except (BuilderError, ValueError):
            raise UsageError("the URL or a header contains characters that cannot be sent") from None
        except PyreqwestError as error:
            raise request_error(error, url, host_answered=self._has_connected) from None
        try:
            _raise_if_cancelled(cancels)
        except asyncio.CancelledError:
            await blob_response.aclose()
            raise
        return blob_response

    async def put(
        self, url: str, headers: Mapping[str, str], body: bytes, *, time_limit: timedelta = timedelta(seconds=60)
    ) -> PutResponse:
        """Upload a body, and return the response. The caller must apply the bandwidth limit.

        Raises Transient if no response arrives. If it takes longer than `time_limit` plus the time for the bytes (at
        MIN_UPLOAD_BYTES_PER_S), that counts as throttling.
        """
        time_limit += timedelta(seconds=len(body) / MIN_UPLOAD_BYTES_PER_S)
        cancels = _count_cancels()
        try:
            # pyreqwest omits Content-Length for an empty body
            all_headers = {**headers, "Content-Length": str(len(body))}
            request = self._client.put(url).headers(all_headers).body_bytes(body).timeout(time_limit)
            async with request.streamed_read_buffer_limit(_MAX_ERROR_BODY_BYTES).build_streamed() as response:
                self._has_connected = True
                # callers use the body for error messages only
                beginning = await response.body_reader.read(_MAX_ERROR_BODY_BYTES)
                pairs = ((name, first_header_value(response.get_header, name)) for name in set(response.headers))
                readable = {name: value for name, value in pairs if value is not None}
                put_response = PutResponse(response.status, readable, bytes(beginning or b""))
        except (BuilderError, ValueError):
            raise UsageError("the URL or a header contains characters that cannot be sent") from None
        except RequestTimeoutError as error:
            raise Transient(describe_error(error, timeout=time_limit), is_throttled=True) from None
        except PyreqwestError as error:
            raise request_error(error, url, host_answered=self._has_connected) from None
        _raise_if_cancelled(cancels)
        return put_response


async def _await_bytes(awaitable: Awaitable[Value], byte_count: int) -> Value:
    """Await a read of `byte_count` bytes. Raises Transient when it is slower than MIN_READ_BYTES_PER_S."""
    limit_s = BLOB_READ_TIMEOUT.total_seconds() + byte_count / MIN_READ_BYTES_PER_S
    try:
        async with asyncio.timeout(limit_s):
            return await awaitable
    except TimeoutError:
        raise Transient(f"fewer than {byte_count:,} bytes within {limit_s:.0f} s") from None


def _count_cancels() -> int:
    """Return how often the current task has been cancelled."""
    task = asyncio.current_task()
    return task.cancelling() if task is not None else 0


def _raise_if_cancelled(cancels_before: int) -> None:
    """Raise the CancelledError that pyreqwest 0.15.1 swallows when a result arrives at the same moment.

    `cancels_before`: the count before the wait. It may be more than 0 in a task that goes on: in Python 3.11 a
    TaskGroup of which a task fails while its end is awaited leaves one behind.
    """
    if _count_cancels() > cancels_before:
        raise asyncio.CancelledError


def request_error(
    error: PyreqwestError, url: str, *, host_answered: bool, timeout: timedelta | None = None
) -> TilesyncError:
    """Map the error of a request without a response to one of tilesync.

    `host_answered`: the host has answered before, so its name is right. `timeout`: as for `describe_error`.
    """
    permanent = (
        permanent_error(_innermost_cause(error), url, host_answered=host_answered)
        if isinstance(error, ConnectError)
        else None
    )
    return permanent or _transient_error(error, timeout)


def _transient_error(error: PyreqwestError, timeout: timedelta | None = None) -> Transient:
    """Map an error to Transient; a timeout counts as throttling, since the server may be overloaded."""
    return Transient(describe_error(error, timeout=timeout), is_throttled=isinstance(error, RequestTimeoutError))


def describe_error(error: PyreqwestError, *, timeout: timedelta | None = None) -> str:
    """Describe `error` without its details, which hold the whole URL with its signature.

    `timeout`: the limit of the request, if that is not BLOB_READ_TIMEOUT.
    """
    if isinstance(error, RequestTimeoutError):
        if any("(Connect)" in cause for cause in _causes(error)):  # its class is ConnectTimeoutError for every timeout
            return f"no connection within {CONNECT_TIMEOUT.total_seconds():.0f} s"
        return f"no bytes within {(timeout or BLOB_READ_TIMEOUT).total_seconds():.0f} s"
    if isinstance(error, ConnectError):
        return f"no connection ({_innermost_cause(error)})"
    return "the body was cut off" if isinstance(error, RequestError) else "the connection was lost"


def _innermost_cause(error: DetailedPyreqwestError) -> str:
    cause = (_causes(error) or ["://"])[-1]
    return "unknown reason" if "://" in cause else cause


def _causes(error: DetailedPyreqwestError) -> list[str]:
    """List the messages of the causes, outermost first; the outer ones hold the URL."""
    return [cause["message"] for cause in (error.details or {}).get("causes") or []]


@asynccontextmanager
async def open_blob_client(
    *, bandwidth: RateLimiter | None = None, for_uploads: bool = False
) -> AsyncIterator[BlobClient]:
    """Open a client that uses HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's certificate authorities.

    `for_uploads`: there is no read timeout, since a server is silent while it receives a body.
    """
    read_timeout = None if for_uploads else BLOB_READ_TIMEOUT
    try:
        client = configure_builder(ClientBuilder(), read_timeout).build()
    except BuilderError:
        client = configure_builder(ClientBuilder(), read_timeout).add_root_certificate_pem(fallback_ca_bundle()).build()
    async with client:
        yield BlobClient(client, bandwidth)


def configure_builder(builder: Builder, read_timeout: timedelta | None) -> Builder:
    """Configure a client without decoding and redirects: length, MD5 and Range refer to the stored bytes.

    `read_timeout`: longest silence of a server, counted from the start of the request. Raises UsageError for a proxy
    setting that is invalid.
    """
    configured = (
        builder.gzip(False)
        .brotli(False)
        .zstd(False)
        .deflate(False)
        .follow_redirects(False)
        .referer(False)
        .user_agent(user_agent())
        .default_headers({"Accept-Encoding": "identity"})
        .connect_timeout(CONNECT_TIMEOUT)
        .no_proxy()  # pyreqwest would read the environment by other rules
    )
    proxies = load_proxies()
    if proxies:
        proxies.check_usable()  # the callback below must not raise
        configured = configured.proxy(ProxyBuilder.custom(partial(_proxy_url_for, proxies)))
    return configured if read_timeout is None else configured.read_timeout(read_timeout)


def _proxy_url_for(configured_proxies: Proxies, url: Url) -> str | None:
    proxy = configured_proxies.proxy_for(str(url))
    return proxy.url if proxy is not None else None
