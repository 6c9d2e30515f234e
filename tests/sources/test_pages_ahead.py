"""Pages ahead: which requests are made before the caller wants their pages, and what becomes of them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from tilesync.errors import Transient
from tilesync.model import Blob, Page
from tilesync.sources.pages_ahead import MAX_PAGES_AHEAD, AnnounceMarker, PagesAhead


class Listing:
    """A listing of pages "0", "1", …; each of them waits until it is allowed to end."""

    def __init__(self, count: int) -> None:
        self.count = count
        self.requested: list[str | None] = []
        self.cancelled: list[str | None] = []
        self.held: dict[str | None, asyncio.Event] = {}
        self.torn: dict[str | None, int] = {}

    def page(self, marker: str | None) -> Page:
        number = int(marker or 0)
        return Page.of([Blob(f"{number}", 1)], f"{number + 1}" if number + 1 < self.count else None)

    async def fetch(self, marker: str | None, announce: AnnounceMarker) -> Page:
        self.requested.append(marker)
        try:
            await asyncio.sleep(0)
            announce(self.page(marker).marker)
            if marker in self.held:
                await self.held[marker].wait()
            if self.torn.get(marker):
                self.torn[marker] -= 1
                announce(None)
                return await self.fetch(marker, announce)
        except asyncio.CancelledError:
            self.cancelled.append(marker)
            raise
        return self.page(marker)


def run(
    listing: Listing, work: Callable[[PagesAhead], Awaitable[None]], *, known: frozenset[str] = frozenset()
) -> None:
    async def main() -> None:
        ahead = PagesAhead(listing.fetch, lambda marker: marker not in known)
        try:
            async with asyncio.timeout(30):
                await work(ahead)
        finally:
            await ahead.aclose()
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(main())


async def settle() -> None:
    for _ in range(20):
        await asyncio.sleep(0)


async def read_all(ahead: PagesAhead) -> list[str]:
    names, marker = list[str](), None
    while True:
        page = await ahead.get(marker)
        names += page.blobs.names
        if page.marker is None:
            return names
        marker = page.marker


def test_each_page_is_requested_once() -> None:
    """All pages come in order, each by one request."""
    listing = Listing(9)

    async def work(ahead: PagesAhead) -> None:
        assert await read_all(ahead) == [f"{number}" for number in range(9)]

    run(listing, work)
    assert listing.requested == [None, *(f"{number}" for number in range(1, 9))]


def test_a_bounded_number_of_pages_is_requested_ahead() -> None:
    """The next pages are requested while the caller works on one, and no more than the bound."""
    listing = Listing(9)

    async def work(ahead: PagesAhead) -> None:
        await ahead.get(None)
        await settle()
        assert listing.requested == [None, *(f"{number}" for number in range(1, 1 + MAX_PAGES_AHEAD))]
        await ahead.get("1")
        await settle()
        assert len(listing.requested) == 2 + MAX_PAGES_AHEAD

    run(listing, work)
    assert len(listing.requested) == 2 + MAX_PAGES_AHEAD


def test_the_next_page_is_requested_while_one_is_parsed() -> None:
    """A page that is not whole yet has announced the next one, which is requested at once."""
    listing = Listing(9)
    listing.held[None] = asyncio.Event()

    async def work(ahead: PagesAhead) -> None:
        first = asyncio.create_task(ahead.get(None))
        await settle()
        assert listing.requested == [None, "1"]
        listing.held[None].set()
        assert (await first).blobs.names == ["0"]

    run(listing, work)


@pytest.mark.parametrize("torn", [None, "1"])
def test_pages_after_a_torn_one_are_dropped(torn: str | None) -> None:
    """What was requested after a page that turns out to be malformed is cancelled, and requested again after it."""
    listing = Listing(4)
    listing.torn[torn] = 1
    following = "1" if torn is None else "2"
    listing.held = {torn: asyncio.Event(), following: asyncio.Event()}

    async def work(ahead: PagesAhead) -> None:
        reading = asyncio.create_task(read_all(ahead))
        await settle()
        assert listing.requested[-1] == following
        listing.held[torn].set()
        await settle()
        listing.held[following].set()
        assert await reading == ["0", "1", "2", "3"]

    run(listing, work)
    assert listing.cancelled == [following]
    assert (listing.requested.count(torn), listing.requested.count(following)) == (2, 2)


def test_a_known_marker_is_not_requested_ahead() -> None:
    """A marker that the listing already had is requested only if the caller asks for it."""
    listing = Listing(4)

    async def work(ahead: PagesAhead) -> None:
        await ahead.get(None)
        await settle()
        assert listing.requested == [None]
        assert (await ahead.get("1")).blobs.names == ["1"]

    run(listing, work, known=frozenset("1"))


def test_another_marker_than_the_announced_one() -> None:
    """The caller gets the page that it asks for; those requested ahead are dropped."""
    listing = Listing(9)
    listing.held["1"] = asyncio.Event()

    async def work(ahead: PagesAhead) -> None:
        await ahead.get(None)
        assert (await ahead.get("5")).blobs.names == ["5"]

    run(listing, work)
    assert "1" in listing.cancelled


def test_an_error_ahead_comes_with_its_page() -> None:
    """A request ahead that fails does so when its page is wanted; all others end with the caller."""

    class Failing(Listing):
        async def fetch(self, marker: str | None, announce: AnnounceMarker) -> Page:
            if marker == "1":
                raise Transient("gone")
            return await super().fetch(marker, announce)

    listing = Failing(9)

    async def work(ahead: PagesAhead) -> None:
        await ahead.get(None)
        await settle()
        with pytest.raises(Transient):
            await ahead.get("1")

    run(listing, work)
