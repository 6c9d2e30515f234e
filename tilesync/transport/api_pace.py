"""Pace of API calls: one rate for all users in this process, and one pause for all of them after a 429."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from tilesync.errors import Unavailable
from tilesync.protocols import Clock

WINDOW_S = 61.0
"""Seconds within which no more than `calls_per_minute` calls begin: a minute and one second. The service counts calls
when they arrive, and one call can take longer to arrive than the next.
"""

BURST_PART = 10
"""A bucket holds one call in so many of a minute."""

CALLS_AT_ONCE = 16
"""Calls that may run at once: fewer than the connections of an API client, which also lists containers by them."""


class ApiPace:
    """Token bucket for API calls, shared by all who call one service with one identity.

    The bucket holds a tenth of `calls_per_minute`; the other nine tenths are refilled one by one during a minute. So a
    full bucket and all that is refilled meanwhile are never more than `calls_per_minute` in any window of 60 s. Who
    waits gets a turn in the order of arrival; urgent calls, such as a link renewal, go before all others. No more than
    `at_once` calls run at the same time: others wait here, where an urgent one can pass them, not for a connection.
    Use it in one event loop. Raises ValueError for less than one call.
    """

    def __init__(self, calls_per_minute: int, clock: Clock, *, at_once: int = CALLS_AT_ONCE) -> None:
        if calls_per_minute < 1 or at_once < 1:
            raise ValueError("the pace must allow at least one call")
        self._burst = max(1, calls_per_minute // BURST_PART)
        self._interval_s = WINDOW_S / (calls_per_minute - self._burst + 1)
        self._at_once = at_once
        self._clock = clock
        self._full_at_s = clock.monotonic()
        self._paused_until_s = self._full_at_s
        self._urgent, self._others = deque[asyncio.Event](), deque[asyncio.Event]()
        self.running = 0
        """Number of calls that run now."""
        self.calls = 0
        """Number of calls that were given a turn."""

    @asynccontextmanager
    async def turn(self, *, urgent: bool = False, max_pause_s: float = math.inf) -> AsyncIterator[None]:
        """Wait for a turn, and make one call in the `with` block; take one for each attempt.

        Raises Unavailable at once when a pause lasts longer than `max_pause_s`, also one that begins during the wait.
        """
        await self._wait(self._urgent if urgent else self._others, max_pause_s)
        try:
            yield
        finally:
            self.running -= 1
            self._wake_first()

    async def _wait(self, queue: deque[asyncio.Event], max_pause_s: float) -> None:
        """Wait for a turn at the end of a queue, and take it. A cancelled wait takes none."""
        place = asyncio.Event()
        queue.append(place)
        try:
            while True:
                if self.paused_s > max_pause_s:
                    raise Unavailable(
                        f"the service answered 429 to another call; it asks to wait {self.paused_s:.0f} s"
                    )
                if self._is_next(place) and self._try_take():
                    return
                if self._is_next(place):  # only the first one watches the clock; the others sleep until they are woken
                    await self._clock.sleep(self._delay_s())
                else:
                    place.clear()
                    await place.wait()
        finally:
            queue.remove(place)
            self._wake_first()

    def pause(self, seconds: float) -> None:
        """Let all calls wait for `seconds`, as the service asks with a 429; an earlier, longer pause stays.

        After the pause, calls begin one by one: the service has no room for a full bucket then. All who wait for a turn
        check whether they may wait so long.
        """
        self._paused_until_s = max(self._paused_until_s, self._clock.monotonic() + seconds)
        self._full_at_s = max(self._full_at_s, self._paused_until_s + (self._burst - 1) * self._interval_s)
        for place in (*self._urgent, *self._others):
            place.set()

    @property
    def paused_s(self) -> float:
        """Seconds that are left of a pause; 0 if there is none."""
        return max(0.0, self._paused_until_s - self._clock.monotonic())

    @property
    def waiting(self) -> int:
        """Number of calls that wait for a turn."""
        return len(self._urgent) + len(self._others)

    def _is_next(self, place: asyncio.Event) -> bool:
        """Return whether a place is the first of all, and one more call may run."""
        return self.running < self._at_once and (self._urgent or self._others)[0] is place

    def _wake_first(self) -> None:
        if queue := self._urgent or self._others:
            queue[0].set()

    def _delay_s(self) -> float:
        """Return the seconds until the bucket holds a call; 0 or less if it does now."""
        due_at_s = max(self._full_at_s - (self._burst - 1) * self._interval_s, self._paused_until_s)
        return due_at_s - self._clock.monotonic()

    def _try_take(self) -> bool:
        """Take a call out of the bucket; return False if it is empty."""
        if self._delay_s() > 0:
            return False
        self._full_at_s = max(self._full_at_s, self._clock.monotonic()) + self._interval_s
        self.running += 1
        self.calls += 1
        return True
