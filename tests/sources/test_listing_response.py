"""Responses to listing requests: their bodies in every coding, their limits, and what is retried."""

from __future__ import annotations

import asyncio
import gzip
import logging
import threading
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tests.support.http_server import Handle, answer, cut, in_turn, sending, serving
from tilesync.azure.sas import parse_sas_link
from tilesync.core import backoff
from tilesync.errors import ExportReplaced, LinkRefused, Transient, Unavailable
from tilesync.events import Event, Retried
from tilesync.model import Page
from tilesync.sources import listing_response
from tilesync.sources.blob_response import Provenance
from tilesync.sources.container import Container
from tilesync.sources.listing_response import raise_listing_refusal, read_page_body
from tilesync.transport.blob_client import BlobResponse, open_blob_client
from tilesync.transport.rate_limit import RateLimiter
from tilesync.transport.renewing_link import RenewingLink
from tilesync.transport.retry import AsyncRetrier

BLOB = "<Blob><Name>{:06}.glb</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>"
BLOBS = 2000
BODY = (
    '<?xml version="1.0" encoding="utf-8"?><EnumerationResults><Blobs>'
    f"{''.join(map(BLOB.format, range(BLOBS)))}</Blobs><NextMarker /></EnumerationResults>"
).encode()
COMPRESSED = gzip.compress(BODY, mtime=0)


def chunked(request: Any, *, is_complete: bool = True) -> None:
    """Send the page in chunks, without a length, as Azure may do."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    for start in range(0, len(BODY), 10_000):
        piece = BODY[start : start + 10_000]
        request.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
    request.wfile.write(b"0\r\n\r\n" if is_complete else b"")
    request.close_connection = not is_complete


def unfinished(request: Any) -> None:
    """Send all bytes of the page in chunks, but not the last, empty chunk."""
    chunked(request, is_complete=False)


def without_length(request: Any) -> None:
    """Send the page without a length; the end of the connection ends it."""
    request.wfile.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\n" + BODY)
    request.close_connection = True


class Listing:
    """Listing of a container behind a handler, on a fake clock, with its events."""

    def __init__(self, handle: Handle, *, bandwidth: RateLimiter | None = None, budget: float = 60.0) -> None:
        self.events = list[Event]()
        self.clock = FakeClock()
        self._handle = handle
        self._bandwidth = bandwidth
        self._budget = timedelta(seconds=budget)

    def pages(self) -> list[Page]:
        """List all pages."""
        with serving(self._handle) as server:
            return asyncio.run(self._list(server.url("/container?sv=2024-05-04&sr=c&sp=rl&sig=SECRET")))

    async def _list(self, url: str) -> list[Page]:
        link = RenewingLink(None, self.clock, self.events.append)
        link.set_current(parse_sas_link(url, fetched=self.clock.monotonic()), None)
        async with open_blob_client(bandwidth=self._bandwidth) as blob_client:
            retrier = AsyncRetrier(self.clock, self.events.append, budget=self._budget)
            container = Container(listing=link, content=link, blob_client=blob_client, retrier=retrier)
            return [page async for page in container.pages(None)]


def ask(handle: Handle, read: Callable[[BlobResponse], Any]) -> Any:
    """Send a request, and read its response."""

    async def work(url: str) -> Any:
        async with open_blob_client() as blob_client:
            response = await blob_client.get(url, {})
            try:
                return await read(response)
            finally:
                await response.aclose()

    with serving(handle) as server:
        return asyncio.run(work(server.url("/x?sig=SECRET")))


def refuse(response: BlobResponse) -> Any:
    return raise_listing_refusal(response, Provenance(cdn=False), is_probe=False)


def refuse_probe(response: BlobResponse) -> Any:
    return raise_listing_refusal(response, Provenance(cdn=False), is_probe=True)


@pytest.mark.parametrize(
    "handle",
    [
        answer(BODY),
        chunked,
        without_length,
        answer(COMPRESSED, Content_Encoding="gzip"),
        answer(BODY, Content_Encoding="identity"),
    ],
    ids=["length", "chunked", "no length", "gzip", "identity"],
)
def test_every_coding_of_a_page(handle: Handle) -> None:
    """A page is read whole, with a length or without, and in the content codings that a server may apply."""
    assert ask(handle, read_page_body) == BODY


def test_a_page_is_requested_without_content_codings() -> None:
    """A request asks for no content coding, and names tilesync."""
    with serving(answer(BODY)) as server:

        async def work() -> None:
            async with open_blob_client() as blob_client:
                response = await blob_client.get(server.url(), {})
                await read_page_body(response)
                await response.aclose()

        asyncio.run(work())
    assert server.headers[0]["accept-encoding"] == "identity"
    assert server.headers[0]["user-agent"].startswith("tilesync/")


@pytest.mark.parametrize(
    "damage",
    [
        cut(BODY, len(BODY) // 2),
        cut(BODY, 0),
        unfinished,
        answer(BODY[:-300]),
        answer(COMPRESSED[:-40], Content_Encoding="gzip"),
        answer(b"no gzip", Content_Encoding="gzip"),
        answer(BODY, Content_Encoding="br"),
        answer(status=500),
    ],
    ids=["cut off", "only headers", "no last chunk", "truncated", "truncated gzip", "no gzip", "br", "500"],
)
def test_damaged_pages_are_retried(damage: Handle) -> None:
    """A damaged page never passes for a listing: it is requested again, and no message shows the link."""
    listing = Listing(in_turn(damage, answer(BODY)))
    (page,) = listing.pages()
    assert len(page.blobs) == BLOBS
    (retried,) = [event for event in listing.events if isinstance(event, Retried)]
    assert retried.what == "the container's listing"
    assert "sig=" not in f"{listing.events}"
    assert "SECRET" not in f"{listing.events}"


def test_retry_after_is_obeyed() -> None:
    """A busy storage is asked again after the seconds of its Retry-After."""
    listing = Listing(in_turn(answer(status=503, Retry_After="7"), answer(BODY)))
    assert len(listing.pages()) == 1
    (delay_s,) = listing.clock.sleeps_s
    assert 7 <= delay_s <= 7.7


def test_a_listing_that_keeps_failing() -> None:
    """When the budget is spent, the error names the listing, and not the link."""
    listing = Listing(answer(status=503), budget=2.0)
    with pytest.raises(Unavailable, match="the container's listing kept failing") as caught:
        listing.pages()
    assert "sig=" not in f"{caught.value} {caught.value.hint} {listing.events}"


def test_nothing_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """No logger gets the link of a listing."""
    caplog.set_level(logging.DEBUG)
    Listing(answer(BODY)).pages()
    assert "SECRET" not in caplog.text


@pytest.mark.parametrize("coding", ["", "gzip"])
def test_a_page_that_is_too_large(monkeypatch: pytest.MonkeyPatch, coding: str) -> None:
    """A page, also one that is small until it is decoded, has a maximum size."""
    monkeypatch.setattr(listing_response, "MAX_LISTING_PAGE_BYTES", len(BODY) - 1)
    body = COMPRESSED if coding else BODY
    with pytest.raises(Transient, match=f"more than {len(BODY) - 1:,} bytes"):
        ask(answer(body, Content_Encoding=coding or "identity"), read_page_body)


def test_an_endless_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without an end fails at the maximum size."""
    monkeypatch.setattr(listing_response, "MAX_LISTING_PAGE_BYTES", 1 << 20)
    over = threading.Event()
    try:
        with pytest.raises(Transient, match="a listing page of more than"):
            ask(sending("200 OK\r\nConnection: close", b"x" * 65536, over=over), read_page_body)
    finally:
        over.set()


@pytest.mark.scale
def test_a_page_that_stalls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page that trickles is given up, although its server is never silent."""
    monkeypatch.setattr(backoff, "PROGRESS_WINDOW", timedelta(seconds=0.5))
    over = threading.Event()
    try:
        with pytest.raises(Transient, match="bytes arrived within"):
            ask(sending("200 OK\r\nConnection: close", b"x", every=0.05, over=over), read_page_body)
    finally:
        over.set()


def test_pages_count_towards_the_bandwidth_limit() -> None:
    """The bytes of a page wait for the bandwidth."""
    clock = FakeClock()
    Listing(answer(BODY), bandwidth=RateLimiter(len(BODY) / 10, clock)).pages()
    assert 5 < sum(clock.sleeps_s) < 15


def test_a_denial_has_the_time_of_the_server() -> None:
    """A refused link tells the clock of the server, from which a wrong clock is found, and the reason in the body."""
    date = "Sun, 01 Mar 2026 08:30:00 GMT"
    body = b"<Error><Code>AuthenticationFailed</Code><Message>x</Message></Error>"

    def handle(request: Any) -> None:
        head = f"HTTP/1.1 403 No\r\nDate: {date}\r\nx-ms-request-id: 1\r\nContent-Length: {len(body)}\r\n\r\n"
        request.wfile.write(head.encode() + body)

    with pytest.raises(LinkRefused, match=r"refused to be listed \(403 AuthenticationFailed\)") as caught:
        ask(handle, refuse)
    assert caught.value.server_time == datetime(2026, 3, 1, 8, 30, tzinfo=UTC)


@pytest.mark.parametrize(
    ("status", "read", "error"),
    [
        (404, refuse, ExportReplaced),
        (400, refuse_probe, ExportReplaced),
        (405, refuse_probe, ExportReplaced),
        (400, refuse, Unavailable),
        (302, refuse, Unavailable),
        (407, refuse, Unavailable),
        (429, refuse, Transient),
        (500, refuse, Transient),
        (503, refuse, Transient),
        (204, refuse, Unavailable),
    ],
)
def test_statuses(status: int, read: Any, error: type[Exception]) -> None:
    """Each status has its error; a probe takes some of them for a path that is no container."""
    with pytest.raises(error):
        ask(answer(b"" if status == 204 else b"x", status=status, x_ms_request_id="1"), read)
