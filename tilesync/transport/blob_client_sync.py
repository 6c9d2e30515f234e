"""Requests that block the thread that makes them, with the retry loop they share: what a store is asked in between.

The engine is that of bulk.py; its waits happen outside the interpreter lock, so many threads may ask at once.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import TypeVar

from pyreqwest.client import SyncClient, SyncClientBuilder
from pyreqwest.exceptions import BuilderError, PyreqwestError
from pyreqwest.response import SyncResponse

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
from tilesync.transport.low_speed import LowSpeedGuard
from tilesync.transport.retry import SyncRetrier
from tilesync.transport.tls import fallback_ca_bundle

T = TypeVar("T")

UPLOAD_RESPONSE_TIMEOUT = timedelta(seconds=60)
"""How long an answer to what was sent may take, beside the time for its bytes."""

CHUNK_BYTES = 1 << 20
"""Bytes of a body that are taken at once."""


@dataclass(frozen=True, repr=False)
class SyncBlobRequest:
    """One request, made anew for each attempt. `secret`: it may carry one, so plain http is for this machine only.
    `within`: how long the answer to a body may take, if not as long as usual.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    has_secret: bool = True
    timeout: timedelta | None = None


class SyncBlobResponse:
    """An answer; its body is taken once."""

    def __init__(self, response: SyncResponse) -> None:
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str | None:
        """The first value of a header, None when it is absent or holds bytes that are no ASCII."""
        return first_header_value(self._response.get_header, name)

    def header_values(self, name: str) -> list[str]:
        """All values of a header, which may have come more than once; none where one holds bytes that are no ASCII."""
        with suppress(ValueError):
            return list(self._response.get_header_all(name))
        return []

    def read(self, max_bytes: int = MAX_RESPONSE_BYTES) -> bytes:
        """The whole body; of an error its beginning. Raises Transient for more than `most` bytes."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if self.status >= 400 and len(body) >= MAX_ERROR_RESPONSE_BYTES:
                break
            if len(body) > max_bytes:
                raise Transient(f"an answer of more than {max_bytes:,} bytes")
        return bytes(body)

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes. Raises Transient when it breaks off, or trickles."""
        progress, began, reader = LowSpeedGuard(), time.monotonic(), self._response.body_reader
        parts, size, broken = list[bytes](), 0, ""
        while True:
            try:
                chunk = reader.read_chunk()  # as it comes: what waits for a whole piece does not see a trickle
                if chunk:
                    progress.record(len(chunk), time.monotonic() - began)
            except PyreqwestError as error:
                chunk, broken = None, describe_error(error)
            except Transient as error:
                chunk, broken = None, str(error)
            if chunk:
                parts.append(bytes(chunk))
                size += len(chunk)
            if parts and (not chunk or size >= CHUNK_BYTES):
                yield b"".join(parts)
                parts, size = [], 0
            if not chunk:
                break
            began = time.monotonic()
        if broken:
            raise Transient(broken)


class SyncBlobClient:
    """A pool of connections, and how long a failing answer is borne with: no redirects, no decoding."""

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
        """One attempt. Raises Transient when no answer came."""
        if blob_request.has_secret:
            check_store_url(blob_request.url, allow_http=self._allow_http)
        try:
            client, within = self._client if blob_request.body is None else self._upload_client, None
            request = client.request(blob_request.method, blob_request.url).headers(dict(blob_request.headers))
            if blob_request.body is not None:  # the engine leaves the length of an empty body out
                within = blob_request.timeout or UPLOAD_RESPONSE_TIMEOUT + timedelta(
                    seconds=len(blob_request.body) / MIN_UPLOAD_BYTES_PER_S
                )
                request = (
                    request.body_bytes(blob_request.body)
                    .header("Content-Length", str(len(blob_request.body)))
                    .timeout(within)
                )
            streamed = request.streamed_read_buffer_limit(1).build_streamed()  # more is waited for, however it trickles
        except (BuilderError, ValueError):
            raise UsageError("not a URL, or not a header, that can be sent") from None
        try:
            response = streamed.__enter__()
            self._has_connected = True
        except PyreqwestError as error:
            raise request_error(error, blob_request.url, host_answered=self._has_connected, timeout=within) from None
        try:
            yield SyncBlobResponse(response)
        finally:
            streamed.__exit__(None, None, None)

    def request(
        self, server: str, build_request: Callable[[], SyncBlobRequest], read_response: Callable[[SyncBlobResponse], T]
    ) -> T:
        """Ask until `accept` takes an answer. `what` names the server in messages.

        Raises Unavailable past the retry budget, and whatever `make` and `accept` raise but Transient.
        """

        def attempt() -> T:
            with self.send_once(build_request()) as reply:
                return read_response(reply)

        return self.retry(server, attempt)

    def retry(self, server: str, attempt: Callable[[], T]) -> T:
        """Attempt until it is no longer Transient that is raised. Raises Unavailable past the retry budget."""
        return self._retrier.retry(server, attempt)


@contextmanager
def open_sync_client(
    observe: Observer, *, budget: timedelta, allow_http: bool = False, ca_bundle: bytes | None = None
) -> Iterator[SyncBlobClient]:
    """A pool that honours HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's authorities. `allow_http`: what is
    secret may go in the clear; `bundle`: more authorities (PEM).
    """
    with _build_client(BLOB_READ_TIMEOUT, ca_bundle) as client, _build_client(None, ca_bundle) as sender:
        yield SyncBlobClient(client, sender, observe, budget=budget, allow_http=allow_http)


def _build_client(read_timeout: timedelta | None, ca_bundle: bytes | None) -> SyncClient:
    def builder() -> SyncClientBuilder:
        plain = configure_builder(SyncClientBuilder(), read_timeout)
        return plain if ca_bundle is None else plain.add_root_certificate_pem(ca_bundle)

    try:
        return builder().build()
    except BuilderError:
        return builder().add_root_certificate_pem(fallback_ca_bundle()).build()
