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

START = 32
"""So many that the first round trips cost a short run little, and few for a storage to refuse some of."""

FEW = 16
"""Fewer are not tried; a storage that refuses some brings it down to LEAST."""

MOST = 256
LEAST = 4

BREATH = 1.0
"""Seconds between two reductions: answers already under way say the same thing again. Rates are taken over as much."""

MOMENT = 0.25
"""Seconds that a round takes at least while the limit grows."""

LONG = 3.0
"""Seconds after which a round is over though few transfers ended: large files move bytes without ending."""

PERIOD = 5.0
"""Seconds between two tries whether more transfers move more."""

CALM = 5.0
"""Seconds after which pressure is over, and the limit grows as at the start."""

REQUEST = 1 << 15
"""Bytes that a request weighs as much as, beside those of its body."""

RECOVERY = 20
"""After pressure a breath without any raises the limit by one, and by the limit divided by this."""

FOLLOWS = 0.75
"""Throughput follows the limit where it grows by so much of its share."""

STRIDE = 0.25
"""How many more are tried first; twice as many each time that it was worth it, up to as many again."""

WORTH = 0.4
"""More transfers are worth it where throughput follows by so much of their share."""

ENOUGH = 0.95
"""What moves so much of what was moved before is as good: fewer transfers do."""

QUEUE = 4.0
"""An answer that begins so many times as late as the quickest may have waited in a queue."""

DOUBT = (10.0, 320.0)
"""Seconds without another try of fewer transfers, after the first that moved less, and at most."""


class Phase(Enum):
    """What the limit is doing."""

    GROW = auto()
    STEADY = auto()
    MORE = auto()
    FEWER = auto()
    EASED = auto()


class AdaptiveLimit:
    """Chooses `value` by what it is told. Times are those of one monotonic clock."""

    def __init__(self, now: float) -> None:
        self.value = START
        self.most = MOST
        self._phase = Phase.GROW
        self._best = (0.0, START)  # the rate that counts, and the limit that it was reached with
        self._holds = False  # a round without growth decides whether it goes on
        self._settles = False  # the round shows what was under way before a try
        self._work = self._ended = 0
        self._raised, self._raised_after = 0, 0.0  # how often, and the sum of the seconds after which
        self._began, self._limit = now, START  # of the round
        self._tried_at = now
        self._stride = STRIDE
        self._doubt, self._no_fewer_until = DOUBT[0], now
        self._eased_at = self._raised_at = -CALM
        self._given = self._refused = 0  # since the limit was lowered or raised, after pressure
        self._answers: list[float] = []
        self._quickest: float | None = None

    def begin(self, now: float) -> None:
        """The first transfer begins: what came before it says nothing of the storage."""
        self._tried_at = now
        self._begin(now)

    def succeeded(self, now: float, *, used: bool) -> None:
        """One more transfer went well. `used`: so many as the limit allows are wanted."""
        self._ended += 1
        if self._phase is Phase.GROW:
            if used and not self._holds and self.value < self.most:
                self.value += 1
                self._raised += 1
                self._raised_after += now - self._began
        elif self._phase is Phase.EASED:
            self._given += 1
            self._recover(now)
        self.moved(REQUEST, now, used=used)

    def moved(self, size: int, now: float, *, used: bool) -> None:
        """So many bytes have come."""
        self._work += size
        span = now - self._began
        if span >= (MOMENT if self._phase is Phase.GROW else BREATH) and (self._ended >= self._limit or span >= LONG):
            if used:
                raised = (self._raised * span - self._raised_after) / span  # on the average of the round
                self._judge(self._work / span, self._limit + int(raised), now)
            self._begin(now)

    def answered(self, seconds: float) -> None:
        """An answer began so long after it was asked for."""
        self._answers.append(seconds)

    def _begin(self, now: float) -> None:
        self._began, self._limit, self._work, self._ended = now, self.value, 0, 0
        self._raised, self._raised_after = 0, 0.0
        self._answers = []

    def _judge(self, rate: float, limit: int, now: float) -> None:
        """A round is over: choose the limit of the next one."""
        queued = self._queued()
        if self._settles:
            self._settles = False
        elif self._phase is Phase.GROW:
            self._grow(rate, limit, now)
        elif self._phase is Phase.MORE:
            self._judge_more(rate, limit, now)
        elif self._phase is Phase.FEWER:
            self._judge_fewer(rate, limit, now)
        elif self._phase is Phase.STEADY:
            self._best = rate, limit
            if queued and limit > FEW and now >= self._no_fewer_until:
                self._try(Phase.FEWER, max(FEW, limit * 4 // 5))
            elif limit < self.most and now - self._tried_at >= PERIOD:
                self._try_more(limit)

    def _grow(self, rate: float, limit: int, now: float) -> None:
        best, best_limit = self._best
        more = limit / best_limit - 1
        follows = rate >= best * (1 + FOLLOWS * more)
        if rate >= best * (1 + WORTH * more):
            self._best = rate, limit
        elif self._holds or best_limit == self.most:
            self.value = best_limit
            self._rest(now)
            return
        self._holds = not follows
        if follows and self._ended < limit:  # large files: what does not end raises nothing
            self.value = min(self.most, max(self.value, limit * 3 // 2))

    def _rest(self, now: float) -> None:
        self._phase, self._tried_at, self._holds = Phase.STEADY, now, False

    def _try_more(self, limit: int) -> None:
        self._try(Phase.MORE, min(self.most, limit + 1 + int(limit * self._stride)))

    def _try(self, phase: Phase, value: int) -> None:
        self._phase, self.value, self._settles = phase, value, True

    def _judge_more(self, rate: float, limit: int, now: float) -> None:
        before, limit_before = self._best
        if rate >= before * (1 + WORTH * (limit / limit_before - 1)):
            self._best, self._stride = (rate, limit), min(1.0, 2 * self._stride)
        else:
            self.value = limit = limit_before
            self._stride = STRIDE
        if limit == limit_before or limit == self.most:
            self._rest(now)
        else:
            self._try_more(limit)

    def _judge_fewer(self, rate: float, limit: int, now: float) -> None:
        before, limit_before = self._best
        if rate >= before * ENOUGH:
            self._doubt = DOUBT[0]
        else:
            self.value = limit_before
            self._no_fewer_until = now + self._doubt
            self._doubt = min(DOUBT[1], 2 * self._doubt)
        self._rest(now)

    def _queued(self) -> bool:
        """Whether the answers of the last round began late; the quickest is forgotten little by little."""
        answers = sorted(self._answers)
        if not answers:
            return False
        median = answers[len(answers) // 2]
        self._quickest = min(median, (self._quickest or median) * 1.02)
        return median > self._quickest * QUEUE

    def _recover(self, now: float) -> None:
        """Raise the limit after a full round, and a breath, without pressure; grow again after some calm."""
        if now - self._eased_at >= CALM:
            self._phase, self._best, self._holds = Phase.GROW, (0.0, self.value), False
            self._begin(now)
        elif self._given >= self.value and now - self._raised_at >= (2 * BREATH if self._refused else BREATH):
            self._given, self._refused, self._raised_at = 0, 0, now
            self.value = min(self.most, self.value + 1 + self.value // RECOVERY)

    def refused(self, now: float) -> None:
        """The storage asked for less: lower the limit by what it refused, once a breath. That is a twentieth at least,
        a fifth at most; half where it goes on, and more was refused than given.
        """
        self._refused += 1
        if now - self._eased_at < BREATH:
            return
        given = self._given if self._phase is Phase.EASED else self._ended
        lasting = now - self._eased_at < 2 * BREATH and self._refused > given
        kept = min(0.95, max(0.8, given / (given + self._refused)))
        self.value = max(LEAST, self.value // 2 if lasting else int(self.value * kept + 1e-9))
        self._phase, self._settles = Phase.EASED, False
        self._eased_at = self._raised_at = now
        self._given = self._refused = 0
