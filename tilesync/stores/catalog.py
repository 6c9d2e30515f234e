"""The catalog: the embedded SQLite state of a destination.

It holds versions, their inventory, and which of it is held. Memory stays flat however many blobs there are. Writes
come in batches, each one transaction; a kill loses the batch under way and nothing else. Deleting the file costs a
re-check, never data: everything in it can be told again by the listing, the manifests and the bytes.
"""

from __future__ import annotations

import json
import shutil
import sqlite3
import tempfile
import threading
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilesync.errors import DestinationError, DiskFull, Incomplete
from tilesync.model import Blob, Held, Totals, Version

SCHEMA_VERSION = 1

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version (
  serial INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, export TEXT NOT NULL, imodel TEXT, changeset TEXT,
  modified TEXT NOT NULL, record TEXT NOT NULL, listing INTEGER NOT NULL,
  listed INTEGER NOT NULL DEFAULT 0, marker TEXT,
  damaged INTEGER NOT NULL DEFAULT 0, published TEXT, files INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, manifest_sha256 TEXT);
CREATE TABLE IF NOT EXISTS blob (
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL, key TEXT NOT NULL, name TEXT, size INTEGER NOT NULL,
  etag TEXT NOT NULL, md5 BLOB, content_type TEXT, content_encoding TEXT, last_modified INTEGER,
  listing INTEGER NOT NULL, state INTEGER NOT NULL, sha256 BLOB, mtime_ns INTEGER);
CREATE UNIQUE INDEX IF NOT EXISTS blob_key ON blob (version, key);
CREATE TABLE IF NOT EXISTS folder (version INTEGER NOT NULL, key TEXT NOT NULL, listing INTEGER NOT NULL,
  PRIMARY KEY (version, key))
  WITHOUT ROWID;
"""

WANTED, HELD = 0, 1
_BLOB = "coalesce(name, key), size, etag, md5, content_type, content_encoding, last_modified"
_VERSION = (
    "serial, name, export, imodel, changeset, modified, record, listing, listed, marker, damaged, published,"
    " files, bytes, manifest_sha256"
)


class Catalog:
    """One connection, safe to call from any thread; each method is one transaction.

    `read_only` works on a copy. Raises DiskFull and DestinationError for what SQLite meets on the disk.
    """

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        self._lock = threading.RLock()
        self.fresh = not path.exists()
        self._copy = tempfile.TemporaryDirectory() if read_only else None
        with _mapped():
            self._db = _copied(path, self._copy.name) if self._copy else _connect(path)
        try:
            self._prepare()
        except BaseException:
            self.close()
            raise
        self.folds = self.recall("folds") == "yes"

    def _prepare(self) -> None:
        with _mapped():
            self._db.execute("PRAGMA journal_mode=WAL")
            self._db.execute("PRAGMA synchronous=NORMAL")
            self._db.executescript(SCHEMA)
        self._check_version()

    def _check_version(self) -> None:
        found = int(self.recall("schema") or 0)
        if found > SCHEMA_VERSION:
            raise DestinationError("the catalog was written by a newer tilesync", hint="upgrade tilesync")
        if found < SCHEMA_VERSION:
            self.remember("schema", str(SCHEMA_VERSION))

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock, _mapped():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # a full disk has ended it already
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        with self._lock, _mapped():
            return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        """Put everything in place and let go of the file."""
        with self._lock, _mapped():
            self._db.close()
            if self._copy is not None:
                self._copy.cleanup()

    def remember(self, key: str, value: str) -> None:
        """Keep one fact about the destination as a whole."""
        with self._transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def recall(self, key: str) -> str | None:
        """The fact kept under `key`, None when there is none."""
        rows = self._query("SELECT value FROM meta WHERE key = ?", key)
        return rows[0][0] if rows else None

    def set_folds(self, *, folds: bool) -> None:
        """The disk takes names that differ only in case for the same, or does not."""
        if folds != self.folds:
            self.remember("folds", "yes" if folds else "no")
            self.folds = folds

    def _key(self, name: str) -> str:
        """What two names share that cannot both be held."""
        return unicodedata.normalize("NFC", name).casefold() if self.folds else name

    # --- versions ---

    def versions(self, *, export: str | None = None, name: str | None = None) -> list[Version]:
        """The versions in the order in which they were begun."""
        sql = f"SELECT {_VERSION} FROM version WHERE export = coalesce(?, export) AND name = coalesce(?, name)"
        return [_version(row) for row in self._query(sql + " ORDER BY serial", export, name)]

    def begin(self, version: Version) -> Version:
        """Record a new version; its serial is given here."""
        row = (
            version.name,
            version.export,
            version.imodel,
            version.changeset,
            version.modified,
            json.dumps(dict(version.record)),
            version.listing,
            version.listed,
            version.published,
            version.files,
            version.bytes,
            version.manifest_sha256,
        )
        with self._transaction() as db:
            columns = (
                "name,export,imodel,changeset,modified,record,listing,listed,published,files,bytes,manifest_sha256"
            )
            cursor = db.execute(f"INSERT INTO version ({columns}) VALUES ({','.join('?' * len(row))})", row)
            return replace(version, serial=cursor.lastrowid or 0)

    def update(self, version: Version) -> None:
        """Record what changed about a version."""
        with self._transaction() as db:
            db.execute(
                "UPDATE version SET modified=?, record=?, listing=?, listed=?, marker=?, damaged=?, published=?,"
                " files=?, bytes=?, manifest_sha256=? WHERE serial=?",
                (
                    version.modified,
                    json.dumps(dict(version.record)),
                    version.listing,
                    version.listed,
                    version.marker,
                    version.damaged,
                    version.published,
                    version.files,
                    version.bytes,
                    version.manifest_sha256,
                    version.serial,
                ),
            )

    def forget(self, version: Version) -> None:
        """Drop a version that never held anything."""
        with self._transaction() as db:
            for table in ("blob", "folder"):
                db.execute(f"DELETE FROM {table} WHERE version = ?", (version.serial,))
            db.execute("DELETE FROM version WHERE serial = ?", (version.serial,))

    # --- inventory ---

    def held_among(self, version: Version, names: Sequence[str]) -> dict[str, Held]:
        """What of these this version holds, by name."""
        found: dict[str, Held] = {}
        for start in range(0, len(names), 500):
            some = {self._key(name): name for name in names[start : start + 500]}
            sql = f"SELECT key, {_HELD} FROM blob WHERE version=? AND state=? AND key IN ({','.join('?' * len(some))})"
            found.update((some[row[0]], _held(row[1:])) for row in self._query(sql, version.serial, HELD, *some))
        return found

    def add_page(self, version: Version, rows: Sequence[tuple[Blob, Held | None]], folders: Iterable[str]) -> None:
        """Take in one page: each blob with what is held of it, the folders, and the next marker.

        A name that an earlier listing had moves behind all others: readers go by id. Raises Incomplete, and takes in
        nothing, when this listing has a name twice.
        """
        values = [_row(version, self._key(blob.name), blob, held) for blob, held in rows]
        with self._transaction() as db:
            if version.listing > 1:
                keys = ((version.serial, version.listing, self._key(blob.name)) for blob, _ in rows)
                db.executemany("DELETE FROM blob WHERE version=? AND listing<? AND key=?", keys)
            before = db.total_changes
            db.executemany(_INSERT, values)
            if db.total_changes - before < len(values):
                raise Incomplete(
                    f"the listing names a file twice: {self._twice(blob.name for blob, _ in rows)}",
                    hint="nothing was published; the next run lists the container anew",
                )
            around = ((version.serial, self._key(folder), version.listing) for folder in folders)
            db.executemany("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", around)
            db.execute("UPDATE version SET marker=? WHERE serial=?", (version.marker, version.serial))

    def _twice(self, names: Iterable[str]) -> str:
        seen: dict[str, str] = {}
        for name in names:
            if other := seen.get(self._key(name)):
                return name if other == name else f"{other} and {name}, which are one on this disk"
            seen[self._key(name)] = name
        return "one that an earlier page had"

    def finish_listing(self, version: Version) -> list[str]:
        """Mark the listing complete; return the names that an earlier listing had and this one has not.

        Folder placeholders (empty blobs that are a folder of others) leave the inventory. Raises DestinationError when
        a name is both a file and a folder.
        """
        this = (version.serial, version.listing)
        old = "version=? AND listing < ?"
        both = "version=? AND EXISTS (SELECT 1 FROM folder f WHERE f.version=blob.version AND f.key=blob.key)"
        with self._transaction() as db:
            names = [row[0] for row in db.execute(f"SELECT coalesce(name, key) FROM blob WHERE {old}", this)]
            db.execute(f"DELETE FROM blob WHERE {old}", this)
            db.execute(f"DELETE FROM folder WHERE {old}", this)
            clashes = db.execute(f"SELECT coalesce(name, key) FROM blob WHERE {both} AND size > 0", this[:1])
            if shown := [row[0] for row in clashes.fetchmany(5)]:
                raise DestinationError(f"a name is both a file and a folder: {', '.join(shown)}")
            db.execute(f"DELETE FROM blob WHERE {both}", this[:1])
            db.execute("UPDATE version SET listed=1, marker=NULL WHERE serial=?", this[:1])
        return names

    def wanted(self, version: Version, after: int, *, limit: int, empty: bool) -> list[tuple[int, Blob]]:
        """Blobs of the current listing that are not held, in listed order, each with its id; `after` is exclusive.

        `empty` chooses between blobs without bytes and the others: the former may turn out to be folders.
        """
        sql = (
            f"SELECT id, {_BLOB} FROM blob WHERE version=? AND listing=? AND state=? AND id>? AND (size=0)=?"
            " ORDER BY id LIMIT ?"
        )
        rows = self._query(sql, version.serial, version.listing, WANTED, after, empty, limit)
        return [(row[0], Blob(*row[1:])) for row in rows]

    def held(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, Held]]:
        """What is held, by key in byte order; `after` is exclusive."""
        sql = f"SELECT key, {_HELD} FROM blob WHERE version=? AND state=? AND key>? ORDER BY key LIMIT ?"
        return [(row[0], _held(row[1:])) for row in self._query(sql, version.serial, HELD, after, limit)]

    def hold(self, held: Sequence[tuple[int, Held]]) -> None:
        """Record files that are in place now, by their ids."""
        with self._transaction() as db:
            db.executemany(
                "UPDATE blob SET state=1, sha256=?, mtime_ns=? WHERE id=?", ((h.sha256, h.mtime_ns, i) for i, h in held)
            )

    def release(self, version: Version, names: Iterable[str]) -> None:
        """Record that files are not held, or not rightly: they are wanted again."""
        rows = [(version.serial, self._key(name)) for name in names]
        with self._transaction() as db:
            db.executemany("UPDATE blob SET state=0, sha256=NULL WHERE version=? AND key=?", rows)

    def totals(self, version: Version) -> Totals:
        """How much of the version is listed, and how much of that is held."""
        sql = (
            "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(state), 0), coalesce(sum(size * state), 0)"
            " FROM blob WHERE version=?"
        )
        return Totals(*self._query(sql, version.serial)[0])


_HELD = _BLOB + ", sha256, mtime_ns"

_INSERT = """
INSERT INTO blob (version, listing, key, name, size, etag, md5, content_type, content_encoding, last_modified,
                  state, sha256, mtime_ns)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""


def _row(version: Version, key: str, blob: Blob, held: Held | None) -> tuple[object, ...]:
    name = None if blob.name == key else blob.name
    described = (blob.size, blob.etag, blob.md5, blob.content_type, blob.content_encoding, blob.last_modified)
    state = (WANTED, None, None) if held is None else (HELD, held.sha256, held.mtime_ns)
    return (version.serial, version.listing, key, name, *described, *state)


def _held(row: Sequence[Any]) -> Held:
    return Held(Blob(*row[:7]), row[7], row[8])


def _version(row: Sequence[Any]) -> Version:
    serial, name, export, imodel, changeset, modified, record, listing, listed, marker, damaged, *rest = row
    facts = (serial, name, export, imodel, changeset, modified, json.loads(record))
    return Version(*facts, listing, bool(listed), marker, bool(damaged), *rest)


def _connect(path: Path) -> sqlite3.Connection:
    """A connection to the file."""
    if path.is_symlink():
        raise DestinationError(f"a symlink stands where the catalog should be: {path}", hint="remove it")
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)


def _copied(path: Path, folder: str) -> sqlite3.Connection:
    """A connection to a copy of the file in `folder`: not even SQLite's side files of the file itself are touched."""
    for side in (path, path.with_name(path.name + "-wal")):
        if side.exists():
            shutil.copyfile(side, Path(folder) / side.name)
    return _connect(Path(folder) / path.name)


@contextmanager
def _mapped() -> Iterator[None]:
    """SQLite's errors in our terms."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
            raise DiskFull(f"the catalog cannot be written ({error})") from error
        raise DestinationError(f"the catalog cannot be used ({error})") from error
    except sqlite3.DatabaseError as error:
        raise DestinationError(
            f"the catalog is damaged ({error})",
            hint="delete catalog.sqlite3 in the state folder: the next run checks what is held, and loses nothing",
        ) from error
