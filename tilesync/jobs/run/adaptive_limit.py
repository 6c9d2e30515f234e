"""The adaptive concurrency limit: find by probing how many transfers at once give the highest throughput.

Throughput is measured in rounds. A round ends when as many transfers have ended as were active when it began, so it
shows the throughput of its limit even if each transfer is slow. If the limit grew during a round, the average limit of
the round counts.

- **Grow.** Each success raises the limit by one, so the limit doubles in a round while throughput follows. If the
  throughput grows by less than 75 % of what the limit grew by, the limit stays for one round, and the result of that
  round decides whether the growth continues.
- **Probe.** After that, the limiter tries a quarter more every PROBE_INTERVAL_S, and still more if throughput rises.
  It tries a fifth less if responses begin to wait in a queue, and keeps the lower limit if throughput stays the same;
  if not, it waits before the next such try, longer each time.
- **Back off.** Refused requests lower the limit at once, by the share that was refused. The limit recovers by a
  twentieth per COOLDOWN_S, and after CALM_PERIOD_S it grows as at the start. So a bad minute costs some rounds, not
  the rest of the run.

Rejected:

- Lowering the limit whenever responses take several times as long as the fastest one. On slow connections the response
  time depends on the size, which looked like a queue: the limit fell to its minimum and stayed there.
- Rates over a fixed quarter of a second, in which slow transfers do not end at all.
- Computing the limit from the rate and the fastest response, as TCP congestion control does: files differ in size.
"""

from __future__ import annotations

from enum import Enum, auto

INITIAL_LIMIT = 32
"""High enough that the first round trips cost a short run little; low enough that storage rarely refuses any."""

MIN_PROBED_LIMIT = 16
"""The lowest limit that is probed. Refused requests can still lower the limit to MIN_LIMIT."""

MAX_LIMIT = 256
MIN_LIMIT = 4

COOLDOWN_S = 1.0
"""Minimum seconds between two reductions, since more requests of the same moment may be refused; also of a round."""

MIN_ROUND_S = 0.25
"""Minimum seconds of a round while the limit grows."""

MAX_ROUND_S = 3.0
"""Maximum seconds of a round, even if few transfers ended: large files move bytes without ending."""

PROBE_INTERVAL_S = 5.0
"""Seconds between two probes of a higher limit."""

CALM_PERIOD_S = 5.0
"""Seconds after the last reduction, after which the limit grows as at the start."""

REQUEST_OVERHEAD_BYTES = 1 << 15
"""Cost of a request in bytes, added to the bytes of its body."""

RECOVERY_DIVISOR = 20
"""During recovery, each COOLDOWN_S raises the limit by one plus the limit divided by this."""

SCALING_SHARE = 0.75
"""Throughput follows the limit if it grows by at least this share of the growth of the limit."""

PROBE_STEP_SHARE = 0.25
"""Growth of the first probe. It doubles after each probe that was worthwhile, up to 100 %."""

WORTHWHILE_SHARE = 0.4
"""A higher limit is worthwhile if throughput grows by at least this share of the growth of the limit."""

SAME_THROUGHPUT_RATIO = 0.95
"""A lower limit is kept if it reaches at least this share of the earlier throughput."""

QUEUED_LATENCY_RATIO = 4.0
"""A response this many times as late as the fastest one has probably waited in a queue."""

PROBE_DOWN_DELAYS_S = (10.0, 320.0)
"""Seconds until the next probe of a lower limit after one that lost throughput: first, and maximum."""


class Phase(Enum):
    """Phase of the limit: growing, steady, probing up or down, or backed off."""

    GROW = auto()
    STEADY = auto()
    PROBE_UP = auto()
    PROBE_DOWN = auto()
    BACKED_OFF = auto()


class AdaptiveLimit:
    """Concurrency limit that follows throughput, latency and refusals. `value` is the limit.

    All times are seconds of one monotonic clock.
    """

    def __init__(self, now: float) -> None:
        self.value = INITIAL_LIMIT
        self.max_limit = MAX_LIMIT
        self._phase = Phase.GROW
        self._best_round = (0.0, INITIAL_LIMIT)  # the rate to compare with, and the limit that reached it
        self._pauses_growth = False  # a round without growth decides whether growth continues
        self._skips_round = False  # the round still measures transfers from before a probe
        self._round_bytes = self._round_transfers = 0
        self._round_raises, self._round_raise_offsets_s = (
            0,
            0.0,
        )  # count of raises, and sum of their seconds since the start of the round
        self._round_started_at, self._round_limit = now, INITIAL_LIMIT
        self._probed_at = now
        self._probe_step_share = PROBE_STEP_SHARE
        self._probe_down_delay_s, self._next_probe_down_at = PROBE_DOWN_DELAYS_S[0], now
        self._backed_off_at = self._recovered_at = -CALM_PERIOD_S
        self._successes = self._refusals = 0  # since the last change of the limit while backed off
        self._latencies_s: list[float] = []
        self._min_latency_s: float | None = None

    def start(self, now: float) -> None:
        """Start measuring when the first transfer begins: time before it says nothing about the storage."""
        self._probed_at = now
        self._start_round(now)

    def record_success(self, now: float, *, is_saturated: bool, count: int = 1) -> None:
        """Record successful transfers. `is_saturated`: transfers wait for a slot, so the rate is that of the limit."""
        self._round_transfers += count
        if self._phase is Phase.GROW:
            if is_saturated and not self._pauses_growth:
                raises = min(count, max(0, self.max_limit - self.value))
                self.value += raises
                self._round_raises += raises
                self._round_raise_offsets_s += raises * (now - self._round_started_at)
        elif self._phase is Phase.BACKED_OFF:
            self._successes += count
            self._recover(now)
        self.record_bytes(count * REQUEST_OVERHEAD_BYTES, now, is_saturated=is_saturated)

    def record_bytes(self, size: int, now: float, *, is_saturated: bool) -> None:
        """Record received bytes, and finish the round if it is over."""
        self._round_bytes += size
        elapsed = now - self._round_started_at
        if elapsed >= (MIN_ROUND_S if self._phase is Phase.GROW else COOLDOWN_S) and (
            self._round_transfers >= self._round_limit or elapsed >= MAX_ROUND_S
        ):
            if is_saturated:
                # A raise counts for the part of the round after it.
                average_raise = (self._round_raises * elapsed - self._round_raise_offsets_s) / elapsed
                self._finish_round(self._round_bytes / elapsed, self._round_limit + int(average_raise), now)
            self._start_round(now)

    def record_latency(self, seconds: float) -> None:
        """Record the seconds from a request to the start of its response."""
        self._latencies_s.append(seconds)

    def _start_round(self, now: float) -> None:
        self._round_started_at, self._round_limit, self._round_bytes, self._round_transfers = now, self.value, 0, 0
        self._round_raises, self._round_raise_offsets_s = 0, 0.0
        self._latencies_s = []

    def _finish_round(self, rate: float, limit: int, now: float) -> None:
        """Choose the limit of the next round from the rate of the finished one."""
        is_queueing = self._is_queueing()
        if self._skips_round:
            self._skips_round = False
        elif self._phase is Phase.GROW:
            self._continue_growth(rate, limit, now)
        elif self._phase is Phase.PROBE_UP:
            self._evaluate_probe_up(rate, limit, now)
        elif self._phase is Phase.PROBE_DOWN:
            self._evaluate_probe_down(rate, limit, now)
        elif self._phase is Phase.STEADY:
            self._best_round = rate, limit
            if is_queueing and limit > MIN_PROBED_LIMIT and now >= self._next_probe_down_at:
                self._start_probe(Phase.PROBE_DOWN, max(MIN_PROBED_LIMIT, limit * 4 // 5))
            elif limit < self.max_limit and now - self._probed_at >= PROBE_INTERVAL_S:
                self._probe_up(limit)

    def _continue_growth(self, rate: float, limit: int, now: float) -> None:
        best_rate, best_limit = self._best_round
        growth = limit / best_limit - 1
        follows = rate >= best_rate * (1 + SCALING_SHARE * growth)
        if rate >= best_rate * (1 + WORTHWHILE_SHARE * growth):
            self._best_round = rate, limit
        elif self._pauses_growth or best_limit == self.max_limit:
            self.value = best_limit
            self._hold_steady(now)
            return
        self._pauses_growth = not follows
        if follows and self._round_transfers < limit:  # large files: few end, so few successes raise the limit
            self.value = min(self.max_limit, max(self.value, limit * 3 // 2))

    def _hold_steady(self, now: float) -> None:
        self._phase, self._probed_at, self._pauses_growth = Phase.STEADY, now, False

    def _probe_up(self, limit: int) -> None:
        self._start_probe(Phase.PROBE_UP, min(self.max_limit, limit + 1 + int(limit * self._probe_step_share)))

    def _start_probe(self, phase: Phase, value: int) -> None:
        self._phase, self.value, self._skips_round = phase, value, True

    def _evaluate_probe_up(self, rate: float, limit: int, now: float) -> None:
        rate_before, limit_before = self._best_round
        if rate >= rate_before * (1 + WORTHWHILE_SHARE * (limit / limit_before - 1)):
            self._best_round, self._probe_step_share = (rate, limit), min(1.0, 2 * self._probe_step_share)
        else:
            self.value = limit = limit_before
            self._probe_step_share = PROBE_STEP_SHARE
        if limit == limit_before or limit == self.max_limit:
            self._hold_steady(now)
        else:
            self._probe_up(limit)

    def _evaluate_probe_down(self, rate: float, limit: int, now: float) -> None:
        rate_before, limit_before = self._best_round
        if rate >= rate_before * SAME_THROUGHPUT_RATIO:
            self._probe_down_delay_s = PROBE_DOWN_DELAYS_S[0]
        else:
            self.value = limit_before
            self._next_probe_down_at = now + self._probe_down_delay_s
            self._probe_down_delay_s = min(PROBE_DOWN_DELAYS_S[1], 2 * self._probe_down_delay_s)
        self._hold_steady(now)

    def _is_queueing(self) -> bool:
        """Return whether the responses of the last round began late, compared with the fastest median.

        The fastest median rises by 2 % a round, so that an old value is forgotten slowly.
        """
        latencies = sorted(self._latencies_s)
        if not latencies:
            return False
        median = latencies[len(latencies) // 2]
        self._min_latency_s = min(median, (self._min_latency_s or median) * 1.02)
        return median > self._min_latency_s * QUEUED_LATENCY_RATIO

    def _recover(self, now: float) -> None:
        """Raise the limit after a full round and a cooldown without refusals; grow again after CALM_PERIOD_S."""
        if now - self._backed_off_at >= CALM_PERIOD_S:
            self._phase, self._best_round, self._pauses_growth = Phase.GROW, (0.0, self.value), False
            self._start_round(now)
        elif self._successes >= self.value and now - self._recovered_at >= (
            2 * COOLDOWN_S if self._refusals else COOLDOWN_S
        ):
            self._successes, self._refusals, self._recovered_at = 0, 0, now
            self.value = min(self.max_limit, self.value + 1 + self.value // RECOVERY_DIVISOR)

    def back_off(self, now: float) -> None:
        """Lower the limit by the share of refused requests, at most once per COOLDOWN_S.

        The share is at least a twentieth and at most a fifth; half if refusals go on and outnumber the successes.
        """
        self._refusals += 1
        if now - self._backed_off_at < COOLDOWN_S:
            return
        successes = self._successes if self._phase is Phase.BACKED_OFF else self._round_transfers
        is_lasting = now - self._backed_off_at < 2 * COOLDOWN_S and self._refusals > successes
        kept_share = min(0.95, max(0.8, successes / (successes + self._refusals)))
        self.value = max(MIN_LIMIT, self.value // 2 if is_lasting else int(self.value * kept_share + 1e-9))
        self._phase, self._skips_round = Phase.BACKED_OFF, False
        self._backed_off_at = self._recovered_at = now
        self._successes = self._refusals = 0
