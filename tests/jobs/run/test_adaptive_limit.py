"""How many transfers at once are found to be the best, against models of servers, on a clock that tests move."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random

import pytest

from tilesync.jobs.run.adaptive_limit import INITIAL_LIMIT, MAX_LIMIT, REQUEST_OVERHEAD_BYTES, AdaptiveLimit

FIXED = [8, 16, 32, 64, 128, 256]
LONGEST_WAIT = 20.0


@dataclass
class ServerModel:
    """A server. Each connection has `latency` seconds to the first byte and gives `pace` bytes a second; all share
    `line` bytes a second and `starts` answers a second, in the order of asking; of more than `accepts` requests a
    second the rest is refused, and `loss` of all break. `bad`: a beginning, an end, and what it is like in between.
    """

    latency: float = 0.001
    bytes_per_s_per_connection: float = 1e9
    total_bytes_per_s: float = 1e9
    requests_per_s: float = 1e9
    accepted_per_s: float = 1e9
    loss: float = 0.0
    bad_period: tuple[float, float, ServerModel] | None = None
    _line_free: float = 0.0
    _tokens: float = 1e9
    _filled: float = 0.0

    def answer_request(self, now: float, size: int, dice: Random) -> tuple[str, float, float]:
        """How a request ends, when its answer begins, and when it ends."""
        if self.bad_period and self.bad_period[0] <= now < self.bad_period[1]:
            return self.bad_period[2].answer_request(now, size, dice)
        self._tokens = min(self.accepted_per_s / 10, self._tokens + (now - self._filled) * self.accepted_per_s)
        self._filled = now
        if self._tokens < 1:
            return "refused", now + self.latency, now + self.latency
        self._tokens -= 1
        begin = max(now + self.latency, self._line_free)
        self._line_free = begin + size / self.total_bytes_per_s + 1 / self.requests_per_s
        end = max(self._line_free, begin + size / self.bytes_per_s_per_connection)
        if dice.random() < self.loss:
            return "broken", begin, (begin + end) / 2
        return "whole", begin, end


@dataclass
class SimulatedOutcome:
    """One run: its length, what was refused, and each second's limit and number of files."""

    seconds: float = 0.0
    refused: int = 0
    limits: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


class SimulatedRun:
    """A run of so many files, as Transfer does it: each in a place, but while it waits to try again."""

    def __init__(self, model: ServerModel, *, fixed: int | None, seed: int, median: int, whole_times: bool) -> None:
        self.model, self.dice, self.median = model, Random(seed), median
        self.found = SimulatedOutcome()
        self.limit = AdaptiveLimit(0.0)
        self.fixed, self.most = fixed, fixed or MAX_LIMIT
        self.whole_times = whole_times
        self.now = 0.0
        self.inside = self.asleep = self.left = self.order = 0
        self.coming: list[tuple[float, int, Callable[[], None]]] = []

    def simulate(self, files: int) -> SimulatedOutcome:
        self.left = files
        while self.left or self.coming:
            while (
                self.left and self.inside < self.most - self.asleep and self.inside < (self.fixed or self.limit.value)
            ):
                self.inside += 1
                self.left -= 1
                self.start_request(int(min(max(self.dice.lognormvariate(0, 0.9) * self.median, 300), 1_000_000)))
            self.now, _, what = heapq.heappop(self.coming)
            while len(self.found.limits) <= int(self.now):
                self.found.limits.append(self.fixed or self.limit.value)
                self.found.files.append(0)
            what()
        self.found.seconds = self.now
        return self.found

    def schedule(self, when: float, what: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.coming, (when, self.order, what))

    def start_request(self, size: int, failures: int = 0) -> None:
        end, begin, over = self.model.answer_request(self.now, size, self.dice)
        waited = (over if self.whole_times else begin) - self.now
        if end == "whole":
            self.schedule(over, lambda: self.finish_request(size, waited))
        else:
            self.schedule(over, lambda: self.retry_later(size, failures, pressure=end == "refused"))

    def finish_request(self, size: int, waited: float) -> None:
        used = bool(self.left) and 2 * self.inside >= self.limit.value
        self.limit.record_latency(waited)
        self.limit.record_bytes(size, self.now, is_saturated=used)
        self.limit.record_success(self.now, is_saturated=used)
        self.found.files[int(self.now)] += 1
        self.inside -= 1

    def retry_later(self, size: int, failures: int, *, pressure: bool) -> None:
        if pressure:
            self.found.refused += 1
            self.limit.back_off(self.now)
        wait = min(LONGEST_WAIT, 0.25 * 2**failures) * (0.5 + self.dice.random() / 2)
        self.inside -= 1
        self.asleep += 1
        self.schedule(self.now + wait, lambda: self.resume(size, failures + 1))

    def resume(self, size: int, failures: int) -> None:
        self.inside += 1
        self.asleep -= 1
        self.start_request(size, failures)


def simulate_run(
    model: ServerModel,
    files: int,
    *,
    fixed: int | None = None,
    seed: int = 1,
    median: int = 30_000,
    whole_times: bool = False,
) -> SimulatedOutcome:
    """What comes of it. `whole_times`: an answer's time is told with that of its bytes."""
    return SimulatedRun(deepcopy(model), fixed=fixed, seed=seed, median=median, whole_times=whole_times).simulate(files)


SLOW = ServerModel(latency=0.05, bytes_per_s_per_connection=60_000)
CAPPED = ServerModel(latency=0.03, total_bytes_per_s=8e6)
REFUSING = ServerModel(latency=0.1, accepted_per_s=400)
FAR = ServerModel(latency=0.6)
LOSSY = ServerModel(latency=0.05, loss=0.02)
FAST = ServerModel(requests_per_s=3000)

SHAPES = {
    "slow per connection": (SLOW, 20_000, 30_000),
    "slow per connection, larger files": (SLOW, 6_000, 60_000),
    "capped in total": (CAPPED, 8_000, 30_000),
    "refusing above a rate": (REFUSING, 12_000, 30_000),
    "far away": (FAR, 20_000, 30_000),
    "lossy": (LOSSY, 50_000, 30_000),
    "fast": (FAST, 40_000, 30_000),
}
"""Each a server, and so many files of that median size that the best fixed number takes some ten seconds or more."""


@cache
def measure_best_fixed(shape: str) -> float:
    """Seconds that the best fixed number takes."""
    model, files, median = SHAPES[shape]
    return min(simulate_run(model, files, fixed=fixed, median=median).seconds for fixed in FIXED)


@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shape", SHAPES)
def test_it_is_near_the_best_fixed_number(shape: str, seed: int) -> None:
    """Whatever the server is like, what is found takes at most a tenth longer than the best fixed number."""
    model, files, median = SHAPES[shape]
    assert simulate_run(model, files, seed=seed, median=median).seconds <= 1.1 * measure_best_fixed(shape)


def test_where_connections_are_slow_all_are_used() -> None:
    """A server that gives each connection little is asked over as many as there may be, for the whole run, also where
    the time of an answer holds that of its bytes: larger files look like a queue then.
    """
    limits = simulate_run(SLOW, 40_000, whole_times=True).limits
    assert min(limits[10:]) >= MAX_LIMIT * 4 // 5
    assert sum(limits[10:]) >= 0.97 * MAX_LIMIT * len(limits[10:])


def test_a_server_that_refuses_is_asked_for_little_more_than_it_gives() -> None:
    """Of one that refuses above a rate nearly all is had, and fewer than one request in ten is refused."""
    found = simulate_run(REFUSING, 12_000)
    assert found.refused <= 0.1 * 12_000
    assert sum(found.files[5:-2]) >= 0.95 * 400 * len(found.files[5:-2])


BAD_PERIODS = {
    "it refuses everything": ServerModel(latency=0.1, accepted_per_s=0.0),
    "it crawls": ServerModel(latency=3.0, total_bytes_per_s=600_000),
    "it loses everything": ServerModel(latency=0.1, loss=1.0),
    "it does next to nothing": ServerModel(latency=0.1, requests_per_s=10),
}


@pytest.mark.parametrize("server", [SLOW, FAR, CAPPED, REFUSING], ids=["slow", "far", "capped", "refusing"])
@pytest.mark.parametrize("bad", BAD_PERIODS)
def test_it_recovers_after_a_bad_minute(server: ServerModel, bad: str) -> None:
    """Half a minute after a server has been bad for one, as much is moved as before."""
    begin, end = 20.0, 80.0
    usual = simulate_run(replace(server, bad_period=None), 30_000).files[10:20]
    after = simulate_run(replace(server, bad_period=(begin, end, BAD_PERIODS[bad])), 60_000).files[110:120]
    assert sum(after) >= 0.9 * sum(usual)


def test_a_short_fright_is_forgotten() -> None:
    """A refusal or two in the first second, as of a server that wakes up, cost seconds."""
    usual = simulate_run(SLOW, 20_000).seconds
    assert (
        simulate_run(replace(SLOW, bad_period=(0.0, 1.0, BAD_PERIODS["it refuses everything"])), 20_000).seconds
        <= usual + 12
    )


def test_what_comes_before_the_first_transfer_says_nothing() -> None:
    """A listing may take a minute: the rate of the first round is that of its transfers."""
    limit, now = AdaptiveLimit(0.0), 60.0
    limit.start(now)
    for _ in range(INITIAL_LIMIT):
        now += 0.01
        limit.record_latency(0.1)
        limit.record_bytes(30_000, now, is_saturated=True)
        limit.record_success(now, is_saturated=True)
    rate, _ = limit._best_round
    assert rate == pytest.approx((30_000 + REQUEST_OVERHEAD_BYTES) / 0.01, rel=0.1)


def test_a_round_counts_by_the_average_of_its_limits() -> None:
    """Where answers come quickly the limit doubles several times within a round: its rate is not that of the first."""
    limit, now = AdaptiveLimit(0.0), 0.0
    while not limit._best_round[0]:
        now += 0.001
        limit.record_success(now, is_saturated=True)
    assert INITIAL_LIMIT + 100 < limit._best_round[1] < limit.value


def test_times_with_little_to_do_say_nothing() -> None:
    """Where a listing hands out less than could be fetched, nothing is concluded of it."""
    limit, now = AdaptiveLimit(0.0), 0.0
    for number in range(600):
        now += 0.1
        limit.record_latency(5.0 if number > 300 else 0.1)
        limit.record_success(now, is_saturated=False)
    assert limit.value == INITIAL_LIMIT
