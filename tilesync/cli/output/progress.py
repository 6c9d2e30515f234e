"""How a run goes on: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from tilesync.api.monitor import RunStats
from tilesync.cli.output.progress_bar import BarState, ProgressSample, RecentRate, completed_fraction, format_bar
from tilesync.cli.output.streams import write_stream
from tilesync.cli.output.terminal import DEFAULT_COLUMNS, terminal_columns
from tilesync.cli.params import format_size, replace_control_characters
from tilesync.core.wording import format_file_count

if TYPE_CHECKING:
    from tqdm import tqdm

_BAR_TOTAL = 1000
"""What a bar counts to."""

_DEFAULT_ROWS = 24
"""Rows for tqdm, which draws nothing on a terminal that does not say how many it has."""

LINE_INTERVAL_S = 60.0
"""Seconds between two lines of progress where there is no terminal."""


class ProgressDisplay:
    """A bar on a terminal, a line a minute elsewhere, nothing where neither is wanted."""

    def __init__(self, stats: RunStats, *, bar: bool, lines: bool) -> None:
        self._stats = stats
        self._shows_bar = bar
        self._shows_lines = lines
        self._start_monotonic_s = time.monotonic()
        self._rate = RecentRate()
        self._was_listing = True
        self._bar: tqdm[Any] | None = None

    def print_line(self, line: str) -> None:
        """A sentence on stderr, above the bar."""
        if self._bar is not None:
            self._bar.clear()
        write_stream(sys.stderr, replace_control_characters(line) + "\n")
        if self._bar is not None:
            self._bar.refresh()

    async def display_until_cancelled(self) -> None:
        """Show how the run goes until cancelled."""
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
        """How far the run is."""
        tally = self._stats
        there = tally.fetched + tally.reused + tally.kept
        listing = "" if tally.inventory_complete else ", still listing"
        return f"{there:,} of {format_file_count(tally.listed)}, {format_size(tally.transferred_bytes)} fetched{listing}, {tally.retries} retries"

    def _draw(self) -> None:
        if not self._stats.listed:
            return
        state, columns = self._measure_state(), terminal_columns(sys.stderr) or DEFAULT_COLUMNS
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(
                total=_BAR_TOTAL, file=sys.stderr, leave=False, bar_format=" ", ncols=columns - 1, nrows=_DEFAULT_ROWS
            )
        if columns - 1 < (self._bar.ncols or 0):  # tqdm hides the line before by as many blanks as that was wide
            self._bar.sp = self._bar.status_printer(self._bar.fp)
        self._bar.bar_format, self._bar.ncols = format_bar(state, columns), columns - 1
        self._bar.n = round(_BAR_TOTAL * completed_fraction(state))
        self._bar.refresh()

    def _measure_state(self) -> BarState:
        tally, now = self._stats, time.monotonic()
        done = max(tally.fetched + tally.reused + tally.kept + tally.failed, tally.verified)
        listing = not tally.inventory_complete
        if self._was_listing and not listing:
            self._rate.clear()  # what was held already was counted at once
        self._was_listing = listing
        self._rate.add(ProgressSample(now, tally.transferred_bytes, done))
        rest = tally.planned_bytes - tally.transferred_bytes, tally.listed - tally.excluded - done
        left = self._rate.seconds_left(*rest)
        rate = self._rate.per_second()[0]
        planned = max(tally.planned_bytes, tally.transferred_bytes)
        return BarState(
            done, tally.listed, listing, tally.transferred_bytes, planned, now - self._start_monotonic_s, left, rate
        )
