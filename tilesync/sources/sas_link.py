"""The link that stays alive: renewed once for all, ahead of its end and on demand."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta

from tilesync.azure.sas import MIN_RENEWAL_INTERVAL, is_expired, parse_start, time_left, time_until_renewal
from tilesync.core.urls import check_scheme
from tilesync.errors import NoFreshLink, NotAuthorised
from tilesync.events import LinkRenewed, Notice, Warned
from tilesync.model import SasUrl
from tilesync.protocols import Clock, Observer

MIN_CLOCK_SKEW = timedelta(seconds=2)
"""Smaller differences to the server's clock are the `Date` header's whole seconds and the way here."""


FRESH_LINK_GRACE = timedelta(seconds=10)
"""A fresh link may be refused for so long: what it is signed with, or allowed by, is not known everywhere at once."""

VALIDITY_RETRY_S = 1.0
"""Seconds until a link that is not valid yet is tried again."""

LinkFetcher = Callable[[], Awaitable[tuple[SasUrl, datetime | None]]]
"""Gets a fresh link, and the server's time where that is known."""


class RenewingLink:
    """A SAS link that a `fetch` can replace. Renewal is compare-and-swap: many callers cause one fetch.

    `fetch` raises ExportReplaced when the export is gone; without one the link's end is the end. A renewal ahead of
    time runs beside the transfers; only an expired link makes them wait. A link to another container is refused.

    A link that is not valid yet (`st`), or is refused in its first seconds, is waited for within `budget`; the link
    before it is used while it lives.
    """

    def __init__(
        self, fetch: LinkFetcher | None, clock: Clock, observe: Observer, *, budget: timedelta = timedelta()
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._observe = observe
        self._current_link: SasUrl | None = None
        self._skew = timedelta()
        self._renew_at: float = 0.0
        self._renewal: asyncio.Task[None] | None = None
        self._budget = budget.total_seconds()
        self._refused_link: SasUrl | None = None
        self._accepted_link: SasUrl | None = None
        self._previous_link: SasUrl | None = None  # lives still, while the current one has not worked
        self._used_from = 0.0  # until then the one before is
        self._valid_from = 0.0
        self._notified_link: SasUrl | None = None

    def set_current(self, link: SasUrl, server_time: datetime | None) -> None:
        """Take `link`, just fetched, as the current one. Raises UsageError when it would travel in clear."""
        check_scheme(link.base)
        old, self._current_link = self._current_link, link
        self._update_skew(server_time)
        self._previous_link = old if old is not self._refused_link and old is not link else None
        self._used_from = self._valid_from = self._clock.monotonic() + self._seconds_before_start(link)
        self._renew_at = self._clock.monotonic() + time_until_renewal(link, old, self._server_now()).total_seconds()

    def _update_skew(self, server_time: datetime | None) -> None:
        if server_time is not None:
            skew = server_time - self._clock.now()
            self._skew = skew if abs(skew) > MIN_CLOCK_SKEW else timedelta()

    def _seconds_before_start(self, link: SasUrl) -> float:
        """Seconds until a link becomes valid, by the server's clock."""
        begin = parse_start(link.query)
        return max(0.0, (begin - self._server_now()).total_seconds()) if begin is not None else 0.0

    def mark_accepted(self, link: SasUrl) -> None:
        """A request through `link` was granted: the one before it is done with."""
        if self._accepted_link is not link:
            self._accepted_link = link
            if link is self._current_link:
                self._previous_link = None

    def seconds_until_valid(self, link: SasUrl, server_time: datetime | None, *, is_last: bool) -> float | None:
        """Seconds after which another attempt makes sense since the refused `link` may not be valid yet; None where
        that is not so. `last`: no other link is to be had. Raises NotAuthorised where that would take too long.
        """
        self._update_skew(server_time)
        if link is not self._current_link:
            if link is self._previous_link:
                self._previous_link = None
            return None
        now, ahead = self._clock.monotonic(), self._seconds_before_start(link)
        if self._previous_link is not None and not self.is_expired(self._previous_link):
            self._used_from = now + max(ahead, VALIDITY_RETRY_S)
            return 0.0
        if link is self._accepted_link or self.is_expired(link):
            return None
        if ahead and (is_last or ahead <= self._budget):  # else a fresh one may be valid sooner
            self._notify_wait(link, ahead)
            self._valid_from = now + ahead
            return ahead + VALIDITY_RETRY_S
        if not is_last or now - self._valid_from >= min(FRESH_LINK_GRACE.total_seconds(), self._budget):
            return None
        self._notify_wait(link, 0)
        return VALIDITY_RETRY_S

    def _notify_wait(self, link: SasUrl, seconds: float) -> None:
        begin = parse_start(link.query)
        said = f"the link is valid from {begin:%Y-%m-%d %H:%M:%S} UTC on, {seconds:.0f} s from now" if begin else ""
        if seconds > self._budget:
            raise NotAuthorised(said, hint="run again then, or let it wait with a longer --retry-for")
        if self._notified_link is not link:
            self._notified_link = link
            self._observe(Notice(f"{said if seconds else 'the link was just made, and is refused'}; waiting for it"))

    def _server_now(self) -> datetime:
        """The server's clock."""
        return self._clock.now() + self._skew

    def is_expired(self, link: SasUrl) -> bool:
        """Whether `link` has ended by the server's clock; one that states no end never has."""
        return is_expired(link, self._server_now())

    async def current(self) -> SasUrl:
        """The link to use now. Raises what `fetch` raises when there is no living one to fall back to."""
        if self._current_link is None:
            await self._await_renewal()
        assert self._current_link is not None
        if self._fetch is not None and self._clock.monotonic() >= self._renew_at:
            if self.is_expired(self._current_link):
                await self._await_renewal()
            elif self._renewal is None:
                self._start_renewal(ahead_of_time=True)
        if (
            self._previous_link is not None
            and self._clock.monotonic() < self._used_from
            and not self.is_expired(self._previous_link)
        ):
            return self._previous_link
        return self._current_link

    async def renew(self, stale: SasUrl) -> None:
        """Fetch a fresh link, unless one was fetched after `stale`, be it the same text again."""
        if self._current_link is None or self._current_link is stale:
            self._refused_link = stale
            await self._await_renewal()

    async def _fetch_or_raise(self) -> tuple[SasUrl, datetime | None]:
        if self._fetch is not None:
            return await self._fetch()
        link = self._current_link
        if link is None or link.expires is None:
            raise NoFreshLink("there is no other link")
        verb = "ended" if self.is_expired(link) else "says that it is good until"
        raise NoFreshLink(f"the link {verb} {link.expires:%Y-%m-%d %H:%M:%S} UTC, and there is no other")

    async def _await_renewal(self) -> None:
        await asyncio.shield(self._renewal or self._start_renewal(ahead_of_time=False))

    def _start_renewal(self, *, ahead_of_time: bool) -> asyncio.Task[None]:
        self._renewal = asyncio.create_task(self._fetch_and_replace())
        self._renewal.add_done_callback(lambda renewal: self._finish_renewal(renewal, ahead_of_time=ahead_of_time))
        return self._renewal

    async def _fetch_and_replace(self) -> None:
        link, server_time = await self._fetch_or_raise()
        old = self._current_link
        if old is not None and link.base != old.base:
            raise NotAuthorised(
                f"the fresh link leads to another container or folder ({link.base}, not {old.base})",
                hint="the run is pinned to one export; start a new run for the other",
            )
        self._update_skew(server_time)
        if old is not None and old is not self._refused_link and self.is_expired(link) and not self.is_expired(old):
            raise NotAuthorised("the fresh link has ended already, and the one before it lives still")
        self.set_current(link, server_time)
        if old is not None:
            self._observe(LinkRenewed(link.expires.isoformat() if link.expires else None))

    def _finish_renewal(self, renewal: asyncio.Task[None], *, ahead_of_time: bool) -> None:
        """A renewal ahead of time may fail: the link still lives, and who comes past its end hears the error."""
        self._renewal = None
        error = None if renewal.cancelled() else renewal.exception()
        if error is not None and ahead_of_time:
            self._renew_at = self._clock.monotonic() + min(MIN_RENEWAL_INTERVAL, self._half_life()).total_seconds()
            self._observe(Warned(f"the link could not be renewed ahead of time: {error}"))

    def _half_life(self) -> timedelta:
        rest = time_left(self._current_link, self._server_now()) if self._current_link is not None else None
        return max(rest / 2, timedelta()) if rest is not None else MIN_RENEWAL_INTERVAL

    async def aclose(self) -> None:
        """Stop a renewal that is under way."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
