"""One difference between two versions, and the totals of all of them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, field
from enum import StrEnum
from typing import Any, NamedTuple

from tilesync.jobs.diff.records import FileRecord
from tilesync.values import dataclass


class ChangeKind(StrEnum):
    """Kind of a difference. MOVED: the same content under another name."""

    ADDED = "added"
    REMOVED = "removed"
    CHANGED = "changed"
    MOVED = "moved"


class FileChange(NamedTuple):
    """A file that differs between two versions A and B.

    `name`: in B, or in A if the file was removed. `old_name`: of a moved file, its name in A. `old` and `new`: what the
    manifests say about it in A and in B; None if it is not there. `role`: by the ending of the name.
    """

    kind: ChangeKind
    name: str
    role: str
    old: FileRecord | None
    new: FileRecord | None
    old_name: str | None = None

    def to_dict(self) -> dict[str, Any]:
        """Return the line of `diff --json`: null for what is not there, or not known."""
        old, new = self.old, self.new
        return {
            "kind": "file",
            "name": self.name,
            "change": self.kind.value,
            **({} if self.old_name is None else {"from": self.old_name}),
            "role": self.role,
            "size": None if new is None else new.size,
            "sha256": None if new is None else new.sha256 or None,
            "md5": None if new is None else new.md5 or None,
            "old_size": None if old is None else old.size,
            "old_sha256": None if old is None else old.sha256 or None,
            "old_md5": None if old is None else old.md5 or None,
        }


@dataclass(frozen=True, slots=True)
class ChangeCounts:
    """Number of files by what happened to them."""

    added: int = 0
    removed: int = 0
    changed: int = 0
    moved: int = 0
    same: int = 0


@dataclass(frozen=True, slots=True)
class DiffTotals:
    """Totals of a comparison: numbers of files, and bytes.

    `bytes_changed` are those of B, `bytes_changed_old` those of A. `bytes_to_fetch`: contents of B that A does not have
    under any name, each counted once: what a mirror that has A must download. `bytes_to_drop`: contents that only A
    has. `cached`, `bytes_cached`: files of B that a viewer's cache of A keeps. A cache knows files by their URLs, so it
    keeps nothing if each version has its own. `roles`: the numbers of files for each role.
    """

    files: ChangeCounts = ChangeCounts()
    bytes_added: int = 0
    bytes_removed: int = 0
    bytes_changed: int = 0
    bytes_changed_old: int = 0
    bytes_moved: int = 0
    bytes_same: int = 0
    bytes_to_fetch: int = 0
    bytes_to_drop: int = 0
    cached: int = 0
    bytes_cached: int = 0
    roles: dict[str, ChangeCounts] = field(default_factory=dict)

    @property
    def total_bytes(self) -> int:
        """Return the bytes of all files of B."""
        return self.bytes_added + self.bytes_changed + self.bytes_moved + self.bytes_same

    @property
    def is_same(self) -> bool:
        """Return whether nothing differs."""
        return not (self.files.added or self.files.removed or self.files.changed or self.files.moved)

    def to_dict(self) -> dict[str, Any]:
        """Return the totals of all files as fields of the last JSON line."""
        values = asdict(self)
        del values["roles"]
        return {**values.pop("files"), **values}

    def role_lines(self) -> Iterator[dict[str, Any]]:
        """Yield a JSON line with the numbers of files of each role."""
        for role, counts in self.roles.items():
            yield {"kind": "role", "role": role, **asdict(counts)}
