"""How a run goes on: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import asyncio
import sys
import time

from tilesync.cli.bar import RecentRate, Sample, State, bar_line
from tilesync.cli.output import say
from tilesync.cli.terminal import USUAL, columns_of
from tilesync.cli.text import files, size
from tilesync.jobs.tally import Tally

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
        self._line = ""

    def print_line(self, line: str) -> None:
        """A sentence on stderr, above the bar."""
        bar = self._line
        self._show("")
        say(sys.stderr, line + "\n")
        self._show(bar)

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
            if self._line:
                self._draw()
                self._show("")

    def sentence(self) -> str:
        """How far the run is."""
        tally = self._tally
        there = tally.fetched + tally.reused + tally.kept
        listing = "" if tally.inventory_complete else ", still listing"
        return f"{there:,} of {files(tally.listed)}, {size(tally.bytes)} fetched{listing}, {tally.retries} retries"

    def _draw(self) -> None:
        if self._tally.listed:
            self._show(bar_line(self._state(), columns_of(sys.stderr) or USUAL))

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

    def _show(self, line: str) -> None:
        """Put a line in the place of the last one; an empty one leaves nothing. Blanks hide what was there, as far as
        the terminal is wide now.
        """
        if not line and not self._line:
            return
        columns = columns_of(sys.stderr) or USUAL
        shown = line[: columns - 1]
        blanks = " " * (min(len(self._line), columns - 1) - len(shown))
        say(sys.stderr, f"\r{shown}{blanks}" + ("" if line else "\r"))
        self._line = line
