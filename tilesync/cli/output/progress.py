"""How a run goes on: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time
from typing import TYPE_CHECKING, Any

from tilesync.cli.output.progress_bar import RecentRate, Sample, State, bar_format, share_of
from tilesync.cli.output.streams import say
from tilesync.cli.output.terminal import USUAL, columns_of
from tilesync.cli.params import printable, size
from tilesync.core.wording import files
from tilesync.jobs.run.stats import Tally

if TYPE_CHECKING:
    from tqdm import tqdm

_WHOLE = 1000
"""What a bar counts to."""

_ROWS = 24
"""Rows for tqdm, which draws nothing on a terminal that does not say how many it has."""

MINUTE = 60.0
"""Seconds between two lines of progress where there is no terminal."""


class Progress:
    """A bar on a terminal, a line a minute elsewhere, nothing where neither is wanted."""

    def __init__(self, tally: Tally, *, bar: bool, lines: bool) -> None:
        self._tally = tally
        self._wants_bar = bar
        self._wants_lines = lines
        self._began = time.monotonic()
        self._rate = RecentRate()
        self._was_listing = True
        self._bar: tqdm[Any] | None = None

    def print_line(self, line: str) -> None:
        """A sentence on stderr, above the bar."""
        if self._bar is not None:
            self._bar.clear()
        say(sys.stderr, printable(line) + "\n")
        if self._bar is not None:
            self._bar.refresh()

    async def follow(self) -> None:
        """Show how the run goes until cancelled."""
        try:
            while self._wants_bar or self._wants_lines:
                await asyncio.sleep(0.1 if self._wants_bar else MINUTE)
                if self._wants_bar:
                    self._draw()
                else:
                    self.print_line(self.sentence())
        finally:
            if self._bar is not None:
                self._draw()
                self._bar.close()
                self._bar = None

    def sentence(self) -> str:
        """How far the run is."""
        tally = self._tally
        there = tally.fetched + tally.reused + tally.kept
        listing = "" if tally.inventory_complete else ", still listing"
        return f"{there:,} of {files(tally.listed)}, {size(tally.bytes)} fetched{listing}, {tally.retries} retries"

    def _draw(self) -> None:
        if not self._tally.listed:
            return
        state, columns = self._state(), columns_of(sys.stderr) or USUAL
        if self._bar is None:
            from tqdm import tqdm

            self._bar = tqdm(total=_WHOLE, file=sys.stderr, leave=False, bar_format=" ", ncols=columns - 1, nrows=_ROWS)
        if columns - 1 < (self._bar.ncols or 0):  # tqdm hides the line before by as many blanks as that was wide
            self._bar.sp = self._bar.status_printer(self._bar.fp)
        self._bar.bar_format, self._bar.ncols = bar_format(state, columns), columns - 1
        self._bar.n = round(_WHOLE * share_of(state))
        self._bar.refresh()

    def _state(self) -> State:
        tally, now = self._tally, time.monotonic()
        done = max(tally.fetched + tally.reused + tally.kept + tally.failed, tally.verified)
        listing = not tally.inventory_complete
        if self._was_listing and not listing:
            self._rate.clear()  # what was held already was counted at once
        self._was_listing = listing
        self._rate.add(Sample(now, tally.bytes, done))
        rest = tally.planned_bytes - tally.bytes, tally.listed - tally.excluded - done
        left = self._rate.seconds_left(*rest)
        rate = self._rate.per_second()[0]
        planned = max(tally.planned_bytes, tally.bytes)
        return State(done, tally.listed, listing, tally.bytes, planned, now - self._began, left, rate)
