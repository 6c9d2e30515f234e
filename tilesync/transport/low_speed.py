"""Low-speed limit for a body: one that stalls fails, even if bytes still arrive within every read timeout."""

from __future__ import annotations

from tilesync.core.backoff import MIN_PROGRESS_BYTES, PROGRESS_WINDOW
from tilesync.errors import Transient


class LowSpeedGuard:
    """Guard that counts the bytes of one body, and the seconds spent waiting for them."""

    def __init__(self) -> None:
        self._window_s = PROGRESS_WINDOW.total_seconds()
        self._waited_s = 0.0
        self._received_bytes = 0

    def record(self, count: int, seconds: float) -> None:
        """Record that `count` bytes came after `seconds` of waiting. Raises Transient for a body that stalls."""
        self._waited_s += seconds
        self._received_bytes += count
        if self._waited_s >= self._window_s:
            if self._received_bytes < MIN_PROGRESS_BYTES:
                raise Transient(f"only {self._received_bytes} bytes arrived within {self._waited_s:.0f} s")
            self._waited_s, self._received_bytes = 0.0, 0
