"""The catalog: the embedded SQLite state of a destination.

It holds versions, their inventory, which of it is held, and which file asks for which. Memory stays flat however many
blobs there are. Writes come in batches, each one transaction; a kill loses the batch under way and nothing else.
Deleting the file costs a re-check, never data: everything in it can be told again by the listing, the manifests and the
bytes.
"""

from __future__ import annotations

import sqlite3
import unicodedata
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from tilesync.catalog.duplicates import Duplicates
from tilesync.catalog.references import REFERENCE_SCHEMA, References
from tilesync.catalog.schema import (
    EXCLUDED,
    INSERT_BLOB,
    MARK_BLOB_STORED,
    MARK_BLOB_UNPACKED,
    MIGRATIONS,
    MISSING,
    SCHEMA,
    STORED,
    STORED_BLOB_COLUMNS,
    WANTED,
    WANTED_BLOB_COLUMNS,
    blob_row,
    file_result_row,
    read_stored_file,
    read_version,
    unpacked_row,
    version_row,
)
from tilesync.catalog.sqlite import Database
from tilesync.catalog.stale_files import StaleFiles
from tilesync.core.filters import glob_matcher
from tilesync.core.safe_names import list_parent_folders, raise_file_folder_clash
from tilesync.errors import Incomplete
from tilesync.model import Blob, Content, FileResult, Inventory, Kind, StoredFile, Totals, Version

SCHEMA_VERSION = 4
SCHEMA_VERSIONS = frozenset({*MIGRATIONS, SCHEMA_VERSION})
"""Those that a catalog can be opened with, and keeps what it holds."""


class SqliteCatalog(Database):
    """Each method is one transaction, and safe to call from any thread."""

    def __init__(self, path: Path, *, read_only: bool = False, is_persistent: bool = True) -> None:
        schema = SCHEMA + REFERENCE_SCHEMA
        super().__init__(
            path,
            schema,
            schema_version=SCHEMA_VERSION,
            migrations=MIGRATIONS,
            read_only=read_only,
            is_persistent=is_persistent,
        )
        self.is_case_insensitive = self.get_value("folds") == "yes"
        self.has_folders = True
        """Whether the place has folders: it cannot hold a file that has the name of one, then."""
        self.references = References(self)
        self.duplicates = Duplicates(self)
        self.stale_files = StaleFiles(self)

    def set_case_insensitive(self, *, is_case_insensitive: bool) -> None:
        """The disk takes names that differ only in case for the same, or does not."""
        if is_case_insensitive != self.is_case_insensitive:
            self.set_value("folds", "yes" if is_case_insensitive else "no")
            self.is_case_insensitive = is_case_insensitive

    def key(self, name: str) -> str:
        """What two names share that cannot both be held."""
        return unicodedata.normalize("NFC", name).casefold() if self.is_case_insensitive else name

    # --- versions ---

    def versions(self, *, export: str | None = None, name: str | None = None, retired: bool = False) -> list[Version]:
        """The versions in the order in which they were begun; with `retired` also those that were given up."""
        sql = (
            "SELECT * FROM version WHERE export = coalesce(?, export) AND name = coalesce(?, name)"
            " AND (? OR retired IS NULL) ORDER BY serial"
        )
        with self.translate_value_errors():
            return [read_version(row) for row in self.query(sql, export, name, retired)]

    def is_vacant(self) -> bool:
        """Whether no version is finished, and none lists or holds anything; what a walk only wants does not count."""
        some = f"b.version=v.serial AND (b.state={STORED} OR v.inventory=?)"
        sql = (
            "SELECT 1 FROM version v WHERE retired IS NULL"
            f" AND (published IS NOT NULL OR EXISTS (SELECT 1 FROM blob b WHERE {some})) LIMIT 1"
        )
        with self.translate_value_errors():
            return not self.query(sql, Inventory.LIST)

    def add_version(self, version: Version) -> Version:
        """Record a new version; its serial is given here."""
        row = version_row(version)
        with self.transaction() as db:
            places = ", ".join("?" * len(row))
            cursor = db.execute(f"INSERT INTO version ({', '.join(row)}) VALUES ({places})", (*row.values(),))
            return replace(version, serial=cursor.lastrowid or 0)

    def update_version(self, version: Version) -> None:
        """Record what changed about a version."""
        row = version_row(version)
        with self.transaction() as db:
            places = ", ".join(f"{column}=?" for column in row)
            db.execute(f"UPDATE version SET {places} WHERE serial=?", (*row.values(), version.serial))

    def delete_version(self, version: Version) -> None:
        """Drop a version that never held anything."""
        with self.transaction() as db:
            self._drop_files(db, version)
            db.execute("DELETE FROM version WHERE serial = ?", (version.serial,))

    def drop_files(self, version: Version) -> None:
        """Forget every file of a version, and what they ask for."""
        with self.transaction() as db:
            self._drop_files(db, version)

    def _drop_files(self, db: sqlite3.Connection, version: Version) -> None:
        for table in ("blob", "folder", "reference", "remark"):
            db.execute(f"DELETE FROM {table} WHERE version = ?", (version.serial,))

    # --- inventory ---

    def find_stored(self, version: Version, names: Sequence[str]) -> dict[str, StoredFile]:
        """What of these this version holds, by name."""
        found: dict[str, StoredFile] = {}
        for start in range(0, len(names), 500):
            some = {name: self.key(name) for name in names[start : start + 500]}
            places = ", ".join("?" * len(some))
            sql = f"SELECT key, {STORED_BLOB_COLUMNS} FROM blob WHERE version=? AND state=? AND key IN ({places})"
            rows = {
                row[0]: read_stored_file(row[1:]) for row in self.query(sql, version.serial, STORED, *some.values())
            }
            found.update((name, rows[key]) for name, key in some.items() if key in rows)
        return found

    def add_page(
        self, version: Version, rows: Sequence[tuple[Blob, StoredFile | None]], folders: Iterable[str]
    ) -> None:
        """Take in one page: each blob with what is held of it, the folders, and the next marker.

        A name that an earlier listing had moves behind all others: readers go by id. Raises Incomplete, and takes in
        nothing, when this listing has a name twice.
        """
        keeps = glob_matcher(version.globs)
        values = [
            blob_row(version, self.key(blob.name), blob, held, is_included=keeps(blob.name)) for blob, held in rows
        ]
        kept = [self.key(blob.name) for blob, held in rows if held is not None]
        with self.transaction() as db:
            kinds = _read_kinds(db, version, kept) if version.listing_number > 1 else []
            if version.listing_number > 1:
                keys = ((version.serial, version.listing_number, self.key(blob.name)) for blob, _ in rows)
                db.executemany("DELETE FROM blob WHERE version=? AND listing<? AND key=?", keys)
            before = db.total_changes
            db.executemany(INSERT_BLOB, values)
            if db.total_changes - before < len(values):
                raise Incomplete(
                    f"the listing names a file twice: {self._find_repeated_name(blob.name for blob, _ in rows)}",
                    hint="this export was not published; the next run lists the container anew",
                )
            db.executemany("UPDATE blob SET kind=?, implicit=? WHERE version=? AND key=?", kinds)
            around = ((version.serial, self.key(folder), version.listing_number) for folder in folders)
            db.executemany("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", around)
            db.execute("UPDATE version SET marker=? WHERE serial=?", (version.marker, version.serial))

    def _find_repeated_name(self, names: Iterable[str]) -> str:
        seen: dict[str, str] = {}
        for name in names:
            if other := seen.get(self.key(name)):
                return name if other == name else f"{other} and {name}, which are one on this disk"
            seen[self.key(name)] = name
        return "one that an earlier page had"

    def add_stored_files(self, version: Version, results: Sequence[FileResult]) -> None:
        """Take in files that were read where they lie, with what they ask for; their numbers mean nothing.

        Raises Incomplete, and takes in nothing, when a name comes twice.
        """
        with self.transaction() as db:
            for arrival in results:
                held, reading = arrival.stored, arrival.content
                row = blob_row(version, self.key(held.blob.name), held.blob, held)
                added = db.execute(INSERT_BLOB, row)
                if not added.rowcount:
                    raise Incomplete(f"a file is named twice: {held.blob.name}")
                if reading.kind or reading.has_implicit_tiling:
                    said = (reading.kind, reading.has_implicit_tiling, added.lastrowid)
                    db.execute("UPDATE blob SET kind=?, implicit=? WHERE id=?", said)
            self.references.write(db, version, [(each.stored.blob.name, each.content) for each in results])

    def _replace_references(self, db: sqlite3.Connection, version: Version, results: Sequence[FileResult]) -> None:
        """Take in what these files ask for in place of what was said of them before."""
        self.references.delete(db, version, (each.stored.blob.name for each in results if not each.has_more_references))
        self.references.write(db, version, [(each.stored.blob.name, each.content) for each in results])

    def finish_listing(self, version: Version) -> list[str]:
        """Mark the listing complete; return the names that an earlier listing had and this one has not.

        Folder placeholders (empty blobs that are a folder of others) leave the inventory. Raises UnsafeName when a name
        is both a file and a folder, and the place cannot hold both.
        """
        this = (version.serial, version.listing_number)
        named, old = "SELECT coalesce(name, key) FROM blob WHERE", "version=? AND listing < ?"
        both = "version=? AND EXISTS (SELECT 1 FROM folder f WHERE f.version=blob.version AND f.key=blob.key)"
        with self.transaction() as db:
            names = [row[0] for row in db.execute(f"{named} {old}", this)]
            self.references.delete(db, version, names)
            db.execute(f"DELETE FROM blob WHERE {old}", this)
            db.execute(f"DELETE FROM folder WHERE {old}", this)
            both += f" AND (size = 0 OR (state <> {EXCLUDED} AND ?))"
            clash = db.execute(f"{named} {both} AND size > 0", (*this[:1], self.has_folders)).fetchone()
            if clash is not None:
                raise_file_folder_clash(*(self.find_clash(version, clash[0]) or (clash[0], "other files")))
            db.execute(f"DELETE FROM blob WHERE {both}", (*this[:1], self.has_folders))
            db.execute("UPDATE version SET listed=1, marker=NULL WHERE serial=?", this[:1])
        return names

    def find_clash(self, version: Version, name: str) -> tuple[str, str] | None:
        """A file of the version, and one in a folder of that very name, `name` being one of the two; None where there
        are none, or the place can hold both.
        """
        known = f"SELECT coalesce(name, key) FROM blob WHERE version=? AND state IN ({WANTED}, {STORED}) AND"
        for folder in list_parent_folders(name) if self.has_folders else ():
            if file := self.query(f"{known} key=?", version.serial, self.key(folder)):
                return file[0][0], name
        key = self.key(name)
        inside = self.query(f"{known} key>? AND key<? LIMIT 1", version.serial, f"{key}/", f"{key}0")
        return (name, inside[0][0]) if inside and self.has_folders else None

    def list_wanted(
        self, version: Version, after: int, *, limit: int, empty: bool | None = None
    ) -> list[tuple[int, Blob]]:
        """Blobs of the current listing that are not held, in listed order, each with its id; `after` is exclusive. They
        tell the SHA-256 that they must have, where that is known.

        `empty` chooses between blobs without bytes and the others: the former may turn out to be folders.
        """
        sql = (
            f"SELECT id, {WANTED_BLOB_COLUMNS} FROM blob WHERE version=? AND listing=? AND state={WANTED} AND id>?"
            " AND coalesce((size IS 0)=?, 1) ORDER BY id LIMIT ?"
        )
        rows = self.query(sql, version.serial, version.listing_number, after, empty, limit)
        return [(row[0], Blob._make(row[1:])) for row in rows]

    def list_stored(
        self, version: Version, after: str = "", *, limit: int, kinds: Collection[Kind] = ()
    ) -> list[tuple[str, StoredFile]]:
        """What is held, or what of these kinds is, by key in byte order; `after` is exclusive."""
        some = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        sql = f"SELECT key, {STORED_BLOB_COLUMNS} FROM blob WHERE version=? AND state=? AND key>?{some} ORDER BY key LIMIT ?"
        rows = self.query(sql, version.serial, STORED, after, *kinds, limit)
        return [(row[0], read_stored_file(row[1:])) for row in rows]

    def list_names(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, str]]:
        """The name of every file that is known of a version, also of those left out or missing, with its key; by key in
        byte order, `after` is exclusive.
        """
        sql = "SELECT key, coalesce(name, key) FROM blob WHERE version=? AND key>? ORDER BY key LIMIT ?"
        return self.query(sql, version.serial, after, limit)

    def mark_stored(self, version: Version, results: Sequence[FileResult]) -> int:
        """Record files that are in place now, with what they ask for; how many names a walk learns by that."""
        with self.transaction() as db:
            db.executemany(MARK_BLOB_STORED, (file_result_row(arrival) for arrival in results))
            if version.content is Content.DECODED:
                db.executemany(
                    MARK_BLOB_UNPACKED, (unpacked_row(arrival) for arrival in results if arrival.stored.unpacked)
                )
            self._replace_references(db, version, results)
            walks = version.inventory == Inventory.WALK
            naming = [a.stored.blob.name for a in results if walks and (a.content.references or a.has_more_references)]
            return sum(self._add_wanted_references(db, version, name) for name in naming)

    def mark_all_stored(self, version: Version) -> None:
        """Take everything that is wanted for held, with no bytes known: a plan goes on as if it had been done."""
        with self.transaction() as db:
            sql = (
                "UPDATE blob SET state=1, sha256=coalesce(sha256, x''), mtime_ns=0, inode=0"
                " WHERE version=? AND listing=? AND state=0"
            )
            db.execute(sql, (version.serial, version.listing_number))

    def add_wanted(self, version: Version, name: str) -> None:
        """A walk wants one file, known by its name alone, unless it knows it already."""
        with self.transaction() as db:
            self._delete_older(db, version, "VALUES (?)", (self.key(name),))
            written = None if self.key(name) == name else name
            db.execute(_INSERT_WANTED, (version.serial, version.listing_number, self.key(name), written, WANTED))

    def add_wanted_references(self, version: Version, source: str) -> int:
        """A walk wants everything that one file asks for; how much of that is new."""
        with self.transaction() as db:
            return self._add_wanted_references(db, version, source)

    def _add_wanted_references(self, db: sqlite3.Connection, version: Version, source: str) -> int:
        asked = (version.serial, self.key(source))
        if version.listing_number > 1:
            self._delete_older(db, version, "SELECT target FROM reference WHERE version=? AND source=?", asked)
        if not version.globs:
            return db.execute(_INSERT_WANTED_REFERENCES, (version.serial, version.listing_number, *asked)).rowcount
        keeps, new = glob_matcher(version.globs), 0
        for key, name in db.execute(
            "SELECT target, name FROM reference WHERE version=? AND source=?", asked
        ).fetchall():
            kept = keeps(name or key)
            row = (version.serial, version.listing_number, key, name, WANTED if kept else EXCLUDED)
            new += db.execute(_INSERT_WANTED, row).rowcount * kept
        return new

    def _delete_older(self, db: sqlite3.Connection, version: Version, keys: str, values: Sequence[object]) -> None:
        """What an older walk knew of these names is wanted anew: readers go by id, so it leaves its old place."""
        older = (version.serial, version.listing_number)
        db.execute(f"DELETE FROM blob WHERE version=? AND listing<? AND key IN ({keys})", (*older, *values))

    def mark_missing(self, version: Version, ids: Iterable[int]) -> None:
        """Record that the container does not have what a walk asked it for: what was said by it before is void."""
        with self.transaction() as db:
            for number in ids:
                db.execute(f"UPDATE blob SET state={MISSING} WHERE id=?", (number,))
                named = db.execute("SELECT coalesce(name, key) FROM blob WHERE id=?", (number,)).fetchone()
                self.references.delete(db, version, named)

    def mark_missing_wanted(self, version: Version) -> None:
        """What was missing may be there now."""
        with self.transaction() as db:
            db.execute(f"UPDATE blob SET state={WANTED} WHERE version=? AND state={MISSING}", (version.serial,))

    def update_stamps(self, version: Version, stored: Sequence[StoredFile]) -> None:
        """Files that are held have another trace than was known."""
        rows = [(each.mtime_ns, each.inode, version.serial, self.key(each.blob.name)) for each in stored]
        if rows:
            with self.transaction() as db:
                db.executemany("UPDATE blob SET mtime_ns=?, inode=? WHERE version=? AND key=? AND state=1", rows)

    def mark_wanted(self, version: Version, names: Iterable[str], *, include_linked: bool = False) -> None:
        """Record that files are not held, or not rightly: they are wanted again, as they were. A walk that goes on
        takes them as they are then.

        `linked`: the bytes are wrong, so also where another version holds the same file; that one is damaged then.
        """
        rows = [(version.serial, self.key(name)) for name in names]
        with self.transaction() as db:
            for row in rows if include_linked else ():
                for others in db.execute(_SELECT_LINKED, row).fetchall():
                    db.execute(f"{_MARK_WANTED} id=?", others[:1])
                    db.execute("UPDATE version SET damaged=1 WHERE serial=?", others[1:])
            db.executemany(f"{_MARK_WANTED} version=? AND key=?", rows)

    def compute_shared_bytes(self) -> dict[str, int]:
        """The bytes of the files of each version that other versions hold too, as one file; by name, where any are."""
        return dict(self.query(_SELECT_SHARED_BYTES))

    def compute_totals(self, version: Version) -> Totals:
        """How much of the version is listed, how much of that is held, and what is left out."""
        sql = (
            "SELECT state, count(*), coalesce(sum(size), 0), coalesce(sum(lying_size - size), 0) FROM blob"
            " WHERE version=? GROUP BY state"
        )
        found = {state: counts for state, *counts in self.query(sql, version.serial)}
        nothing = [0, 0, 0]
        wanted, held, excluded = (found.get(state, nothing) for state in (WANTED, STORED, EXCLUDED))
        return Totals(wanted[0] + held[0], wanted[1] + held[1], held[0], held[1], excluded[0], excluded[1], held[2])


_SELECT_SHARED_BYTES = """
WITH live AS (SELECT serial, name FROM version WHERE retired IS NULL),
held AS (SELECT version, coalesce(lying_size, size) AS bytes, min(version) OVER one AS first,
  max(version) OVER one AS last FROM blob
  WHERE state=1 AND inode<>0 AND version IN (SELECT serial FROM live) WINDOW one AS (PARTITION BY sha256, inode))
SELECT live.name, sum(held.bytes) FROM held JOIN live ON live.serial=held.version WHERE first < last GROUP BY live.name
"""
_MARK_WANTED = f"""
UPDATE blob SET state={WANTED}, lying_size=NULL, lying_sha256=NULL, sha256=iif((SELECT published IS NULL
  AND inventory='{Inventory.WALK}' FROM version WHERE serial=blob.version), NULL, sha256) WHERE
"""
_SELECT_LINKED = """
SELECT o.id, o.version FROM blob b JOIN blob o ON o.sha256=b.sha256 AND o.inode=b.inode AND o.state=1 AND o.id<>b.id
WHERE b.version=? AND b.key=? AND b.state=1 AND b.inode<>0
"""
_INSERT_WANTED = "INSERT OR IGNORE INTO blob (version, listing, key, name, etag, state) VALUES (?, ?, ?, ?, '', ?)"
_INSERT_WANTED_REFERENCES = f"""
INSERT OR IGNORE INTO blob (version, listing, key, name, etag, state)
SELECT ?, ?, target, name, '', {WANTED} FROM reference WHERE version=? AND source=?
"""


def _read_kinds(db: sqlite3.Connection, version: Version, keys: Sequence[str]) -> list[tuple[object, ...]]:
    """Of those files that are tilesets and the like: kind, whether it is implicit, version and key."""
    sql = "SELECT kind, implicit, version, key FROM blob WHERE version=? AND key=? AND kind<>''"
    return [row for key in keys for row in db.execute(sql, (version.serial, key))]
