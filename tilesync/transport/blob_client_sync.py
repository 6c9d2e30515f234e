"""Blocking HTTP client with retries, for requests to a store.

It uses pyreqwest, as `blob_client` does. Its waits happen outside the interpreter lock, so many threads may send at
once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import timedelta
from typing import TypeVar

from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError
from pyreqwest.response import SyncResponse

from tilesync.core.backoff import LowSpeedGuard
from tilesync.core.urls import check_store_url
from tilesync.errors import Transient, UsageError
from tilesync.protocols import Observer
from tilesync.transport.api_client import MAX_ERROR_RESPONSE_BYTES, MAX_RESPONSE_BYTES
from tilesync.transport.blob_client import (
    BLOB_READ_TIMEOUT,
    MIN_UPLOAD_BYTES_PER_S,
    configure_builder,
    describe_error,
    first_header_value,
    request_error,
)
from tilesync.transport.retry import SyncRetrier
from tilesync.transport.tls import fallback_ca_bundle
from tilesync.values import dataclass

T = TypeVar("T")

UPLOAD_RESPONSE_TIMEOUT = timedelta(seconds=60)
"""Time limit for the response to an upload, in addition to the time for its bytes."""

CHUNK_BYTES = 1 << 20
"""Size of the pieces in which a body is yielded."""


@dataclass(frozen=True, repr=False)
class SyncBlobRequest:
    """One request, built anew for each attempt.

    `has_secret`: it may carry a secret, so plain http is allowed to this machine only. `timeout`: time limit for the
    response to a body, in place of the default one.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    has_secret: bool = True
    timeout: timedelta | None = None


class SyncBlobResponse:
    """Response whose body can be read once."""

    def __init__(self, response: SyncResponse) -> None:
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str | None:
        """Return the first value of a header; None when it is absent or not ASCII."""
        return first_header_value(self._response.get_header, name)

    def header_values(self, name: str) -> list[str]:
        """Return all values of a header, which may occur more than once; an empty list if one is not ASCII."""
        with suppress(ValueError):
            return list(self._response.get_header_all(name))
        return []

    def read(self, max_bytes: int = MAX_RESPONSE_BYTES) -> bytes:
        """Read the whole body, or the first bytes of an error's body. Raises Transient for more than `max_bytes`."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if self.status >= 400 and len(body) >= MAX_ERROR_RESPONSE_BYTES:
                break
            if len(body) > max_bytes:
                raise Transient(f"a response of more than {max_bytes:,} bytes")
        return bytes(body)

    def chunks(self) -> Iterator[bytes]:
        """Yield the body as it arrives. Raises Transient when it is cut off or stalls."""
        speed_guard, started_at, reader = LowSpeedGuard(), time.monotonic(), self._response.body_reader
        parts, size, failure = list[bytes](), 0, ""
        while True:
            try:
                chunk = reader.read_chunk()  # not a full piece: a stalled body would go unseen
                if chunk:
                    speed_guard.record(len(chunk), time.monotonic() - started_at)
            except PyreqwestError as error:
                chunk, failure = None, describe_error(error)
            except Transient as error:
                chunk, failure = None, str(error)
            if chunk:
                parts.append(bytes(chunk))
                size += len(chunk)
            if parts and (not chunk or size >= CHUNK_BYTES):
                yield b"".join(parts)
                parts, size = [], 0
            if not chunk:
                break
            started_at = time.monotonic()
        if failure:
            raise Transient(failure)


class SyncBlobClient:
    """Connection pool with a retry budget: no redirects, no decoding."""

    def __init__(
        self,
        client: SyncClient,
        upload_client: SyncClient,
        observe: Observer,
        *,
        budget: timedelta,
        allow_http: bool = False,
    ) -> None:
        self._allow_http = allow_http
        self._client = client
        self._upload_client = upload_client
        self._has_connected = False
        self._retrier = SyncRetrier(observe, budget=budget)

    @contextmanager
    def send_once(self, blob_request: SyncBlobRequest) -> Iterator[SyncBlobResponse]:
        """Send a request without retries. Raises Transient when no response arrives."""
        if blob_request.has_secret:
            check_store_url(blob_request.url, allow_http=self._allow_http)
        try:
            client, limit = self._client if blob_request.body is None else self._upload_client, None
            request = client.request(blob_request.method, blob_request.url).headers(dict(blob_request.headers))
            if blob_request.body is not None:  # pyreqwest omits Content-Length for an empty body
                limit = blob_request.timeout or UPLOAD_RESPONSE_TIMEOUT + timedelta(
                    seconds=len(blob_request.body) / MIN_UPLOAD_BYTES_PER_S
                )
                request = (
                    request.body_bytes(blob_request.body)
                    .header("Content-Length", str(len(blob_request.body)))
                    .timeout(limit)
                )
            # a larger buffer would be waited for without a limit, however slowly it fills
            streamed = request.streamed_read_buffer_limit(1).build_streamed()
        except (BuilderError, ValueError):
            raise UsageError("the URL or a header contains characters that cannot be sent") from None
        try:
            response = streamed.__enter__()
            self._has_connected = True
        except PyreqwestError as error:
            raise request_error(error, blob_request.url, host_answered=self._has_connected, timeout=limit) from None
        try:
            yield SyncBlobResponse(response)
        finally:
            streamed.__exit__(None, None, None)

    def request(
        self, server: str, build_request: Callable[[], SyncBlobRequest], read_response: Callable[[SyncBlobResponse], T]
    ) -> T:
        """Send a request until `read_response` accepts a response. `server` names the server in messages.

        Raises Unavailable when the retry budget is spent, and every error of `build_request` and `read_response` except
        Transient.
        """

        def attempt() -> T:
            with self.send_once(build_request()) as response:
                return read_response(response)

        return self.retry(server, attempt)

    def retry(self, server: str, attempt: Callable[[], T]) -> T:
        """Call `attempt` until it raises no Transient. Raises Unavailable when the retry budget is spent."""
        return self._retrier.retry(server, attempt)


@contextmanager
def open_sync_client(
    observe: Observer, *, budget: timedelta, allow_http: bool = False, ca_bundle: bytes | None = None
) -> Iterator[SyncBlobClient]:
    """Open a client that uses HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's certificate authorities.

    `allow_http`: secrets may be sent without TLS. `ca_bundle`: additional authorities (PEM).
    """
    with _build_client(BLOB_READ_TIMEOUT, ca_bundle) as client, _build_client(None, ca_bundle) as upload_client:
        yield SyncBlobClient(client, upload_client, observe, budget=budget, allow_http=allow_http)


def _build_client(read_timeout: timedelta | None, ca_bundle: bytes | None) -> SyncClient:
    def builder() -> SyncClientBuilder:
        configured = configure_builder(SyncClientBuilder(), read_timeout)
        return configured if ca_bundle is None else configured.add_root_certificate_pem(ca_bundle)

    try:
        return builder().build()
    except BuilderError:
        return builder().add_root_certificate_pem(fallback_ca_bundle()).build()
