"""SAS link that renews itself: before it expires, and on demand, once for all threads (blocking)."""

from __future__ import annotations

import threading
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import TypeVar

from tilesync.azure.link_state import Instant, LinkRefusals, LinkState, Renewal
from tilesync.errors import LinkRefused, NoFreshLink, TilesyncError
from tilesync.model import SasUrl
from tilesync.runtime.threads import run_in_thread
from tilesync.transport.retry import wait_or_cancel

T = TypeVar("T")


class SyncRenewingLink:
    """SAS link that `fetch` replaces before it expires and on demand; without `fetch` it cannot be replaced.

    Safe from any thread. `first`: a link to begin with.
    """

    def __init__(self, fetch: Callable[[], SasUrl] | None, state: LinkState, *, first: SasUrl | None = None) -> None:
        self._fetch = fetch
        self._state = state
        self._state_lock = threading.Lock()
        self._fetch_lock = threading.Lock()
        if first is not None:
            state.replace(first, None, _now())

    @property
    def is_due(self) -> bool:
        """Return whether the next call of `current` may have to fetch a link."""
        return self._read_state()[0] is not Renewal.NONE

    def current(self) -> SasUrl:
        """Return the link to use now. Raises NotAuthorised if there is none."""
        renewal, link = self._read_state()
        if renewal is Renewal.REQUIRED:
            with self._fetch_lock:
                if self._read_state()[0] is Renewal.REQUIRED:  # else another thread has fetched a link meanwhile
                    self._fetch_and_replace()
        elif renewal is Renewal.EARLY:
            self._renew_early()
        link = link if renewal is Renewal.NONE else self._read_state()[1]
        assert link is not None
        return link

    async def current_async(self) -> SasUrl:
        """Return the link to use now; it is fetched in a thread if that is due."""
        renewal, link = self._read_state()
        return link if link is not None and renewal is Renewal.NONE else await run_in_thread(self.current)

    def _read_state(self) -> tuple[Renewal, SasUrl | None]:
        now = _now()
        with self._state_lock:
            return self._state.renewal(now), self._state.link_to_use(now)

    def _renew_early(self) -> None:
        if not self._fetch_lock.acquire(blocking=False):  # another thread renews it, and this link is still valid
            return
        try:
            if self.is_due:
                self._fetch_and_replace()
        except TilesyncError as error:
            with self._state_lock:
                self._state.record_early_failure(error, _now())
        finally:
            self._fetch_lock.release()

    def renew(self, stale: SasUrl) -> None:
        """Fetch a fresh link, unless another thread has already replaced `stale`."""
        with self._fetch_lock:
            with self._state_lock:
                if not self._state.needs_replacement(stale):
                    return
                self._state.mark_refused(stale)
            self._fetch_and_replace()

    def _fetch_and_replace(self) -> None:
        """Fetch a link and make it the current one. The caller holds the lock of fetches."""
        if self._fetch is None:
            raise self._state.no_fresh_link_error(_now())
        link = self._fetch()
        with self._state_lock:
            self._state.replace(link, None, _now())

    def use(self, attempt: Callable[[SasUrl], T]) -> T:
        """Call `attempt` with the current link, and again with a fresh link after a 403.

        Raises NotAuthorised for a refusal that is final.
        """
        refusals = LinkRefusals(self._state)
        while True:
            link = self.current()
            try:
                result = attempt(link)
            except LinkRefused as refusal:
                self._renew_or_wait(refusals, link, refusal)
            else:
                self._mark_accepted(link)
                return result

    async def use_async(self, attempt: Callable[[SasUrl], Awaitable[T]]) -> T:
        """Call `attempt` as `use` does; what blocks runs in a thread."""
        refusals = LinkRefusals(self._state)
        while True:
            link = await self.current_async()
            try:
                result = await attempt(link)
            except LinkRefused as refusal:
                await run_in_thread(self._renew_or_wait, refusals, link, refusal)
            else:
                self._mark_accepted(link)
                return result

    def _mark_accepted(self, link: SasUrl) -> None:
        with self._state_lock:
            self._state.mark_accepted(link)

    def _renew_or_wait(self, refusals: LinkRefusals, link: SasUrl, refusal: LinkRefused) -> None:
        """Renew a refused link, or wait until it is valid. Raises NotAuthorised if neither can help."""
        with self._state_lock:
            delay_s = refusals.after_refusal(link, refusal, _now())
        if delay_s is None:
            try:
                self.renew(link)
            except NoFreshLink as error:
                with self._state_lock:
                    delay_s = refusals.after_failed_renewal(link, refusal, error, _now())
        if delay_s:
            wait_or_cancel(delay_s, str(refusal))


def _now() -> Instant:
    return Instant(datetime.now(UTC), time.monotonic())
