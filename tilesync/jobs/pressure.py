"""How many transfers run at once: more while all goes well, fewer when the storage asks for it."""

from __future__ import annotations

import asyncio
from collections import deque
from types import TracebackType

from tilesync.protocols import Clock

START = 16
MOST = 64
LEAST = 4

BREATH = 1.0
"""Seconds between two reductions: answers already under way say the same thing again."""


class Gate:
    """Lets at most `limit` transfers in. A fixed gate never moves; an adaptive one starts low and finds its way."""

    def __init__(self, clock: Clock, *, fixed: int | None = None) -> None:
        self._clock = clock
        self._adaptive = fixed is None
        self.most = fixed or MOST
        self.limit = fixed or START
        self._inside = 0
        self._waiting: deque[asyncio.Future[None]] = deque()
        self._eased_at: float | None = None
        self._credit = 0

    async def __aenter__(self) -> None:
        if self._inside < self.limit:
            self._inside += 1
            return
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.append(turn)
        try:
            await turn
        except asyncio.CancelledError:
            if turn.done() and not turn.cancelled():
                self._leave()
            raise

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._leave()

    def _leave(self) -> None:
        self._inside -= 1
        while self._inside < self.limit and self._waiting:
            turn = self._waiting.popleft()
            if not turn.done():
                self._inside += 1
                turn.set_result(None)

    def succeeded(self) -> None:
        """One more transfer went well: before the first pressure each raises the limit, later each full round does."""
        if not self._adaptive or self.limit >= self.most:
            return
        self._credit += 1
        if self._eased_at is None or self._credit >= self.limit:
            self._credit = 0
            self.limit += 1

    def ease(self) -> None:
        """The storage asked for less: let a fifth fewer in, once a breath."""
        now = self._clock.monotonic()
        if self._adaptive and (self._eased_at is None or now - self._eased_at >= BREATH):
            self._eased_at = now
            self._credit = 0
            self.limit = max(LEAST, self.limit * 4 // 5)
