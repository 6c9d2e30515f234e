"""What the progress bar says: how far a run is, how fast it was lately, and how long it takes at that rate.

tqdm draws it. Its own estimate is of bytes alone; here files count too, since many small ones may follow a few large.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from tilesync.cli.params import format_size
from tilesync.core.wording import format_file_count

RATE_WINDOW_S: Final = 45.0
"""Seconds of the past that tell the rate: long enough for a wave of large files, short enough for a change of pace."""

SAMPLE_INTERVAL_S: Final = 1.0
"""Seconds between two samples."""

_MAX_BAR_CHARS: Final = 40
_MIN_BAR_CHARS: Final = 8


class ProgressSample(NamedTuple):
    """How far a run was at some moment, by a clock in seconds."""

    time_s: float
    bytes: int
    files: int


class RecentRate:
    """The rate of the last WINDOW seconds, in bytes and in files."""

    def __init__(self) -> None:
        self._samples = deque[ProgressSample]()

    def add(self, sample: ProgressSample) -> None:
        """Take in where the run is now. One that has gone back, as a new plan does, begins anew."""
        samples = self._samples
        if samples and (sample.bytes < samples[-1].bytes or sample.files < samples[-1].files):
            samples.clear()
        if len(samples) > 1 and sample.time_s - samples[-2].time_s < SAMPLE_INTERVAL_S:
            samples.pop()
        samples.append(sample)
        while len(samples) > 2 and sample.time_s - samples[1].time_s >= RATE_WINDOW_S:
            samples.popleft()

    def clear(self) -> None:
        """Forget all samples: what came before says nothing of what follows."""
        self._samples.clear()

    def per_second(self) -> tuple[float, float]:
        """Bytes and files a second; zero as long as nothing can be said."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        first, last = self._samples[0], self._samples[-1]
        seconds = last.time_s - first.time_s
        if seconds <= 0:
            return 0.0, 0.0
        return (last.bytes - first.bytes) / seconds, (last.files - first.files) / seconds

    def seconds_left(self, byte_count: int, file_count: int) -> float | None:
        """Seconds that what is left takes at this rate: by bytes or by files, whichever takes longer, since many small
        files may follow a few large ones. None where nothing moves.
        """
        rates = self.per_second()
        left = [(count, rate) for count, rate in zip((byte_count, file_count), rates, strict=True) if count > 0]
        if any(rate <= 0 for _, rate in left):
            return None
        return max((count / rate for count, rate in left), default=0.0)


class BarState(NamedTuple):
    """What a bar shows. `left`: seconds, None where they are not known; at least so many while `listing` goes on."""

    done: int
    listed: int
    listing: bool
    bytes: int
    planned: int
    elapsed: float
    left: float | None
    rate: float


def format_bar(state: BarState, columns: int) -> str:
    """The format that tqdm draws: `{bar}` where there is room for one, and texts. It leaves the last column of a
    terminal free; what has no room is left out, the least wanted first.
    """
    room = max(columns - 1, 1)
    count = f"{state.done:,}/{format_file_count(state.listed)}"
    percent, left = (
        f"{100 * completed_fraction(state):3.0f}%",
        format_duration(state.left) + ("+" if state.listing and state.left else ""),
    )
    moved = f"{format_size(state.bytes)}/{format_size(state.planned)}"
    times = f"[{format_duration(state.elapsed)}<{left}, {format_size(state.rate)}/s]"
    noted = f"{count} (listing)" if state.listing else count
    bar_room = min(room - len(f"{noted} {percent} || {moved} {times}"), _MAX_BAR_CHARS)
    if bar_room >= _MIN_BAR_CHARS:
        return f"{noted} {percent} |{{bar:{bar_room}}}| {moved} {times}"
    shorter = (
        f"{noted} {percent} {moved} {times}",
        f"{noted} {percent} {moved}, {left} left",
        f"{count} {percent} {moved}, {left} left",
        f"{count} {percent}, {left} left",
        f"{percent.strip()}, {left} left",
    )
    return next((line for line in shorter if len(line) <= room), percent.strip()[:room])


def completed_fraction(state: BarState) -> float:
    """How much of the bytes has come, from 0 to 1."""
    return min(state.bytes / state.planned, 1.0) if state.planned > 0 else 1.0


def format_duration(seconds: float | None) -> str:
    """`04:57`, `1:02:03`; `--:--` for what is not known."""
    from tqdm import tqdm

    return "--:--" if seconds is None or seconds >= 1e8 else tqdm.format_interval(round(seconds))
