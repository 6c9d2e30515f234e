"""Where all versions share one place: what others left there under names that one does not have."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from tilesync.catalog.schema import STORED, STORED_BLOB_COLUMNS, read_stored_file
from tilesync.model import FileStamp, StoredFile, Version

if TYPE_CHECKING:
    from tilesync.catalog.catalog import SqliteCatalog

_IS_STALE = "state=1 AND NOT EXISTS (SELECT 1 FROM blob n WHERE n.version=?1 AND n.key=blob.key AND n.state=1)"


class StaleFiles:
    """The leftovers of the versions of one catalog."""

    def __init__(self, catalog: SqliteCatalog) -> None:
        self._catalog = catalog

    def list_stale(
        self, other: Version, version: Version, after: str = "", *, limit: int
    ) -> list[tuple[int, StoredFile]]:
        """What `other` holds under names that `version` does not hold, each with its id; by key in byte order, `after`
        the key of a name, which is exclusive.
        """
        sql = f"SELECT id, {STORED_BLOB_COLUMNS} FROM blob WHERE version=?2 AND key>?3 AND {_IS_STALE} ORDER BY key LIMIT ?4"
        rows = self._catalog.query(sql, version.serial, other.serial, self._catalog.key(after), limit)
        return [(row[0], read_stored_file(row[1:])) for row in rows]

    def has_files_below(self, version: Version, name: str) -> bool:
        """Whether the version holds files in a folder of that name."""
        sql = "SELECT 1 FROM blob WHERE version=? AND state=? AND key>? AND key<? LIMIT 1"
        key = self._catalog.key(name)
        return bool(self._catalog.query(sql, version.serial, STORED, key + "/", key + "0"))

    def drop_superseded(self, version: Version) -> None:
        """Give up what other versions hold where this one has taken their place: only what they left under other names
        is known on.
        """
        with self._catalog.transaction() as db:
            others = "version IN (SELECT serial FROM version WHERE serial<>?1)"
            db.execute(f"DELETE FROM blob WHERE {others} AND NOT ({_IS_STALE})", (version.serial,))
            for table in ("folder", "reference", "remark"):
                db.execute(f"DELETE FROM {table} WHERE version<>?", (version.serial,))

    def drop(self, ids: Iterable[int]) -> None:
        """Forget some of them, by id."""
        with self._catalog.transaction() as db:
            db.executemany("DELETE FROM blob WHERE id=?", ((number,) for number in ids))

    def find_stamps(self, name: str) -> list[tuple[FileStamp, bytes | None]]:
        """How versions left a file of that name in its place: its trace, and its SHA-256 where it is held still."""
        sql = (
            "SELECT b.mtime_ns, b.inode, iif(b.state=1, coalesce(b.lying_sha256, b.sha256), NULL)"
            " FROM version v CROSS JOIN blob b ON b.version=v.serial AND b.key=? WHERE b.mtime_ns IS NOT NULL"
        )
        return [
            (FileStamp(mtime, inode or 0), sha256)
            for mtime, inode, sha256 in self._catalog.query(sql, self._catalog.key(name))
        ]
