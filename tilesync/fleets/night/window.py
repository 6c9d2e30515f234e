"""Window of a night: when a fleet stops by itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import UTC, datetime, time, timedelta, tzinfo
from typing import Any

from tilesync.protocols import Clock
from tilesync.values import dataclass


@dataclass(frozen=True, slots=True)
class Window:
    """Window of time of a run. `end`: None for no limit. `timer`: done when the window has ended."""

    end: datetime | None
    timer: asyncio.Future[None]

    @property
    def has_ended(self) -> bool:
        """Return whether the window has ended."""
        return self.timer.done()

    async def wait_for(self, tasks: Collection[asyncio.Task[Any]]) -> None:
        """Wait until all tasks are done or the window has ended, and cancel those that still run.

        If the caller is cancelled, so are the tasks. Errors of tasks are not raised.
        """
        try:
            ends: list[asyncio.Future[Any]] = [asyncio.gather(*tasks, return_exceptions=True), self.timer]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for task in tasks:
                task.cancel()  # does nothing to those that are done
            await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def open_window(clock: Clock, until: time | None, max_duration: timedelta | None) -> AsyncIterator[Window]:
    """Open a window that begins now and ends as `compute_end` says."""
    now = clock.now().astimezone()
    end = compute_end(now, until, max_duration)
    timer: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    if end is not None:
        timer = asyncio.create_task(clock.sleep((end - now).total_seconds()))
    try:
        yield Window(end, timer)
    finally:
        timer.cancel()


def compute_end(
    now: datetime, until: time | None, max_duration: timedelta | None, *, zone: tzinfo | None = None
) -> datetime | None:
    """Return when the run stops: at the next `until` or after `max_duration`, whichever is first; None for no limit.

    An `until` without a zone is meant in `zone` (None: that of this machine). One that has passed today is tomorrow's.
    """
    now = now.astimezone(UTC)
    ends = [] if max_duration is None else [now + max_duration]
    if until is not None:
        ends.append(_find_next(now, until, until.tzinfo or zone))
    return min(ends).astimezone(zone) if ends else None


def _find_next(now: datetime, until: time, zone: tzinfo | None) -> datetime:
    """Return the next moment at which clocks in the zone show this time; its offset may be another one than now."""
    today = now.astimezone(zone).date()
    days = (datetime.combine(today + timedelta(days=days), until.replace(tzinfo=None)) for days in range(3))
    moments = ((day if zone is None else day.replace(tzinfo=zone)).astimezone(UTC) for day in days)
    return next(moment for moment in moments if moment > now)
