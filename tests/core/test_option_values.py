"""Values of options: durations, rates and counts; tests/cli/test_params.py asserts them on the command line."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tilesync.core.option_values import parse_count_or_word, parse_duration, parse_rate, parse_size


@pytest.mark.parametrize(
    ("text", "seconds"), [("90s", 90), ("1.5", 1.5), ("10m", 600), ("1h30m", 5400), ("7d", 604_800), (" 0s ", 0)]
)
def test_durations_are_read(text: str, seconds: float) -> None:
    """A duration has units from days to seconds; a number without one is seconds."""
    assert parse_duration(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize("text", ["", "soon", "-1s", "1h 30m", "36501d", "1w"])
def test_what_is_no_duration_is_refused(text: str) -> None:
    """Anything else is refused with the text and an example."""
    with pytest.raises(ValueError, match=r"duration|too long"):
        parse_duration(text)


def test_rates_and_counts_are_read() -> None:
    """A rate has decimal and binary units, or is off; a count may be a word."""
    assert [parse_rate(text) for text in ("500k", "1.5Mi", "off", "")] == [500_000, 1_572_864, None, None]
    assert [parse_count_or_word(text, "all", max_count=10) for text in ("1", "10", "ALL")] == [1, 10, None]
    for text in ("0", "11", "many", "1.5"):
        with pytest.raises(ValueError, match="neither 'all' nor a number from 1 to 10"):
            parse_count_or_word(text, "all", max_count=10)
    with pytest.raises(ValueError, match="below the minimum"):
        parse_rate("10")


def test_sizes() -> None:
    """A size has an optional decimal or binary unit; anything else is refused."""
    assert [parse_size(text) for text in ("256M", "1.5Gi", "4096", "16Mi")] == [
        256_000_000,
        1_610_612_736,
        4096,
        16 << 20,
    ]
    for text in ("", "off", "-1", "12 parsecs"):
        with pytest.raises(ValueError, match="write bytes as 256M"):
            parse_size(text)
