"""Pages of a listing that are requested ahead, so that no request waits until the page before it is parsed and stored.

The end of a page names the next one: its marker is known when the bytes have arrived, before they are parsed. So one
page arrives while another is parsed and the caller stores a third.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

from tilesync.model import Page

MAX_PAGES_AHEAD: Final = 2
"""Pages that are requested, but not yet returned to the caller: this bounds the memory."""

AnnounceMarker = Callable[[str | None], None]
"""Announces the marker of the next page, once it is known; None takes the announcement back."""

FetchPage = Callable[[str | None, AnnounceMarker], Coroutine[Any, Any, Page]]
"""Fetches and parses the page of a marker."""


class PagesAhead:
    """Requests of a listing, each of which starts when the page before it announces its marker.

    If a page turns out to be incomplete, all that was requested after it is dropped. The caller gets a page only by its
    marker, which it knows from the page before it. `may_request`: returns whether a marker may be requested ahead.
    """

    def __init__(self, fetch: FetchPage, may_request: Callable[[str], bool]) -> None:
        self._fetch = fetch
        self._may_request = may_request
        self._requests: dict[str | None, asyncio.Task[Page]] = {}  # by marker, in the order of the listing
        self._next: str | None = None  # announced by the last of them, not requested yet
        self._dropped = set[asyncio.Task[Page]]()

    async def get(self, marker: str | None) -> Page:
        """Return the page of a marker. Raises the errors of `fetch`."""
        if next(iter(self._requests), self) != marker:
            self._drop_all()
            self._request(marker)
        page = await self._requests[marker]
        del self._requests[marker]
        self._request_next()
        return page

    async def aclose(self) -> None:
        """Cancel all requests, and wait until they have ended."""
        self._drop_all()
        await asyncio.gather(*self._dropped, return_exceptions=True)

    def _request(self, marker: str | None) -> None:
        def announce(next_marker: str | None) -> None:
            if self._requests.get(marker) is task:
                self._announce(marker, next_marker)

        task = self._requests[marker] = asyncio.create_task(self._fetch(marker, announce))

    def _announce(self, marker: str | None, next_marker: str | None) -> None:
        while (last := next(reversed(self._requests))) != marker:
            self._drop(last)
        self._next = next_marker
        self._request_next()

    def _request_next(self) -> None:
        marker = self._next
        if marker is None or marker in self._requests or len(self._requests) >= MAX_PAGES_AHEAD:
            return
        self._next = None
        if self._may_request(marker):
            self._request(marker)

    def _drop_all(self) -> None:
        self._next = None
        for marker in [*self._requests]:
            self._drop(marker)

    def _drop(self, marker: str | None) -> None:
        task = self._requests.pop(marker)
        task.cancel()
        self._dropped.add(task)
        task.add_done_callback(self._forget)

    def _forget(self, task: asyncio.Task[Page]) -> None:
        self._dropped.discard(task)
        if not task.cancelled():
            task.exception()  # nobody wants to know it any more
