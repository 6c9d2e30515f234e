"""Small charts: the latest run is at the right end, and small changes look small."""

from __future__ import annotations

from tilesync.monitoring.sparkline import LINE_HEIGHT, WIDTH, draw_sparkline


def points_of(line: str) -> list[tuple[float, float]]:
    """Return the points of a path."""
    numbers = [float(text) for text in line.removeprefix("M").split()]
    return list(zip(numbers[::2], numbers[1::2], strict=True))


def test_the_latest_run_is_at_the_right_end() -> None:
    """Whatever the number of runs, the last one has the same place, and the distance of two runs is the same."""
    few, many = draw_sparkline([1, 2], [False] * 2), draw_sparkline([1.0] * 30, [False] * 30)
    assert few is not None
    assert many is not None
    assert few.end_x == many.end_x
    assert round(points_of(few.line)[1][0] - points_of(few.line)[0][0], 0) == 4
    assert 0 < points_of(many.line)[0][0] < float(many.end_x) < WIDTH


def test_larger_values_are_higher() -> None:
    """The largest value is at the top of the chart, the smallest at its bottom, and none is outside."""
    drawn = draw_sparkline([10, 40, 20], [False] * 3)
    assert drawn is not None
    heights = [y for _, y in points_of(drawn.line)]
    assert heights[1] < heights[2] < heights[0]
    assert all(0 < y < LINE_HEIGHT for y in heights)


def test_small_changes_look_small() -> None:
    """A change by a thousandth does not fill the chart; equal values are a straight line."""
    drawn, flat = draw_sparkline([1000, 1001], [False] * 2), draw_sparkline([0, 0], [False] * 2)
    assert drawn is not None
    assert flat is not None
    (_, first), (_, last) = points_of(drawn.line)
    assert 0 < first - last < 1
    assert len({y for _, y in points_of(flat.line)}) == 1


def test_failed_runs_are_marked_below_the_line() -> None:
    """Each failed run has a mark at its place, also without a value."""
    drawn = draw_sparkline([5, None, 6], [False, True, False])
    assert drawn is not None
    assert len(points_of(drawn.line)) == 2
    assert drawn.marks.count("M") == 1
    assert draw_sparkline([5, 6], [False, False]) is not None
    assert draw_sparkline([None], [True]) is None


def test_a_chart_from_zero_shows_proportions() -> None:
    """With a baseline of zero, half of the value is half of the height."""
    drawn = draw_sparkline([0, 5, 10], [False] * 3, starts_at_zero=True)
    assert drawn is not None
    bottom, middle, top = (y for _, y in points_of(drawn.line))
    assert abs((bottom + top) / 2 - middle) < 0.1
