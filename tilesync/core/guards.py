"""Guards: what looks like a mistake is stopped before it is done."""

from __future__ import annotations

from dataclasses import dataclass

from tilesync.errors import GuardTripped
from tilesync.model import Version


@dataclass(frozen=True, slots=True)
class DeleteLimit:
    """How many of some files may be deleted: a number, or a share of them in percent."""

    number: int | None = None
    percent: float = 0.0

    def allows(self, count: int, *, total: int) -> bool:
        """Whether `count` of them is not too many."""
        return count <= self.number if self.number is not None else count * 100 <= self.percent * total

    def __str__(self) -> str:
        return f"{self.number:,}" if self.number is not None else f"{self.percent:g} %"


DEFAULT_DELETE_LIMIT = DeleteLimit(percent=50.0)


def has_only_root(files: int, excluded: int) -> bool:
    """Whether filters leave an export nothing but its root tileset, which they always keep."""
    return files == 1 and excluded > 0


def guard_against_shrinking(version: Version, current: Version | None) -> None:
    """Raise GuardTripped for a version with under half the files or bytes of the one that is current. Bytes of packed
    and unpacked files are not compared. With other filters fewer files are meant, but for those that leave only the
    root tileset: a glob was mistyped.
    """
    if current is None or current.serial == version.serial:
        return
    if current.globs != version.globs:
        if version.globs and version.files == 1 < current.files:
            raise GuardTripped(
                f"the filters leave version {version.name} nothing but its root tileset, and {current.files:,} files"
                " are published",
                hint="this export was not published; check --include and --exclude, or give --allow-shrink if that is"
                " what you want",
            )
        return
    fewer = version.content is current.content and version.bytes * 2 < current.bytes
    if fewer or version.files * 2 < current.files:
        raise GuardTripped(
            f"version {version.name} has {version.files:,} files of {version.bytes:,} bytes, under half of what is"
            f" published ({current.files:,} files of {current.bytes:,} bytes)",
            hint="this export was not published; look at the export, and run again with --allow-shrink if it is right",
        )


def guard_against_deleting(count: int, limit: DeleteLimit, *, total: int) -> None:
    """Raise GuardTripped where more of the files that lie there would be deleted than is allowed."""
    if not limit.allows(count, total=total):
        raise GuardTripped(
            f"{count:,} of {total:,} files would be deleted, more than {limit}",
            hint="nothing was put in place or deleted; look at the plan (-n), and run again with a larger --max-delete",
        )
