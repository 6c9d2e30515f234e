"""Text of the progress bar: how far a run is, its recent rate, and the remaining time at that rate.

tqdm draws the bar. Its own estimate counts bytes only; this one counts files too, since many small files may follow a
few large ones.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import TYPE_CHECKING, Any, Final, NamedTuple, TypeAlias

from tilesync.cli.params import format_size
from tilesync.core.wording import format_file_count

if TYPE_CHECKING:
    from tqdm import tqdm

    Bar: TypeAlias = tqdm[Any]
    """A bar of tqdm."""

RATE_WINDOW_S: Final = 45.0
"""Seconds over which the rate is measured: long enough for a run of large files, short enough to follow a change."""

SAMPLE_INTERVAL_S: Final = 1.0
"""Seconds between two samples."""

_MAX_BAR_CHARS: Final = 40
_MIN_BAR_CHARS: Final = 8


class ProgressSample(NamedTuple):
    """Progress at one moment; `time_s` is a monotonic clock in seconds."""

    time_s: float
    bytes: int
    files: int


class RecentRate:
    """Rate of the last RATE_WINDOW_S seconds, in bytes and in files."""

    def __init__(self) -> None:
        self._samples = deque[ProgressSample]()

    def add(self, sample: ProgressSample) -> None:
        """Add a sample. If it is lower than the last one, as after a new plan, the measurement starts again."""
        samples = self._samples
        if samples and (sample.bytes < samples[-1].bytes or sample.files < samples[-1].files):
            samples.clear()
        if len(samples) > 1 and sample.time_s - samples[-2].time_s < SAMPLE_INTERVAL_S:
            samples.pop()
        samples.append(sample)
        while len(samples) > 2 and sample.time_s - samples[1].time_s >= RATE_WINDOW_S:
            samples.popleft()

    def clear(self) -> None:
        """Forget all samples: the earlier rate says nothing about the next one."""
        self._samples.clear()

    def per_second(self) -> tuple[float, float]:
        """Return bytes and files per second; zero while there are too few samples."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        first, last = self._samples[0], self._samples[-1]
        seconds = last.time_s - first.time_s
        if seconds <= 0:
            return 0.0, 0.0
        return (last.bytes - first.bytes) / seconds, (last.files - first.files) / seconds

    def seconds_left(self, byte_count: int, file_count: int) -> float | None:
        """Return the remaining seconds at this rate, by bytes or by files, whichever is longer: many small files may
        follow a few large ones. None if nothing moves.
        """
        rates = self.per_second()
        left = [(count, rate) for count, rate in zip((byte_count, file_count), rates, strict=True) if count > 0]
        if any(rate <= 0 for _, rate in left):
            return None
        return max((count / rate for count, rate in left), default=0.0)


def create_bar(total: int, *, columns: int, rows: int, position: int = 0) -> Bar:
    """Create a bar on stderr, whose text its owner sets. `position`: its line, below other bars."""
    from tqdm import tqdm

    return tqdm(
        total=total, file=sys.stderr, leave=False, bar_format=" ", ncols=columns - 1, nrows=rows, position=position
    )


class BarState(NamedTuple):
    """Values that a bar shows. `left`: remaining seconds, None if unknown; a minimum while `listing` continues."""

    done: int
    listed: int
    listing: bool
    bytes: int
    planned: int
    elapsed: float
    left: float | None
    rate: float


def format_bar(state: BarState, columns: int) -> str:
    """Return the format string for tqdm: texts, and `{bar}` if it fits. It leaves the last column of the terminal free.
    If the terminal is narrow, the least important parts are left out first.
    """
    room = max(columns - 1, 1)
    count = f"{state.done:,}/{format_file_count(state.listed)}"
    percent, left = (
        f"{100 * completed_fraction(state):3.0f}%",
        format_duration(state.left) + ("+" if state.listing and state.left else ""),
    )
    moved = f"{format_size(state.bytes)}/{format_size(state.planned)}"
    times = f"[{format_duration(state.elapsed)}<{left}, {format_size(state.rate)}/s]"
    files = f"{count} (listing)" if state.listing else count
    bar_room = min(room - len(f"{files} {percent} || {moved} {times}"), _MAX_BAR_CHARS)
    if bar_room >= _MIN_BAR_CHARS:
        return f"{files} {percent} |{{bar:{bar_room}}}| {moved} {times}"
    shorter = (
        f"{files} {percent} {moved} {times}",
        f"{files} {percent} {moved}, {left} left",
        f"{count} {percent} {moved}, {left} left",
        f"{count} {percent}, {left} left",
        f"{percent.strip()}, {left} left",
    )
    return next((line for line in shorter if len(line) <= room), percent.strip()[:room])


def completed_fraction(state: BarState) -> float:
    """Return the fraction of the planned bytes that has arrived, from 0 to 1."""
    return min(state.bytes / state.planned, 1.0) if state.planned > 0 else 1.0


def format_duration(seconds: float | None) -> str:
    """Format seconds as `04:57` or `1:02:03`; `--:--` if unknown."""
    if seconds is None or seconds >= 1e8:
        return "--:--"
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes:02}:{rest:02}"
