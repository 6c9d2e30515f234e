"""What the progress bar says: how far a run is, how fast it was lately, and how long it takes at that rate.

tqdm draws it. Its own estimate is of bytes alone; here files count too, since many small ones may follow a few large.
"""

from __future__ import annotations

from collections import deque
from typing import Final, NamedTuple

from tilesync.cli.params import size
from tilesync.core.wording import files

WINDOW: Final = 45.0
"""Seconds of the past that tell the rate: long enough for a wave of large files, short enough for a change of pace."""

STEP: Final = 1.0
"""Seconds between two samples."""

_WIDEST_BAR: Final = 40
_NARROWEST_BAR: Final = 8


class Sample(NamedTuple):
    """How far a run was at some moment, by a clock in seconds."""

    at: float
    bytes: int
    files: int


class RecentRate:
    """The rate of the last WINDOW seconds, in bytes and in files."""

    def __init__(self) -> None:
        self._samples = deque[Sample]()

    def add(self, sample: Sample) -> None:
        """Take in where the run is now. One that has gone back, as a new plan does, begins anew."""
        samples = self._samples
        if samples and (sample.bytes < samples[-1].bytes or sample.files < samples[-1].files):
            samples.clear()
        if len(samples) > 1 and sample.at - samples[-2].at < STEP:
            samples.pop()
        samples.append(sample)
        while len(samples) > 2 and sample.at - samples[1].at >= WINDOW:
            samples.popleft()

    def clear(self) -> None:
        """Forget all samples: what came before says nothing of what follows."""
        self._samples.clear()

    def per_second(self) -> tuple[float, float]:
        """Bytes and files a second; zero as long as nothing can be said."""
        if len(self._samples) < 2:
            return 0.0, 0.0
        first, last = self._samples[0], self._samples[-1]
        seconds = last.at - first.at
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


class State(NamedTuple):
    """What a bar shows. `left`: seconds, None where they are not known; at least so many while `listing` goes on."""

    done: int
    listed: int
    listing: bool
    bytes: int
    planned: int
    elapsed: float
    left: float | None
    rate: float


def bar_format(state: State, columns: int) -> str:
    """The format that tqdm draws: `{bar}` where there is room for one, and texts. It leaves the last column of a
    terminal free; what has no room is left out, the least wanted first.
    """
    room = max(columns - 1, 1)
    count = f"{state.done:,}/{files(state.listed)}"
    percent, left = (
        f"{100 * share_of(state):3.0f}%",
        clock_time(state.left) + ("+" if state.listing and state.left else ""),
    )
    moved = f"{size(state.bytes)}/{size(state.planned)}"
    times = f"[{clock_time(state.elapsed)}<{left}, {size(state.rate)}/s]"
    noted = f"{count} (listing)" if state.listing else count
    bar_room = min(room - len(f"{noted} {percent} || {moved} {times}"), _WIDEST_BAR)
    if bar_room >= _NARROWEST_BAR:
        return f"{noted} {percent} |{{bar:{bar_room}}}| {moved} {times}"
    shorter = (
        f"{noted} {percent} {moved} {times}",
        f"{noted} {percent} {moved}, {left} left",
        f"{count} {percent} {moved}, {left} left",
        f"{count} {percent}, {left} left",
        f"{percent.strip()}, {left} left",
    )
    return next((line for line in shorter if len(line) <= room), percent.strip()[:room])


def share_of(state: State) -> float:
    """How much of the bytes has come, from 0 to 1."""
    return min(state.bytes / state.planned, 1.0) if state.planned > 0 else 1.0


def clock_time(seconds: float | None) -> str:
    """`04:57`, `1:02:03`; `--:--` for what is not known."""
    from tqdm import tqdm

    return "--:--" if seconds is None or seconds >= 1e8 else tqdm.format_interval(round(seconds))
