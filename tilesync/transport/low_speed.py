"""A floor on progress: a body that trickles is broken, whatever silence it never keeps."""

from __future__ import annotations

from tilesync.core.backoff import MIN_PROGRESS_BYTES, PROGRESS_WINDOW
from tilesync.errors import Transient


class LowSpeedGuard:
    """Counts the bytes of one body, and the seconds in which it was waited for."""

    def __init__(self) -> None:
        self._window_s = PROGRESS_WINDOW.total_seconds()
        self._waited_s = 0.0
        self._received_bytes = 0

    def record(self, count: int, seconds: float) -> None:
        """So many bytes came after so many seconds of waiting. Raises Transient for a trickle."""
        self._waited_s += seconds
        self._received_bytes += count
        if self._waited_s >= self._window_s:
            if self._received_bytes < MIN_PROGRESS_BYTES:
                raise Transient(f"only {self._received_bytes} bytes came within {self._waited_s:.0f} s")
            self._waited_s, self._received_bytes = 0.0, 0
