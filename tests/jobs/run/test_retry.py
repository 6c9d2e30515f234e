"""Whose failure it is when one blob fails again and again."""

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
        self.persistence = Retrying(RunContext(self.clock, self.events.append, RunStats(), self.limiter, budget))

    def retry(self, name: str, attempt: Callable[[], Awaitable[int]]) -> int:
        return asyncio.run(self.persistence.retry(name, attempt))

    def fail_for_good(self, name: str) -> type[Exception]:
        """What comes of a blob that never arrives."""
        with pytest.raises((BlobUnreachable, Unavailable)) as error:
            self.retry(name, make_failing(10**6))
        self.persistence.record_finished(name)
        return error.type

    @property
    def retries(self) -> list[Retried]:
        return [event for event in self.events if isinstance(event, Retried)]


def make_failing(
    times: int, error: Exception | None = None, *, then: Callable[[], None] = lambda: None
) -> Callable[[], Awaitable[int]]:
    """An attempt that fails so often, then gives 42. `then` is done with each."""
    left = times

    async def attempt() -> int:
        nonlocal left
        left -= 1
        then()
        if left >= 0:
            raise error or Transient("broke off")
        return 42

    return attempt


def test_what_succeeds_at_once_waits_for_nothing() -> None:
    """A first attempt that succeeds is the only one."""
    world = RetryFixture()
    assert world.retry("a", make_failing(0)) == 42
    assert (world.clock.sleeps_s, world.events) == ([], [])


def test_transients_are_tried_again() -> None:
    """While patience lasts each Transient is followed by a wait, told with blob and reason, and by another try."""
    world = RetryFixture()
    assert world.retry("a", make_failing(4)) == 42
    assert [(event.what, event.reason) for event in world.retries] == [("a", "broke off")] * 4
    assert [event.seconds for event in world.retries] == world.clock.sleeps_s
    assert all(one <= later for one, later in pairwise(world.clock.sleeps_s))


@pytest.mark.parametrize("error", [BlobDamaged("x"), NotAuthorised("x"), ValueError("x"), asyncio.CancelledError()])
def test_other_errors_come_through(error: Exception) -> None:
    """Only a Transient is borne with."""
    world = RetryFixture()
    with pytest.raises(type(error)):
        world.retry("a", make_failing(1, error))
    assert world.clock.sleeps_s == []


def test_patience_ends_with_the_budget() -> None:
    """Tries end when the budget is over, not much before and not after."""
    world = RetryFixture()
    assert world.fail_for_good("a") is Unavailable
    assert BUDGET_S * 0.9 <= world.clock.monotonic() <= BUDGET_S
    assert len(world.retries) >= 5


def test_each_blob_has_its_own_patience() -> None:
    """What one blob used up of its budget is no other's loss."""
    world = RetryFixture()
    world.persistence.record_success()
    world.fail_for_good("a")
    began = world.clock.monotonic()
    world.fail_for_good("b")
    assert world.clock.monotonic() - began >= BUDGET_S * 0.9


def test_attempts_that_take_long_count_too() -> None:
    """The budget runs from where the first failing attempt began, however long attempts take."""
    world = RetryFixture()
    with pytest.raises(Unavailable):
        world.retry("a", make_failing(10**6, then=lambda: world.clock.advance(BUDGET_S)))
    assert len(world.retries) == 1


def test_a_stall_longer_than_the_budget_is_tried_again() -> None:
    """One attempt that hangs for longer than the whole budget, as a dead connection does, is not the end."""
    world = RetryFixture()
    assert world.retry("a", make_failing(1, then=lambda: world.clock.advance(2 * BUDGET_S))) == 42


def test_retry_after_is_obeyed() -> None:
    """What the server asks for is waited for."""
    world = RetryFixture()
    assert world.retry("a", make_failing(1, Transient("busy", retry_after=7))) == 42
    assert 7 <= world.clock.sleeps_s[0] <= 7.7


def test_pressure_eases_the_gate() -> None:
    """A Transient that speaks of pressure lets fewer in; another, such as a refused range, does not."""
    world = RetryFixture()
    world.retry("a", make_failing(1, RangeRefused("no")))
    assert world.limiter.limit == INITIAL_LIMIT
    world.retry("a", make_failing(1, Transient("slow down", is_throttled=True)))
    assert world.limiter.limit < INITIAL_LIMIT


def test_success_opens_the_gate() -> None:
    """Each blob that is done lets one more in."""
    world = RetryFixture()
    world.persistence.record_success()
    assert world.limiter.limit == INITIAL_LIMIT + 1


# --- whose failure it is ---


def test_where_nothing_ever_arrived_it_is_the_storage_s() -> None:
    """Without one success in the run the storage is to blame."""
    assert RetryFixture().fail_for_good("a") is Unavailable


def test_while_others_arrive_it_is_the_blob_s() -> None:
    """A blob that fails while others arrive is that blob's failure, again and again."""
    world = RetryFixture()
    for name in "abc":
        with pytest.raises(BlobUnreachable, match=f"^{name} kept failing: broke off"):
            world.retry(name, make_failing(10**6, then=world.persistence.record_success))
        world.persistence.record_finished(name)


def test_the_last_one_alone_fails_for_itself() -> None:
    """Where all else arrived before and nothing is under way, the blob is to blame; for two in a row the storage is."""
    world = RetryFixture()
    world.persistence.record_success()
    world.clock.advance(1)
    assert world.fail_for_good("a") is BlobUnreachable
    assert world.fail_for_good("b") is Unavailable


def test_a_success_between_forgives() -> None:
    """Two that fail alone are two blobs' failures when one arrived between them."""
    world = RetryFixture()
    for name in "ab":
        world.persistence.record_success()
        world.clock.advance(1)
        assert world.fail_for_good(name) is BlobUnreachable


def test_when_others_fail_too_it_is_the_storage_s() -> None:
    """Several that fail at the same time while nothing arrives are the storage's failure."""
    world = RetryFixture()
    world.persistence.record_success()
    world.clock.advance(1)

    async def main() -> list[BaseException | int]:
        tries = (world.persistence.retry(name, make_failing(10**6)) for name in "ab")
        return await asyncio.gather(*tries, return_exceptions=True)

    assert [type(error) for error in asyncio.run(main())] == [Unavailable, Unavailable]


def test_what_is_settled_fails_no_more() -> None:
    """A blob that failed and then was done with is no witness against the storage."""
    world = RetryFixture()
    world.persistence.record_success()
    assert world.retry("other", make_failing(2)) == 42
    world.persistence.record_finished("other")
    world.clock.advance(1)
    assert world.fail_for_good("a") is BlobUnreachable


def test_giving_up_tells_the_cause() -> None:
    """The last Transient is in the message and is the cause."""
    world = RetryFixture()
    with pytest.raises(Unavailable, match="the storage kept failing: broke off") as error:
        world.retry("a", make_failing(10**6))
    assert isinstance(error.value.__cause__, Transient)
