"""Catalog of a destination: versions, file inventory, stored files and references, in an embedded SQLite file.

Memory use stays flat however many blobs there are. Writes come in batches, and each batch is one transaction: a kill
loses only the batch in progress. Deleting the file costs a re-check but never data: the listing, the manifests and the
stored bytes hold everything needed to rebuild it.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import replace
from itertools import compress
from pathlib import Path

from tilesync.catalog.duplicates import DuplicateIndex
from tilesync.catalog.listing_rows import choose_states, delete_older_rows, insert_blobs, make_repeated_name_error
from tilesync.catalog.references import ReferenceIndex
from tilesync.catalog.schema import (
    ANY_SIZE,
    EXCLUDED,
    INSERT_BLOB,
    MARK_BLOB_STORED,
    MARK_BLOB_UNPACKED,
    MISSING,
    STORED,
    STORED_BLOB_COLUMNS,
    WANTED,
    WANTED_BLOB_COLUMNS,
    CatalogDatabase,
    blob_row,
    file_result_row,
    read_stored_file,
    unpacked_row,
    version_row,
)
from tilesync.catalog.stale_files import StaleFileIndex
from tilesync.catalog.stored_rows import insert_stored_files
from tilesync.catalog.unchanged import UnchangedIndex
from tilesync.core.filters import glob_matcher
from tilesync.core.safe_names import list_parent_folders, raise_file_folder_clash
from tilesync.errors import Incomplete
from tilesync.model import Blob, BlobColumns, Content, FileResult, Inventory, Kind, StoredFile, Totals, Version


class Catalog(CatalogDatabase):
    """State of a destination: versions, their inventory and stored files.

    Each method is one transaction and is safe to call from any thread.
    """

    def __init__(self, path: Path, *, read_only: bool = False, is_persistent: bool = True) -> None:
        super().__init__(path, read_only=read_only, is_persistent=is_persistent)
        self.has_folders = True
        """True if the destination has folders: it cannot hold a file and a folder of the same name."""
        self.references = ReferenceIndex(self)
        self.duplicates = DuplicateIndex(self, self.references)
        self.stale_files = StaleFileIndex(self)
        self.unchanged = UnchangedIndex(self)

    # --- versions ---

    def is_vacant(self) -> bool:
        """Return whether no version is finished and none has a listing or stored files.

        Files that a walk wants but does not have yet do not count.
        """
        has_content = f"b.version=v.serial AND (b.state={STORED} OR v.inventory=?)"
        sql = (
            "SELECT 1 FROM version v WHERE retired IS NULL"
            f" AND (published IS NOT NULL OR EXISTS (SELECT 1 FROM blob b WHERE {has_content})) LIMIT 1"
        )
        with self.translate_value_errors():
            return not self.query(sql, Inventory.LIST)

    def add_version(self, version: Version) -> Version:
        """Insert a new version and return it with its serial number."""
        row = version_row(version)
        with self.transaction() as db:
            placeholders = ", ".join("?" * len(row))
            cursor = db.execute(f"INSERT INTO version ({', '.join(row)}) VALUES ({placeholders})", (*row.values(),))
            return replace(version, serial=cursor.lastrowid or 0)

    def update_version(self, version: Version) -> None:
        """Save the changed fields of a version."""
        row = version_row(version)
        with self.transaction() as db:
            assignments = ", ".join(f"{column}=?" for column in row)
            db.execute(f"UPDATE version SET {assignments} WHERE serial=?", (*row.values(), version.serial))

    def delete_version(self, version: Version) -> None:
        """Delete a version that never stored a file."""
        with self.transaction() as db:
            self._drop_files(db, version)
            db.execute("DELETE FROM version WHERE serial = ?", (version.serial,))

    def drop_files(self, version: Version) -> None:
        """Delete the rows of all files of a version, and their references."""
        with self.transaction() as db:
            self._drop_files(db, version)

    def _drop_files(self, db: sqlite3.Connection, version: Version) -> None:
        for table in ("blob", "folder", "reference", "remark"):
            db.execute(f"DELETE FROM {table} WHERE version = ?", (version.serial,))

    # --- inventory ---

    def find_stored(self, version: Version, names: Sequence[str]) -> dict[str, StoredFile]:
        """Look up which of these names the version has stored, by name."""
        found: dict[str, StoredFile] = {}
        for start in range(0, len(names), 500):
            key_by_name = {name: self.key(name) for name in names[start : start + 500]}
            placeholders = ", ".join("?" * len(key_by_name))
            sql = f"SELECT key, {STORED_BLOB_COLUMNS} FROM blob WHERE version=? AND state=? AND key IN ({placeholders})"
            rows = {
                row[0]: read_stored_file(row[1:])
                for row in self.query(sql, version.serial, STORED, *key_by_name.values())
            }
            found.update((name, rows[key]) for name, key in key_by_name.items() if key in rows)
        return found

    def add_page(
        self, version: Version, rows: Sequence[tuple[Blob, StoredFile | None]], folders: Iterable[str]
    ) -> None:
        """Insert one listing page: each blob with its stored file, if any, the folders and the next marker.

        Raises Incomplete, and inserts nothing, when this listing contains a name twice.
        """
        is_included = glob_matcher(version.globs)
        values = [
            blob_row(version, self.key(blob.name), blob, stored, is_included=is_included(blob.name))
            for blob, stored in rows
        ]
        keys = [self.key(blob.name) for blob, _ in rows]
        stored_keys = [key for key, (_, stored) in zip(keys, rows, strict=True) if stored is not None]
        with self.transaction() as db:
            kinds = _read_kinds(db, version, stored_keys) if version.listing.number > 1 else []
            delete_older_rows(db, version, keys)
            changes_before = db.total_changes
            db.executemany(INSERT_BLOB, values)
            if db.total_changes - changes_before < len(values):
                raise make_repeated_name_error((blob.name for blob, _ in rows), self.key)
            db.executemany("UPDATE blob SET kind=?, implicit=? WHERE version=? AND key=?", kinds)
            self._finish_page(db, version, folders)

    def add_new_page(
        self,
        version: Version,
        blobs: BlobColumns,
        folders: Iterable[str],
        *,
        check: Callable[[int], None] | None = None,
    ) -> None:
        """Insert one listing page of which no blob is stored, the folders and the next marker.

        `check` is called with the bytes of the wanted blobs that no other version has stored. If it raises, nothing is
        inserted. Raises Incomplete, and inserts nothing, when this listing contains a name twice.
        """
        keys = [self.key(name) for name in blobs.names] if self.is_case_insensitive else blobs.names
        states = choose_states(version, blobs.names)
        with self.transaction() as db:
            delete_older_rows(db, version, keys)
            last_id = db.execute("SELECT coalesce(max(id), 0) FROM blob").fetchone()[0]
            if insert_blobs(db, version, keys, blobs, states) < len(keys):
                raise make_repeated_name_error(blobs.names, self.key)
            if check is not None:
                wanted = sum(compress(blobs.sizes, (state == WANTED for state in states)))
                check(wanted - self.duplicates.count_reusable_bytes(version, after=last_id))
            self._finish_page(db, version, folders)

    def _finish_page(self, db: sqlite3.Connection, version: Version, folders: Iterable[str]) -> None:
        folder_rows = ((version.serial, self.key(folder), version.listing.number) for folder in folders)
        db.executemany("INSERT OR REPLACE INTO folder VALUES (?, ?, ?)", folder_rows)
        db.execute("UPDATE version SET marker=? WHERE serial=?", (version.listing.marker, version.serial))

    def add_stored_files(self, version: Version, results: Sequence[FileResult]) -> None:
        """Insert files that were read in place, with their references; the `file_id` of the results is ignored.

        Raises Incomplete, and inserts nothing, when a name comes twice.
        """
        keys = [self.key(result.stored.blob.name) for result in results]
        with self.transaction() as db:
            if repeated := insert_stored_files(db, version, keys, results):
                raise Incomplete(f"a file comes twice: {repeated}")
            self.references.write(db, version, [(each.stored.blob.name, each.content) for each in results])

    def _replace_references(self, db: sqlite3.Connection, version: Version, results: Sequence[FileResult]) -> None:
        """Replace the references of these files."""
        self.references.delete(db, version, (each.stored.blob.name for each in results if not each.has_more_references))
        self.references.write(db, version, [(each.stored.blob.name, each.content) for each in results])

    def finish_listing(self, version: Version) -> list[str]:
        """Mark the listing complete; return names that an earlier listing had and this one does not.

        Folder placeholders (empty blobs with the name of a folder of other blobs) leave the inventory. Raises
        UnsafeName when a name is both a file and a folder and the destination cannot hold both.
        """
        named, names = "SELECT coalesce(name, key) FROM blob WHERE", list[str]()
        is_folder = "version=?1 AND key IN (SELECT key FROM folder WHERE version=?1)"
        is_folder += f" AND (size=0 OR (state<>{EXCLUDED} AND ?2))"
        with self.transaction() as db:
            if version.listing.number > 1:
                old, current = "version=? AND listing < ?", (version.serial, version.listing.number)
                names = [row[0] for row in db.execute(f"{named} {old}", current)]
                self.references.delete(db, version, names)
                db.execute(f"DELETE FROM blob WHERE {old}", current)
                db.execute(f"DELETE FROM folder WHERE {old}", current)
            folders = (version.serial, self.has_folders)
            clash = db.execute(f"{named} {is_folder} AND size > 0", folders).fetchone()
            if clash is not None:
                raise_file_folder_clash(*(self.find_clash(version, clash[0]) or (clash[0], "other files")))
            db.execute(f"DELETE FROM blob WHERE {is_folder}", folders)
            db.execute("UPDATE version SET listed=1, marker=NULL WHERE serial=?", folders[:1])
        return names

    def find_clash(self, version: Version, name: str) -> tuple[str, str] | None:
        """Find a file and another file in a folder of exactly that name, where `name` is one of the two.

        Returns None if there is no such pair, or if the destination can hold both.
        """
        select_known = f"SELECT coalesce(name, key) FROM blob WHERE version=? AND state IN ({WANTED}, {STORED}) AND"
        for folder in list_parent_folders(name) if self.has_folders else ():
            if file := self.query(f"{select_known} key=?", version.serial, self.key(folder)):
                return file[0][0], name
        key = self.key(name)
        inside = self.query(f"{select_known} key>? AND key<? LIMIT 1", version.serial, f"{key}/", f"{key}0")
        return (name, inside[0][0]) if inside and self.has_folders else None

    def list_wanted(
        self, version: Version, after: int, until: int | None = None, *, limit: int, sizes: range = ANY_SIZE
    ) -> list[tuple[int, Blob]]:
        """List blobs of the current listing that are not stored, in listing order, with their row ids.

        `after` is exclusive, and `until` inclusive. A blob carries the SHA-256 that it must have, where that is known.
        Only blobs of these `sizes` in bytes are listed; one whose size is not known counts as one of 1 byte.
        """
        sql = (
            f"SELECT id, {WANTED_BLOB_COLUMNS} FROM blob WHERE version=? AND listing=? AND state={WANTED} AND id>?"
            " AND id<=coalesce(?, id) AND coalesce(size, 1) BETWEEN ? AND ? ORDER BY id LIMIT ?"
        )
        rows = self.query(sql, version.serial, version.listing.number, after, until, sizes[0], sizes[-1], limit)
        return [(row[0], Blob._make(row[1:])) for row in rows]

    def list_stored(
        self, version: Version, after: str = "", *, limit: int, kinds: Collection[Kind] = ()
    ) -> list[tuple[str, StoredFile]]:
        """List stored files, or those of these kinds, by key in byte order; `after` is exclusive."""
        kind_filter = f" AND kind IN ({', '.join('?' * len(kinds))})" if kinds else ""
        sql = (
            f"SELECT key, {STORED_BLOB_COLUMNS} FROM blob WHERE version=? AND state=? AND key>?{kind_filter}"
            " ORDER BY key LIMIT ?"
        )
        rows = self.query(sql, version.serial, STORED, after, *kinds, limit)
        return [(row[0], read_stored_file(row[1:])) for row in rows]

    def list_names(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, str]]:
        """List the key and name of every known file of a version, also of excluded and missing ones.

        In byte order of the keys; `after` is exclusive.
        """
        sql = "SELECT key, coalesce(name, key) FROM blob WHERE version=? AND key>? ORDER BY key LIMIT ?"
        return self.query(sql, version.serial, after, limit)

    def mark_stored(self, version: Version, results: Sequence[FileResult]) -> int:
        """Mark files as stored, with their references; return how many new names a walk learns from them."""
        with self.transaction() as db:
            db.executemany(MARK_BLOB_STORED, (file_result_row(result) for result in results))
            if version.content is Content.DECODED:
                unpacked = (unpacked_row(result) for result in results if result.stored.unpacked)
                db.executemany(MARK_BLOB_UNPACKED, unpacked)
            self._replace_references(db, version, results)
            if version.inventory != Inventory.WALK:
                return 0
            sources = [r.stored.blob.name for r in results if r.content.references or r.has_more_references]
            return sum(self._add_wanted_references(db, version, name) for name in sources)

    def mark_all_stored(self, version: Version) -> None:
        """Mark every wanted file as stored without bytes, so that a dry run continues as if it had downloaded them."""
        with self.transaction() as db:
            sql = (
                "UPDATE blob SET state=1, sha256=coalesce(sha256, x''), mtime_ns=0, inode=0"
                " WHERE version=? AND listing=? AND state=0"
            )
            db.execute(sql, (version.serial, version.listing.number))

    def add_wanted(self, version: Version, name: str) -> None:
        """Add one file that a walk wants, known only by name; a known file stays unchanged."""
        with self.transaction() as db:
            self._delete_older(db, version, "VALUES (?)", (self.key(name),))
            stated_name = None if self.key(name) == name else name
            db.execute(_INSERT_WANTED, (version.serial, version.listing.number, self.key(name), stated_name, WANTED))

    def add_wanted_references(self, version: Version, source: str) -> int:
        """Add everything that one file references as wanted; return how many of these are new."""
        with self.transaction() as db:
            return self._add_wanted_references(db, version, source)

    def _add_wanted_references(self, db: sqlite3.Connection, version: Version, source: str) -> int:
        referrer = (version.serial, self.key(source))
        if version.listing.number > 1:
            self._delete_older(db, version, "SELECT target FROM reference WHERE version=? AND source=?", referrer)
        if not version.globs:
            return db.execute(_INSERT_WANTED_REFERENCES, (version.serial, version.listing.number, *referrer)).rowcount
        is_included, new_count = glob_matcher(version.globs), 0
        for key, name in db.execute(
            "SELECT target, name FROM reference WHERE version=? AND source=?", referrer
        ).fetchall():
            included = is_included(name or key)
            row = (version.serial, version.listing.number, key, name, WANTED if included else EXCLUDED)
            new_count += db.execute(_INSERT_WANTED, row).rowcount * included
        return new_count

    def _delete_older(self, db: sqlite3.Connection, version: Version, keys: str, values: Sequence[object]) -> None:
        """Delete rows of an older walk, so that these names get new rows at the end: readers page by row id."""
        older = (version.serial, version.listing.number)
        db.execute(f"DELETE FROM blob WHERE version=? AND listing<? AND key IN ({keys})", (*older, *values))

    def mark_missing(self, version: Version, ids: Iterable[int]) -> None:
        """Mark files that a walk requested and the container does not have; drop their references."""
        with self.transaction() as db:
            for number in ids:
                db.execute(f"UPDATE blob SET state={MISSING} WHERE id=?", (number,))
                named = db.execute("SELECT coalesce(name, key) FROM blob WHERE id=?", (number,)).fetchone()
                self.references.delete(db, version, named)

    def mark_missing_wanted(self, version: Version) -> None:
        """Mark missing files as wanted again: they may exist now."""
        with self.transaction() as db:
            db.execute(f"UPDATE blob SET state={WANTED} WHERE version=? AND state={MISSING}", (version.serial,))

    def update_stamps(self, version: Version, stored: Sequence[StoredFile]) -> None:
        """Save new file stamps (mtime, inode) of stored files."""
        rows = [(each.mtime_ns, each.inode, version.serial, self.key(each.blob.name)) for each in stored]
        if rows:
            with self.transaction() as db:
                db.executemany("UPDATE blob SET mtime_ns=?, inode=? WHERE version=? AND key=? AND state=1", rows)

    def mark_wanted(self, version: Version, names: Iterable[str], *, include_linked: bool = False) -> None:
        """Mark files as wanted again, because they are absent or wrong.

        They must come back with the SHA-256 that they had; in an unfinished walk any bytes are accepted.
        `include_linked`: the bytes are wrong, so the same file in other versions becomes wanted too, and those versions
        are marked damaged.
        """
        rows = [(version.serial, self.key(name)) for name in names]
        with self.transaction() as db:
            for row in rows if include_linked else ():
                for others in db.execute(_SELECT_LINKED, row).fetchall():
                    db.execute(f"{_MARK_WANTED} id=?", others[:1])
                    db.execute("UPDATE version SET damaged=1 WHERE serial=?", others[1:])
            db.executemany(f"{_MARK_WANTED} version=? AND key=?", rows)

    def compute_shared_bytes(self) -> dict[str, int]:
        """Sum the bytes of files that each version shares with others as hard links, by version name, where any are."""
        return dict(self.query(_SELECT_SHARED_BYTES))

    def compute_totals(self, version: Version) -> Totals:
        """Count how many files and bytes of the version are listed, stored and excluded."""
        sql = (
            "SELECT state, count(*), coalesce(sum(size), 0), coalesce(sum(lying_size - size), 0) FROM blob"
            " WHERE version=? GROUP BY state"
        )
        by_state = {state: counts for state, *counts in self.query(sql, version.serial)}
        nothing = [0, 0, 0]
        wanted, stored, excluded = (by_state.get(state, nothing) for state in (WANTED, STORED, EXCLUDED))
        return Totals(
            wanted[0] + stored[0], wanted[1] + stored[1], stored[0], stored[1], excluded[0], excluded[1], stored[2]
        )


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
    """Read kind, implicit flag, version and key of those files that have a kind."""
    sql = "SELECT kind, implicit, version, key FROM blob WHERE version=? AND key=? AND kind<>''"
    return [row for key in keys for row in db.execute(sql, (version.serial, key))]
