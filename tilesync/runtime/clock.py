"""Clock of the machine."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime
from time import monotonic


class WallClock:
    """Clock that tells real time."""

    def now(self) -> datetime:
        """Return the current time in UTC."""
        return datetime.now(UTC)

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""
        return monotonic()

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""
        await asyncio.sleep(seconds)
