"""Guards against mistakes."""

from __future__ import annotations

from dataclasses import replace

import pytest

from tilesync.core.guards import DEFAULT_DELETE_LIMIT, DeleteLimit, guard_against_deleting, guard_against_shrinking
from tilesync.errors import GuardTripped
from tilesync.model import Content, Globs, Version, VersionSummary

CURRENT = Version(1, "v1", "e1", summary=VersionSummary(files=100, bytes=1000))


@pytest.mark.parametrize(
    ("limit", "count", "total", "allowed"),
    [
        (DeleteLimit(0), 0, 10, True),
        (DeleteLimit(0), 1, 10, False),
        (DeleteLimit(3), 3, 3, True),
        (DeleteLimit(3), 4, 400, False),
        (DEFAULT_DELETE_LIMIT, 5, 10, True),
        (DEFAULT_DELETE_LIMIT, 6, 11, False),
        (DeleteLimit(percent=0.5), 5, 1000, True),
        (DeleteLimit(percent=0.5), 6, 1000, False),
        (DeleteLimit(percent=100), 7, 7, True),
        (DEFAULT_DELETE_LIMIT, 0, 0, True),
    ],
)
def test_delete_limits(limit: DeleteLimit, count: int, total: int, allowed: bool) -> None:
    """The limit is a number or a share of the files, and includes its own value."""
    assert limit.allows(count, total=total) is allowed
    if allowed:
        guard_against_deleting(count, limit, total=total)
    else:
        with pytest.raises(GuardTripped, match=f"{count:,} of {total:,} files"):
            guard_against_deleting(count, limit, total=total)


@pytest.mark.parametrize(("files", "size", "stops"), [(50, 500, False), (49, 1000, True), (100, 499, True)])
def test_an_export_that_shrank(files: int, size: int, stops: bool) -> None:
    """Less than half of the files or bytes stops the run."""
    other = replace(CURRENT, serial=2, name="v2").with_summary(files=files, bytes=size)
    if stops:
        with pytest.raises(GuardTripped):
            guard_against_shrinking(other, CURRENT)
    else:
        guard_against_shrinking(other, CURRENT)


def test_filters_that_leave_only_the_root() -> None:
    """Other filters may leave fewer files, but not only the root, unless only the root is published."""
    bare = replace(CURRENT, serial=2, globs=Globs(include=("*.glbb",))).with_summary(files=1, bytes=1)
    with pytest.raises(GuardTripped, match="only the root tileset of version v1, but 100 files"):
        guard_against_shrinking(bare, CURRENT)
    guard_against_shrinking(bare.with_summary(files=2), CURRENT)
    guard_against_shrinking(bare, CURRENT.with_summary(files=1))
    guard_against_shrinking(bare, None)


def test_incomparable_versions_do_not_shrink() -> None:
    """The first export, the same version, and one with other filters are not compared; nor bytes of packed and unpacked
    files.
    """
    tiny = replace(CURRENT, serial=2).with_summary(files=1, bytes=1)
    guard_against_shrinking(tiny, None)
    guard_against_shrinking(CURRENT.with_summary(files=1), CURRENT)
    guard_against_shrinking(replace(tiny, globs=Globs(exclude=("*.png",))).with_summary(files=2), CURRENT)
    guard_against_shrinking(tiny.with_summary(files=50), replace(CURRENT, content=Content.DECODED))
    with pytest.raises(GuardTripped):
        guard_against_shrinking(tiny, replace(CURRENT, content=Content.DECODED))
