"""How many bytes a second may come."""

from __future__ import annotations

from tilesync.protocols import Clock

SMALLEST, LARGEST = 1 << 14, 1 << 20
"""Bytes of a piece."""

SLACK = 0.1
"""Seconds' worth of bytes that may come at once after a silence."""


class Bandwidth:
    """Lets `rate` bytes a second through, over all connections together.

    Who takes bytes waits until they are due. A body that is not taken fills megabytes of buffers as fast as the line
    goes, so a large one is better asked for in pieces: `piece` is how many bytes of it at once.
    """

    def __init__(self, rate: float, clock: Clock) -> None:
        self._rate = rate
        self._clock = clock
        self._due = clock.monotonic()
        self.piece = int(min(max(rate / 16, SMALLEST), LARGEST))

    async def take(self, count: int) -> None:
        """Return when `count` bytes may come, or may have come."""
        now = self._clock.monotonic()
        self._due = max(self._due, now - SLACK) + count / self._rate
        if self._due > now:
            await self._clock.sleep(self._due - now)
