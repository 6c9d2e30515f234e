"""Bandwidth limit over all connections of a run."""

from __future__ import annotations

from tilesync.protocols import Clock

MIN_PIECE_BYTES, MAX_PIECE_BYTES = 1 << 14, 1 << 20
"""Bounds of the size of a piece, in bytes."""

BURST_S = 0.1
"""Seconds' worth of bytes that may arrive at once after an idle time."""


class RateLimiter:
    """Rate limiter of `bytes_per_s` for all connections together.

    A reader waits until its bytes are due. A body that is not read still fills megabytes of buffers at full speed, so
    request a large one in pieces of `piece_bytes`. `shared`: a limit of several runs together, which holds as well.
    """

    def __init__(self, bytes_per_s: float, clock: Clock, *, shared: RateLimiter | None = None) -> None:
        self._bytes_per_s = bytes_per_s
        self._clock = clock
        self._shared = shared
        self._due_at = clock.monotonic()
        self.piece_bytes = int(min(max(bytes_per_s / 16, MIN_PIECE_BYTES), MAX_PIECE_BYTES))
        if shared is not None:
            self.piece_bytes = min(self.piece_bytes, shared.piece_bytes)

    async def wait_for_bandwidth(self, byte_count: int) -> None:
        """Wait until the limit allows `byte_count` bytes. It may be called before or after they arrive."""
        now = self._clock.monotonic()
        self._due_at = max(self._due_at, now - BURST_S) + byte_count / self._bytes_per_s
        if self._due_at > now:
            await self._clock.sleep(self._due_at - now)
        if self._shared is not None:
            await self._shared.wait_for_bandwidth(byte_count)
