"""Guards against mistakes: limits on deleting files and on shrinking exports."""

from __future__ import annotations

import re
from typing import Final

from tilesync.errors import GuardTripped
from tilesync.model import Version
from tilesync.values import dataclass


@dataclass(frozen=True, slots=True)
class DeleteLimit:
    """Limit on how many files may be deleted: a number, or a percentage of all."""

    number: int | None = None
    percent: float = 0.0

    def allows(self, count: int, *, total: int) -> bool:
        """Return whether deleting `count` of `total` files is within the limit."""
        return count <= self.number if self.number is not None else count * 100 <= self.percent * total

    def __str__(self) -> str:
        return f"{self.number:,}" if self.number is not None else f"{self.percent:g} %"


DEFAULT_DELETE_LIMIT = DeleteLimit(percent=50.0)

_DELETE_LIMIT: Final = re.compile(r"(\d{1,12}(?:\.\d+)?)\s*(%)?")


def has_only_root(files: int, excluded: int) -> bool:
    """Return whether filters leave only the root tileset of an export, which they never exclude."""
    return files == 1 and excluded > 0


def guard_against_shrinking(version: Version, current: Version | None) -> None:
    """Raise GuardTripped if a version has less than half the files or bytes of the current one.

    Bytes are not compared if only one of the two versions is decoded. With other filters, fewer files are expected,
    but if only the root tileset remains, a glob was probably mistyped.
    """
    if current is None or current.serial == version.serial:
        return
    if current.globs != version.globs:
        if version.globs and version.summary.files == 1 < current.summary.files:
            raise GuardTripped(
                f"the filters leave only the root tileset of version {version.name}, but"
                f" {current.summary.files:,} files are published",
                hint="this export was not published; check --include and --exclude, or give --allow-shrink if this is"
                " intended",
            )
        return
    has_fewer_bytes = version.content is current.content and version.summary.bytes * 2 < current.summary.bytes
    if has_fewer_bytes or version.summary.files * 2 < current.summary.files:
        raise GuardTripped(
            f"version {version.name} has {version.summary.files:,} files of {version.summary.bytes:,} bytes, less than"
            f" half of what is published ({current.summary.files:,} files of {current.summary.bytes:,} bytes)",
            hint="this export was not published; check the export, and run again with --allow-shrink if it is right",
        )


def guard_against_deleting(count: int, limit: DeleteLimit, *, total: int) -> None:
    """Raise GuardTripped if more files would be deleted than the limit allows."""
    if not limit.allows(count, total=total):
        raise GuardTripped(
            f"{count:,} of {total:,} files would be deleted, more than {limit}",
            hint="no file was published or deleted; check the plan (-n), and run again with a larger --max-delete"
            " if it is right",
        )


def parse_delete_limit(text: str) -> DeleteLimit:
    """Parse a maximum of deleted files: a number, or a percentage of the existing files."""
    match = _DELETE_LIMIT.fullmatch(text.strip())
    if not match or (match[2] and float(match[1]) > 100):
        raise ValueError(f"{text!r} is neither a number of files nor a percentage: write 100 or 5%")
    if not match[2] and "." in match[1]:
        raise ValueError(f"{text!r} is not a whole number of files")
    return DeleteLimit(percent=float(match[1])) if match[2] else DeleteLimit(int(match[1]))
