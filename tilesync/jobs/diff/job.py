"""Compare two versions: drop what is the same, compare the rest by name, then what is left by content."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from tilesync.core.manifest import translate_damage
from tilesync.jobs.diff.changes import DiffTotals
from tilesync.jobs.diff.collector import ChangeCollector, encode_lines
from tilesync.jobs.diff.moves import ContentKeys, md5_keys, pair_moves, sha256_keys
from tilesync.jobs.diff.names import compare_names, index_by_name
from tilesync.jobs.diff.records import NAME_END
from tilesync.jobs.diff.reuse import NewContents
from tilesync.jobs.diff.sides import Side, make_version_side
from tilesync.jobs.diff.spool import PartitionedSpool
from tilesync.jobs.diff.unchanged import match_unchanged
from tilesync.jobs.versions.resolve import resolve_version
from tilesync.protocols import ReadOnlyPublication
from tilesync.runtime.threads import raise_if_stopped
from tilesync.values import dataclass

FILES_PER_PARTITION: Final = 1 << 14
"""Files of one side that are compared at a time, so that memory stays flat."""

_PACKED_MARK = b',"packed":'
_NO_SHA256_MARK = b',"sha256":null'


@dataclass(frozen=True)
class Diff:
    """Differences between the sides A and B. `changes` yields them by name, as often as wanted."""

    a: Side
    b: Side
    totals: DiffTotals
    changes: ChangeCollector

    def to_dict(self) -> dict[str, Any]:
        """Return the fields of the last JSON line."""
        return {"a": self.a.name, "b": self.b.name, **self.totals.to_dict()}

    def json_pieces(self) -> Iterator[bytes]:
        """Yield the lines of `tilesync diff --json`, in pieces of whole lines."""
        yield from self.changes.json_pieces()
        yield encode_lines(self.totals.role_lines())
        yield encode_lines([{"kind": "finished", "exit": 0, **self.to_dict()}])


class Comparison:
    """One comparison of two sides."""

    def __init__(self, a: Side, b: Side, *, keeps_urls: bool) -> None:
        self._keeps_urls = keeps_urls
        self._sides = (a, b)
        partitions = max(a.files, b.files) // FILES_PER_PARTITION + 1
        self._by_name = (PartitionedSpool(partitions), PartitionedSpool(partitions))
        self._by_content = (PartitionedSpool(partitions), PartitionedSpool(partitions))
        self._changes = ChangeCollector()
        self._needs_md5 = False

    def run(self) -> Diff:
        """Compare; blocks. Raises DestinationError for a damaged manifest."""
        a, b = self._sides
        for same in match_unchanged((a.open_records(), b.open_records()), self._keep_rest):
            raise_if_stopped("the comparison")
            self._changes.add_same(same)
        new = NewContents(uses_md5=self._needs_md5), NewContents(uses_md5=self._needs_md5)
        for partition in range(self._by_name[0].partitions):
            self._compare_names(partition, new)
        self._pair_moves(new)
        if self._changes.has_common_contents:
            to_drop, to_fetch = new[0].sum_missing(b), new[1].sum_missing(a)
        else:  # the manifests have no other contents, so they are not read again
            to_drop, to_fetch = new[0].sum_differences(new[1])
        totals = self._changes.totals(bytes_to_fetch=to_fetch, bytes_to_drop=to_drop, keeps_urls=self._keeps_urls)
        return Diff(a, b, totals, self._changes)

    def _keep_rest(self, side: int, records: list[bytes]) -> None:
        """Keep records for the comparison by name."""
        raise_if_stopped("the comparison")
        self._by_name[side].add([each.partition(NAME_END)[0] for each in records], records)
        joined = b"\n".join(records)
        self._needs_md5 = self._needs_md5 or _NO_SHA256_MARK in joined or _PACKED_MARK in joined

    def _compare_names(self, partition: int, new: tuple[NewContents, NewContents]) -> None:
        raise_if_stopped("the comparison")
        indexes = []
        for number, spool in enumerate(self._by_name):
            with translate_damage(f"of version {self._sides[number].name}"):
                indexes.append(index_by_name(spool.read(partition)))
        found = compare_names(*indexes, needs_md5=self._needs_md5)
        self._changes.add_same(found.same)
        self._changes.add_changed(found.changed)
        for side, (left, spool) in enumerate(zip((found.removed, found.added), self._by_content, strict=True)):
            new[side].add([pair[side] for pair in found.changed])
            spool.add(sha256_keys(left), left)

    def _pair_moves(self, new: tuple[NewContents, NewContents]) -> None:
        """Pair removed and added files by SHA-256; if that is not known of all of them, the others by MD5 and size."""
        left = self._pair_moves_by(sha256_keys, self._by_content, new, is_last=not self._needs_md5)
        if self._needs_md5:
            self._pair_moves_by(md5_keys, left, new, is_last=True)

    def _pair_moves_by(
        self,
        find_keys: ContentKeys,
        spools: tuple[PartitionedSpool, PartitionedSpool],
        new: tuple[NewContents, NewContents],
        *,
        is_last: bool,
    ) -> tuple[PartitionedSpool, PartitionedSpool]:
        partitions = spools[0].partitions
        left = PartitionedSpool(partitions), PartitionedSpool(partitions)
        for partition in range(partitions):
            raise_if_stopped("the comparison")
            moves = pair_moves(spools[0].read(partition), spools[1].read(partition), find_keys)
            self._changes.add_moved(moves.pairs)
            if is_last:
                self._changes.add_removed(moves.removed)
                self._changes.add_added(moves.added)
                new[0].add(moves.removed)
                new[1].add(moves.added)
            else:
                left[0].add(md5_keys(moves.removed), moves.removed)
                left[1].add(md5_keys(moves.added), moves.added)
        return left


def compare_sides(a: Side, b: Side, *, keeps_urls: bool = False) -> Diff:
    """Compare two sides; blocks. Raises DestinationError for a damaged manifest.

    `keeps_urls`: a file of the same name has the same URL in A and in B.
    """
    return Comparison(a, b, keeps_urls=keeps_urls).run()


def compare_versions(publication: ReadOnlyPublication, a: str, b: str) -> Diff:
    """Compare two finished versions of a destination, each a name, a unique prefix of one, or `current`; blocks.

    Raises UsageError if there is no such version, and DestinationError for a damaged manifest.
    """
    old, new = [make_version_side(publication, resolve_version(publication, text)) for text in (a, b)]
    return compare_sides(old, new, keeps_urls=has_stable_urls(publication, old, new))


def has_stable_urls(publication: ReadOnlyPublication, *sides: Side) -> bool:
    """Return whether files keep their URLs from version to version: that is so in the flat layout only."""
    return not any(publication.prefix(side.version) for side in sides if side.version is not None)
