"""Retry a blob until it arrives or its budget is spent, and decide whether the blob or the storage failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import NoReturn, TypeVar

from tilesync.core.backoff import RetryBudget
from tilesync.errors import BlobUnreachable, Transient, Unavailable
from tilesync.events import Retried
from tilesync.jobs.run.context import RunContext

T = TypeVar("T")


class Retrying:
    """Retry policy that all transfers of one run share.

    If one blob keeps failing while others arrive, the blob is at fault (BlobUnreachable); otherwise the storage is
    (Unavailable). If no other blob is failing, the blob is at fault too, but not for two blobs in a row.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._failing_names: set[str] = set()
        self._last_success_at: float | None = None
        self._gave_up_last = False

    def new_budget(self) -> RetryBudget:
        """Return a new retry budget, for one blob."""
        return RetryBudget(self._run.retry_for.total_seconds())

    def record_success(self) -> None:
        """Record a blob that arrived."""
        self._run.limiter.record_success()
        self._last_success_at, self._gave_up_last = self._run.clock.monotonic(), False

    def record_finished(self, name: str) -> None:
        """Record that the transfer of a blob ended, with or without success."""
        self._failing_names.discard(name)

    async def retry(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Retry `attempt` on Transient errors until it succeeds or the retry budget is spent.

        Raises BlobUnreachable or Unavailable once the budget is spent.
        """
        budget = self.new_budget()
        while True:
            began_at = self._run.clock.monotonic()
            try:
                return await attempt()
            except Transient as error:
                await self.wait_before_retry(name, error, budget, began_at)

    async def wait_before_retry(self, name: str, error: Transient, budget: RetryBudget, began_at: float) -> None:
        """Wait before the next attempt, or raise BlobUnreachable or Unavailable if the budget is spent."""
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
        fails_alone = self._last_success_at is not None and self._failing_names == {name} and not self._gave_up_last
        if others_arrive or fails_alone:
            self._gave_up_last = True
            raise BlobUnreachable(f"{name} kept failing: {error}", hint=error.hint) from error
        raise Unavailable(f"the storage kept failing: {error}", hint=error.hint or None) from error
