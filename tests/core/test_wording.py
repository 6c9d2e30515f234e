"""Counted nouns and time spans for messages."""

from datetime import timedelta

import pytest

from tilesync.core.wording import format_age, format_count, format_file_count


@pytest.mark.parametrize(
    ("count", "text"),
    [(0, "0 files"), (1, "1 file"), (2, "2 files"), (12_345, "12,345 files"), (1_000_000, "1,000,000 files")],
)
def test_files_are_counted(count: int, text: str) -> None:
    """A number has separators of thousands, and its noun a plural unless the number is one."""
    assert format_file_count(count) == text


def test_other_nouns_are_counted() -> None:
    """Any noun can be counted; an irregular plural is given."""
    assert (format_count(1, "version"), format_count(3, "name")) == ("1 version", "3 names")
    counts = [format_count(number, "retry", "retries") for number in (1, 2)]
    assert counts == ["1 retry", "2 retries"]


@pytest.mark.parametrize(
    ("span", "text"),
    [
        (timedelta(), "0 s"),
        (timedelta(seconds=59.6), "1 min"),
        (timedelta(minutes=25, seconds=59), "25 min"),
        (timedelta(hours=1), "1 h"),
        (timedelta(hours=23, minutes=5), "23 h 5 min"),
        (timedelta(days=3, hours=4, minutes=59), "3 d 4 h"),
        (timedelta(days=1200), "1,200 d"),
        (timedelta(seconds=-5), "0 s"),
    ],
)
def test_a_time_span_has_two_units_at_most(span: timedelta, text: str) -> None:
    """A time span is given in its largest unit and the next one, and never less than nothing."""
    assert format_age(span) == text
