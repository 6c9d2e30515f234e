"""SAS link that renews itself: before it expires, and on demand, once for all callers."""

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
"""Smaller clock differences are ignored: they come from the whole seconds of `Date` and from latency."""

FRESH_LINK_GRACE = timedelta(seconds=10)
"""A fresh link may be refused for this long: its key or policy takes time to reach all servers."""

VALIDITY_RETRY_S = 1.0
"""Seconds until a link that is not valid yet is tried again, beyond its stated start."""

LinkFetcher = Callable[[], Awaitable[tuple[SasUrl, datetime | None]]]
"""Gets a fresh link, and the server's time, None if that is not known."""


class RenewingLink:
    """SAS link that `fetch` can replace. Renewal is compare-and-swap: concurrent callers cause one fetch.

    `fetch` raises ExportReplaced when the export is gone; without `fetch` the link cannot be renewed. A renewal ahead
    of time runs beside the transfers; only an expired link makes them wait. A link to another container is refused.

    A link that is not valid yet (`st`), or is refused in its first seconds, is waited for within `budget`; until then
    the previous link is used, as long as it is valid.
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
        self._previous_link: SasUrl | None = None  # kept until the current link is accepted
        self._used_from = 0.0  # the previous link is used until then
        self._valid_from = 0.0
        self._notified_link: SasUrl | None = None

    def set_current(self, link: SasUrl, server_time: datetime | None) -> None:
        """Make the freshly fetched `link` the current one. Raises UsageError when it would be sent without TLS."""
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
        """Return the seconds until a link becomes valid, by the server's clock."""
        start = parse_start(link.query)
        return max(0.0, (start - self._server_now()).total_seconds()) if start is not None else 0.0

    def mark_accepted(self, link: SasUrl) -> None:
        """Record that a request with `link` was accepted: the previous link is no longer needed."""
        if self._accepted_link is not link:
            self._accepted_link = link
            if link is self._current_link:
                self._previous_link = None

    def seconds_until_valid(self, link: SasUrl, server_time: datetime | None, *, is_last: bool) -> float | None:
        """Return the seconds after which to try again, if the refused `link` may not be valid yet; None otherwise.

        `is_last`: there is no other link. Raises NotAuthorised if the wait exceeds the budget.
        """
        self._update_skew(server_time)
        if link is not self._current_link:
            if link is self._previous_link:
                self._previous_link = None
            return None
        now, early_s = self._clock.monotonic(), self._seconds_before_start(link)
        if self._previous_link is not None and not self.is_expired(self._previous_link):
            self._used_from = now + max(early_s, VALIDITY_RETRY_S)
            return 0.0
        if link is self._accepted_link or self.is_expired(link):
            return None
        if early_s and (is_last or early_s <= self._budget):  # otherwise a fresh link may be valid sooner
            self._notify_wait(link, early_s)
            self._valid_from = now + early_s
            return early_s + VALIDITY_RETRY_S
        if not is_last or now - self._valid_from >= min(FRESH_LINK_GRACE.total_seconds(), self._budget):
            return None
        self._notify_wait(link, 0)
        return VALIDITY_RETRY_S

    def _notify_wait(self, link: SasUrl, seconds: float) -> None:
        start = parse_start(link.query)
        message = f"the link becomes valid at {start:%Y-%m-%d %H:%M:%S} UTC, in {seconds:.0f} s" if start else ""
        if seconds > self._budget:
            raise NotAuthorised(message, hint="run again then, or wait for it with a longer --retry-for")
        if self._notified_link is not link:
            self._notified_link = link
            self._observe(Notice(f"{message if seconds else 'the link is new, and is refused'}; waiting for it"))

    def _server_now(self) -> datetime:
        """Return the current time of the server."""
        return self._clock.now() + self._skew

    def is_expired(self, link: SasUrl) -> bool:
        """Return whether `link` has expired by the server's clock; one without an end never does."""
        return is_expired(link, self._server_now())

    async def current(self) -> SasUrl:
        """Return the link to use now. Raises the errors of `fetch` when no valid link is left."""
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
        """Fetch a fresh link, unless one was fetched after `stale`, even one with the same text."""
        if self._current_link is None or self._current_link is stale:
            self._refused_link = stale
            await self._await_renewal()

    async def _fetch_or_raise(self) -> tuple[SasUrl, datetime | None]:
        if self._fetch is not None:
            return await self._fetch()
        link = self._current_link
        if link is None or link.expires is None:
            raise NoFreshLink("the link cannot be renewed")
        verb = "expired at" if self.is_expired(link) else "is valid until"
        raise NoFreshLink(f"the link {verb} {link.expires:%Y-%m-%d %H:%M:%S} UTC, and it cannot be renewed")

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
                f"the fresh link is for another container or folder ({link.base}, not {old.base})",
                hint="a run mirrors one export only; start a new run for the other",
            )
        self._update_skew(server_time)
        if old is not None and old is not self._refused_link and self.is_expired(link) and not self.is_expired(old):
            raise NotAuthorised("the fresh link has already expired, but the previous link is still valid")
        self.set_current(link, server_time)
        if old is not None:
            self._observe(LinkRenewed(link.expires.isoformat() if link.expires else None))

    def _finish_renewal(self, renewal: asyncio.Task[None], *, ahead_of_time: bool) -> None:
        """End a renewal. One ahead of time may fail: the link is still valid, so a failure is only a warning."""
        self._renewal = None
        error = None if renewal.cancelled() else renewal.exception()
        if error is not None and ahead_of_time:
            self._renew_at = self._clock.monotonic() + min(MIN_RENEWAL_INTERVAL, self._half_life()).total_seconds()
            self._observe(Warned(f"the link could not be renewed ahead of time: {error}"))

    def _half_life(self) -> timedelta:
        left = time_left(self._current_link, self._server_now()) if self._current_link is not None else None
        return max(left / 2, timedelta()) if left is not None else MIN_RENEWAL_INTERVAL

    async def aclose(self) -> None:
        """Cancel a renewal in progress."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
