"""Read ahead: results in order, within a bound, and errors in their turn."""

from __future__ import annotations

import threading
from contextvars import ContextVar

import pytest

from tilesync.runtime.read_ahead import map_ahead


def test_results_come_in_order() -> None:
    """Each item comes with its own result, in the order of the items, whatever ends first."""
    ends = [threading.Event() for _ in range(3)]

    def work(number: int) -> int:
        if number < 2:  # the first two end after the third
            assert ends[2].wait(10)
        ends[number].set()
        return number * number

    results = map_ahead(work, range(3), threads=3, weigh=lambda _: 1, max_weight=100)
    assert list(results) == [(0, 0), (1, 1), (2, 4)]


def test_weight_is_bounded() -> None:
    """Items that are under way never weigh more than the bound, but for one that is heavier alone."""
    weights = [3, 3, 3, 50, 1, 2, 9, 4]
    under_way, heaviest, taken = set[int](), 0, list[int]()
    lock = threading.Lock()

    def work(index: int) -> None:
        nonlocal heaviest
        with lock:
            under_way.add(index)
            if len(under_way) > 1:
                heaviest = max(heaviest, sum(weights[each] for each in under_way))

    for index, _ in map_ahead(work, range(len(weights)), threads=4, weigh=lambda index: weights[index], max_weight=10):
        with lock:
            under_way.discard(index)
        taken.append(index)
    assert taken == list(range(len(weights)))
    assert heaviest <= 10


def test_an_error_is_raised_after_the_results_before_it() -> None:
    """The error of an item is raised after the results before it; the items after it may run, and are dropped."""

    def work(number: int) -> int:
        return 6 // (number - 2)

    results = map_ahead(work, range(5), threads=2, weigh=lambda _: 1, max_weight=100)
    assert [next(results), next(results)] == [(0, -3), (1, -6)]
    with pytest.raises(ZeroDivisionError):
        next(results)


def test_work_sees_the_context_of_the_caller() -> None:
    """Context variables, such as the stop event of a run, are those of the thread that iterates."""
    variable = ContextVar("variable", default="unset")
    variable.set("set")
    results = map_ahead(lambda _: variable.get(), [0, 1], threads=2, weigh=lambda _: 1, max_weight=1)
    assert [result for _, result in results] == ["set", "set"]


def test_closing_waits_for_what_runs() -> None:
    """After `close` no work runs any more, and none that waited begins."""
    running, ended = threading.Event(), list[int]()

    def work(number: int) -> None:
        if number:
            running.set()
        ended.append(number)

    results = map_ahead(work, range(100), threads=2, weigh=lambda _: 1, max_weight=100)
    next(results)
    results.close()
    count = len(ended)
    assert count < 100
    assert len(ended) == count
    assert [thread.name for thread in threading.enumerate() if thread.name.startswith("ahead")] == []
