"""Stale files: files that older versions left in a folder that all versions share."""

from __future__ import annotations

from collections.abc import Iterable

from tilesync.catalog.schema import STORED, STORED_BLOB_COLUMNS, CatalogDatabase, read_stored_file
from tilesync.model import FileStamp, StoredFile, Version

_IS_STALE = "state=1 AND NOT EXISTS (SELECT 1 FROM blob n WHERE n.version=?1 AND n.key=blob.key AND n.state=1)"


class StaleFileIndex:
    """Index of files that older versions left in a shared folder, under names that a version does not have."""

    def __init__(self, database: CatalogDatabase) -> None:
        self._database = database

    def list_stale(
        self, other: Version, version: Version, after: str = "", *, limit: int
    ) -> list[tuple[int, StoredFile]]:
        """List files that `other` has stored under names that `version` has not, with their row ids.

        The list is in byte order of the keys, and begins after the name `after`.
        """
        sql = (
            f"SELECT id, {STORED_BLOB_COLUMNS} FROM blob WHERE version=?2 AND key>?3 AND {_IS_STALE}"
            " ORDER BY key LIMIT ?4"
        )
        rows = self._database.query(sql, version.serial, other.serial, self._database.key(after), limit)
        return [(row[0], read_stored_file(row[1:])) for row in rows]

    def has_files_below(self, version: Version, name: str) -> bool:
        """Return whether the version has stored files in a folder of that name."""
        sql = "SELECT 1 FROM blob WHERE version=? AND state=? AND key>? AND key<? LIMIT 1"
        key = self._database.key(name)
        return bool(self._database.query(sql, version.serial, STORED, key + "/", key + "0"))

    def drop_superseded(self, version: Version) -> None:
        """Delete the rows of other versions, which this version has replaced, except those of stale files."""
        with self._database.transaction() as db:
            others = "version IN (SELECT serial FROM version WHERE serial<>?1)"
            db.execute(f"DELETE FROM blob WHERE {others} AND NOT ({_IS_STALE})", (version.serial,))
            for table in ("folder", "reference", "remark"):
                db.execute(f"DELETE FROM {table} WHERE version<>?", (version.serial,))

    def drop(self, ids: Iterable[int]) -> None:
        """Delete rows by id."""
        with self._database.transaction() as db:
            db.executemany("DELETE FROM blob WHERE id=?", ((number,) for number in ids))

    def find_stamps(self, name: str) -> list[tuple[FileStamp, bytes | None]]:
        """List the stamps that versions recorded for a file of that name, with its SHA-256 where it is still stored."""
        sql = (
            "SELECT b.mtime_ns, b.inode, iif(b.state=1, coalesce(b.lying_sha256, b.sha256), NULL)"
            " FROM version v CROSS JOIN blob b ON b.version=v.serial AND b.key=? WHERE b.mtime_ns IS NOT NULL"
        )
        return [
            (FileStamp(mtime, inode or 0), sha256)
            for mtime, inode, sha256 in self._database.query(sql, self._database.key(name))
        ]
