"""The catalog: the embedded SQLite state of a destination.

It holds versions, their inventory, which of it is held, and which file asks for which. Memory stays flat however many
blobs there are. Writes come in batches, each one transaction; a kill loses the batch under way and nothing else.
Deleting the file costs a re-check, never data: everything in it can be told again by the listing, the manifests and the
bytes.
"""

from __future__ import annotations

import json
import sqlite3
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tilesync.errors import DestinationError, Incomplete
from tilesync.model import UNKNOWN, Arrival, Blob, Completeness, Held, Inventory, Totals, Version
from tilesync.stores.database import Database
from tilesync.stores.references import REFERENCE_SCHEMA, References

SCHEMA_VERSION = 2

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version (
  serial INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, export TEXT NOT NULL, imodel TEXT, changeset TEXT,
  modified TEXT NOT NULL, record TEXT NOT NULL, listing INTEGER NOT NULL,
  listed INTEGER NOT NULL DEFAULT 0, marker TEXT,
  damaged INTEGER NOT NULL DEFAULT 0, published TEXT, files INTEGER NOT NULL DEFAULT 0,
  bytes INTEGER NOT NULL DEFAULT 0, manifest_sha256 TEXT, inventory TEXT NOT NULL, home TEXT NOT NULL,
  referenced INTEGER NOT NULL, missing INTEGER NOT NULL, orphans INTEGER NOT NULL, unfollowed INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS blob (
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL, key TEXT NOT NULL, name TEXT, size INTEGER,
  etag TEXT NOT NULL, md5 BLOB, content_type TEXT, content_encoding TEXT, last_modified INTEGER,
  listing INTEGER NOT NULL, state INTEGER NOT NULL, sha256 BLOB, mtime_ns INTEGER,
  kind TEXT NOT NULL DEFAULT '', implicit INTEGER NOT NULL DEFAULT 0);
CREATE UNIQUE INDEX IF NOT EXISTS blob_key ON blob (version, key);
CREATE INDEX IF NOT EXISTS blob_wanted ON blob (version, listing) WHERE state=0;
CREATE INDEX IF NOT EXISTS blob_implicit ON blob (version) WHERE implicit=1;
CREATE TABLE IF NOT EXISTS folder (version INTEGER NOT NULL, key TEXT NOT NULL, listing INTEGER NOT NULL,
  PRIMARY KEY (version, key))
  WITHOUT ROWID;
"""
"""A blob without a size is known by its name alone: a walk found it, and no answer has described it yet."""

WANTED, HELD, MISSING = 0, 1, 3
"""A missing blob is one that a file asks for and that the container does not have: no part of the inventory."""

_BLOB = f"coalesce(name, key), coalesce(size, {UNKNOWN}), etag, md5, content_type, content_encoding, last_modified"
_VERSION = (
    "serial, name, export, imodel, changeset, modified, record, listing, listed, marker, damaged, published,"
    " files, bytes, manifest_sha256, inventory, home, referenced, missing, orphans, unfollowed"
)


class Catalog(Database):
    """Each method is one transaction, and safe to call from any thread."""

    def __init__(self, path: Path, *, read_only: bool = False) -> None:
        super().__init__(path, SCHEMA + REFERENCE_SCHEMA, version=SCHEMA_VERSION, read_only=read_only)
        self.folds = self.recall("folds") == "yes"
        self.references = References(self)

    def set_folds(self, *, folds: bool) -> None:
        """The disk takes names that differ only in case for the same, or does not."""
        if folds != self.folds:
            self.remember("folds", "yes" if folds else "no")
            self.folds = folds

    def key(self, name: str) -> str:
        """What two names share that cannot both be held."""
        return unicodedata.normalize("NFC", name).casefold() if self.folds else name

    # --- versions ---

    def versions(self, *, export: str | None = None, name: str | None = None) -> list[Version]:
        """The versions in the order in which they were begun."""
        sql = f"SELECT {_VERSION} FROM version WHERE export = coalesce(?, export) AND name = coalesce(?, name)"
        return [_version(row) for row in self.query(sql + " ORDER BY serial", export, name)]

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
            *_more(version),
        )
        with self.transaction() as db:
            columns = (
                "name,export,imodel,changeset,modified,record,listing,listed,published,files,bytes,manifest_sha256,"
                "inventory,home,referenced,missing,orphans,unfollowed"
            )
            cursor = db.execute(f"INSERT INTO version ({columns}) VALUES ({','.join('?' * len(row))})", row)
            return replace(version, serial=cursor.lastrowid or 0)

    def update(self, version: Version) -> None:
        """Record what changed about a version."""
        with self.transaction() as db:
            db.execute(
                "UPDATE version SET modified=?, record=?, listing=?, listed=?, marker=?, damaged=?, published=?,"
                " files=?, bytes=?, manifest_sha256=?, inventory=?, home=?, referenced=?, missing=?, orphans=?,"
                " unfollowed=? WHERE serial=?",
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
                    *_more(version),
                    version.serial,
                ),
            )

    def forget(self, version: Version) -> None:
        """Drop a version that never held anything."""
        with self.transaction() as db:
            for table in ("blob", "folder", "reference", "remark"):
                db.execute(f"DELETE FROM {table} WHERE version = ?", (version.serial,))
            db.execute("DELETE FROM version WHERE serial = ?", (version.serial,))

    # --- inventory ---

    def held_among(self, version: Version, names: Sequence[str]) -> dict[str, Held]:
        """What of these this version holds, by name."""
        found: dict[str, Held] = {}
        for start in range(0, len(names), 500):
            some = {name: self.key(name) for name in names[start : start + 500]}
            sql = f"SELECT key, {_HELD} FROM blob WHERE version=? AND state=? AND key IN ({','.join('?' * len(some))})"
            rows = {row[0]: _held(row[1:]) for row in self.query(sql, version.serial, HELD, *some.values())}
            found.update((name, rows[key]) for name, key in some.items() if key in rows)
        return found

    def add_page(self, version: Version, rows: Sequence[tuple[Blob, Held | None]], folders: Iterable[str]) -> None:
        """Take in one page: each blob with what is held of it, the folders, and the next marker.

        A name that an earlier listing had moves behind all others: readers go by id. Raises Incomplete, and takes in
        nothing, when this listing has a name twice.
        """
        values = [_row(version, self.key(blob.name), blob, held) for blob, held in rows]
        kept = [self.key(blob.name) for blob, held in rows if held is not None]
        with self.transaction() as db:
            kinds = _kinds(db, version, kept) if version.listing > 1 else []
            if version.listing > 1:
                keys = ((version.serial, version.listing, self.key(blob.name)) for blob, _ in rows)
                db.executemany("DELETE FROM blob WHERE version=? AND listing<? AND key=?", keys)
            before = db.total_changes
            db.executemany(_INSERT, values)
            if db.total_changes - before < len(values):
                raise Incomplete(
                    f"the listing names a file twice: {self._twice(blob.name for blob, _ in rows)}",
                    hint="nothing was published; the next run lists the container anew",
                )
            db.executemany("UPDATE blob SET kind=?, implicit=? WHERE version=? AND key=?", kinds)
            around = ((version.serial, self.key(folder), version.listing) for folder in folders)
            db.executemany("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", around)
            db.execute("UPDATE version SET marker=? WHERE serial=?", (version.marker, version.serial))

    def _twice(self, names: Iterable[str]) -> str:
        seen: dict[str, str] = {}
        for name in names:
            if other := seen.get(self.key(name)):
                return name if other == name else f"{other} and {name}, which are one on this disk"
            seen[self.key(name)] = name
        return "one that an earlier page had"

    def add_held(self, version: Version, arrivals: Sequence[Arrival]) -> None:
        """Take in files that were read where they lie, with what they ask for; their numbers mean nothing.

        Raises Incomplete, and takes in nothing, when a name comes twice.
        """
        with self.transaction() as db:
            for arrival in arrivals:
                held, reading = arrival.held, arrival.reading
                row = _row(version, self.key(held.blob.name), held.blob, held)
                added = db.execute(_INSERT, row)
                if not added.rowcount:
                    raise Incomplete(f"a file is named twice: {held.blob.name}")
                said = (reading.kind, reading.implicit, added.lastrowid)
                db.execute("UPDATE blob SET kind=?, implicit=? WHERE id=?", said)
            self._read(db, version, arrivals)

    def _read(self, db: sqlite3.Connection, version: Version, arrivals: Sequence[Arrival]) -> None:
        """Take in what these files ask for in place of what was said of them before."""
        self.references.void(db, version, (each.held.blob.name for each in arrivals if not each.partly))
        self.references.write(db, version, [(each.held.blob.name, each.reading) for each in arrivals])

    def finish_listing(self, version: Version) -> list[str]:
        """Mark the listing complete; return the names that an earlier listing had and this one has not.

        Folder placeholders (empty blobs that are a folder of others) leave the inventory. Raises DestinationError when
        a name is both a file and a folder.
        """
        this = (version.serial, version.listing)
        old = "version=? AND listing < ?"
        both = "version=? AND EXISTS (SELECT 1 FROM folder f WHERE f.version=blob.version AND f.key=blob.key)"
        with self.transaction() as db:
            names = [row[0] for row in db.execute(f"SELECT coalesce(name, key) FROM blob WHERE {old}", this)]
            self.references.void(db, version, names)
            db.execute(f"DELETE FROM blob WHERE {old}", this)
            db.execute(f"DELETE FROM folder WHERE {old}", this)
            clashes = db.execute(f"SELECT coalesce(name, key) FROM blob WHERE {both} AND size > 0", this[:1])
            if shown := [row[0] for row in clashes.fetchmany(5)]:
                raise DestinationError(f"a name is both a file and a folder: {', '.join(shown)}")
            db.execute(f"DELETE FROM blob WHERE {both}", this[:1])
            db.execute("UPDATE version SET listed=1, marker=NULL WHERE serial=?", this[:1])
        return names

    def wanted(self, version: Version, after: int, *, limit: int, empty: bool | None = None) -> list[tuple[int, Blob]]:
        """Blobs of the current listing that are not held, in listed order, each with its id; `after` is exclusive.

        `empty` chooses between blobs without bytes and the others: the former may turn out to be folders.
        """
        sql = (
            f"SELECT id, {_BLOB} FROM blob WHERE version=? AND listing=? AND state={WANTED} AND id>?"
            " AND coalesce((size IS 0)=?, 1) ORDER BY id LIMIT ?"
        )
        rows = self.query(sql, version.serial, version.listing, after, empty, limit)
        return [(row[0], Blob(*row[1:])) for row in rows]

    def held(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, Held]]:
        """What is held, by key in byte order; `after` is exclusive."""
        sql = f"SELECT key, {_HELD} FROM blob WHERE version=? AND state=? AND key>? ORDER BY key LIMIT ?"
        return [(row[0], _held(row[1:])) for row in self.query(sql, version.serial, HELD, after, limit)]

    def documents(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, Held]]:
        """What is held of tilesets and subtrees, by key in byte order; `after` is exclusive."""
        sql = (
            f"SELECT key, {_HELD} FROM blob WHERE version=? AND state=? AND kind IN ('tileset', 'subtree') AND key>?"
            " ORDER BY key LIMIT ?"
        )
        return [(row[0], _held(row[1:])) for row in self.query(sql, version.serial, HELD, after, limit)]

    def hold(self, version: Version, arrivals: Sequence[Arrival]) -> int:
        """Record files that are in place now, with what they ask for; how many names a walk learns by that."""
        with self.transaction() as db:
            db.executemany(_HOLD, (_arrived(arrival) for arrival in arrivals))
            self._read(db, version, arrivals)
            walks = version.inventory == Inventory.WALK
            naming = [a.held.blob.name for a in arrivals if walks and (a.reading.references or a.partly)]
            return sum(self._want_what(db, version, name) for name in naming)

    def want(self, version: Version, name: str) -> None:
        """A walk wants one file, known by its name alone, unless it knows it already."""
        with self.transaction() as db:
            self._forget_older(db, version, "VALUES (?)", (self.key(name),))
            written = None if self.key(name) == name else name
            db.execute(_WANT, (version.serial, version.listing, self.key(name), written))

    def want_what(self, version: Version, source: str) -> int:
        """A walk wants everything that one file asks for; how much of that is new."""
        with self.transaction() as db:
            return self._want_what(db, version, source)

    def _want_what(self, db: sqlite3.Connection, version: Version, source: str) -> int:
        asked = (version.serial, self.key(source))
        if version.listing > 1:
            self._forget_older(db, version, "SELECT target FROM reference WHERE version=? AND source=?", asked)
        return db.execute(_WANT_EACH, (version.serial, version.listing, *asked)).rowcount

    def _forget_older(self, db: sqlite3.Connection, version: Version, keys: str, values: Sequence[object]) -> None:
        """What an older walk knew of these names is wanted anew: readers go by id, so it leaves its old place."""
        older = (version.serial, version.listing)
        db.execute(f"DELETE FROM blob WHERE version=? AND listing<? AND key IN ({keys})", (*older, *values))

    def miss(self, version: Version, numbers: Iterable[int]) -> None:
        """Record that the container does not have what a walk asked it for: what was said by it before is void."""
        with self.transaction() as db:
            for number in numbers:
                db.execute(f"UPDATE blob SET state={MISSING} WHERE id=?", (number,))
                named = db.execute("SELECT coalesce(name, key) FROM blob WHERE id=?", (number,)).fetchone()
                self.references.void(db, version, named)

    def ask_again(self, version: Version) -> None:
        """What was missing may be there now."""
        with self.transaction() as db:
            db.execute(f"UPDATE blob SET state={WANTED} WHERE version=? AND state={MISSING}", (version.serial,))

    def release(self, version: Version, names: Iterable[str]) -> None:
        """Record that files are not held, or not rightly: they are wanted again."""
        rows = [(version.serial, self.key(name)) for name in names]
        with self.transaction() as db:
            db.executemany("UPDATE blob SET state=0, sha256=NULL WHERE version=? AND key=?", rows)

    def totals(self, version: Version) -> Totals:
        """How much of the version is listed, and how much of that is held."""
        sql = (
            "SELECT count(*), coalesce(sum(size), 0), coalesce(sum(state=?1), 0), coalesce(sum(size * (state=?1)), 0)"
            f" FROM blob WHERE version=?2 AND state<>{MISSING}"
        )
        return Totals(*self.query(sql, HELD, version.serial)[0])


_HELD = _BLOB + ", sha256, mtime_ns"

_INSERT = """
INSERT INTO blob (version, listing, key, name, size, etag, md5, content_type, content_encoding, last_modified,
                  state, sha256, mtime_ns)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""

_HOLD = """
UPDATE blob SET state=1, size=?, etag=?, md5=?, content_type=?, content_encoding=?, last_modified=?, sha256=?,
                mtime_ns=?, kind=?, implicit=? WHERE id=?
"""

_WANT = f"INSERT OR IGNORE INTO blob (version, listing, key, name, etag, state) VALUES (?, ?, ?, ?, '', {WANTED})"
_WANT_EACH = f"""
INSERT OR IGNORE INTO blob (version, listing, key, name, etag, state)
SELECT ?, ?, target, name, '', {WANTED} FROM reference WHERE version=? AND source=?
"""


def _kinds(db: sqlite3.Connection, version: Version, keys: Sequence[str]) -> list[tuple[object, ...]]:
    """Of those files that are tilesets and the like: kind, whether it is implicit, version and key."""
    sql = "SELECT kind, implicit, version, key FROM blob WHERE version=? AND key=? AND kind<>''"
    return [row for key in keys for row in db.execute(sql, (version.serial, key))]


def _arrived(arrival: Arrival) -> tuple[object, ...]:
    blob, reading = arrival.held.blob, arrival.reading
    described = (blob.size, blob.etag, blob.md5, blob.content_type, blob.content_encoding, blob.last_modified)
    return (*described, arrival.held.sha256, arrival.held.mtime_ns, reading.kind, reading.implicit, arrival.number)


def _more(version: Version) -> tuple[object, ...]:
    counts = version.completeness
    found = (counts.referenced, counts.missing, counts.orphans, counts.unfollowed)
    return (version.inventory, version.home, *found)


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
    version = Version(*facts, listing, bool(listed), marker, bool(damaged), *rest[:-4])
    return replace(version, completeness=Completeness(*rest[-4:]))
