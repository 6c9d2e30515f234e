"""How many transfers run at once: more while all goes well, fewer when the storage asks for it."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable

from tilesync.jobs.run.adaptive_limit import MOST, AdaptiveLimit
from tilesync.protocols import Clock


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
    """Lets at most `limit` transfers in: a fixed number of them, or one that finds its way (adaptive_limit.py)."""

    def __init__(self, clock: Clock, *, fixed: int | None = None) -> None:
        self._clock = clock
        self._adaptive = None if fixed else AdaptiveLimit(clock.monotonic())
        self._fixed = fixed or MOST
        self.fixed = fixed is not None
        self.most = self._fixed
        self.inside = 0
        """How many are in."""
        self._waiting: deque[tuple[int, asyncio.Future[None]]] = deque()
        self._has_begun = False
        self.swift = True
        """Whether the last body came within a moment."""

    @property
    def limit(self) -> int:
        """How many may be in now."""
        return self._fixed if self._adaptive is None else self._adaptive.value

    def turn(self, count: int = 1) -> Turn:
        """A place, or so many, for as long as it is entered; more than the limit come in alone."""
        return Turn(self, count)

    async def enter(self, count: int) -> None:
        """Return when there is room for so many."""
        if not self._has_begun:
            self._has_begun = True
            if self._adaptive is not None:
                self._adaptive.begin(self._clock.monotonic())
        if self._waiting or not self._has_room(count):
            await self._wait(count)
        else:
            self.inside += count

    def _has_room(self, count: int) -> bool:
        return self.inside + count <= self.limit or self.inside == 0

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
        self.inside -= count
        self._let_in()

    def _let_in(self) -> None:
        while self._waiting and (self._waiting[0][1].done() or self._has_room(self._waiting[0][0])):
            count, turn = self._waiting.popleft()
            if not turn.done():
                self.inside += count
                turn.set_result(None)

    async def outside(self, waiting: Awaitable[None]) -> None:
        """Wait for something while another has the place; then be in again, be it one too many. With a fixed number the
        place is kept: so many it is.

        Kept places would be none that the limit can count: after a bad minute all of them would belong to transfers
        that wait to try again, and nothing would move before they have.
        """
        given_up = 0 if self.fixed else 1
        self.leave(given_up)
        try:
            await waiting
        finally:
            self.inside += given_up

    def succeeded(self) -> None:
        """One more transfer went well."""
        if self._adaptive is not None:
            self._adaptive.succeeded(self._clock.monotonic(), used=self._used())

    def moved(self, size: int) -> None:
        """So many bytes have come."""
        if self._adaptive is not None:
            self._adaptive.moved(size, self._clock.monotonic(), used=self._used())

    def answered(self, seconds: float) -> None:
        """An answer began so long after it was asked for."""
        if self._adaptive is not None:
            self._adaptive.answered(seconds)

    def ease(self) -> None:
        """The storage asked for less."""
        if self._adaptive is not None:
            self._adaptive.refused(self._clock.monotonic())

    def _used(self) -> bool:
        """Whether more would come in if more were let in: rates of times with little to do say nothing."""
        return bool(self._waiting) or 2 * self.inside >= self.limit or not self.inside
