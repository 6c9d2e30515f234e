"""When one blob fails again and again: whose failure that is, and how long to bear with it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from tilesync.core.backoff import RetryBudget
from tilesync.errors import BlobUnreachable, Transient, Unavailable
from tilesync.events import Retried
from tilesync.jobs.run.context import RunContext

T = TypeVar("T")


class Retrying:
    """What the workers of one run know together about attempts that fail.

    One blob that keeps failing while others arrive is that blob's failure (BlobUnreachable); otherwise it is the
    storage's (Unavailable). Where nothing else is under way it is the blob's too, but not for two in a row.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._failing_names: set[str] = set()
        self._last_success_at: float | None = None
        self._gave_up_last = False

    def new_budget(self) -> RetryBudget:
        """A new patience, for one blob."""
        return RetryBudget(self._run.retry_for.total_seconds())

    def record_success(self) -> None:
        """One more blob is done."""
        self._run.limiter.record_success()
        self._last_success_at, self._gave_up_last = self._run.clock.monotonic(), False

    def record_finished(self, name: str) -> None:
        """A blob is under way no more."""
        self._failing_names.discard(name)

    async def retry(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Attempt until it is no longer Transient that is raised, as long as patience lasts."""
        patience = self.new_budget()
        while True:
            began = self._run.clock.monotonic()
            try:
                return await attempt()
            except Transient as error:
                await self.wait_before_retry(name, error, patience, began)

    async def wait_before_retry(self, name: str, error: Transient, budget: RetryBudget, began_at: float) -> None:
        """Wait before the next attempt, or give the blob or the storage up."""
        self._failing_names.add(name)
        if error.is_throttled:
            self._run.limiter.back_off()
        wait = budget.next_delay(
            self._run.clock.monotonic(), error.retry_after, began_at=began_at, limit_s=error.retry_limit_s
        )
        if wait is None:
            self._give_up(name, error, budget.failing_since_s or began_at)
        self._run.observe(Retried(name, str(error), wait))
        await self._run.limiter.wait_without_slot(self._run.clock.sleep(wait))

    def _give_up(self, name: str, error: Transient, failing_since: float) -> NoReturn:
        others_arrive = self._last_success_at is not None and self._last_success_at >= failing_since
        alone = self._last_success_at is not None and self._failing_names == {name} and not self._gave_up_last
        if others_arrive or alone:
            self._gave_up_last = True
            raise BlobUnreachable(f"{name} kept failing: {error}", hint=error.hint) from error
        raise Unavailable(f"the storage kept failing: {error}", hint=error.hint or None) from error
