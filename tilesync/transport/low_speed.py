"""A floor on progress: a body that trickles is broken, whatever silence it never keeps."""

from __future__ import annotations

from tilesync.core.backoff import LEAST, WINDOW
from tilesync.errors import Transient


class Progress:
    """Counts the bytes of one body, and the seconds in which it was waited for."""

    def __init__(self) -> None:
        self._window = WINDOW.total_seconds()
        self._waited = 0.0
        self._came = 0

    def note(self, count: int, seconds: float) -> None:
        """So many bytes came after so many seconds of waiting. Raises Transient for a trickle."""
        self._waited += seconds
        self._came += count
        if self._waited >= self._window:
            if self._came < LEAST:
                raise Transient(f"only {self._came} bytes came within {self._waited:.0f} s")
            self._waited, self._came = 0.0, 0
