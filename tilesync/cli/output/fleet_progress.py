"""Progress display of a fleet: a bar for the fleet and one for each running mirror, or one line per minute."""

from __future__ import annotations

import asyncio
import shutil
import sys
import time
from typing import TYPE_CHECKING, Final

from tilesync.cli.output.progress import LINE_INTERVAL_S
from tilesync.cli.output.progress_bar import create_bar, format_duration
from tilesync.cli.output.streams import DEFAULT_COLUMNS, terminal_columns, write_stream
from tilesync.cli.output.table import truncate_end, truncate_start
from tilesync.cli.params import format_size, replace_control_characters
from tilesync.core.wording import format_count

if TYPE_CHECKING:
    from tilesync.cli.output.progress_bar import Bar
    from tilesync.fleets.monitor import FleetMonitor
    from tilesync.fleets.night.mirror_run import MirrorRun

_REDRAW_INTERVAL_S: Final = 0.2

_MAX_BARS: Final = 16
"""Bars of running mirrors; the terminal may have room for fewer."""

_DEFAULT_ROWS: Final = 24

_NAME_CHARS: Final = 28

_BAR_CHARS: Final = 20


class FleetProgressDisplay:
    """Progress of a fleet on stderr: bars (`bar`), one line per minute (`lines`), or nothing."""

    def __init__(self, monitor: FleetMonitor, *, bar: bool, lines: bool) -> None:
        self._monitor = monitor
        self._shows_bars = bar
        self._shows_lines = lines
        self._started_s = time.monotonic()
        self._bars: list[Bar] = []

    def print_line(self, line: str) -> None:
        """Print a line on stderr, above the bars."""
        for bar in self._bars:
            bar.clear()
        write_stream(sys.stderr, replace_control_characters(line) + "\n")
        for bar in self._bars:
            bar.refresh()

    async def display_until_cancelled(self) -> None:
        """Show the progress until cancelled."""
        try:
            while self._shows_bars or self._shows_lines:
                await asyncio.sleep(_REDRAW_INTERVAL_S if self._shows_bars else LINE_INTERVAL_S)
                if self._shows_bars:
                    self._draw()
                else:
                    self.print_line(self.format_line())
        finally:
            for bar in reversed(self._bars):
                bar.close()
            self._bars = []

    def format_line(self) -> str:
        """Return the line of the fleet: mirrors done, running and failed, bytes, and time."""
        if self._monitor.total is None:
            return "listing the iModels"
        elapsed = format_duration(time.monotonic() - self._started_s)
        fetched = format_size(self._monitor.transferred_bytes)
        return f"{format_mirror_counts(self._monitor)}, {fetched} fetched, {elapsed}"

    def _draw(self) -> None:
        columns = terminal_columns(sys.stderr) or DEFAULT_COLUMNS
        running = [run for run in self._monitor.runs.values() if run.is_running]
        self._open_bars(1 + len(running), columns)
        lines = [self._format_bar_line(columns - 1), *(_format_run(run) for run in running[: len(self._bars) - 1])]
        lines += [""] * (len(self._bars) - len(lines))
        for bar, line in zip(self._bars, lines, strict=True):
            text = truncate_end(replace_control_characters(line), columns - 1)
            if columns - 1 < (bar.ncols or 0):  # tqdm would overwrite the old line with too many blanks
                bar.sp = bar.status_printer(bar.fp)
            bar.bar_format, bar.ncols = text.replace("{", "{{").replace("}", "}}") or " ", columns - 1
            bar.refresh()

    def _format_bar_line(self, room: int) -> str:
        """Return the line of the fleet, with a bar for the share of the mirrors that are done if it fits."""
        total, text = self._monitor.total, self.format_line()
        share = len(self._monitor.outcomes) / total if total else 0.0
        line = f"{'fleet'.ljust(_NAME_CHARS + 2)} {_format_bar(share)} {text}"
        return line if len(line) <= room else text

    def _open_bars(self, count: int, columns: int) -> None:
        """Open as many bars as there is something to show, and room for; each one moves the terminal by a row."""
        rows = shutil.get_terminal_size((columns, _DEFAULT_ROWS)).lines
        room = 1 + max(0, min(_MAX_BARS, rows - 3))
        while len(self._bars) < min(count, room):
            self._bars.append(create_bar(1, columns=columns, rows=_DEFAULT_ROWS, position=len(self._bars)))


def format_mirror_counts(monitor: FleetMonitor) -> str:
    """Return how many mirrors of a fleet are done, failed and running."""
    failed = sum(bool(outcome.exit_code) for outcome in monitor.outcomes)
    problems = f" ({format_count(failed, 'problem')})" if failed else ""
    running = sum(run.is_running for run in monitor.runs.values())
    total = format_count(monitor.total or 0, "mirror")
    return f"{len(monitor.outcomes):,} of {total} done{problems}, {running} running"


def _format_run(run: MirrorRun) -> str:
    """Return the line of one running mirror."""
    attempt = run.attempts[-1] if run.others else run.download
    stats = attempt.monitor.stats
    name = truncate_start(run.mirror.name, _NAME_CHARS).ljust(_NAME_CHARS)
    done = stats.fetched + stats.reused + stats.kept + stats.failed
    planned = max(stats.planned_bytes, stats.transferred_bytes)
    fraction = min(1.0, stats.transferred_bytes / planned) if planned else (1.0 if done else 0.0)
    listing = "" if stats.inventory_complete else " (listing)"
    return (
        f"  {name} {_format_bar(fraction)} {done:,}/{stats.listed:,} files{listing}"
        f" {format_size(stats.transferred_bytes)}"
    )


def _format_bar(fraction: float) -> str:
    drawn = round(_BAR_CHARS * min(fraction, 1.0))
    return f"|{'#' * drawn}{' ' * (_BAR_CHARS - drawn)}| {100 * min(fraction, 1.0):3.0f}%"
