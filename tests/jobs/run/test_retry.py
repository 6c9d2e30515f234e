"""Retry of a blob: the budget, and whether the blob or the storage failed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from itertools import pairwise

import pytest

from tests.support.clock import FakeClock
from tilesync.errors import BlobDamaged, BlobUnreachable, NotAuthorised, RangeRefused, Transient, Unavailable
from tilesync.events import Event, Retried
from tilesync.jobs.run.adaptive_limit import INITIAL_LIMIT
from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.jobs.run.stats import RunStats

BUDGET_S = 30.0


class RetryFixture:
    """One run on a fake clock."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.events: list[Event] = []
        self.limiter = ConcurrencyLimiter(self.clock)
        budget = timedelta(seconds=BUDGET_S)
        self.retrying = Retrying(RunContext(self.clock, self.events.append, RunStats(), self.limiter, budget))

    def retry(self, name: str, attempt: Callable[[], Awaitable[int]]) -> int:
        return asyncio.run(self.retrying.retry(name, attempt))

    def fail_for_good(self, name: str) -> type[Exception]:
        """Fail a blob until its budget is spent; return the type of the error."""
        with pytest.raises((BlobUnreachable, Unavailable)) as error:
            self.retry(name, make_failing(10**6))
        self.retrying.record_finished(name)
        return error.type

    @property
    def retries(self) -> list[Retried]:
        return [event for event in self.events if isinstance(event, Retried)]


def make_failing(
    times: int, error: Exception | None = None, *, then: Callable[[], None] = lambda: None
) -> Callable[[], Awaitable[int]]:
    """Return an attempt that fails `times` times, then returns 42. `then` is called in each attempt."""
    left = times

    async def attempt() -> int:
        nonlocal left
        left -= 1
        then()
        if left >= 0:
            raise error or Transient("broke off")
        return 42

    return attempt


def test_first_success_needs_no_retry() -> None:
    """A first attempt that succeeds is the only one."""
    run = RetryFixture()
    assert run.retry("a", make_failing(0)) == 42
    assert (run.clock.sleeps_s, run.events) == ([], [])


def test_transient_errors_are_retried() -> None:
    """Each Transient is followed by a wait, an event with blob and reason, and another attempt."""
    run = RetryFixture()
    assert run.retry("a", make_failing(4)) == 42
    assert [(event.what, event.reason) for event in run.retries] == [("a", "broke off")] * 4
    assert [event.seconds for event in run.retries] == run.clock.sleeps_s
    assert all(one <= later for one, later in pairwise(run.clock.sleeps_s))


@pytest.mark.parametrize("error", [BlobDamaged("x"), NotAuthorised("x"), ValueError("x"), asyncio.CancelledError()])
def test_other_errors_are_raised(error: Exception) -> None:
    """Only a Transient is retried."""
    run = RetryFixture()
    with pytest.raises(type(error)):
        run.retry("a", make_failing(1, error))
    assert run.clock.sleeps_s == []


def test_retries_end_with_the_budget() -> None:
    """Retries end when the budget is spent, not much before and not after."""
    run = RetryFixture()
    assert run.fail_for_good("a") is Unavailable
    assert BUDGET_S * 0.9 <= run.clock.monotonic() <= BUDGET_S
    assert len(run.retries) >= 5


def test_each_blob_has_its_own_budget() -> None:
    """A blob that spends its budget leaves the budgets of others untouched."""
    run = RetryFixture()
    run.retrying.record_success()
    run.fail_for_good("a")
    began = run.clock.monotonic()
    run.fail_for_good("b")
    assert run.clock.monotonic() - began >= BUDGET_S * 0.9


def test_long_attempts_count_too() -> None:
    """The budget runs from the start of the first failing attempt, however long attempts take."""
    run = RetryFixture()
    with pytest.raises(Unavailable):
        run.retry("a", make_failing(10**6, then=lambda: run.clock.advance(BUDGET_S)))
    assert len(run.retries) == 1


def test_stall_longer_than_the_budget_is_retried() -> None:
    """One attempt that hangs longer than the budget, as on a dead connection, is retried."""
    run = RetryFixture()
    assert run.retry("a", make_failing(1, then=lambda: run.clock.advance(2 * BUDGET_S))) == 42


def test_retry_after_is_obeyed() -> None:
    """The wait follows the Retry-After of the server."""
    run = RetryFixture()
    assert run.retry("a", make_failing(1, Transient("busy", retry_after=7))) == 42
    assert 7 <= run.clock.sleeps_s[0] <= 7.7


def test_throttling_lowers_the_limit() -> None:
    """A throttled Transient lowers the limit; another one, such as a refused range, does not."""
    run = RetryFixture()
    run.retry("a", make_failing(1, RangeRefused("no")))
    assert run.limiter.limit == INITIAL_LIMIT
    run.retry("a", make_failing(1, Transient("slow down", is_throttled=True)))
    assert run.limiter.limit < INITIAL_LIMIT


def test_success_raises_the_limit() -> None:
    """Each finished blob raises the limit by one."""
    run = RetryFixture()
    run.retrying.record_success()
    assert run.limiter.limit == INITIAL_LIMIT + 1


def test_without_any_success_the_storage_failed() -> None:
    """If the run never had a success, the storage is at fault."""
    assert RetryFixture().fail_for_good("a") is Unavailable


def test_while_others_arrive_the_blob_failed() -> None:
    """A blob that fails while others arrive is at fault itself, each time."""
    run = RetryFixture()
    for name in "abc":
        with pytest.raises(BlobUnreachable, match=f"^{name} kept failing: broke off"):
            run.retry(name, make_failing(10**6, then=run.retrying.record_success))
        run.retrying.record_finished(name)


def test_last_blob_alone_failed_itself() -> None:
    """If all others have arrived, the last blob is at fault; for two in a row the storage is."""
    run = RetryFixture()
    run.retrying.record_success()
    run.clock.advance(1)
    assert run.fail_for_good("a") is BlobUnreachable
    assert run.fail_for_good("b") is Unavailable


def test_success_between_two_failures() -> None:
    """Two blobs that fail alone are both at fault if another arrived between them."""
    run = RetryFixture()
    for name in "ab":
        run.retrying.record_success()
        run.clock.advance(1)
        assert run.fail_for_good(name) is BlobUnreachable


def test_when_others_fail_too_the_storage_failed() -> None:
    """If several blobs fail at the same time and none arrives, the storage is at fault."""
    run = RetryFixture()
    run.retrying.record_success()
    run.clock.advance(1)

    async def main() -> list[BaseException | int]:
        tries = (run.retrying.retry(name, make_failing(10**6)) for name in "ab")
        return await asyncio.gather(*tries, return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [Unavailable, Unavailable]


def test_finished_blob_does_not_count_as_failing() -> None:
    """A blob that failed and then finished is no evidence against the storage."""
    run = RetryFixture()
    run.retrying.record_success()
    assert run.retry("other", make_failing(2)) == 42
    run.retrying.record_finished("other")
    run.clock.advance(1)
    assert run.fail_for_good("a") is BlobUnreachable


def test_final_error_has_the_cause() -> None:
    """The last Transient is in the message and is the cause."""
    run = RetryFixture()
    with pytest.raises(Unavailable, match="the storage kept failing: broke off") as error:
        run.retry("a", make_failing(10**6))
    assert isinstance(error.value.__cause__, Transient)
