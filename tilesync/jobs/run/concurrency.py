"""How many transfers run at once: more while all goes well, fewer when the storage asks for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable

from tilesync.jobs.run.adaptive_limit import MAX_LIMIT, AdaptiveLimit
from tilesync.protocols import Clock


class Slot:
    """Places within a gate."""

    __slots__ = ("_count", "_limiter")

    def __init__(self, limiter: ConcurrencyLimiter, count: int) -> None:
        self._limiter = limiter
        self._count = count

    async def __aenter__(self) -> None:
        await self._limiter.acquire(self._count)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.release(self._count)


class ConcurrencyLimiter:
    """Lets at most `limit` transfers in: a fixed number of them, or one that finds its way (adaptive_limit.py)."""

    def __init__(self, clock: Clock, *, fixed_limit: int | None = None) -> None:
        self._clock = clock
        self._adaptive = None if fixed_limit else AdaptiveLimit(clock.monotonic())
        self._fixed_limit = fixed_limit or MAX_LIMIT
        self.is_fixed = fixed_limit is not None
        self.max_limit = self._fixed_limit
        self.active = 0
        """How many are in."""
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._has_started = False
        self.has_fast_bodies = True
        """Whether the last body came within a moment."""

    @property
    def limit(self) -> int:
        """How many may be in now."""
        return self._fixed_limit if self._adaptive is None else self._adaptive.value

    def slot(self, count: int = 1) -> Slot:
        """A place, or so many, for as long as it is entered; more than the limit come in alone."""
        return Slot(self, count)

    async def acquire(self, count: int) -> None:
        """Return when there is room for so many."""
        if not self._has_started:
            self._has_started = True
            if self._adaptive is not None:
                self._adaptive.start(self._clock.monotonic())
        if self._waiters or not self._has_room(count):
            await self._wait_for_room(count)
        else:
            self.active += count

    def _has_room(self, count: int) -> bool:
        return self.active + count <= self.limit or self.active == 0

    async def _wait_for_room(self, count: int) -> None:
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((count, turn))
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self.release(count)
            else:
                self._admit_waiters()  # it may have stood before others
            raise

    def release(self, count: int) -> None:
        """So many that entered are through."""
        self.active -= count
        self._admit_waiters()

    def _admit_waiters(self) -> None:
        while self._waiters and (self._waiters[0][1].done() or self._has_room(self._waiters[0][0])):
            count, turn = self._waiters.popleft()
            if not turn.done():
                self.active += count
                turn.set_result(None)

    async def wait_without_slot(self, awaitable: Awaitable[None]) -> None:
        """Wait for something while another has the place; then be in again, be it one too many. With a fixed number the
        place is kept: so many it is.

        Kept places would be none that the limit can count: after a bad minute all of them would belong to transfers
        that wait to try again, and nothing would move before they have.
        """
        given_up = 0 if self.is_fixed else 1
        self.release(given_up)
        try:
            await awaitable
        finally:
            self.active += given_up

    def record_success(self) -> None:
        """One more transfer went well."""
        if self._adaptive is not None:
            self._adaptive.record_success(self._clock.monotonic(), is_saturated=self._is_saturated())

    def record_bytes(self, size: int) -> None:
        """So many bytes have come."""
        if self._adaptive is not None:
            self._adaptive.record_bytes(size, self._clock.monotonic(), is_saturated=self._is_saturated())

    def record_latency(self, seconds: float) -> None:
        """An answer began so long after it was asked for."""
        if self._adaptive is not None:
            self._adaptive.record_latency(seconds)

    def back_off(self) -> None:
        """The storage asked for less."""
        if self._adaptive is not None:
            self._adaptive.back_off(self._clock.monotonic())

    def _is_saturated(self) -> bool:
        """Whether more would come in if more were let in: rates of times with little to do say nothing."""
        return bool(self._waiters) or 2 * self.active >= self.limit or not self.active
