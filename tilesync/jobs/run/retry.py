"""Retry a blob until it arrives or its budget is spent, and decide whether the blob or the storage failed."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from tilesync.core.backoff import RetryPolicy
from tilesync.errors import BlobUnreachable, TilesyncError, Transient, Unavailable
from tilesync.jobs.run.context import RunContext
from tilesync.transport.retry import retry_async

T = TypeVar("T")


class Retrying:
    """Retries of all transfers of one run.

    If one blob keeps failing while others arrive, or while no other blob is failing, the blob is at fault
    (BlobUnreachable). Otherwise the storage is (Unavailable). If a second blob fails alone before any other arrives,
    the storage is at fault too.
    """

    def __init__(self, run: RunContext) -> None:
        self._run = run
        self._failing_names: set[str] = set()
        self._last_success_at: float | None = None
        self._gave_up_last = False

    def new_policy(self, name: str) -> RetryPolicy:
        """Return the retry policy for one blob, with a new budget."""
        return _BlobRetryPolicy(name, self._run, self)

    def record_success(self, count: int = 1) -> None:
        """Record blobs that arrived."""
        self._run.limiter.record_success(count)
        self._last_success_at, self._gave_up_last = self._run.clock.monotonic(), False

    def record_failure(self, name: str, error: Transient) -> None:
        """Record a failed attempt."""
        self._failing_names.add(name)
        if error.is_throttled:
            self._run.limiter.back_off()

    def record_finished(self, name: str) -> None:
        """Record that the transfer of a blob ended, with or without success."""
        self._failing_names.discard(name)

    async def retry(self, name: str, attempt: Callable[[], Awaitable[T]]) -> T:
        """Retry `attempt` on Transient errors until it succeeds or the retry budget is spent.

        Raises BlobUnreachable or Unavailable once the budget is spent.
        """
        return await self.retry_within(self.new_policy(name), attempt)

    async def retry_within(self, policy: RetryPolicy, attempt: Callable[[], Awaitable[T]]) -> T:
        """Retry `attempt` as `retry` does, with a policy whose budget may be used in part."""
        return await retry_async(policy, attempt, now=self._run.clock.monotonic, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        await self._run.limiter.wait_without_slot(self._run.clock.sleep(seconds))

    def is_blob_at_fault(self, name: str, failing_since: float) -> bool:
        """Decide whether a blob whose budget is spent failed itself, and remember the decision."""
        others_arrive = self._last_success_at is not None and self._last_success_at >= failing_since
        fails_alone = self._last_success_at is not None and self._failing_names == {name} and not self._gave_up_last
        self._gave_up_last |= others_arrive or fails_alone
        return others_arrive or fails_alone


class _BlobRetryPolicy(RetryPolicy):
    def __init__(self, name: str, run: RunContext, retrying: Retrying) -> None:
        super().__init__(name, run.retry_for.total_seconds(), run.observe)
        self._retrying = retrying

    def delay_after(self, error: Transient, now: float, *, began_at: float) -> float:
        self._retrying.record_failure(self.subject, error)
        return super().delay_after(error, now, began_at=began_at)

    def report_first(self, error: Transient) -> None:
        """Report nothing: a run has many blobs, and each retry is an event already."""

    def final_error(self, error: Transient) -> TilesyncError:
        assert self.budget.failing_since_s is not None
        if self._retrying.is_blob_at_fault(self.subject, self.budget.failing_since_s):
            return BlobUnreachable(f"{self.subject} kept failing: {error}", hint=error.hint)
        return Unavailable(f"the storage kept failing: {error}", hint=error.hint or None)
