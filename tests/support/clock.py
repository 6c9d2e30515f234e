"""Fake clock that tests move; sleeping takes no time."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta


class FakeClock:
    """Clock that moves only by `sleep` and `advance`. `slept` records every sleep, in seconds."""

    def __init__(self, start: datetime = datetime(2026, 3, 1, 12, tzinfo=UTC)) -> None:
        self._start = start
        self._passed = 0.0
        self.sleeps_s: list[float] = []

    def now(self) -> datetime:
        """Return the wall-clock time, in UTC."""
        return self._start + timedelta(seconds=self._passed)

    def monotonic(self) -> float:
        """Return the seconds since the clock was made."""
        return self._passed

    def advance(self, seconds: float) -> None:
        """Advance the time."""
        self._passed += seconds

    async def sleep(self, seconds: float) -> None:
        """Advance the time and let other tasks run."""
        self.sleeps_s.append(seconds)
        self._passed += seconds
        await asyncio.sleep(0)
