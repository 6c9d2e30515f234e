"""Duplicate index: stored files of other versions with the same content, found by digest."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from tilesync.catalog.references import ReferenceIndex
from tilesync.catalog.schema import STORED_BLOB_COLUMNS, CatalogDatabase, read_stored_file
from tilesync.model import Blob, Content, Duplicate, Kind, StoredFile, Version

MAX_DUPLICATES_PER_FILE = 4
"""Duplicates returned for one file; the caller takes the first that is unchanged on disk."""

BATCH_QUERIED_VERSIONS = 2
"""Newest versions that are searched for many files in one query: most duplicates are there."""

_DIGESTS_PER_QUERY = 500

_HAS_ROWS = "EXISTS (SELECT 1 FROM {0} s WHERE s.version=blob.version AND s.source=blob.key AND s.grown=0)"
_SELECT_DUPLICATE = (
    f"SELECT version, kind, implicit, {_HAS_ROWS.format('reference')}, {_HAS_ROWS.format('remark')},"
    f" {STORED_BLOB_COLUMNS} FROM blob"
)
_IS_LIVE = "(SELECT retired FROM version WHERE serial={0}.version) IS NULL"
_IS_USABLE = "({0} OR {1}.lying_sha256 IS NULL)"
"""A file that is stored unpacked is of no use to a version that stores all files packed."""

_NEWEST_USABLE = (
    f"AND {_IS_USABLE.format('?', 'blob')} AND {_IS_LIVE.format('blob')}"
    f" ORDER BY version DESC LIMIT {MAX_DUPLICATES_PER_FILE}"
)
_ROWS_TRIED_PER_DIGEST = 4
_IN_VERSION = f"""
WITH wanted(digest) AS (VALUES {{1}})
{_SELECT_DUPLICATE} WHERE id IN (
  SELECT (SELECT id FROM (
    SELECT o.id, o.lying_sha256 FROM blob o INDEXED BY blob_{{0}}
    WHERE o.{{0}}=wanted.digest AND o.{{0}} IS NOT NULL AND o.state=1 AND o.version=? LIMIT {_ROWS_TRIED_PER_DIGEST}
  ) tried WHERE {_IS_USABLE.format("?", "tried")} LIMIT 1) FROM wanted)
"""
"""One file of a version for each digest, however many files are equal: 20,000 equal files are one row, not 20,000."""

_BY_MD5 = (
    f"{_SELECT_DUPLICATE} WHERE md5=? AND md5 IS NOT NULL AND state=1 AND size=? AND version{{0}} {_NEWEST_USABLE}"
)
_BY_SHA256 = f"{_SELECT_DUPLICATE} WHERE sha256=? AND state=1 AND size=? AND version{{0}} {_NEWEST_USABLE}"
_OTHER_VERSION_RANGES = ("<?", ">?")
"""Two ranges of the index (older, newer versions), so that a query never scans many equal files of one version."""

_HAS_DUPLICATE = f"""EXISTS (SELECT 1 FROM blob o WHERE {{0}} AND o.state=1 AND o.size=b.size
  AND o.version{{1}}b.version AND {_IS_USABLE.format("?1", "o")} AND {_IS_LIVE.format("o")})"""
_SAME_CONTENT = ("b.sha256 IS NULL AND o.md5=b.md5 AND o.md5 IS NOT NULL", "o.sha256=b.sha256")
_HAS_ANY_DUPLICATE = " OR ".join(
    _HAS_DUPLICATE.format(same, others[0]) for same in _SAME_CONTENT for others in _OTHER_VERSION_RANGES
)
_SUM_REUSABLE_BYTES = f"""
SELECT coalesce(sum(b.size), 0) FROM blob b WHERE {{}} AND b.state=0 AND ({_HAS_ANY_DUPLICATE})
"""
_OF_VERSION, _OF_NEW_ROWS = "b.version=?2", "+b.version=?2 AND b.id>?3"


class DuplicateIndex:
    """Index of stored files of other versions with the same content, newest version first. Any thread may use it."""

    def __init__(self, database: CatalogDatabase, references: ReferenceIndex) -> None:
        self._database = database
        self._references = references

    def find_by_digest(
        self, version: Version, blobs: Sequence[Blob], *, all_versions: bool = False
    ) -> dict[str, list[Duplicate]]:
        """Find duplicates by size and SHA-256, or by MD5 if a blob has no SHA-256. Returns them by name.

        Each blob gets one duplicate from one of the newest versions, or several with `all_versions`. Versions with the
        same content mode come first, because their files can be hard-linked.
        """
        others = [other for other in reversed(self._database.versions()) if other.serial != version.serial]
        others.sort(key=lambda other: other.content is not version.content)
        remaining = [blob for blob in blobs if blob.sha256 or blob.md5] if others else []
        found: dict[str, list[Duplicate]] = {}
        for other in others[: 0 if all_versions else BATCH_QUERIED_VERSIONS]:
            for start in range(0, len(remaining), _DIGESTS_PER_QUERY):
                found.update(
                    self._find_in_version(other, remaining[start : start + _DIGESTS_PER_QUERY], version.content)
                )
            remaining = [blob for blob in remaining if blob.name not in found]
        with_sha256 = ((blob.name, blob.sha256, blob.size) for blob in remaining if blob.sha256)
        with_md5 = ((blob.name, blob.md5, blob.size) for blob in remaining if blob.md5 and not blob.sha256)
        found.update(self._find_each(_BY_SHA256, version, with_sha256))
        found.update(self._find_each(_BY_MD5, version, with_md5))
        return found

    def _find_in_version(self, other: Version, blobs: Sequence[Blob], content: Content) -> dict[str, list[Duplicate]]:
        with_sha256 = {(blob.sha256, blob.size) for blob in blobs if blob.sha256}
        with_md5 = {(blob.md5, blob.size) for blob in blobs if not blob.sha256}
        by_digest: dict[tuple[bytes | None, int], Duplicate] = {}
        is_any_usable = content is Content.DECODED or other.content is content
        for duplicate in self._query_version(other, "sha256", with_sha256, is_any_usable=is_any_usable):
            by_digest[duplicate.stored.stored_sha256, duplicate.stored.blob.size] = duplicate
        for duplicate in self._query_version(other, "md5", with_md5, is_any_usable=is_any_usable):
            by_digest[duplicate.stored.blob.md5, duplicate.stored.blob.size] = duplicate
        digest_by_name = {blob.name: (blob.sha256 or blob.md5, blob.size) for blob in blobs}
        return {name: [by_digest[digest]] for name, digest in digest_by_name.items() if digest in by_digest}

    def _query_version(
        self, other: Version, column: str, contents: Iterable[tuple[bytes | None, int]], *, is_any_usable: bool
    ) -> list[Duplicate]:
        """Read one file of a version for each of these digests; `is_any_usable`: also if it is stored unpacked."""
        digests = [digest for digest, _ in contents]
        if not digests:
            return []
        sql = _IN_VERSION.format(column, ", ".join(["(?)"] * len(digests)))
        return [_read_duplicate(other, row) for row in self._database.query(sql, *digests, other.serial, is_any_usable)]

    def find_by_sha256(self, version: Version, stored: Sequence[StoredFile]) -> dict[str, list[Duplicate]]:
        """Find duplicates of stored files by size and SHA-256. Returns them by name."""
        return self._find_each(
            _BY_SHA256, version, ((one.blob.name, one.stored_sha256, one.blob.size) for one in stored if one.sha256)
        )

    def _find_each(
        self, sql: str, version: Version, contents: Iterable[tuple[str, bytes, int]]
    ) -> dict[str, list[Duplicate]]:
        others = {other.serial: other for other in self._database.versions() if other.serial != version.serial}
        found: dict[str, list[Duplicate]] = {}
        parameters = version.serial, version.content is Content.DECODED
        for name, digest, size in contents if others else ():
            older, newer = (
                self._database.query(sql.format(range_), digest, size, *parameters) for range_ in _OTHER_VERSION_RANGES
            )
            duplicates = [_read_duplicate(others[row[0]], row) for row in (*newer, *older)]
            if duplicates:
                found[name] = duplicates
        return found

    def count_reusable_bytes(self, version: Version, *, after: int | None = None) -> int:
        """Sum the bytes of wanted files that other versions have stored, by size and digest.

        `after`: only the files with greater numbers.
        """
        if not any(other.serial != version.serial for other in self._database.versions()):
            return 0
        values = (version.content is Content.DECODED, version.serial, *([] if after is None else [after]))
        selected = _OF_VERSION if after is None else _OF_NEW_ROWS
        count: int = self._database.query(_SUM_REUSABLE_BYTES.format(selected), *values)[0][0]
        return count

    def copy_references(self, version: Version, duplicates: Iterable[Duplicate]) -> None:
        """Copy the references of duplicates with the same names, in place of the known ones."""
        sql = (
            "INSERT OR IGNORE INTO reference SELECT ?, source, target, role, name, 0 FROM reference"
            " WHERE version=? AND source=? AND grown=0"
        )
        pairs = [(duplicate.version.serial, duplicate.stored.blob.name) for duplicate in duplicates]
        with self._database.transaction() as db:
            self._references.delete(db, version, (name for _, name in pairs))
            db.executemany(sql, ((version.serial, serial, self._database.key(name)) for serial, name in pairs))


def _read_duplicate(version: Version, row: Sequence[Any]) -> Duplicate:
    _, kind, implicit, has_references, has_diagnostics, *columns = row
    return Duplicate(
        version, read_stored_file(columns), Kind(kind), bool(implicit), bool(has_references), bool(has_diagnostics)
    )
