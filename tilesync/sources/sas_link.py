"""The link that stays alive: renewed once for all, ahead of its end and on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from tilesync.azure.sas import STUBBORN, expired, left, starts, trusted_for
from tilesync.core.urls import check_scheme
from tilesync.errors import NoFreshLink, NotAuthorised
from tilesync.events import Notice, Renewed, Warned
from tilesync.model import SasUrl
from tilesync.protocols import Clock, Observer

SKEW_NOISE = timedelta(seconds=2)
"""Smaller differences to the server's clock are the `Date` header's whole seconds and the way here."""


FIRST_SECONDS = timedelta(seconds=10)
"""A fresh link may be refused for so long: what it is signed with, or allowed by, is not known everywhere at once."""

AGAIN = 1.0
"""Seconds until a link that is not valid yet is tried again."""

Fetch = Callable[[], Awaitable[tuple[SasUrl, datetime | None]]]
"""Gets a fresh link, and the server's time where that is known."""


class RenewingLink:
    """A SAS link that a `fetch` can replace. Renewal is compare-and-swap: many callers cause one fetch.

    `fetch` raises ExportReplaced when the export is gone; without one the link's end is the end. A renewal ahead of
    time runs beside the transfers; only an expired link makes them wait. A link to another container is refused.

    A link that is not valid yet (`st`), or is refused in its first seconds, is waited for within `budget`; the link
    before it is used while it lives.
    """

    def __init__(
        self, fetch: Fetch | None, clock: Clock, observe: Observer, *, budget: timedelta = timedelta()
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._observe = observe
        self._link: SasUrl | None = None
        self._skew = timedelta()
        self._due: float = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._budget = budget.total_seconds()
        self._refused: SasUrl | None = None
        self._worked: SasUrl | None = None
        self._before: SasUrl | None = None  # lives still, while the current one has not worked
        self._used_from = 0.0  # until then the one before is
        self._valid_from = 0.0
        self._told: SasUrl | None = None

    def adopt(self, link: SasUrl, server_time: datetime | None) -> None:
        """Take `link`, just fetched, as the current one. Raises UsageError when it would travel in clear."""
        check_scheme(link.base)
        old, self._link = self._link, link
        self._take_time(server_time)
        self._before = old if old is not self._refused and old is not link else None
        self._used_from = self._valid_from = self._clock.monotonic() + self._ahead(link)
        self._due = self._clock.monotonic() + trusted_for(link, old, self._now()).total_seconds()

    def _take_time(self, server_time: datetime | None) -> None:
        if server_time is not None:
            skew = server_time - self._clock.now()
            self._skew = skew if abs(skew) > SKEW_NOISE else timedelta()

    def _ahead(self, link: SasUrl) -> float:
        """Seconds until a link becomes valid, by the server's clock."""
        begin = starts(link.query)
        return max(0.0, (begin - self._now()).total_seconds()) if begin is not None else 0.0

    def worked(self, link: SasUrl) -> None:
        """A request through `link` was granted: the one before it is done with."""
        if self._worked is not link:
            self._worked = link
            if link is self._link:
                self._before = None

    def too_early(self, link: SasUrl, server_time: datetime | None, *, last: bool) -> float | None:
        """Seconds after which another attempt makes sense since the refused `link` may not be valid yet; None where
        that is not so. `last`: no other link is to be had. Raises NotAuthorised where that would take too long.
        """
        self._take_time(server_time)
        if link is not self._link:
            if link is self._before:
                self._before = None
            return None
        now, ahead = self._clock.monotonic(), self._ahead(link)
        if self._before is not None and not self.expired(self._before):
            self._used_from = now + max(ahead, AGAIN)
            return 0.0
        if link is self._worked or self.expired(link):
            return None
        if ahead and (last or ahead <= self._budget):  # else a fresh one may be valid sooner
            self._tell_wait(link, ahead)
            self._valid_from = now + ahead
            return ahead + AGAIN
        if not last or now - self._valid_from >= min(FIRST_SECONDS.total_seconds(), self._budget):
            return None
        self._tell_wait(link, 0)
        return AGAIN

    def _tell_wait(self, link: SasUrl, ahead: float) -> None:
        begin = starts(link.query)
        said = f"the link is valid from {begin:%Y-%m-%d %H:%M:%S} UTC on, {ahead:.0f} s from now" if begin else ""
        if ahead > self._budget:
            raise NotAuthorised(said, hint="run again then, or let it wait with a longer --retry-for")
        if self._told is not link:
            self._told = link
            self._observe(Notice(f"{said if ahead else 'the link was just made, and is refused'}; waiting for it"))

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
        if self._before is not None and self._clock.monotonic() < self._used_from and not self.expired(self._before):
            return self._before
        return self._link

    async def renew(self, stale: SasUrl) -> None:
        """Fetch a fresh link, unless one was fetched after `stale`, be it the same text again."""
        if self._link is None or self._link is stale:
            self._refused = stale
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
                f"the fresh link leads to another container or folder ({link.base}, not {old.base})",
                hint="the run is pinned to one export; start a new run for the other",
            )
        self._take_time(server_time)
        if old is not None and old is not self._refused and self.expired(link) and not self.expired(old):
            raise NotAuthorised("the fresh link has ended already, and the one before it lives still")
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
