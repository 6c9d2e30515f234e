"""How many transfers run at once: more while all goes well, fewer when the storage asks for it."""

from __future__ import annotations

import asyncio
from collections import deque

from tilesync.protocols import Clock

START = 16
MOST = 256
LEAST = 4

BREATH = 1.0
"""Seconds between two reductions: answers already under way say the same thing again. Rates are taken over as much."""

MOMENT = 0.25
"""Seconds over which a rate is taken while the number still grows with each success."""

PERIOD = 5.0
"""Seconds between two tries whether more transfers move more."""

REQUEST = 1 << 15
"""Bytes that a request weighs as much as, beside those of its body."""

RECOVERY = 20
"""After pressure a breath without any raises the limit by one, and by the limit divided by this."""

GAIN = 1.1
"""What moves so much more is worth more transfers."""

QUEUE = 4.0
"""An answer that takes so many times as long as the quickest waited in a queue."""


class Turn:
    """Places within a gate."""

    __slots__ = ("_count", "_gate")

    def __init__(self, gate: Gate, count: int) -> None:
        self._gate = gate
        self._count = count

    async def __aenter__(self) -> None:
        await self._gate.enter(self._count)

    async def __aexit__(self, *_: object) -> None:
        self._gate.leave(self._count)


class Gate:
    """Lets at most `limit` transfers in. A fixed gate never moves; an adaptive one starts low and finds its way.

    It grows by one with each success, so by half or more in the time of an answer, as long as more is moved then. From
    there on it tries a quarter more now and then, and keeps it where it is worth it. It shrinks by a fifth when the
    storage asks for less, by half where that goes on, and recovers by a twentieth a breath; and it shrinks when answers
    wait in a queue and no more is moved for it.
    """

    def __init__(self, clock: Clock, *, fixed: int | None = None) -> None:
        self._clock = clock
        self.fixed = fixed is not None
        self.most = fixed or MOST
        self.limit = fixed or START
        self._inside = 0
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._eased_at: float | None = None
        self._raised_at = 0.0
        self._credit = 0
        self._opening = True
        self._began = clock.monotonic()
        self._tried_at = self._began
        self._work = 0
        self._before = (0.0, 0)  # the rate of the last span, and the limit that it was reached with
        self._trying = False
        self._answers: list[float] = []
        self._quickest: float | None = None
        self.swift = True
        """Whether the last body came within a moment."""

    def turn(self, count: int = 1) -> Turn:
        """A place, or so many, for as long as it is entered; more than the limit come in alone."""
        return Turn(self, count)

    async def enter(self, count: int) -> None:
        """Return when there is room for so many."""
        if self._waiting or not self._has_room(count):
            await self._wait(count)
        else:
            self._inside += count

    def _has_room(self, count: int) -> bool:
        return self._inside + count <= self.limit or self._inside == 0

    async def _wait(self, count: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.leave(count)
            else:
                self._let_in()  # it may have stood before others
            raise

    def leave(self, count: int) -> None:
        """So many that entered are through."""
        self._inside -= count
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._has_room(self._waiting[0][0])):
            count, turn = self._waiting.popleft()
            if not turn.done():
                self._inside += count
                turn.set_result(None)

    def succeeded(self) -> None:
        """One more transfer went well: at first each raises the limit, after pressure it recovers slowly."""
        self._credit += 1
        if not self.fixed and self.limit < self.most:
            if self._eased_at is not None:
                self._recover()
            elif self._opening:
                self.limit += 1
        self.moved(REQUEST)

    def _recover(self) -> None:
        """A twentieth more after a full round, and a breath, without pressure."""
        now = self._clock.monotonic()
        if self._credit >= self.limit and now - self._raised_at >= BREATH:
            self._credit, self._raised_at = 0, now
            self.limit = min(self.most, self.limit + 1 + self.limit // RECOVERY)

    def moved(self, size: int) -> None:
        """So many bytes have come."""
        self._work += size
        now = self._clock.monotonic()
        span = now - self._began
        if not self.fixed and span >= (MOMENT if self._opening else BREATH):
            rate, self._work, self._began = self._work / span, 0, now
            self._judge(rate, now)

    def answered(self, seconds: float) -> None:
        """An answer began so long after it was asked for."""
        if not self.fixed:
            self._answers.append(seconds)

    def _judge(self, rate: float, now: float) -> None:
        """Choose the limit by what was moved in the last span."""
        before, limit_before = self._before
        self._before = rate, self.limit
        queued, more = self._queued(), rate >= before * GAIN
        if self._opening:
            in_vain = not more and self.limit > limit_before * GAIN
            self._opening = limit_before < self.limit < self.most and not in_vain
            self.limit = limit_before if in_vain else self.limit
        elif self._trying:
            self._trying = False
            self.limit = self.limit if more else min(self.limit, limit_before)
            self._tried_at = now - PERIOD if more else now
        elif queued and not more:
            self.limit = max(LEAST, self.limit * 4 // 5)
        elif self._eased_at is None and self.limit < self.most and now - self._tried_at >= PERIOD:
            self._trying, self._tried_at = True, now
            self.limit = min(self.most, self.limit * 5 // 4 + 1)

    def _queued(self) -> bool:
        """Whether the answers of the last span waited; the quickest is forgotten little by little."""
        answers, self._answers = sorted(self._answers), []
        if not answers:
            return False
        median = answers[len(answers) // 2]
        self._quickest = min(median, (self._quickest or median) * 1.02)
        return median > self._quickest * QUEUE

    def ease(self) -> None:
        """The storage asked for less: let a fifth fewer in, and half as many where it goes on; once a breath."""
        now = self._clock.monotonic()
        if not self.fixed and (self._eased_at is None or now - self._eased_at >= BREATH):
            lasting = self._eased_at is not None and now - self._eased_at < 2 * BREATH
            self._eased_at = self._raised_at = now
            self._credit = 0
            self._opening = self._trying = False
            self.limit = max(LEAST, self.limit // 2 if lasting else self.limit * 4 // 5)
