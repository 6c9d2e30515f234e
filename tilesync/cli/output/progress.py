"""Progress display: a bar on a terminal, one line per minute elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING

from tilesync.api.monitor import RunStats
from tilesync.cli.output.progress_bar import (
    BarState,
    ProgressSample,
    RecentRate,
    completed_fraction,
    create_bar,
    format_bar,
)
from tilesync.cli.output.streams import DEFAULT_COLUMNS, terminal_columns, write_stream
from tilesync.cli.params import format_size, replace_control_characters
from tilesync.core.wording import format_count, format_file_count

if TYPE_CHECKING:
    from tilesync.cli.output.progress_bar import Bar

_BAR_TOTAL = 1000
"""Units of a full bar: thousandths of the planned bytes."""

_DEFAULT_ROWS = 24
"""Rows given to tqdm, which draws nothing on a terminal that does not report its height."""

LINE_INTERVAL_S = 60.0
"""Seconds between two progress lines without a terminal."""


class ProgressDisplay:
    """Progress of a run on stderr: a bar (`bar`), one line per minute (`lines`), or nothing."""

    def __init__(self, stats: RunStats, *, bar: bool, lines: bool) -> None:
        self._stats = stats
        self._shows_bar = bar
        self._shows_lines = lines
        self._start_monotonic_s = time.monotonic()
        self._rate = RecentRate()
        self._was_listing = True
        self._bar: Bar | None = None

    def print_line(self, line: str) -> None:
        """Print a line on stderr, above the bar."""
        if self._bar is not None:
            self._bar.clear()
        write_stream(sys.stderr, replace_control_characters(line) + "\n")
        if self._bar is not None:
            self._bar.refresh()

    async def display_until_cancelled(self) -> None:
        """Show the progress until cancelled."""
        try:
            while self._shows_bar or self._shows_lines:
                await asyncio.sleep(0.1 if self._shows_bar else LINE_INTERVAL_S)
                if self._shows_bar:
                    self._draw()
                else:
                    self.print_line(self.format_line())
        finally:
            if self._bar is not None:
                self._draw()
                self._bar.close()
                self._bar = None

    def format_line(self) -> str:
        """Return the progress line: files, bytes and retries so far."""
        stats = self._stats
        done = max(stats.fetched + stats.reused + stats.kept, stats.verified)
        listing = "" if stats.inventory_complete else ", still listing"
        fetched = f"{format_size(stats.transferred_bytes)} fetched"
        retries = format_count(stats.retries, "retry", "retries")
        return f"{done:,} of {format_file_count(stats.listed)}, {fetched}{listing}, {retries}"

    def _draw(self) -> None:
        if not self._stats.listed:
            return
        state, columns = self._measure_state(), terminal_columns(sys.stderr) or DEFAULT_COLUMNS
        if self._bar is None:
            self._bar = create_bar(_BAR_TOTAL, columns=columns, rows=_DEFAULT_ROWS)
        if columns - 1 < (self._bar.ncols or 0):  # tqdm would overwrite the old line with too many blanks
            self._bar.sp = self._bar.status_printer(self._bar.fp)
        self._bar.bar_format, self._bar.ncols = format_bar(state, columns), columns - 1
        self._bar.n = round(_BAR_TOTAL * completed_fraction(state))
        self._bar.refresh()

    def _measure_state(self) -> BarState:
        stats, now = self._stats, time.monotonic()
        done = max(stats.fetched + stats.reused + stats.kept + stats.failed, stats.verified)
        listing = not stats.inventory_complete
        if self._was_listing and not listing:
            self._rate.clear()  # files that need no transfer were counted all at once: they say nothing of the rate
        self._was_listing = listing
        self._rate.add(ProgressSample(now, stats.transferred_bytes, done))
        remaining = stats.planned_bytes - stats.transferred_bytes, stats.listed - stats.excluded - done
        left = self._rate.seconds_left(*remaining)
        rate = self._rate.per_second()[0]
        planned = max(stats.planned_bytes, stats.transferred_bytes)
        return BarState(
            done, stats.listed, listing, stats.transferred_bytes, planned, now - self._start_monotonic_s, left, rate
        )
