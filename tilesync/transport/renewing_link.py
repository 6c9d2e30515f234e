"""SAS link that renews itself: before it expires, and on demand, once for all callers (asynchronous)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from typing import TypeVar

from tilesync.azure.link_state import Instant, LinkRefusals, LinkState, LinkTexts, Renewal
from tilesync.errors import LinkRefused, NoFreshLink
from tilesync.model import SasUrl
from tilesync.protocols import Clock, Observer

T = TypeVar("T")

LinkFetcher = Callable[[], Awaitable[tuple[SasUrl, datetime | None]]]
"""Gets a fresh link, and the server's time, None if that is not known."""


class RenewingLink:
    """SAS link that `fetch` can replace. Renewal is compare-and-swap: concurrent callers cause one fetch.

    `fetch` raises ExportReplaced when the export is gone; without `fetch` the link cannot be renewed. A renewal ahead
    of time runs beside the transfers; only an expired link makes them wait.
    """

    def __init__(
        self,
        fetch: LinkFetcher | None,
        clock: Clock,
        observe: Observer,
        *,
        budget: timedelta = timedelta(),
        texts: LinkTexts | None = None,
    ) -> None:
        self._fetch = fetch
        self._clock = clock
        self._state = LinkState(
            observe, can_renew=fetch is not None, texts=texts or LinkTexts(), budget_s=budget.total_seconds()
        )
        self._renewal: asyncio.Task[None] | None = None

    def set_current(self, link: SasUrl, server_time: datetime | None) -> None:
        """Make the freshly fetched `link` the current one. Raises UsageError when it would be sent without TLS."""
        self._state.replace(link, server_time, self._now())

    async def current(self) -> SasUrl:
        """Return the link to use now. Raises the errors of `fetch` when no valid link is left."""
        match self._state.renewal(self._now()):
            case Renewal.REQUIRED:
                await self._await_renewal()
            case Renewal.EARLY if self._renewal is None:
                self._start_renewal(ahead_of_time=True)
        link = self._state.link_to_use(self._now())
        assert link is not None
        return link

    async def use(self, attempt: Callable[[SasUrl], Awaitable[T]]) -> T:
        """Call `attempt` with the current link, and again with a fresh link after a 403.

        Raises NotAuthorised for a refusal that is final.
        """
        refusals = LinkRefusals(self._state)
        while True:
            link = await self.current()
            try:
                result = await attempt(link)
            except LinkRefused as refusal:
                await self._renew_or_wait(refusals, link, refusal)
            else:
                self._state.mark_accepted(link)
                return result

    async def _renew_or_wait(self, refusals: LinkRefusals, link: SasUrl, refusal: LinkRefused) -> None:
        """Renew a refused link, or wait until it is valid. Raises NotAuthorised if neither can help."""
        delay_s = refusals.after_refusal(link, refusal, self._now())
        if delay_s is None:
            try:
                await self.renew(link)
            except NoFreshLink as error:
                delay_s = refusals.after_failed_renewal(link, refusal, error, self._now())
        if delay_s:
            await self._clock.sleep(delay_s)

    async def renew(self, stale: SasUrl) -> None:
        """Fetch a fresh link, unless one was fetched after `stale`, even one with the same text."""
        if self._state.needs_replacement(stale):
            self._state.mark_refused(stale)
            await self._await_renewal()

    def is_expired(self, link: SasUrl) -> bool:
        """Return whether `link` has expired by the server's clock; one without an end never does."""
        return self._state.is_expired(link, self._now())

    def _now(self) -> Instant:
        return Instant(self._clock.now(), self._clock.monotonic())

    async def _await_renewal(self) -> None:
        await asyncio.shield(self._renewal or self._start_renewal(ahead_of_time=False))

    def _start_renewal(self, *, ahead_of_time: bool) -> asyncio.Task[None]:
        self._renewal = asyncio.create_task(self._fetch_and_replace())
        self._renewal.add_done_callback(lambda renewal: self._finish_renewal(renewal, ahead_of_time=ahead_of_time))
        return self._renewal

    async def _fetch_and_replace(self) -> None:
        if self._fetch is None:
            raise self._state.no_fresh_link_error(self._now())
        link, server_time = await self._fetch()
        self._state.replace(link, server_time, self._now())

    def _finish_renewal(self, renewal: asyncio.Task[None], *, ahead_of_time: bool) -> None:
        self._renewal = None
        error = None if renewal.cancelled() else renewal.exception()
        if error is not None and ahead_of_time:
            self._state.record_early_failure(error, self._now())

    async def aclose(self) -> None:
        """Cancel a renewal in progress."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
