"""The adaptive concurrency limit: how many transfers at once move the most, found by trying.

What counts is throughput, taken over rounds: a round is over when as many transfers ended as were under way when it
began, so that it shows what its limit moves, however slow each of them is. Where the limit grew within a round, its
average counts.

- **Grow.** Each success raises the limit by one, so it doubles in a round, for as long as throughput follows. A round
  in which it follows by less than three quarters is followed by one without growth, and that one decides.
- **Try.** Then a quarter more is tried every PERIOD, and more again where that moves more. A fifth less is tried
  where answers begin to wait in a queue, and kept where that moves as much; else that is not tried again for a while,
  and each time for longer.
- **Ease.** What the storage refuses lowers the limit at once, by the share that it refused; it recovers by a twentieth
  a breath, and after some calm it grows as at the start. So a bad minute costs some rounds, not the rest of the run.

Rejected: lowering the limit whenever answers take several times as long as the quickest. Where each connection is slow
the time of an answer depends on its size, which looked like a queue: the limit fell to its least and stayed there.
Rejected too: rates over a fixed quarter of a second, in which slow transfers do not end at all; and computing the limit
from the rate and the quickest answer, as congestion control of TCP does, since no two files are of one size.
"""

from __future__ import annotations

from enum import Enum, auto

INITIAL_LIMIT = 32
"""So many that the first round trips cost a short run little, and few for a storage to refuse some of."""

MIN_PROBED_LIMIT = 16
"""Fewer are not tried; a storage that refuses some brings it down to LEAST."""

MAX_LIMIT = 256
MIN_LIMIT = 4

COOLDOWN_S = 1.0
"""Seconds between two reductions: answers already under way say the same thing again. Rates are taken over as much."""

MIN_ROUND_S = 0.25
"""Seconds that a round takes at least while the limit grows."""

MAX_ROUND_S = 3.0
"""Seconds after which a round is over though few transfers ended: large files move bytes without ending."""

PROBE_INTERVAL_S = 5.0
"""Seconds between two tries whether more transfers move more."""

CALM_PERIOD_S = 5.0
"""Seconds after which pressure is over, and the limit grows as at the start."""

REQUEST_OVERHEAD_BYTES = 1 << 15
"""Bytes that a request weighs as much as, beside those of its body."""

RECOVERY_DIVISOR = 20
"""After pressure a breath without any raises the limit by one, and by the limit divided by this."""

SCALING_SHARE = 0.75
"""Throughput follows the limit where it grows by so much of its share."""

PROBE_STEP_SHARE = 0.25
"""How many more are tried first; twice as many each time that it was worth it, up to as many again."""

WORTHWHILE_SHARE = 0.4
"""More transfers are worth it where throughput follows by so much of their share."""

SAME_THROUGHPUT_RATIO = 0.95
"""What moves so much of what was moved before is as good: fewer transfers do."""

QUEUED_LATENCY_RATIO = 4.0
"""An answer that begins so many times as late as the quickest may have waited in a queue."""

PROBE_DOWN_DELAYS_S = (10.0, 320.0)
"""Seconds without another try of fewer transfers, after the first that moved less, and at most."""


class Phase(Enum):
    """What the limit is doing."""

    GROW = auto()
    STEADY = auto()
    PROBE_UP = auto()
    PROBE_DOWN = auto()
    BACKED_OFF = auto()


class AdaptiveLimit:
    """Chooses `value` by what it is told. Times are those of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self.value = INITIAL_LIMIT
        self.max_limit = MAX_LIMIT
        self._phase = Phase.GROW
        self._best_round = (0.0, INITIAL_LIMIT)  # the rate that counts, and the limit that it was reached with
        self._pauses_growth = False  # a round without growth decides whether it goes on
        self._skips_round = False  # the round shows what was under way before a try
        self._round_bytes = self._round_transfers = 0
        self._round_raises, self._round_raise_offsets_s = 0, 0.0  # how often, and the sum of the seconds after which
        self._round_started_at, self._round_limit = now, INITIAL_LIMIT  # of the round
        self._probed_at = now
        self._probe_step_share = PROBE_STEP_SHARE
        self._probe_down_delay_s, self._next_probe_down_at = PROBE_DOWN_DELAYS_S[0], now
        self._backed_off_at = self._recovered_at = -CALM_PERIOD_S
        self._successes = self._refusals = 0  # since the limit was lowered or raised, after pressure
        self._latencies_s: list[float] = []
        self._min_latency_s: float | None = None

    def start(self, now: float) -> None:
        """The first transfer begins: what came before it says nothing of the storage."""
        self._probed_at = now
        self._start_round(now)

    def record_success(self, now: float, *, is_saturated: bool) -> None:
        """One more transfer went well. `used`: so many as the limit allows are wanted."""
        self._round_transfers += 1
        if self._phase is Phase.GROW:
            if is_saturated and not self._pauses_growth and self.value < self.max_limit:
                self.value += 1
                self._round_raises += 1
                self._round_raise_offsets_s += now - self._round_started_at
        elif self._phase is Phase.BACKED_OFF:
            self._successes += 1
            self._recover(now)
        self.record_bytes(REQUEST_OVERHEAD_BYTES, now, is_saturated=is_saturated)

    def record_bytes(self, size: int, now: float, *, is_saturated: bool) -> None:
        """So many bytes have come."""
        self._round_bytes += size
        span = now - self._round_started_at
        if span >= (MIN_ROUND_S if self._phase is Phase.GROW else COOLDOWN_S) and (
            self._round_transfers >= self._round_limit or span >= MAX_ROUND_S
        ):
            if is_saturated:
                raised = (self._round_raises * span - self._round_raise_offsets_s) / span  # on the average of the round
                self._finish_round(self._round_bytes / span, self._round_limit + int(raised), now)
            self._start_round(now)

    def record_latency(self, seconds: float) -> None:
        """An answer began so long after it was asked for."""
        self._latencies_s.append(seconds)

    def _start_round(self, now: float) -> None:
        self._round_started_at, self._round_limit, self._round_bytes, self._round_transfers = now, self.value, 0, 0
        self._round_raises, self._round_raise_offsets_s = 0, 0.0
        self._latencies_s = []

    def _finish_round(self, rate: float, limit: int, now: float) -> None:
        """A round is over: choose the limit of the next one."""
        queued = self._is_queueing()
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
            if queued and limit > MIN_PROBED_LIMIT and now >= self._next_probe_down_at:
                self._start_probe(Phase.PROBE_DOWN, max(MIN_PROBED_LIMIT, limit * 4 // 5))
            elif limit < self.max_limit and now - self._probed_at >= PROBE_INTERVAL_S:
                self._probe_up(limit)

    def _continue_growth(self, rate: float, limit: int, now: float) -> None:
        best, best_limit = self._best_round
        more = limit / best_limit - 1
        follows = rate >= best * (1 + SCALING_SHARE * more)
        if rate >= best * (1 + WORTHWHILE_SHARE * more):
            self._best_round = rate, limit
        elif self._pauses_growth or best_limit == self.max_limit:
            self.value = best_limit
            self._hold_steady(now)
            return
        self._pauses_growth = not follows
        if follows and self._round_transfers < limit:  # large files: what does not end raises nothing
            self.value = min(self.max_limit, max(self.value, limit * 3 // 2))

    def _hold_steady(self, now: float) -> None:
        self._phase, self._probed_at, self._pauses_growth = Phase.STEADY, now, False

    def _probe_up(self, limit: int) -> None:
        self._start_probe(Phase.PROBE_UP, min(self.max_limit, limit + 1 + int(limit * self._probe_step_share)))

    def _start_probe(self, phase: Phase, value: int) -> None:
        self._phase, self.value, self._skips_round = phase, value, True

    def _evaluate_probe_up(self, rate: float, limit: int, now: float) -> None:
        before, limit_before = self._best_round
        if rate >= before * (1 + WORTHWHILE_SHARE * (limit / limit_before - 1)):
            self._best_round, self._probe_step_share = (rate, limit), min(1.0, 2 * self._probe_step_share)
        else:
            self.value = limit = limit_before
            self._probe_step_share = PROBE_STEP_SHARE
        if limit == limit_before or limit == self.max_limit:
            self._hold_steady(now)
        else:
            self._probe_up(limit)

    def _evaluate_probe_down(self, rate: float, limit: int, now: float) -> None:
        before, limit_before = self._best_round
        if rate >= before * SAME_THROUGHPUT_RATIO:
            self._probe_down_delay_s = PROBE_DOWN_DELAYS_S[0]
        else:
            self.value = limit_before
            self._next_probe_down_at = now + self._probe_down_delay_s
            self._probe_down_delay_s = min(PROBE_DOWN_DELAYS_S[1], 2 * self._probe_down_delay_s)
        self._hold_steady(now)

    def _is_queueing(self) -> bool:
        """Whether the answers of the last round began late; the quickest is forgotten little by little."""
        answers = sorted(self._latencies_s)
        if not answers:
            return False
        median = answers[len(answers) // 2]
        self._min_latency_s = min(median, (self._min_latency_s or median) * 1.02)
        return median > self._min_latency_s * QUEUED_LATENCY_RATIO

    def _recover(self, now: float) -> None:
        """Raise the limit after a full round, and a breath, without pressure; grow again after some calm."""
        if now - self._backed_off_at >= CALM_PERIOD_S:
            self._phase, self._best_round, self._pauses_growth = Phase.GROW, (0.0, self.value), False
            self._start_round(now)
        elif self._successes >= self.value and now - self._recovered_at >= (
            2 * COOLDOWN_S if self._refusals else COOLDOWN_S
        ):
            self._successes, self._refusals, self._recovered_at = 0, 0, now
            self.value = min(self.max_limit, self.value + 1 + self.value // RECOVERY_DIVISOR)

    def back_off(self, now: float) -> None:
        """The storage asked for less: lower the limit by what it refused, once a breath. That is a twentieth at least,
        a fifth at most; half where it goes on, and more was refused than given.
        """
        self._refusals += 1
        if now - self._backed_off_at < COOLDOWN_S:
            return
        given = self._successes if self._phase is Phase.BACKED_OFF else self._round_transfers
        lasting = now - self._backed_off_at < 2 * COOLDOWN_S and self._refusals > given
        kept = min(0.95, max(0.8, given / (given + self._refusals)))
        self.value = max(MIN_LIMIT, self.value // 2 if lasting else int(self.value * kept + 1e-9))
        self._phase, self._skips_round = Phase.BACKED_OFF, False
        self._backed_off_at = self._recovered_at = now
        self._successes = self._refusals = 0
