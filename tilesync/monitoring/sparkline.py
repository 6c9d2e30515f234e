"""Small charts of the last runs of a mirror: the path of a line through their values, and marks of failed runs."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.model.history import MAX_RUNS
from tilesync.values import dataclass

WIDTH = 120
LINE_HEIGHT = 24
HEIGHT = 28
"""Size of the chart, in units of its view box; the marks are below the line."""

_MARGIN = 3
_SLOT = (WIDTH - 2 * _MARGIN) / (MAX_RUNS - 1)
_MARK_HEIGHT = HEIGHT - LINE_HEIGHT + 1
_LEAST_RANGE = 0.1
"""Least height of the chart, as a fraction of its largest value: small changes must look small."""


@dataclass(frozen=True, slots=True)
class Sparkline:
    """Paths of a chart in SVG. `line`: through the values. `marks`: ticks at the bottom, one per failed run.

    `end_x`, `end_y`: the latest value.
    """

    line: str
    marks: str
    end_x: str
    end_y: str


def draw_sparkline(
    values: Sequence[float | None], failed: Sequence[bool], *, starts_at_zero: bool = False
) -> Sparkline | None:
    """Draw the values of the runs, the oldest first, at the right end of the chart; None without any value.

    A run without a value has no point. `failed` has an entry for each run.
    """
    known = [value for value in values if value is not None]
    if not known:
        return None
    largest = max(known)
    smallest = 0.0 if starts_at_zero else min(min(known), largest * (1 - _LEAST_RANGE))
    height = (largest - smallest) or 1.0
    points = [
        (
            _place(number, len(values)),
            _format(LINE_HEIGHT - _MARGIN - (value - smallest) / height * (LINE_HEIGHT - 2 * _MARGIN)),
        )
        for number, value in enumerate(values)
        if value is not None
    ]
    marks = "".join(
        f"M{_place(number, len(values))} {HEIGHT}v-{_MARK_HEIGHT}"
        for number, is_failed in enumerate(failed)
        if is_failed
    )
    return Sparkline("M" + " ".join(f"{x} {y}" for x, y in points), marks, *points[-1])


def _place(number: int, count: int) -> str:
    """Return the x of a run: the latest is at the right end, each slot has the same width."""
    return _format(WIDTH - _MARGIN - (count - 1 - number) * _SLOT)


def _format(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")
