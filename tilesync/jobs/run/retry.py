"""When one blob fails again and again: whose failure that is, and how long to bear with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from tilesync.core.backoff import Patience
from tilesync.errors import BlobUnreachable, Transient, Unavailable
from tilesync.events import Retried
from tilesync.jobs.run.context import Run

T = TypeVar("T")


class Persistence:
    """What the workers of one run know together about attempts that fail.

    One blob that keeps failing while others arrive is that blob's failure (BlobUnreachable); otherwise it is the
    storage's (Unavailable). Where nothing else is under way it is the blob's too, but not for two in a row.
    """

    def __init__(self, run: Run) -> None:
        self._run = run
        self._failing: set[str] = set()
        self._last_success: float | None = None
        self._gave_up = False

    def patience(self) -> Patience:
        """A new patience, for one blob."""
        return Patience(self._run.budget.total_seconds())

    def succeeded(self) -> None:
        """One more blob is done."""
        self._run.gate.succeeded()
        self._last_success, self._gave_up = self._run.clock.monotonic(), False

    def settled(self, name: str) -> None:
        """A blob is under way no more."""
        self._failing.discard(name)

    async def insist(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Attempt until it is no longer Transient that is raised, as long as patience lasts."""
        patience = self.patience()
        while True:
            began = self._run.clock.monotonic()
            try:
                return await attempt()
            except Transient as error:
                await self.pause(name, error, patience, began)

    async def pause(self, name: str, error: Transient, patience: Patience, began: float) -> None:
        """Wait before the next attempt, or give the blob or the storage up."""
        self._failing.add(name)
        if error.pressure:
            self._run.gate.ease()
        wait = patience.next_wait(self._run.clock.monotonic(), error.retry_after, began=began, limit=error.limit)
        if wait is None:
            self._give_up(name, error, patience.since or began)
        self._run.observe(Retried(name, str(error), wait))
        await self._run.gate.outside(self._run.clock.sleep(wait))

    def _give_up(self, name: str, error: Transient, since: float) -> NoReturn:
        others_arrive = self._last_success is not None and self._last_success >= since
        alone = self._last_success is not None and self._failing == {name} and not self._gave_up
        if others_arrive or alone:
            self._gave_up = True
            raise BlobUnreachable(f"{name} kept failing: {error}", hint=error.hint) from error
        raise Unavailable(f"the storage kept failing: {error}", hint=error.hint or None) from error
