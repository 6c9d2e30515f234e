"""Container as a source: listing and bodies through renewing links, and the error for each response."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Awaitable, Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

import pytest

from tests.support.builders import export
from tests.support.clock import FakeClock
from tests.support.faults import (
    error_response,
    halve_body,
    ignore_range,
    is_blob,
    is_blob_named,
    is_listing,
    is_storage,
    redirect,
    truncate_body,
)
from tests.support.simulator import EXPORT, JobOutcome, Simulator
from tilesync.azure.sas import parse_sas_link
from tilesync.demo.fake_service import StoredBlob
from tilesync.demo.loopback_server import FakeResponse
from tilesync.errors import (
    BlobError,
    BlobMissing,
    ExportReplaced,
    NotAuthorised,
    RangeRefused,
    TilesyncError,
    Transient,
    Unavailable,
)
from tilesync.model import Blob, Page, SasUrl
from tilesync.sources.container import Container
from tilesync.transport.blob_client import open_blob_client
from tilesync.transport.rate_limit import RateLimiter
from tilesync.transport.renewing_link import RenewingLink
from tilesync.transport.retry import AsyncRetrier

T = TypeVar("T")


class AdvancingClock(FakeClock):
    """Clock with the real time, whose monotonic time grows at each call."""

    def now(self) -> datetime:
        return datetime.now(UTC)

    def monotonic(self) -> float:
        self.advance(0.001)
        return super().monotonic()


class CountedLink(RenewingLink):
    """Link that counts its renewals; with `always_expired` each fresh link has expired."""

    def __init__(self, sim: Simulator, clock: FakeClock) -> None:
        super().__init__(self.fetch, clock, JobOutcome())
        self.sim = sim
        self.clock = clock
        self.renewals = 0
        self.always_expired = False
        self.set_current(self.make(), None)

    def make(self) -> SasUrl:
        link = parse_sas_link(self.sim.create_link(EXPORT), fetched=self.clock.monotonic())
        return replace(link, expires=self.clock.now() - timedelta(hours=1)) if self.always_expired else link

    async def fetch(self) -> tuple[SasUrl, datetime | None]:
        self.renewals += 1
        return self.make(), None


def run_with_container(
    sim: Simulator,
    job: Callable[[Container, CountedLink], Awaitable[T]],
    *,
    budget: float = 5,
    bwlimit: float | None = None,
) -> T:
    async def work() -> T:
        clock = AdvancingClock()
        links = CountedLink(sim, clock)
        bandwidth = RateLimiter(bwlimit, FakeClock()) if bwlimit else None
        retrier = AsyncRetrier(clock, JobOutcome(), budget=timedelta(seconds=budget))
        async with open_blob_client(bandwidth=bandwidth) as blob_client:
            container = Container(listing=links, content=links, blob_client=blob_client, retrier=retrier)
            async with asyncio.timeout(30):
                return await job(container, links)

    return asyncio.run(work())


async def list_pages(container: Container, marker: str | None = None) -> list[Page]:
    return [page async for page in container.pages(marker)]


async def body(container: Container, wanted: Blob, offset: int = 0) -> tuple[int, bytes]:
    opened = await container.open(wanted, offset)
    try:
        return opened.start, b"".join([chunk async for chunk in opened.chunks()])
    finally:
        await opened.aclose()


def listed_blob(sim: Simulator, name: str) -> Blob:
    item = sim.blob(name)
    return Blob(name, len(item.data), item.etag)


NAME = "data/ä b%20+#.bin"


@pytest.fixture
def service() -> Any:
    """Simulator with a small export, in which a fault that is not hit fails the test."""
    with Simulator(page_size=4) as sim:
        sim.offer_export()
        yield sim


# --- listing ---


def test_listing_is_complete(service: Simulator) -> None:
    """Every blob once, over all pages, with size, ETag and MD5."""
    pages = run_with_container(service, lambda container, _: list_pages(container))
    blobs = [item for page in pages for item in page.blobs]
    assert {item.name: (item.size, item.etag) for item in blobs} == {
        name: (len(item.data), item.etag) for name, item in service.containers[EXPORT].items()
    }
    assert len(pages) == len(service.listing_requests) == 5
    assert all(item.md5 is not None and len(item.md5) == 16 for item in blobs)


def test_listing_from_a_marker(service: Simulator) -> None:
    """A listing from a marker contains only what follows."""
    pages = run_with_container(service, lambda container, _: list_pages(container, "2!8"))
    assert sum(len(page.blobs) for page in pages) == len(service.containers[EXPORT]) - 8
    assert service.listing_requests[0].query["marker"] == "2!8"


@pytest.mark.parametrize(
    "name", ["control\x01\x1f.bin", "quote'\"<>&.bin", " space at both ends ", "emoji 😀/ñ", "100%25.bin"]
)
def test_unusual_names(service: Simulator, name: str) -> None:
    """A listing has every name exactly, and its bytes are found under it."""
    service.containers[EXPORT][name] = StoredBlob(b"odd bytes")

    async def job(container: Container, _: CountedLink) -> tuple[int, bytes]:
        (result,) = [item for page in await list_pages(container) for item in page.blobs if item.name == name]
        return await body(container, result)

    assert run_with_container(service, job) == (0, b"odd bytes")


def test_truncated_page_is_retried(service: Simulator) -> None:
    """Half a page, with or without a matching Content-Length: never a short listing."""
    service.add_fault(is_listing, halve_body)
    service.add_fault(is_listing, truncate_body(200), skip=2)
    service.add_fault(is_listing, error_response(200, body=b"<html>hello</html>"), skip=3)
    pages = run_with_container(service, lambda container, _: list_pages(container))
    assert sum(len(page.blobs) for page in pages) == len(service.containers[EXPORT])


def test_page_that_stays_truncated_ends_with_6(service: Simulator) -> None:
    """When the budget is spent: Unavailable."""
    service.add_fault(is_listing, halve_body, times=None, skip=2)
    with pytest.raises(Unavailable):
        run_with_container(service, lambda container, _: list_pages(container), budget=1)


@pytest.mark.parametrize("form", ["<Blobs/>", "<Blobs></Blobs>"])
@pytest.mark.parametrize("markers", [["m1", "m1"], ["m1", "m2", "m1"], ["m1", "m2", "m3", "m1"]])
def test_loop_of_markers(service: Simulator, markers: list[str], form: str) -> None:
    """Pages in a loop, however long, are an error and not an endless listing."""
    following = dict(zip(["", *markers], markers, strict=False))

    def page(request: Any, _: Any) -> Any:
        marker = following[request.query.get("marker", "")]
        xml = f"<EnumerationResults>{form}<NextMarker>{marker}</NextMarker></EnumerationResults>"
        return FakeResponse(200, xml.encode())

    service.add_fault(is_listing, page, times=50)
    service.add_fault(is_listing, error_response(409, "SomethingElse"), times=None, optional=True)
    with pytest.raises(Unavailable, match="a page marker came twice"):
        run_with_container(service, lambda container, _: list_pages(container))
    assert len(service.listing_requests) == len(markers)


@pytest.mark.parametrize(
    "brings", ["", "<Blob><Name>a</Name><Properties><Content-Length>1</Content-Length></Properties></Blob>"]
)
def test_pages_without_new_blobs(service: Simulator, brings: str) -> None:
    """A listing with ever new markers and no new blobs is given up."""
    count = 0

    def page(_: Any, __: Any) -> Any:
        nonlocal count
        count += 1
        xml = f"<EnumerationResults><Blobs>{brings}</Blobs><NextMarker>m{count}</NextMarker></EnumerationResults>"
        return FakeResponse(200, xml.encode())

    service.add_fault(is_listing, page, times=300)
    with pytest.raises(Unavailable, match="consecutive pages of the listing had nothing new"):
        run_with_container(service, lambda container, _: list_pages(container))
    assert count <= 110


def test_empty_page_with_a_marker(service: Simulator) -> None:
    """Azure may send an empty page with a marker: the listing continues."""
    xml = b"<EnumerationResults><Blobs/><NextMarker>2!0</NextMarker></EnumerationResults>"
    service.add_fault(is_listing, lambda *_: FakeResponse(200, xml))
    pages = run_with_container(service, lambda container, _: list_pages(container))
    assert sum(len(page.blobs) for page in pages) == len(service.containers[EXPORT])


@pytest.mark.parametrize("code", ["ContainerNotFound", "ResourceNotFound"])
def test_listing_of_a_deleted_container(service: Simulator, code: str) -> None:
    """404: ExportReplaced, after one request."""
    service.add_fault(is_listing, error_response(404, code))
    with pytest.raises(ExportReplaced, match="gone"):
        run_with_container(service, lambda container, _: list_pages(container))
    assert len(service.requests) == 1


def test_a_container_being_deleted_is_gone(service: Simulator) -> None:
    """409 ContainerBeingDeleted: ExportReplaced."""
    service.add_fault(is_listing, error_response(409, "ContainerBeingDeleted"))
    with pytest.raises(ExportReplaced):
        run_with_container(service, lambda container, _: list_pages(container))


def test_busy_listing_is_retried(service: Simulator) -> None:
    """503 and 500 are retried within the budget."""
    service.add_fault(is_listing, error_response(503, "ServerBusy", Retry_After="1"), times=2)
    service.add_fault(is_listing, error_response(500, "OperationTimedOut"))
    assert len(run_with_container(service, lambda container, _: list_pages(container), budget=30)) == 5


def test_a_listing_is_not_redirected(service: Simulator) -> None:
    """302 is an error, and the other host gets no request."""
    with Simulator() as other:
        service.add_fault(is_listing, redirect(other.url + "/x"), times=None)
        with pytest.raises(TilesyncError):
            run_with_container(service, lambda container, _: list_pages(container), budget=1)
        assert other.requests == []


# --- links ---


def test_a_refused_link_is_renewed_and_the_marker_stays(service: Simulator) -> None:
    """403 between two pages: one renewal, the same page again, nothing twice."""
    service.run_before_request(3, is_listing, service.revoke_links)

    async def job(container: Container, links: CountedLink) -> None:
        pages = await list_pages(container)
        assert sum(len(page.blobs) for page in pages) == len(service.containers[EXPORT])
        assert links.renewals == 1

    run_with_container(service, job)
    assert [r.query.get("marker") for r in service.listing_requests] == [None, "2!4", "2!8", "2!8", "2!12", "2!16"]


def test_a_403_on_a_fresh_link_is_final(service: Simulator) -> None:
    """403, renewed, 403 on an unexpired link fetched after it: NotAuthorised, after two requests."""
    service.add_fault(is_storage, error_response(403, "AuthorizationFailure"), times=None)

    async def job(container: Container, links: CountedLink) -> None:
        with pytest.raises(NotAuthorised, match="fresh link"):
            await container.open(listed_blob(service, NAME), 0)
        assert links.renewals == 1

    run_with_container(service, job)
    assert len(service.requests) == 2


def test_a_403_on_a_link_fetched_before_the_refusal_is_not_final(service: Simulator) -> None:
    """A link that another worker renewed before this blob's 403 is not the fresh link: it is renewed again."""
    service.add_fault(is_blob, error_response(403, "AuthenticationFailed"), times=2)

    async def job(container: Container, links: CountedLink) -> None:
        stale, fresh, renewed = await links.current(), links.make(), links.current
        links.set_current(fresh, None)
        given = [stale, fresh]
        links.current = lambda: _soon(given.pop(0)) if given else renewed()  # type: ignore[method-assign]  # links that a test gives
        start, data = await body(container, listed_blob(service, NAME))
        assert (start, data) == (0, service.blob(NAME).data)
        assert links.renewals == 1

    run_with_container(service, job)
    assert len(service.requests) == 3


async def _soon(link: SasUrl) -> SasUrl:
    return link


def test_fresh_links_that_have_expired(service: Simulator) -> None:
    """If each fresh link is refused and expired, it ends after some attempts, with the clock in the hint."""
    service.add_fault(is_storage, error_response(403, "AuthenticationFailed"), times=None)

    async def job(container: Container, links: CountedLink) -> None:
        links.always_expired = True
        with pytest.raises(NotAuthorised) as caught:
            await container.open(listed_blob(service, NAME), 0)
        assert "clock" in caught.value.hint

    run_with_container(service, job)
    assert len(service.requests) <= 10


def test_no_error_holds_the_signature(service: Simulator) -> None:
    """No error for any response shows a query or signature."""
    effects = [
        error_response(403, "AuthenticationFailed"),
        error_response(404, "BlobNotFound"),
        error_response(412, "ConditionNotMet"),
        error_response(500, "X"),
        error_response(302, body=b"x", Location="/y?sig=1"),
        error_response(409, "Y"),
        truncate_body(0),
    ]
    for effect in effects:
        service.faults.clear()
        service.add_fault(is_blob, effect, times=None)
        with pytest.raises(TilesyncError) as caught:
            run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME)))
        chain: BaseException | None = caught.value
        while chain is not None:
            assert "sig=" not in str(chain)
            chain = chain.__cause__


# --- bodies ---


def test_request_headers_of_a_body(service: Simulator) -> None:
    """If-Match with the quoted ETag, identity encoding, no Range at offset 0."""
    assert run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME))) == (
        0,
        service.blob(NAME).data,
    )
    (request,) = service.requests
    assert request.headers["if-match"] == f'"{service.blob(NAME).etag}"'
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers.get("range") is None


def test_stored_bytes_are_not_decoded(service: Simulator) -> None:
    """A blob with Content-Encoding gzip arrives as it is stored."""
    service.blob(NAME).data = gzip.compress(b"content" * 99, mtime=0)
    service.blob(NAME).content_encoding = "gzip"
    assert (
        run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME)))[1]
        == service.blob(NAME).data
    )


def test_without_an_etag_there_is_no_condition(service: Simulator) -> None:
    """A listing without ETag: no If-Match, no error."""
    wanted = Blob(NAME, len(service.blob(NAME).data))
    assert run_with_container(service, lambda container, _: body(container, wanted))[0] == 0
    assert service.requests[0].headers.get("if-match") is None


def test_range_from_an_offset(service: Simulator) -> None:
    """From an offset on: 206, and exactly the rest."""
    got = run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME), 100))
    assert got == (100, service.blob(NAME).data[100:])
    assert service.requests[0].headers["range"] == "bytes=100-"


def test_ignored_range(service: Simulator) -> None:
    """200 to a Range: the body starts at 0, and states so."""
    service.add_fault(is_blob, ignore_range)
    assert run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME), 100)) == (
        0,
        service.blob(NAME).data,
    )


def test_a_range_after_the_end_is_refused(service: Simulator) -> None:
    """416: RangeRefused, to start over."""
    with pytest.raises(RangeRefused):
        run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME), 10_000))


def test_a_206_without_its_range_is_refused(service: Simulator) -> None:
    """206 without Content-Range cannot be placed: RangeRefused."""

    def silent(_: Any, proceed: Any) -> Any:
        answer = proceed()
        del answer.headers["Content-Range"]
        return answer

    service.add_fault(is_blob, silent)
    with pytest.raises(RangeRefused):
        run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME), 100))


def test_other_etag_is_export_replaced(service: Simulator) -> None:
    """If a cache ignores If-Match, the other ETag in its response is still detected."""

    def other(_: Any, proceed: Any) -> Any:
        answer = proceed()
        answer.headers["ETag"] = '"other"'
        return answer

    service.add_fault(is_blob, other)
    with pytest.raises(ExportReplaced):
        run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME)))


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (404, "BlobNotFound", BlobMissing),
        (404, "ContainerNotFound", ExportReplaced),
        (404, "FilesystemNotFound", ExportReplaced),
        (409, "ContainerBeingDeleted", ExportReplaced),
        (412, "ConditionNotMet", ExportReplaced),
        (416, "InvalidRange", RangeRefused),
        (500, "InternalError", Transient),
        (502, "", Transient),
        (503, "ServerBusy", Transient),
        (429, "", Transient),
        (408, "", Transient),
        (409, "BlobArchived", BlobError),
        (400, "InvalidHeaderValue", BlobError),
        (302, "", BlobError),
    ],
)
def test_error_for_each_status(service: Simulator, status: int, code: str, kind: type[TilesyncError]) -> None:
    """Each status and error code raises the error of the verdict table."""
    service.add_fault(is_blob, error_response(status, code))
    with pytest.raises(TilesyncError) as caught:
        run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME)))
    assert type(caught.value) is kind
    assert len(service.requests) == 1


def test_throttling_and_retry_after(service: Simulator) -> None:
    """503 with Retry-After: throttled, with the seconds; 500 is not throttling."""
    service.add_fault(is_blob, error_response(503, "ServerBusy", Retry_After="3"))
    service.add_fault(is_blob, error_response(500, "InternalError"))
    for pressure, wait in ((True, 3), (False, None)):
        with pytest.raises(Transient) as caught:
            run_with_container(service, lambda container, _: body(container, listed_blob(service, NAME)))
        assert (caught.value.is_throttled, caught.value.retry_after) == (pressure, wait)


def test_truncated_body_yields_its_bytes(service: Simulator) -> None:
    """The bytes before the failure are yielded first, then Transient is raised."""
    service.add_fault(is_blob_named(NAME), truncate_body(123))

    async def job(container: Container, _: CountedLink) -> None:
        opened = await container.open(listed_blob(service, NAME), 0)
        got = b""
        with pytest.raises(Transient):  # noqa: PT012 - what came before the break counts
            async for chunk in opened.chunks():
                got += chunk
        await opened.aclose()
        await opened.aclose()
        assert got == service.blob(NAME).data[:123]

    run_with_container(service, job)


def test_listing_and_bytes_may_go_through_two_links(service: Simulator) -> None:
    """With a CDN the listing uses one link, and the bytes the other."""

    async def work() -> None:
        clock = AdvancingClock()
        with Simulator() as cdn:
            cdn.offer_export(export())
            one, two = CountedLink(service, clock), CountedLink(cdn, clock)
            retrier = AsyncRetrier(clock, JobOutcome(), budget=timedelta(seconds=5))
            async with open_blob_client() as blob_client:
                container = Container(listing=one, content=two, blob_client=blob_client, retrier=retrier)
                pages = await list_pages(container)
                await body(container, next(iter(pages[0].blobs)))
            assert (len(cdn.listing_requests), len(cdn.blob_requests())) == (0, 1)

    asyncio.run(work())
    assert service.blob_requests() == []


# --- with a limited bandwidth ---


@pytest.mark.parametrize(("bwlimit", "size"), [(None, None), (1_000.0, "100"), (1_000_000.0, "357"), (1e9, "5000")])
def test_page_size_by_bandwidth(bwlimit: float | None, size: str | None) -> None:
    """A page takes a quarter of a second of the bandwidth; without a limit the storage chooses its size."""
    with Simulator() as sim:
        sim.offer_export({f"{number:04}.glb": b"" for number in range(900)})
        pages = run_with_container(sim, lambda container, _: list_pages(container), bwlimit=bwlimit)
        assert sum(len(page.blobs) for page in pages) == 900
        assert {request.query.get("maxresults") for request in sim.listing_requests} == {size}


RATE = 320_000
PIECE = RATE // 16
LARGE = bytes(range(256)) * 400


def pieced(sim: Simulator, name: str, offset: int = 0) -> tuple[int, bytes]:
    sim.clear_requests()
    return run_with_container(sim, lambda container, _: body(container, listed_blob(sim, name), offset), bwlimit=RATE)


@pytest.mark.parametrize("offset", [0, 7, PIECE, len(LARGE) - PIECE, len(LARGE) - 1])
def test_with_a_limited_bandwidth_a_large_blob_is_read_in_pieces(offset: int) -> None:
    """Each piece is requested by range, with the listed ETag; together they are the blob from the offset on."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": b"{}", "large": LARGE})
        assert pieced(sim, "large", offset) == (offset, LARGE[offset:])
        ranges = [f"bytes={at}-{min(at + PIECE, len(LARGE)) - 1}" for at in range(offset, len(LARGE), PIECE)]
        last = len(LARGE) - offset <= PIECE
        assert sim.range_headers("large") == ([f"bytes={offset}-"] if last else ranges)
        assert {request.headers["if-match"] for request in sim.blob_requests("large")} == {
            f'"{sim.blob("large").etag}"'
        }


def test_a_small_blob_is_requested_whole() -> None:
    """A blob of up to one piece is requested without a range."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": b"{}", "small": LARGE[:PIECE]})
        assert pieced(sim, "small") == (0, LARGE[:PIECE])
        assert sim.range_headers("small") == [None]


def test_server_without_ranges() -> None:
    """The first piece is then the whole blob, and no other is requested."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": b"{}", "large": LARGE})
        sim.add_fault(is_blob_named("large"), ignore_range, times=None)
        assert pieced(sim, "large") == (0, LARGE)
        assert len(sim.blob_requests("large")) == 1


def test_server_that_sends_more_than_the_range() -> None:
    """A range that continues to the end is the rest: nothing is fetched twice."""

    def endless(request: Any, proceed: Any) -> Any:
        start = request.headers["range"].partition("-")[0]
        del request.headers["range"]
        request.headers["range"] = f"{start}-"
        return proceed()

    with Simulator() as sim:
        sim.offer_export({"tileset.json": b"{}", "large": LARGE})
        sim.add_fault(is_blob_named("large"), endless, times=None)
        assert pieced(sim, "large", 7) == (7, LARGE[7:])
        assert len(sim.blob_requests("large")) == 1


def test_server_that_stops_supporting_ranges() -> None:
    """Bytes from the start are not taken for those of a later piece."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": b"{}", "large": LARGE})
        sim.add_fault(is_blob_named("large"), ignore_range, skip=2)
        with pytest.raises(RangeRefused):
            pieced(sim, "large")


def test_a_link_that_ends_between_two_pieces_is_renewed() -> None:
    """The rest arrives through a fresh link."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": b"{}", "large": LARGE})
        sim.add_fault(is_blob_named("large"), error_response(403, "AuthenticationFailed"), skip=2)
        assert pieced(sim, "large") == (0, LARGE)


def test_blob_that_changes_between_two_pieces() -> None:
    """Pieces of two versions of a blob are never joined."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": b"{}", "large": LARGE})
        sim.run_before_request(
            3, is_blob_named("large"), lambda: sim.regenerate({"tileset.json": b"{}", "large": LARGE[::-1]})
        )
        with pytest.raises(ExportReplaced):
            pieced(sim, "large")
