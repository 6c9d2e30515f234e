"""Counted nouns for messages."""

import pytest

from tilesync.core.wording import format_count, format_file_count


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
