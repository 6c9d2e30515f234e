"""Rate limit of the fake service's API, and its count of calls."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tilesync.demo.api_rate import ApiCallLog, RateLimit


@dataclass
class Moments:
    """Clock that a test sets."""

    now: float = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def moments() -> Moments:
    return Moments()


def record_at(log: ApiCallLog, moments: Moments, *times: float) -> list[int | None]:
    """Record a call at each of these times."""
    answers = []
    for moments.now in times:
        answers.append(log.record())
    return answers


def test_a_call_beyond_the_limit_is_refused(moments: Moments) -> None:
    """The limit accepts its calls in each window, and tells others when the next one is accepted."""
    log = ApiCallLog(moments)
    log.limit = RateLimit(3, seconds=10)
    assert record_at(log, moments, 0, 4, 5) == [None, None, None]
    assert record_at(log, moments, 6, 9.5) == [4, 1]
    assert record_at(log, moments, 10, 13.9, 14) == [None, 1, None]
    assert log.refused == 3


def test_the_largest_window_is_found(moments: Moments) -> None:
    """Of all windows of 60 s the fullest counts, wherever it begins; a window does not hold both of its ends."""
    log = ApiCallLog(moments)
    record_at(log, moments, 0, 59, 60, 61, 118, 300)
    assert log.most_calls_in_window() == 4
    assert log.most_calls_in_window(1.5) == 2
    assert log.calls_in_window() == 1
    assert log.total == 6


def test_refused_calls_count_too(moments: Moments) -> None:
    """A client that ignores the limit is seen in the count of calls."""
    log = ApiCallLog(moments)
    log.limit = RateLimit(1)
    record_at(log, moments, 0, 1, 2)
    assert (log.most_calls_in_window(), log.refused) == (3, 2)


def test_clear_forgets_everything(moments: Moments) -> None:
    """After `clear` the limit accepts its full number again."""
    log = ApiCallLog(moments)
    log.limit = RateLimit(1)
    record_at(log, moments, 0, 1)
    log.clear()
    assert (log.total, log.refused, log.most_calls_in_window()) == (0, 0, 0)
    assert log.record() is None
