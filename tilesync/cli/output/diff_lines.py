"""Differences between two versions as text: a line for each file, a table of totals, and the summary."""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.api.diffing import ChangeKind, DiffResult, DiffTotals, FileChange
from tilesync.cli.output.table import format_table
from tilesync.cli.params import format_size, replace_control_characters
from tilesync.core.wording import format_file_count

_MARKS = {ChangeKind.ADDED: "+", ChangeKind.REMOVED: "-", ChangeKind.CHANGED: "M", ChangeKind.MOVED: "R"}
"""Marks of the lines, as `git diff --name-status` and `restic diff` have them."""

_LINE_BREAKS = dict.fromkeys(map(ord, "\n\t"), "\N{REPLACEMENT CHARACTER}")

_ROLE_NAMES = {
    "tileset": "tilesets",
    "subtree": "subtrees",
    "content": "tile contents",
    "buffer": "buffers",
    "image": "images",
    "shader": "shaders",
    "other": "other files",
}


def format_change(change: FileChange) -> str:
    """Format the line of a file: a mark, its size, and its name, which cannot look like another line."""
    new, old = change.new, change.old
    name = change.name if change.old_name is None else f"{change.old_name} -> {change.name}"
    sizes = [format_size(each.size) for each in (new, old) if each is not None]
    was = f"  (was {sizes[-1]})" if sizes[-1] != sizes[0] else ""
    line = replace_control_characters(f"{_MARKS[change.kind]} {sizes[0]:>8}  {name}{was}")
    return line.translate(_LINE_BREAKS)


def format_stat_table(found: DiffResult, *, width: int | None = None) -> str:
    """Format the table of totals: a row for each role, then the numbers and bytes of all files."""
    totals = found.totals
    rows = [
        [
            _ROLE_NAMES[role],
            *(f"{count:,}" for count in (each.added, each.removed, each.changed, each.moved, each.same)),
        ]
        for role, each in totals.roles.items()
    ]
    files = totals.files
    numbers = (files.added, files.removed, files.changed, files.moved, files.same)
    sizes = (totals.bytes_added, totals.bytes_removed, totals.bytes_changed, totals.bytes_moved, totals.bytes_same)
    rows.append(["all files", *(f"{number:,}" for number in numbers)])
    rows.append(["bytes", *map(format_size, sizes)])
    return format_table(["", "ADDED", "REMOVED", "CHANGED", "MOVED", "SAME"], rows, width=width)


def format_diff_summary(found: DiffResult) -> Iterator[str]:
    """Yield the lines at the end: what differs, and what mirrors and viewers must download."""
    totals, files = found.totals, found.totals.files
    if found.is_same:
        yield f"{found.a} and {found.b} are the same: {format_file_count(files.same)}, {format_size(totals.bytes_same)}"
        return
    yield (
        f"{found.a} -> {found.b}: {files.added:,} added, {files.removed:,} removed, {files.changed:,} changed,"
        f" {files.moved:,} moved, {files.same:,} the same"
    )
    yield (
        f"download for a mirror that has the first version: {format_size(totals.bytes_to_fetch)} of"
        f" {format_size(totals.total_bytes)}"
    )
    yield f"only in the first version: {format_size(totals.bytes_to_drop)}"
    yield _describe_viewer_download(totals)


def _describe_viewer_download(totals: DiffTotals) -> str:
    """Say what a viewer downloads for B if its cache has all of A."""
    text = f"download for a viewer: up to {format_size(totals.total_bytes - totals.bytes_cached)};"
    if totals.cached:
        cached = f"{format_file_count(totals.cached)} ({format_size(totals.bytes_cached)})"
        return f"{text} its cache keeps {cached}, since their URLs do not change"
    return f"{text} the URLs of all files change with the version, so its cache does not help"
