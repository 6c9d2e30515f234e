"""How many bytes a second may come."""

from __future__ import annotations

from tilesync.protocols import Clock

MIN_PIECE_BYTES, MAX_PIECE_BYTES = 1 << 14, 1 << 20
"""Bytes of a piece."""

BURST_S = 0.1
"""Seconds' worth of bytes that may come at once after a silence."""


class RateLimiter:
    """Lets `rate` bytes a second through, over all connections together.

    Who takes bytes waits until they are due. A body that is not taken fills megabytes of buffers as fast as the line
    goes, so a large one is better asked for in pieces: `piece` is how many bytes of it at once.
    """

    def __init__(self, bytes_per_s: float, clock: Clock) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._due_at = clock.monotonic()
        self.piece_bytes = int(min(max(bytes_per_s / 16, MIN_PIECE_BYTES), MAX_PIECE_BYTES))

    async def wait_for_bandwidth(self, byte_count: int) -> None:
        """Return when `count` bytes may come, or may have come."""
        now = self._clock.monotonic()
        self._due_at = max(self._due_at, now - BURST_S) + byte_count / self._bytes_per_s
        if self._due_at > now:
            await self._clock.sleep(self._due_at - now)
