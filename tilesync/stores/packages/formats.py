"""Formats of packages: the endings of their file names, and the entries that tilesync adds."""

from __future__ import annotations

from enum import StrEnum
from pathlib import PurePath
from typing import Final

from tilesync.errors import UsageError

MANIFEST_ENTRY: Final = "tilesync-manifest.jsonl"
"""First entry of a package: the bytes of the manifest of its version."""

INDEX_ENTRY: Final = "@3dtilesIndex1@"
"""Last entry of a .3tz file: the offsets of all others. Source: 3D Tiles Archive Format 1.3."""

MEDIA_TABLE: Final = "CREATE TABLE media (key TEXT PRIMARY KEY, content BLOB)"
"""The only table of a .3dtiles file. Source: 3d-tiles-tools, which checks the names and types of both columns."""


class PackageFormat(StrEnum):
    """Format of a package; the value is the ending of its name, without the dot."""

    TZ3 = "3tz"
    SQLITE = "3dtiles"
    TAR = "tar"
    ZIP = "zip"


FORMAT_ENDINGS: Final = tuple(f".{each.value}" for each in PackageFormat)


def find_format(name: str) -> PackageFormat | None:
    """Return the format of a package by the ending of its file name, in capitals or not; None for any other name."""
    ending = PurePath(name).suffix.lower()
    return PackageFormat(ending[1:]) if ending in FORMAT_ENDINGS else None


def parse_format(name: str) -> PackageFormat:
    """Return the format of a package by the ending of its file name. Raises UsageError for any other name."""
    found = find_format(name)
    if found is None:
        *first, last = FORMAT_ENDINGS
        raise UsageError(
            f"the name of a package ends with {', '.join(first)} or {last}; {PurePath(name).name!r} does not",
            hint="the ending chooses the format: .3tz is the 3D Tiles Archive, .tar and .zip open everywhere,"
            " .3dtiles is for servers of SQLite containers",
        )
    return found


def find_reserved_problem(name: str) -> str | None:
    """Return why no package can hold a file of a version, by its name; None if it can."""
    if name in {MANIFEST_ENTRY, INDEX_ENTRY}:
        return "has the name of an entry that tilesync itself adds to packages"
    return None
