"""Files of different versions that have the same content, found by their digests: a query each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from tilesync.catalog.schema import STORED_BLOB_COLUMNS, read_stored_file
from tilesync.model import Blob, Content, Duplicate, Kind, StoredFile, Version

if TYPE_CHECKING:
    from tilesync.catalog.catalog import SqliteCatalog

MAX_DUPLICATES_PER_FILE = 4
"""Twins of one file that are named: the first that is as it was left is taken."""

BATCH_QUERIED_VERSIONS = 2
"""Versions that are asked for many files in one question: most of what has a twin has it there."""

_DIGESTS_PER_QUERY = 500

_HAS_ROWS = "EXISTS (SELECT 1 FROM {0} s WHERE s.version=blob.version AND s.source=blob.key AND s.grown=0)"
_SELECT_DUPLICATE = f"SELECT version, kind, implicit, {_HAS_ROWS.format('reference')}, {_HAS_ROWS.format('remark')}, {STORED_BLOB_COLUMNS} FROM blob"
_IS_LIVE = "(SELECT retired FROM version WHERE serial={0}.version) IS NULL"
_IS_USABLE = "({0} OR {1}.lying_sha256 IS NULL)"
"""What lies unpacked is of no use where everything is to lie as it is stored."""

_NEWEST_USABLE = f"AND {_IS_USABLE.format('?', 'blob')} AND {_IS_LIVE.format('blob')} ORDER BY version DESC LIMIT {MAX_DUPLICATES_PER_FILE}"
_IN_VERSION = f"{_SELECT_DUPLICATE} INDEXED BY blob_{{0}} WHERE {{0}} IN ({{1}}) AND state=1 AND version=?"
_BY_MD5 = (
    f"{_SELECT_DUPLICATE} WHERE md5=? AND md5 IS NOT NULL AND state=1 AND size=? AND version{{0}} {_NEWEST_USABLE}"
)
_BY_SHA256 = f"{_SELECT_DUPLICATE} WHERE sha256=? AND state=1 AND size=? AND version{{0}} {_NEWEST_USABLE}"
_OTHER_VERSION_RANGES = ("<?", ">?")
"""Two ranges of the index, so that the many files of one version with one content are never read through."""

_HAS_DUPLICATE = f"""EXISTS (SELECT 1 FROM blob o WHERE {{0}} AND o.state=1 AND o.size=b.size
  AND o.version{{1}}b.version AND {_IS_USABLE.format("?1", "o")} AND {_IS_LIVE.format("o")})"""
_SAME_CONTENT = ("b.sha256 IS NULL AND o.md5=b.md5 AND o.md5 IS NOT NULL", "o.sha256=b.sha256")
_SUM_REUSABLE_BYTES = f"""
SELECT coalesce(sum(b.size), 0) FROM blob b WHERE b.version=?2 AND b.state=0
  AND ({" OR ".join(_HAS_DUPLICATE.format(same, others[0]) for same in _SAME_CONTENT for others in _OTHER_VERSION_RANGES)})
"""


class Duplicates:
    """The twins of files of one catalog; those of the newest version come first."""

    def __init__(self, catalog: SqliteCatalog) -> None:
        self._catalog = catalog

    def find_by_digest(
        self, version: Version, blobs: Sequence[Blob], *, all_versions: bool = False
    ) -> dict[str, list[Duplicate]]:
        """By size and SHA-256, or MD5 where a blob tells no other, for each name where there are any: one of a newest
        version that has it, or `every` one. Versions of the same content come first, of which a file is a link away.
        """
        others = [other for other in reversed(self._catalog.versions()) if other.serial != version.serial]
        others.sort(key=lambda other: other.content is not version.content)
        left = [blob for blob in blobs if blob.sha256 or blob.md5] if others else []
        found: dict[str, list[Duplicate]] = {}
        for other in others[: 0 if all_versions else BATCH_QUERIED_VERSIONS]:
            for start in range(0, len(left), _DIGESTS_PER_QUERY):
                found.update(self._find_in_version(other, left[start : start + _DIGESTS_PER_QUERY], version.content))
            left = [blob for blob in left if blob.name not in found]
        claimed = ((blob.name, blob.sha256, blob.size) for blob in left if blob.sha256)
        unclaimed = ((blob.name, blob.md5, blob.size) for blob in left if blob.md5 and not blob.sha256)
        found.update(self._find_each(_BY_SHA256, version, claimed))
        found.update(self._find_each(_BY_MD5, version, unclaimed))
        return found

    def _find_in_version(self, other: Version, blobs: Sequence[Blob], content: Content) -> dict[str, list[Duplicate]]:
        claimed = {(blob.sha256, blob.size) for blob in blobs if blob.sha256}
        unclaimed = {(blob.md5, blob.size) for blob in blobs if not blob.sha256}
        twins: dict[tuple[bytes | None, int], Duplicate] = {}
        for twin in self._query_version(other, "sha256", claimed):
            twins[twin.stored.stored_sha256, twin.stored.blob.size] = twin
        for twin in self._query_version(other, "md5", unclaimed):
            twins[twin.stored.blob.md5, twin.stored.blob.size] = twin
        if content is not other.content:
            twins = {key: twin for key, twin in twins.items() if content is Content.DECODED or not twin.stored.unpacked}
        wished = {blob.name: (blob.sha256 or blob.md5, blob.size) for blob in blobs}
        return {name: [twins[known]] for name, known in wished.items() if known in twins}

    def _query_version(
        self, other: Version, column: str, contents: Iterable[tuple[bytes | None, int]]
    ) -> list[Duplicate]:
        """The files of one version that have one of these digests."""
        digests = [digest for digest, _ in contents]
        sql = _IN_VERSION.format(column, ", ".join("?" * len(digests)))
        return (
            [_read_duplicate(other, row) for row in self._catalog.query(sql, *digests, other.serial)] if digests else []
        )

    def find_by_sha256(self, version: Version, stored: Sequence[StoredFile]) -> dict[str, list[Duplicate]]:
        """By size and SHA-256, for each name where there are any."""
        return self._find_each(
            _BY_SHA256, version, ((one.blob.name, one.stored_sha256, one.blob.size) for one in stored if one.sha256)
        )

    def _find_each(
        self, sql: str, version: Version, contents: Iterable[tuple[str, bytes, int]]
    ) -> dict[str, list[Duplicate]]:
        others = {other.serial: other for other in self._catalog.versions() if other.serial != version.serial}
        found: dict[str, list[Duplicate]] = {}
        of_use = version.serial, version.content is Content.DECODED
        for name, digest, size in contents if others else ():
            older, newer = (self._catalog.query(sql.format(o), digest, size, *of_use) for o in _OTHER_VERSION_RANGES)
            twins = [_read_duplicate(others[row[0]], row) for row in (*newer, *older)]
            if twins:
                found[name] = twins
        return found

    def count_reusable_bytes(self, version: Version) -> int:
        """How many bytes of what is wanted other versions hold, by size and digest."""
        count: int = self._catalog.query(_SUM_REUSABLE_BYTES, version.content is Content.DECODED, version.serial)[0][0]
        return count

    def copy_references(self, version: Version, duplicates: Iterable[Duplicate]) -> None:
        """Take over what twins of the same names ask for, in place of what was said of those names before."""
        sql = (
            "INSERT OR IGNORE INTO reference SELECT ?, source, target, role, name, 0 FROM reference"
            " WHERE version=? AND source=? AND grown=0"
        )
        named = [(twin.version.serial, twin.stored.blob.name) for twin in duplicates]
        with self._catalog.transaction() as db:
            self._catalog.references.delete(db, version, (name for _, name in named))
            db.executemany(sql, ((version.serial, serial, self._catalog.key(name)) for serial, name in named))


def _read_duplicate(version: Version, row: Sequence[Any]) -> Duplicate:
    _, kind, implicit, asks, remarked, *held = row
    return Duplicate(version, read_stored_file(held), Kind(kind), bool(implicit), bool(asks), bool(remarked))
