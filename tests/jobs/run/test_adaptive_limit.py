"""Adaptive limit tests: compare the limit with the best fixed one, on models of servers and a fake clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass, field, replace
from functools import cache
from random import Random

import pytest

from tilesync.jobs.run.adaptive_limit import INITIAL_LIMIT, MAX_LIMIT, REQUEST_OVERHEAD_BYTES, AdaptiveLimit

FIXED_LIMITS = [8, 16, 32, 64, 128, 256]
MAX_RETRY_WAIT_S = 20.0


@dataclass
class ServerModel:
    """Model of a server.

    `latency`: seconds to the first byte. Each connection and all together have a rate in bytes. More than
    `accepted_per_s` requests are refused, and the share `loss` breaks. `bad_period`: start, end, and the model in
    between.
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
        """Return how a request ends, when its response begins, and when it ends."""
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
    """Outcome of a simulated run: its time, its refusals, and the limit and finished files of each second."""

    seconds: float = 0.0
    refused: int = 0
    limits: list[int] = field(default_factory=list)
    files: list[int] = field(default_factory=list)


class SimulatedRun:
    """Simulated run of many files, with the slots and retries of a transfer."""

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
            self.now, _, callback = heapq.heappop(self.coming)
            while len(self.found.limits) <= int(self.now):
                self.found.limits.append(self.fixed or self.limit.value)
                self.found.files.append(0)
            callback()
        self.found.seconds = self.now
        return self.found

    def schedule(self, when: float, callback: Callable[[], None]) -> None:
        self.order += 1
        heapq.heappush(self.coming, (when, self.order, callback))

    def start_request(self, size: int, failures: int = 0) -> None:
        end, begin, over = self.model.answer_request(self.now, size, self.dice)
        waited = (over if self.whole_times else begin) - self.now
        if end == "whole":
            self.schedule(over, lambda: self.finish_request(size, waited))
        else:
            self.schedule(over, lambda: self.retry_later(size, failures, pressure=end == "refused"))

    def finish_request(self, size: int, waited: float) -> None:
        is_saturated = bool(self.left) and 2 * self.inside >= self.limit.value
        self.limit.record_latency(waited)
        self.limit.record_bytes(size, self.now, is_saturated=is_saturated)
        self.limit.record_success(self.now, is_saturated=is_saturated)
        self.found.files[int(self.now)] += 1
        self.inside -= 1

    def retry_later(self, size: int, failures: int, *, pressure: bool) -> None:
        if pressure:
            self.found.refused += 1
            self.limit.back_off(self.now)
        wait = min(MAX_RETRY_WAIT_S, 0.25 * 2**failures) * (0.5 + self.dice.random() / 2)
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
    """Simulate a run. `whole_times`: the latency includes the time of the body."""
    return SimulatedRun(deepcopy(model), fixed=fixed, seed=seed, median=median, whole_times=whole_times).simulate(files)


SLOW = ServerModel(latency=0.05, bytes_per_s_per_connection=60_000)
CAPPED = ServerModel(latency=0.03, total_bytes_per_s=8e6)
REFUSING = ServerModel(latency=0.1, accepted_per_s=400)
FAR = ServerModel(latency=0.6)
LOSSY = ServerModel(latency=0.05, loss=0.02)
FAST = ServerModel(requests_per_s=3000)

SERVER_SHAPES = {
    "slow per connection": (SLOW, 20_000, 30_000),
    "slow per connection, larger files": (SLOW, 6_000, 60_000),
    "capped in total": (CAPPED, 8_000, 30_000),
    "refusing above a rate": (REFUSING, 12_000, 30_000),
    "far away": (FAR, 20_000, 30_000),
    "lossy": (LOSSY, 50_000, 30_000),
    "fast": (FAST, 40_000, 30_000),
}
"""Server, number of files, and their median size: enough work for about ten seconds with the best fixed limit."""


@cache
def measure_best_fixed(shape: str) -> float:
    """Return the seconds that the best fixed limit takes."""
    model, files, median = SERVER_SHAPES[shape]
    return min(simulate_run(model, files, fixed=fixed, median=median).seconds for fixed in FIXED_LIMITS)


@pytest.mark.scale
@pytest.mark.parametrize("seed", [1, 2, 3])
@pytest.mark.parametrize("shape", SERVER_SHAPES)
def test_adaptive_limit_is_near_the_best_fixed_limit(shape: str, seed: int) -> None:
    """On every server model, the adaptive limit takes at most a tenth longer than the best fixed one."""
    model, files, median = SERVER_SHAPES[shape]
    assert simulate_run(model, files, seed=seed, median=median).seconds <= 1.1 * measure_best_fixed(shape)


def test_slow_connections_use_the_maximum_limit() -> None:
    """On slow connections the limit stays at the maximum.

    That holds even if latency includes the body, where larger files look like a queue.
    """
    limits = simulate_run(SLOW, 40_000, whole_times=True).limits
    assert min(limits[10:]) >= MAX_LIMIT * 4 // 5
    assert sum(limits[10:]) >= 0.97 * MAX_LIMIT * len(limits[10:])


def test_refusing_server_is_used_fully_with_few_refusals() -> None:
    """A server with a request rate limit is used almost fully, and fewer than one request in ten is refused."""
    outcome = simulate_run(REFUSING, 12_000)
    assert outcome.refused <= 0.1 * 12_000
    assert sum(outcome.files[5:-2]) >= 0.95 * 400 * len(outcome.files[5:-2])


BAD_PERIODS = {
    "it refuses everything": ServerModel(latency=0.1, accepted_per_s=0.0),
    "it crawls": ServerModel(latency=3.0, total_bytes_per_s=600_000),
    "it loses everything": ServerModel(latency=0.1, loss=1.0),
    "it does next to nothing": ServerModel(latency=0.1, requests_per_s=10),
}


@pytest.mark.scale
@pytest.mark.parametrize("server", [SLOW, FAR, CAPPED, REFUSING], ids=["slow", "far", "capped", "refusing"])
@pytest.mark.parametrize("bad", BAD_PERIODS)
def test_it_recovers_after_a_bad_minute(server: ServerModel, bad: str) -> None:
    """Half a minute after a bad minute of the server, throughput is back."""
    begin, end = 20.0, 80.0
    usual = simulate_run(replace(server, bad_period=None), 30_000).files[10:20]
    after = simulate_run(replace(server, bad_period=(begin, end, BAD_PERIODS[bad])), 60_000).files[110:120]
    assert sum(after) >= 0.9 * sum(usual)


def test_refusals_in_the_first_second_cost_seconds() -> None:
    """A few refusals in the first second cost seconds only."""
    usual = simulate_run(SLOW, 20_000).seconds
    assert (
        simulate_run(replace(SLOW, bad_period=(0.0, 1.0, BAD_PERIODS["it refuses everything"])), 20_000).seconds
        <= usual + 12
    )


def test_time_before_the_first_transfer_does_not_count() -> None:
    """The first round measures transfers only, even after a listing of a minute."""
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
    """If the limit doubles several times in a round, the rate of the round counts for the average limit."""
    limit, now = AdaptiveLimit(0.0), 0.0
    while not limit._best_round[0]:
        now += 0.001
        limit.record_success(now, is_saturated=True)
    assert INITIAL_LIMIT + 100 < limit._best_round[1] < limit.value


def test_unsaturated_times_do_not_count() -> None:
    """If there is less work than the limit allows, the limit stays."""
    limit, now = AdaptiveLimit(0.0), 0.0
    for number in range(600):
        now += 0.1
        limit.record_latency(5.0 if number > 300 else 0.1)
        limit.record_success(now, is_saturated=False)
    assert limit.value == INITIAL_LIMIT
