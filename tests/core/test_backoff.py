"""Retry delays, the retry budget and the retry policy."""

from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.core.backoff import FIRST_DELAY_S, MAX_DELAY_S, MAX_RETRY_AFTER_S, RetryBudget, RetryPolicy
from tilesync.errors import Transient, Unavailable, UnknownHost
from tilesync.events import Event, Notice, Retried

SEEDS = st.integers(0, 2**32).map(Random)


@given(SEEDS, st.integers(0, 60))
def test_delays_double_within_bounds(random: Random, failures: int) -> None:
    """Each delay is between half and all of a step that doubles up to the maximum."""
    retry_budget = RetryBudget(1e9, random)
    delays = [retry_budget.next_delay(0.0) for _ in range(failures + 1)]
    step = min(MAX_DELAY_S, FIRST_DELAY_S * 2**failures)
    assert delays[-1] is not None
    assert step / 2 <= delays[-1] <= step


@given(SEEDS, st.integers(1, 120), st.integers(0, 20))
def test_retry_after_is_obeyed(random: Random, asked: int, failures: int) -> None:
    """The delay is what the server asks for, and at most a tenth more."""
    retry_budget = RetryBudget(1e9, random, failures)
    delay = retry_budget.next_delay(0.0, float(asked))
    assert delay is not None
    assert asked <= delay <= asked * 1.1


def test_retry_after_zero_does_not_spin() -> None:
    """A server that asks for no delay still gets a short one."""
    retry_budget = RetryBudget(60.0, Random(1))
    assert all((retry_budget.next_delay(0.0, 0.0) or 0.0) >= FIRST_DELAY_S / 2 for _ in range(20))


@given(SEEDS, st.floats(0.0, 300.0))
def test_the_budget_ends_it(random: Random, budget: float) -> None:
    """Failures without progress end, and no granted delay exceeds the budget."""
    retry_budget, now, rounds = RetryBudget(budget, random), 0.0, 0
    while (delay := retry_budget.next_delay(now, began_at=0.0)) is not None:
        now += delay
        rounds += 1
        assert now <= budget
        assert rounds < 1000
    assert now + MAX_DELAY_S >= budget or budget < FIRST_DELAY_S


def test_the_budget_counts_from_the_first_attempt() -> None:
    """The time of a hanging first attempt counts against the budget."""
    retry_budget = RetryBudget(60.0, Random(1))
    assert retry_budget.next_delay(50.0, began_at=0.0) is not None
    assert retry_budget.next_delay(61.0) is None
    assert RetryBudget(60.0, Random(1)).next_delay(61.0) is not None


@given(SEEDS, st.floats(FIRST_DELAY_S, 300.0), st.floats(0.0, 1000.0))
def test_a_first_attempt_that_stalls_has_one_retry(random: Random, budget: float, stalled: float) -> None:
    """However long the first attempt hung, there is one retry; if that exceeds the budget, it is the last."""
    retry_budget = RetryBudget(budget, random)
    delay = retry_budget.next_delay(stalled, began_at=0.0)
    assert delay is not None
    assert delay <= FIRST_DELAY_S
    assert retry_budget.next_delay(max(stalled + delay, budget) + 1.0) is None


def test_progress_restores_the_budget() -> None:
    """After progress, the delays and the budget start again."""
    retry_budget = RetryBudget(10.0, Random(1))
    while retry_budget.next_delay(9.0, began_at=0.0) is not None:
        pass
    retry_budget.record_progress()
    delay = retry_budget.next_delay(100.0)
    assert delay is not None
    assert delay <= FIRST_DELAY_S


def test_a_long_retry_after_is_obeyed_once() -> None:
    """Beyond the budget a Retry-After is obeyed once, up to its limit, and never twice in a row."""
    retry_budget = RetryBudget(1.0, Random(1))
    assert retry_budget.next_delay(0.0, MAX_RETRY_AFTER_S, began_at=0.0) is not None
    assert retry_budget.next_delay(MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S) is None
    assert RetryBudget(1.0, Random(1)).next_delay(0.0, MAX_RETRY_AFTER_S + 1, began_at=0.0) is None


def test_no_budget_no_retry() -> None:
    """Without a budget the first failure is final, unless the server asks for a retry."""
    assert RetryBudget(0.0, Random(1)).next_delay(0.0) is None
    assert RetryBudget(0.0, Random(1)).next_delay(0.0, 1.0) is not None


def test_policy_reports_each_failure() -> None:
    """Each failure is an event with reason and delay; the first one is also a notice, after progress again."""
    events: list[Event] = []
    policy = RetryPolicy("the store", 60.0, events.append)
    delays = [policy.delay_after(Transient("slow"), 0.0, began_at=0.0) for _ in range(2)]
    assert events == [
        Notice("the store: slow; trying again for up to 60 s"),
        *(Retried("the store", "slow", delay) for delay in delays),
    ]


def test_policy_raises_the_final_error() -> None:
    """The final error names reason and hint of the last failure, and the wait that the server asks for."""
    events: list[Event] = []
    policy = RetryPolicy("the store", 60.0, events.append)
    failure = Transient("busy", retry_after=300, hint="wait")
    with pytest.raises(Unavailable, match=r"^the store kept failing: busy; it asks to wait 300 s$") as error:
        policy.delay_after(failure, 0.0, began_at=0.0)
    assert (error.value.hint, error.value.__cause__, events) == ("wait", failure, [])


def test_policy_gives_up_sooner_for_some_failures() -> None:
    """A failure that time seldom cures has a smaller budget than others."""
    policy = RetryPolicy("the store", 60.0, lambda event: None)
    policy.delay_after(Transient("slow"), 0.0, began_at=0.0)
    policy.delay_after(Transient("slow"), 6.0, began_at=6.0)
    with pytest.raises(Unavailable, match="no such host"):
        policy.delay_after(UnknownHost("no such host"), 6.0, began_at=6.0)
