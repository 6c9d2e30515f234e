"""Formats of packages: the ending of a name chooses the format."""

from __future__ import annotations

import pytest

from tilesync.errors import UsageError
from tilesync.stores.packages.formats import PackageFormat, find_format, parse_format


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("city.3tz", PackageFormat.TZ3),
        ("/a/city.v2.TAR", PackageFormat.TAR),
        ("city.3dtiles", PackageFormat.SQLITE),
        ("city.zip", PackageFormat.ZIP),
        ("city.tar.gz", None),
        ("city", None),
        (".3tz", None),
        ("3tz", None),
        ("city.3tz/", PackageFormat.TZ3),
    ],
)
def test_ending_chooses_the_format(name: str, expected: PackageFormat | None) -> None:
    """The last ending counts, in capitals or not; a name that is only an ending has none."""
    assert find_format(name) is expected


def test_unknown_ending_is_a_usage_error_that_names_all() -> None:
    """The message for an unknown ending lists every ending that is known."""
    with pytest.raises(UsageError) as error:
        parse_format("out/city.7z")
    assert all(f".{each}" in str(error.value) for each in PackageFormat)
    assert "'city.7z'" in str(error.value)
    assert parse_format("city.zip") is PackageFormat.ZIP
