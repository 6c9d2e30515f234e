"""The text of the bar: the remaining time at the recent rate, in a line that fits the terminal."""

from hypothesis import given
from hypothesis import strategies as st
from tqdm import tqdm

from tilesync.cli.output.progress_bar import (
    RATE_WINDOW_S,
    BarState,
    ProgressSample,
    RecentRate,
    completed_fraction,
    format_bar,
    format_duration,
)

MB = 1_000_000


def bar_line(state: BarState, columns: int) -> str:
    """Return the line as tqdm draws it."""
    form = format_bar(state, columns)
    return tqdm.format_meter(
        completed_fraction(state) * 100, 100, 1.0, ncols=max(columns - 1, 1), ascii=" #", bar_format=form
    )


def simulate_progress(*phases: tuple[int, float, float], began: float = 100.0) -> tuple[RecentRate, ProgressSample]:
    """Simulate phases (seconds, bytes/s, files/s) with ten samples a second; return the rate."""
    rate, now = RecentRate(), ProgressSample(began, 0, 0)
    moved, done = 0.0, 0.0
    for seconds, byte_rate, file_rate in phases:
        for _ in range(seconds * 10):
            moved, done = moved + byte_rate / 10, done + file_rate / 10
            now = ProgressSample(now.time_s + 0.1, int(moved), int(done))
            rate.add(now)
    return rate, now


def test_the_rate_is_that_of_the_last_seconds() -> None:
    """After a slow window, ten earlier fast minutes do not count."""
    rate, now = simulate_progress((600, 50 * MB, 500), (60, 1 * MB, 10))
    left = rate.seconds_left(300 * MB, 0)
    assert left is not None
    assert 290 < left < 310
    assert 300 * MB / (now.bytes / 660) < 10


def test_many_small_files_after_a_few_large_ones() -> None:
    """If files take more time than bytes, the remaining time is counted by files."""
    rate, _ = simulate_progress((50, 0.5 * MB, 200))
    left = rate.seconds_left(1 * MB, 60_000)
    assert left is not None
    assert 295 < left < 305
    left = rate.seconds_left(500 * MB, 10)
    assert left is not None
    assert 990 < left < 1010


def test_without_progress_the_remaining_time_is_unknown() -> None:
    """With fewer than two samples, or without progress, the time is unknown; with nothing left it is 0."""
    assert RecentRate().seconds_left(1, 1) is None
    rate, _ = simulate_progress((30, MB, 1), (int(RATE_WINDOW_S) + 2, 0, 0))
    assert rate.seconds_left(MB, 1) is None
    assert rate.seconds_left(0, 0) == 0


def test_decreasing_counts_give_no_negative_rate() -> None:
    """Counts that decrease give no negative rate."""
    rate, now = simulate_progress((30, MB, 10))
    rate.add(ProgressSample(now.time_s + 1, 0, 0))
    assert rate.per_second() == (0, 0)
    rate.add(ProgressSample(now.time_s + 3, 4 * MB, 2))
    assert rate.per_second() == (2 * MB, 1)


def test_memory_is_bounded() -> None:
    """After a day only one window of samples is kept."""
    rate, _ = simulate_progress((3600, MB, 10))
    assert len(rate._samples) < RATE_WINDOW_S + 5


STATES = st.builds(
    BarState,
    done=st.integers(0, 10**8), listed=st.integers(1, 10**8), listing=st.booleans(), bytes=st.integers(0, 10**14),
    planned=st.integers(0, 10**14), elapsed=st.floats(0, 10**6), left=st.none() | st.floats(0, 10**9),
    rate=st.floats(0, 10**10),
)  # fmt: skip


@given(STATES, st.integers(1, 250))
def test_a_bar_fits(state: BarState, columns: int) -> None:
    """At any width the line leaves the last column free and shows the progress."""
    line = bar_line(state, columns)
    assert len(line) < max(columns, 2)
    assert columns < 6 or "%" in line
    assert "\n" not in line


def test_a_bar_shows_as_much_as_its_width_allows() -> None:
    """At 60 columns the remaining time is still shown; at 200 everything is."""
    state = BarState(1_234, 5_678, False, 12_300_000, 45_600_000, 79.0, 297.0, 1_200_000.0)
    assert bar_line(state, 60) == "1,234/5,678 files  27% 12.3 MB/45.6 MB, 04:57 left"
    wide = bar_line(state, 200)
    assert wide.startswith("1,234/5,678 files  27% |##########     ")
    assert wide.endswith("| 12.3 MB/45.6 MB [01:19<04:57, 1.2 MB/s]")
    assert "(listing)" in bar_line(state._replace(listing=True), 200)
    assert "04:57+" in bar_line(state._replace(listing=True), 200)


def test_spans() -> None:
    """A duration has minutes and seconds, and hours if there are any."""
    assert [format_duration(seconds) for seconds in (None, 0, 59.6, 297, 3723)] == [
        "--:--",
        "00:00",
        "01:00",
        "04:57",
        "1:02:03",
    ]
