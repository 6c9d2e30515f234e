"""Cache of listed objects, in a temporary database that lasts as long as the run."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tilesync.catalog.sqlite import Database
from tilesync.model import Blob, StoredFile
from tilesync.model.storage import ObjectInfo

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (version TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
  etag TEXT NOT NULL, md5 BLOB, PRIMARY KEY (version, name)) WITHOUT ROWID;
"""
_NAMES_PER_QUERY = 500


def hash_etag(etag: str) -> int:
    """Return a number below 2^63 for an ETag: the catalog stores it as the stamp of a file."""
    return int.from_bytes(hashlib.sha256(etag.encode()).digest()[:8], "big") >> 1


class ListingCache:
    """The listed objects of some versions, on disk. Safe from any thread."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._database: Database | None = None

    def _db(self) -> Database:
        if self._database is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tilesync-")
            path = Path(self._folder.name, "listed.sqlite3")
            self._database = Database(path, _SCHEMA, schema_version=1, read_only=False, is_persistent=False)
        return self._database

    def replace_listing(self, version: str, pages: Iterable[Sequence[ObjectInfo]]) -> None:
        """Store the whole listing of a version in place of an earlier one. Names are relative to the version."""
        with self._db().transaction() as db:
            db.execute("DELETE FROM object WHERE version=?", (version,))
        for page in pages:
            rows = [(version, each.name, each.size, each.etag, each.md5) for each in page]
            with self._db().transaction() as db:
                db.executemany("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)", rows)

    def find_many(self, version: str, names: Sequence[str]) -> dict[str, ObjectInfo]:
        """Return the listed objects with these names; missing names are left out."""
        found: dict[str, ObjectInfo] = {}
        for start in range(0, len(names), _NAMES_PER_QUERY):
            batch = names[start : start + _NAMES_PER_QUERY]
            places = ", ".join("?" * len(batch))
            sql = f"SELECT name, size, etag, md5 FROM object WHERE version=? AND name IN ({places})"
            found.update((row[0], ObjectInfo._make(row)) for row in self._db().query(sql, version, *batch))
        return found

    def close(self) -> None:
        """Delete the database."""
        if self._database is not None:
            self._database.close()
        if self._folder is not None:
            self._folder.cleanup()


def is_unchanged(stored: StoredFile, info: ObjectInfo | None) -> bool:
    """Return whether an object is the stored file: by size and ETag, or else by size and MD5."""
    if info is None or info.size != stored.size:
        return False
    return hash_etag(info.etag) == stored.mtime_ns or (stored.blob.md5 is not None and info.md5 == stored.blob.md5)


def has_same_md5(blob: Blob, info: ObjectInfo | None) -> bool:
    """Return whether an object has the size and the MD5 of a blob."""
    return info is not None and blob.md5 is not None and (info.size, info.md5) == (blob.size, blob.md5)
