"""The link that stays alive: renewed once for all, ahead of its end and on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from tilesync.errors import NoFreshLink, NotAuthorised
from tilesync.events import Renewed, Warned
from tilesync.model import SasUrl
from tilesync.protocols import Clock, Observer
from tilesync.rules.lifetimes import STUBBORN, expired, left, trusted_for
from tilesync.rules.links import check_scheme

SKEW_NOISE = timedelta(seconds=2)
"""Smaller differences to the server's clock are the `Date` header's whole seconds and the way here."""


Fetch = Callable[[], Awaitable[tuple[SasUrl, datetime | None]]]
"""Gets a fresh link, and the server's time where that is known."""


class RenewingLink:
    """A SAS link that a `fetch` can replace. Renewal is compare-and-swap: many callers cause one fetch.

    `fetch` raises ExportReplaced when the export is gone; without one the link's end is the end. A renewal ahead of
    time runs beside the transfers; only an expired link makes them wait. A link to another container is refused.
    """

    def __init__(self, fetch: Fetch | None, clock: Clock, observe: Observer) -> None:
        self._fetch = fetch
        self._clock = clock
        self._observe = observe
        self._link: SasUrl | None = None
        self._skew = timedelta()
        self._due: float = 0.0
        self._renewal: asyncio.Task[None] | None = None

    def adopt(self, link: SasUrl, server_time: datetime | None) -> None:
        """Take `link`, just fetched, as the current one. Raises UsageError when it would travel in clear."""
        check_scheme(link.base)
        old, self._link = self._link, link
        if server_time is not None:
            skew = server_time - self._clock.now()
            self._skew = skew if abs(skew) > SKEW_NOISE else timedelta()
        self._due = self._clock.monotonic() + trusted_for(link, old, self._now()).total_seconds()

    def _now(self) -> datetime:
        """The server's clock."""
        return self._clock.now() + self._skew

    def expired(self, link: SasUrl) -> bool:
        """Whether `link` has ended by the server's clock; one that states no end never has."""
        return expired(link, self._now())

    async def current(self) -> SasUrl:
        """The link to use now. Raises what `fetch` raises when there is no living one to fall back to."""
        if self._link is None:
            await self._join()
        assert self._link is not None
        if self._fetch is not None and self._clock.monotonic() >= self._due:
            if self.expired(self._link):
                await self._join()
            elif self._renewal is None:
                self._start(quietly=True)
        return self._link

    async def renew(self, stale: SasUrl) -> None:
        """Fetch a fresh link, unless one was fetched after `stale`, be it the same text again."""
        if self._link is None or self._link is stale:
            await self._join()

    async def _get(self) -> tuple[SasUrl, datetime | None]:
        if self._fetch is not None:
            return await self._fetch()
        link = self._link
        if link is None or link.expires is None:
            raise NoFreshLink("there is no other link")
        verb = "ended" if self.expired(link) else "says that it is good until"
        raise NoFreshLink(f"the link {verb} {link.expires:%Y-%m-%d %H:%M:%S} UTC, and there is no other")

    async def _join(self) -> None:
        await asyncio.shield(self._renewal or self._start(quietly=False))

    def _start(self, *, quietly: bool) -> asyncio.Task[None]:
        self._renewal = asyncio.create_task(self._replace())
        self._renewal.add_done_callback(lambda renewal: self._settle(renewal, quietly=quietly))
        return self._renewal

    async def _replace(self) -> None:
        link, server_time = await self._get()
        old = self._link
        if old is not None and link.base != old.base:
            raise NotAuthorised(
                f"the fresh link leads to another container ({link.container}, not {old.container})",
                hint="the run is pinned to one container; start a new run for the other",
            )
        self.adopt(link, server_time)
        if old is not None:
            self._observe(Renewed(link.expires.isoformat() if link.expires else None))

    def _settle(self, renewal: asyncio.Task[None], *, quietly: bool) -> None:
        """A renewal ahead of time may fail: the link still lives, and who comes past its end hears the error."""
        self._renewal = None
        error = None if renewal.cancelled() else renewal.exception()
        if error is not None and quietly:
            self._due = self._clock.monotonic() + min(STUBBORN, self._half_life()).total_seconds()
            self._observe(Warned(f"the link could not be renewed ahead of time: {error}"))

    def _half_life(self) -> timedelta:
        rest = left(self._link, self._now()) if self._link is not None else None
        return max(rest / 2, timedelta()) if rest is not None else STUBBORN

    async def aclose(self) -> None:
        """Stop a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
