"""What a listing of an object store told of one version, kept on the disk as long as a run lasts."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Iterable, Sequence
from pathlib import Path

from tilesync.catalog.sqlite import Database
from tilesync.model import Blob, Held
from tilesync.model.storage import Found

_SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS object (version TEXT NOT NULL, name TEXT NOT NULL, size INTEGER NOT NULL,
  etag TEXT NOT NULL, md5 BLOB, PRIMARY KEY (version, name)) WITHOUT ROWID;
"""
_TOGETHER = 500


def number_of(etag: str) -> int:
    """A number that stands for an ETag, below 2^63."""
    return int.from_bytes(hashlib.sha256(etag.encode()).digest()[:8], "big") >> 1


class Listed:
    """The objects of some versions, each as it was listed. Safe from any thread."""

    def __init__(self) -> None:
        self._folder: tempfile.TemporaryDirectory[str] | None = None
        self._database: Database | None = None

    def _db(self) -> Database:
        if self._database is None:
            self._folder = tempfile.TemporaryDirectory(prefix="tilesync-")
            path = Path(self._folder.name, "listed.sqlite3")
            self._database = Database(path, _SCHEMA, version=1, read_only=False, lasting=False)
        return self._database

    def take(self, version: str, pages: Iterable[Sequence[Found]]) -> None:
        """Take in the whole listing of a version, in place of an earlier one; its names relative to the version."""
        with self._db().transaction() as db:
            db.execute("DELETE FROM object WHERE version=?", (version,))
        for page in pages:
            rows = [(version, each.name, each.size, each.etag, each.md5) for each in page]
            with self._db().transaction() as db:
                db.executemany("INSERT OR REPLACE INTO object VALUES (?, ?, ?, ?, ?)", rows)

    def among(self, version: str, names: Sequence[str]) -> dict[str, Found]:
        """Those of some names that are there."""
        found: dict[str, Found] = {}
        for start in range(0, len(names), _TOGETHER):
            some = names[start : start + _TOGETHER]
            places = ", ".join("?" * len(some))
            sql = f"SELECT name, size, etag, md5 FROM object WHERE version=? AND name IN ({places})"
            found.update((row[0], Found._make(row)) for row in self._db().query(sql, version, *some))
        return found

    def close(self) -> None:
        """Forget everything."""
        if self._database is not None:
            self._database.close()
        if self._folder is not None:
            self._folder.cleanup()


def is_same(held: Held, there: Found | None) -> bool:
    """Whether an object is what was left there: by its ETag, else by its MD5."""
    if there is None or there.size != held.size:
        return False
    return number_of(there.etag) == held.mtime_ns or (held.blob.md5 is not None and there.md5 == held.blob.md5)


def is_listed(blob: Blob, there: Found | None) -> bool:
    """Whether an object has the size and the MD5 of a blob."""
    return there is not None and blob.md5 is not None and (there.size, there.md5) == (blob.size, blob.md5)
