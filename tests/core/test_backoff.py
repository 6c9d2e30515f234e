"""When to try again, and when to stop."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tilesync.core.backoff import FIRST_DELAY_S, MAX_DELAY_S, MAX_RETRY_AFTER_S, RetryBudget

SEEDS = st.integers(0, 2**32).map(Random)


@given(SEEDS, st.integers(0, 60))
def test_waits_double_within_bounds(random: Random, failures: int) -> None:
    """Each wait is between half and all of a step that doubles up to the longest."""
    patience = RetryBudget(1e9, random)
    waits = [patience.next_delay(0.0) for _ in range(failures + 1)]
    step = min(MAX_DELAY_S, FIRST_DELAY_S * 2**failures)
    assert waits[-1] is not None
    assert step / 2 <= waits[-1] <= step


@given(SEEDS, st.integers(1, 120), st.integers(0, 20))
def test_retry_after_is_obeyed(random: Random, asked: int, failures: int) -> None:
    """What the server asks for is waited for, and at most a tenth longer."""
    patience = RetryBudget(1e9, random, failures)
    wait = patience.next_delay(0.0, float(asked))
    assert wait is not None
    assert asked <= wait <= asked * 1.1


def test_retry_after_zero_does_not_spin() -> None:
    """A server that asks for no wait at all is still given a moment."""
    patience = RetryBudget(60.0, Random(1))
    assert all((patience.next_delay(0.0, 0.0) or 0.0) >= FIRST_DELAY_S / 2 for _ in range(20))


@given(SEEDS, st.floats(0.0, 300.0))
def test_the_budget_ends_it(random: Random, budget: float) -> None:
    """Failing without progress ends, and no wait that is granted goes past the budget."""
    patience, now, rounds = RetryBudget(budget, random), 0.0, 0
    while (wait := patience.next_delay(now, began_at=0.0)) is not None:
        now += wait
        rounds += 1
        assert now <= budget
        assert rounds < 1000
    assert now + MAX_DELAY_S >= budget or budget < FIRST_DELAY_S


def test_the_budget_counts_from_the_first_attempt() -> None:
    """The time that the first attempt took, hanging, is spent from the budget."""
    patience = RetryBudget(60.0, Random(1))
    assert patience.next_delay(50.0, began_at=0.0) is not None
    assert patience.next_delay(61.0) is None
    assert RetryBudget(60.0, Random(1)).next_delay(61.0) is not None


@given(SEEDS, st.floats(FIRST_DELAY_S, 300.0), st.floats(0.0, 1000.0))
def test_a_first_attempt_that_stalls_has_one_retry(random: Random, budget: float, stalled: float) -> None:
    """However long the first attempt hung, there is a second; one that hangs past the budget is the last."""
    patience = RetryBudget(budget, random)
    wait = patience.next_delay(stalled, began_at=0.0)
    assert wait is not None
    assert wait <= FIRST_DELAY_S
    assert patience.next_delay(max(stalled + wait, budget) + 1.0) is None


def test_progress_gives_the_budget_back() -> None:
    """After progress, the waits and the budget begin anew."""
    patience = RetryBudget(10.0, Random(1))
    while patience.next_delay(9.0, began_at=0.0) is not None:
        pass
    patience.record_progress()
    wait = patience.next_delay(100.0)
    assert wait is not None
    assert wait <= FIRST_DELAY_S


def test_a_long_retry_after_is_obeyed_once() -> None:
    """Beyond the budget a Retry-After is waited for once, up to its limit, and never twice in a row."""
    patience = RetryBudget(1.0, Random(1))
    assert patience.next_delay(0.0, MAX_RETRY_AFTER_S, began_at=0.0) is not None
    assert patience.next_delay(MAX_RETRY_AFTER_S, MAX_RETRY_AFTER_S) is None
    assert RetryBudget(1.0, Random(1)).next_delay(0.0, MAX_RETRY_AFTER_S + 1, began_at=0.0) is None


def test_no_budget_no_retry() -> None:
    """Without a budget the first failure is the last, unless the server asked to come back."""
    assert RetryBudget(0.0, Random(1)).next_delay(0.0) is None
    assert RetryBudget(0.0, Random(1)).next_delay(0.0, 1.0) is not None
