"""When to try again, and when to stop."""

from random import Random

from hypothesis import given
from hypothesis import strategies as st

from tilesync.core.backoff import FIRST, LONGEST, OBEYED, Patience

SEEDS = st.integers(0, 2**32).map(Random)


@given(SEEDS, st.integers(0, 60))
def test_waits_double_within_bounds(random: Random, failures: int) -> None:
    """Each wait is between half and all of a step that doubles up to the longest."""
    patience = Patience(1e9, random)
    waits = [patience.next_wait(0.0) for _ in range(failures + 1)]
    step = min(LONGEST, FIRST * 2**failures)
    assert waits[-1] is not None
    assert step / 2 <= waits[-1] <= step


@given(SEEDS, st.integers(1, 120), st.integers(0, 20))
def test_retry_after_is_obeyed(random: Random, asked: int, failures: int) -> None:
    """What the server asks for is waited for, and at most a tenth longer."""
    patience = Patience(1e9, random, failures)
    wait = patience.next_wait(0.0, float(asked))
    assert wait is not None
    assert asked <= wait <= asked * 1.1


def test_retry_after_zero_does_not_spin() -> None:
    """A server that asks for no wait at all is still given a moment."""
    patience = Patience(60.0, Random(1))
    assert all((patience.next_wait(0.0, 0.0) or 0.0) >= FIRST / 2 for _ in range(20))


@given(SEEDS, st.floats(0.0, 300.0))
def test_the_budget_ends_it(random: Random, budget: float) -> None:
    """Failing without progress ends, and no wait that is granted goes past the budget."""
    patience, now, rounds = Patience(budget, random), 0.0, 0
    while (wait := patience.next_wait(now, began=0.0)) is not None:
        now += wait
        rounds += 1
        assert now <= budget
        assert rounds < 1000
    assert now + LONGEST >= budget or budget < FIRST


def test_the_budget_counts_from_the_first_attempt() -> None:
    """The time that the first attempt took, hanging, is spent from the budget."""
    patience = Patience(60.0, Random(1))
    assert patience.next_wait(50.0, began=0.0) is not None
    assert patience.next_wait(61.0) is None
    assert Patience(60.0, Random(1)).next_wait(61.0) is not None


@given(SEEDS, st.floats(FIRST, 300.0), st.floats(0.0, 1000.0))
def test_a_first_attempt_that_stalls_has_one_retry(random: Random, budget: float, stalled: float) -> None:
    """However long the first attempt hung, there is a second; one that hangs past the budget is the last."""
    patience = Patience(budget, random)
    wait = patience.next_wait(stalled, began=0.0)
    assert wait is not None
    assert wait <= FIRST
    assert patience.next_wait(max(stalled + wait, budget) + 1.0) is None


def test_progress_gives_the_budget_back() -> None:
    """After progress, the waits and the budget begin anew."""
    patience = Patience(10.0, Random(1))
    while patience.next_wait(9.0, began=0.0) is not None:
        pass
    patience.progress()
    wait = patience.next_wait(100.0)
    assert wait is not None
    assert wait <= FIRST


def test_a_long_retry_after_is_obeyed_once() -> None:
    """Beyond the budget a Retry-After is waited for once, up to its limit, and never twice in a row."""
    patience = Patience(1.0, Random(1))
    assert patience.next_wait(0.0, OBEYED, began=0.0) is not None
    assert patience.next_wait(OBEYED, OBEYED) is None
    assert Patience(1.0, Random(1)).next_wait(0.0, OBEYED + 1, began=0.0) is None


def test_no_budget_no_retry() -> None:
    """Without a budget the first failure is the last, unless the server asked to come back."""
    assert Patience(0.0, Random(1)).next_wait(0.0) is None
    assert Patience(0.0, Random(1)).next_wait(0.0, 1.0) is not None
