"""How a run goes on: a bar on a terminal, a line a minute elsewhere."""

from __future__ import annotations

import asyncio
import shutil
import sys
from typing import TYPE_CHECKING, Any

from tilesync.cli.output import say
from tilesync.cli.text import files, size
from tilesync.jobs.tally import Tally

if TYPE_CHECKING:
    from tqdm import tqdm

MINUTE = 60.0
"""Seconds between two lines of progress where there is no terminal."""


class Progress:
    """A bar on a terminal, a line a minute elsewhere, nothing where neither is wanted."""

    def __init__(self, tally: Tally, *, bar: bool, lines: bool) -> None:
        self._tally = tally
        self._wants_bar = bar
        self._wants_lines = lines
        self._bar: tqdm[Any] | None = None

    def print_line(self, line: str) -> None:
        """A sentence on stderr, above the bar."""
        if self._bar is not None:
            self._bar.clear()
        say(sys.stderr, line + "\n")
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
        tally = self._tally
        if not tally.listed:
            return
        listing = "" if tally.inventory_complete else " (listing)"
        done = max(tally.fetched + tally.reused + tally.kept + tally.failed, tally.verified)
        description = f"{done:,}/{files(tally.listed)}{listing}"
        total = max(tally.planned_bytes, 1)
        columns, rows = shutil.get_terminal_size()
        if self._bar is None:
            from tqdm import tqdm

            form = "{desc} {percentage:3.0f}% |{bar:24}| {n_fmt}/{total_fmt} [{elapsed}<{remaining}, {rate_fmt}]"
            self._bar = tqdm(
                desc=description,
                total=total,
                unit="B",
                unit_scale=True,
                file=sys.stderr,
                leave=False,
                bar_format=form,
                ncols=columns - 1,
                nrows=rows,
            )
        self._bar.set_description_str(description, refresh=False)
        self._bar.total, self._bar.ncols = total, columns - 1
        self._bar.n = min(tally.bytes, total)
        self._bar.refresh()
