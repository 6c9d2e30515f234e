"""The concurrency limiter of a run: slots for transfers, more while all goes well, fewer when storage is overloaded."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable

from tilesync.jobs.run.adaptive_limit import MAX_LIMIT, AdaptiveLimit
from tilesync.protocols import Clock


class Slot:
    """One or more slots of a limiter, held inside `async with`."""

    __slots__ = ("_count", "_limiter")

    def __init__(self, limiter: ConcurrencyLimiter, count: int) -> None:
        self._limiter = limiter
        self._count = count

    async def __aenter__(self) -> None:
        await self._limiter.acquire(self._count)

    async def __aexit__(self, *_: object) -> None:
        self._limiter.release(self._count)


class SharedLimit:
    """Limit on the transfers of several runs together, divided equally among those that transfer now.

    Shares change when a run begins to transfer or has ended. One transfer of each run is always admitted, so that every
    run goes on; only for that the sum may exceed `max_limit`.
    """

    def __init__(self, max_limit: int = MAX_LIMIT) -> None:
        self.max_limit = max_limit
        self.active = 0
        """Number of slots in use, of all runs."""
        self._limiters: dict[ConcurrencyLimiter, None] = {}

    @property
    def share(self) -> int:
        """Number of slots for each of the runs that transfer now."""
        return max(1, self.max_limit // max(1, len(self._limiters)))

    def has_room(self, count: int) -> bool:
        """Return whether the runs together may use `count` more slots."""
        return self.active + count <= self.max_limit

    def update(self, limiter: ConcurrencyLimiter, change: int, *, is_transferring: bool) -> None:
        """Record that a run uses `change` more slots, and whether it transfers or waits; admit waiting runs."""
        self.active += change
        if is_transferring:
            self._limiters[limiter] = None
        else:
            self._limiters.pop(limiter, None)
        if change < 0:
            for other in [each for each in self._limiters if each is not limiter]:
                other.admit_waiters()


class ConcurrencyLimiter:
    """Limits the number of concurrent transfers: to a fixed number, or to an adaptive one (adaptive_limit.py).

    `shared`: a limit of several runs together, which holds as well.
    """

    def __init__(self, clock: Clock, *, fixed_limit: int | None = None, shared: SharedLimit | None = None) -> None:
        self._clock = clock
        self._shared = shared
        self._adaptive = None if fixed_limit else AdaptiveLimit(clock.monotonic())
        self._fixed_limit = fixed_limit or MAX_LIMIT
        if shared is not None:
            self._fixed_limit = min(self._fixed_limit, shared.max_limit)
        self.is_fixed = fixed_limit is not None
        self.max_limit = self._fixed_limit
        self.active = 0
        """Number of slots in use."""
        self._waiters: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._has_started = False
        self.has_fast_bodies = True
        """True if the last response body arrived at once."""

    @property
    def limit(self) -> int:
        """Number of slots that may be in use now."""
        own_limit = self._fixed_limit if self._adaptive is None else self._adaptive.value
        return own_limit if self._shared is None else min(own_limit, self._shared.share)

    def slot(self, count: int = 1) -> Slot:
        """Return `count` slots for use with `async with`. A request for more than the limit waits until it is alone."""
        return Slot(self, count)

    async def acquire(self, count: int) -> None:
        """Wait until `count` slots are free, and take them. Waiters are served in order."""
        if not self._has_started:
            self._has_started = True
            if self._adaptive is not None:
                self._adaptive.start(self._clock.monotonic())
        if self._waiters or not self._has_room(count):
            await self._wait_for_room(count)
        else:
            self._change_active(count)

    def _has_room(self, count: int) -> bool:
        if self.active == 0:
            return True
        return self.active + count <= self.limit and (self._shared is None or self._shared.has_room(count))

    def _change_active(self, change: int) -> None:
        self.active += change
        if self._shared is not None:
            self._shared.update(self, change, is_transferring=bool(self.active or self._waiters))

    async def _wait_for_room(self, count: int) -> None:
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiters.append((count, admitted))
        self._change_active(0)  # from now on this run has a share
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self.release(count)
            else:
                self.admit_waiters()  # it may have blocked those behind it
            raise

    def release(self, count: int) -> None:
        """Give `count` slots back."""
        self._change_active(-count)
        self.admit_waiters()

    def admit_waiters(self) -> None:
        """Admit those that wait, as far as there is room."""
        while self._waiters and (self._waiters[0][1].done() or self._has_room(self._waiters[0][0])):
            count, admitted = self._waiters.popleft()
            if not admitted.done():
                self._change_active(count)
                admitted.set_result(None)
        self._change_active(0)  # the last waiter may have been cancelled

    async def wait_without_slot(self, awaitable: Awaitable[None]) -> None:
        """Wait without a slot, then take it back at once, even above the limit. With a fixed limit the slot is kept.

        A transfer that waits for its next attempt moves nothing. If it kept its slot, after a bad minute such transfers
        could hold all slots of a lowered limit, and nothing would move until their waits are over.
        """
        released = 0 if self.is_fixed else 1
        self.release(released)
        try:
            await awaitable
        finally:
            self._change_active(released)

    def record_success(self, count: int = 1) -> None:
        """Record transfers that succeeded."""
        if self._adaptive is not None:
            self._adaptive.record_success(self._clock.monotonic(), is_saturated=self._is_saturated(), count=count)

    def record_bytes(self, size: int) -> None:
        """Record received bytes."""
        if self._adaptive is not None:
            self._adaptive.record_bytes(size, self._clock.monotonic(), is_saturated=self._is_saturated())

    def record_latency(self, seconds: float) -> None:
        """Record the seconds from a request to the start of its response."""
        if self._adaptive is not None:
            self._adaptive.record_latency(seconds)

    def back_off(self) -> None:
        """Lower the limit: the storage refused a request because of load."""
        if self._adaptive is not None:
            self._adaptive.back_off(self._clock.monotonic())

    def _is_saturated(self) -> bool:
        """Return whether the limit holds transfers back. If not, there is too little work to learn from the rate."""
        return bool(self._waiters) or 2 * self.active >= self.limit or not self.active
