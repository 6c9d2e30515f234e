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

from tilesync.core.urls import check_store
from tilesync.errors import Transient, UsageError
from tilesync.protocols import Observer
from tilesync.transport.api_client import LARGEST_ANSWER, LARGEST_ERROR
from tilesync.transport.blob_client import SILENCE, SLOWEST, explained, first_value, plain_builder, unanswered
from tilesync.transport.low_speed import Progress
from tilesync.transport.retry import Insistence
from tilesync.transport.tls import fallback_bundle

T = TypeVar("T")

ANSWER = timedelta(seconds=60)
"""How long an answer to what was sent may take, beside the time for its bytes."""

PIECE = 1 << 20
"""Bytes of a body that are taken at once."""


@dataclass(frozen=True, repr=False)
class Send:
    """One request, made anew for each attempt. `secret`: it may carry one, so plain http is for this machine only.
    `within`: how long the answer to a body may take, if not as long as usual.
    """

    method: str
    url: str
    headers: Mapping[str, str]
    body: bytes | None = None
    secret: bool = True
    within: timedelta | None = None


class Reply:
    """An answer; its body is taken once."""

    def __init__(self, response: SyncResponse) -> None:
        self._response = response
        self.status = response.status

    def header(self, name: str) -> str | None:
        """The first value of a header, None when it is absent or holds bytes that are no ASCII."""
        return first_value(self._response.get_header, name)

    def values(self, name: str) -> list[str]:
        """All values of a header, which may have come more than once; none where one holds bytes that are no ASCII."""
        with suppress(ValueError):
            return list(self._response.get_header_all(name))
        return []

    def read(self, most: int = LARGEST_ANSWER) -> bytes:
        """The whole body; of an error its beginning. Raises Transient for more than `most` bytes."""
        body = bytearray()
        for chunk in self.chunks():
            body += chunk
            if self.status >= 400 and len(body) >= LARGEST_ERROR:
                break
            if len(body) > most:
                raise Transient(f"an answer of more than {most:,} bytes")
        return bytes(body)

    def chunks(self) -> Iterator[bytes]:
        """The body as it comes. Raises Transient when it breaks off, or trickles."""
        progress, began, reader = Progress(), time.monotonic(), self._response.body_reader
        parts, size, broken = list[bytes](), 0, ""
        while True:
            try:
                chunk = reader.read_chunk()  # as it comes: what waits for a whole piece does not see a trickle
                if chunk:
                    progress.note(len(chunk), time.monotonic() - began)
            except PyreqwestError as error:
                chunk, broken = None, explained(error)
            except Transient as error:
                chunk, broken = None, str(error)
            if chunk:
                parts.append(bytes(chunk))
                size += len(chunk)
            if parts and (not chunk or size >= PIECE):
                yield b"".join(parts)
                parts, size = [], 0
            if not chunk:
                break
            began = time.monotonic()
        if broken:
            raise Transient(broken)


class Blocking:
    """A pool of connections, and how long a failing answer is borne with: no redirects, no decoding."""

    def __init__(
        self,
        client: SyncClient,
        sender: SyncClient,
        observe: Observer,
        *,
        budget: timedelta,
        allow_http: bool = False,
    ) -> None:
        self._allow_http = allow_http
        self._client = client
        self._sender = sender
        self._reached = False
        self._insistence = Insistence(observe, budget=budget)

    @contextmanager
    def send(self, send: Send) -> Iterator[Reply]:
        """One attempt. Raises Transient when no answer came."""
        if send.secret:
            check_store(send.url, allow_http=self._allow_http)
        try:
            client, within = self._client if send.body is None else self._sender, None
            request = client.request(send.method, send.url).headers(dict(send.headers))
            if send.body is not None:  # the engine leaves the length of an empty body out
                within = send.within or ANSWER + timedelta(seconds=len(send.body) / SLOWEST)
                request = request.body_bytes(send.body).header("Content-Length", str(len(send.body))).timeout(within)
            streamed = request.streamed_read_buffer_limit(1).build_streamed()  # more is waited for, however it trickles
        except (BuilderError, ValueError):
            raise UsageError("not a URL, or not a header, that can be sent") from None
        try:
            response = streamed.__enter__()
            self._reached = True
        except PyreqwestError as error:
            raise unanswered(error, send.url, reached=self._reached, within=within) from None
        try:
            yield Reply(response)
        finally:
            streamed.__exit__(None, None, None)

    def ask(self, what: str, make: Callable[[], Send], accept: Callable[[Reply], T]) -> T:
        """Ask until `accept` takes an answer. `what` names the server in messages.

        Raises Unavailable past the retry budget, and whatever `make` and `accept` raise but Transient.
        """

        def attempt() -> T:
            with self.send(make()) as reply:
                return accept(reply)

        return self.insist(what, attempt)

    def insist(self, what: str, attempt: Callable[[], T]) -> T:
        """Attempt until it is no longer Transient that is raised. Raises Unavailable past the retry budget."""
        return self._insistence.insist(what, attempt)


@contextmanager
def blocking(
    observe: Observer, *, budget: timedelta, allow_http: bool = False, bundle: bytes | None = None
) -> Iterator[Blocking]:
    """A pool that honours HTTPS_PROXY, NO_PROXY, SSL_CERT_FILE and the system's authorities. `allow_http`: what is
    secret may go in the clear; `bundle`: more authorities (PEM).
    """
    with _client(SILENCE, bundle) as client, _client(None, bundle) as sender:
        yield Blocking(client, sender, observe, budget=budget, allow_http=allow_http)


def _client(silence: timedelta | None, bundle: bytes | None) -> SyncClient:
    def builder() -> SyncClientBuilder:
        plain = plain_builder(SyncClientBuilder(), silence)
        return plain if bundle is None else plain.add_root_certificate_pem(bundle)

    try:
        return builder().build()
    except BuilderError:
        return builder().add_root_certificate_pem(fallback_bundle()).build()
