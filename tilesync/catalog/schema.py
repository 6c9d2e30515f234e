"""Tables of the catalog, the conversion between their rows and the model, and the database opened with them."""

from __future__ import annotations

import json
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from tilesync.catalog.sqlite import Database
from tilesync.core.foreign_json import parse_json, read_mapping, read_optional, read_or_default, read_text, read_texts
from tilesync.model import (
    UNKNOWN_SIZE,
    Blob,
    Completeness,
    Content,
    ExportFacts,
    FileResult,
    Globs,
    ListingState,
    StoredFile,
    UnpackedFile,
    Version,
    VersionSummary,
    VersionTimes,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS meta (key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS version (
  serial INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, export TEXT NOT NULL, imodel TEXT, changeset TEXT,
  modified TEXT NOT NULL, record TEXT NOT NULL, listing INTEGER NOT NULL, listed INTEGER NOT NULL, marker TEXT,
  damaged INTEGER NOT NULL, published TEXT, files INTEGER NOT NULL, bytes INTEGER NOT NULL, manifest_sha256 TEXT,
  inventory TEXT NOT NULL, home TEXT NOT NULL, include TEXT NOT NULL, exclude TEXT NOT NULL,
  referenced INTEGER NOT NULL, missing INTEGER NOT NULL, orphans INTEGER NOT NULL, unfollowed INTEGER NOT NULL,
  begun TEXT NOT NULL, left_at TEXT, retired TEXT, content TEXT NOT NULL DEFAULT 'stored');
CREATE TABLE IF NOT EXISTS blob (
  id INTEGER PRIMARY KEY, version INTEGER NOT NULL, key TEXT NOT NULL, name TEXT, size INTEGER,
  etag TEXT NOT NULL, md5 BLOB, content_type TEXT, content_encoding TEXT, last_modified INTEGER,
  listing INTEGER NOT NULL, state INTEGER NOT NULL, sha256 BLOB, mtime_ns INTEGER, inode INTEGER,
  kind TEXT NOT NULL DEFAULT '', implicit INTEGER NOT NULL DEFAULT 0, lying_size INTEGER, lying_sha256 BLOB);
CREATE UNIQUE INDEX IF NOT EXISTS blob_key ON blob (version, key);
CREATE INDEX IF NOT EXISTS blob_wanted ON blob (version, listing) WHERE state=0;
CREATE INDEX IF NOT EXISTS blob_md5 ON blob (md5, version) WHERE state=1 AND md5 IS NOT NULL;
CREATE INDEX IF NOT EXISTS blob_sha256 ON blob (sha256, version) WHERE state=1;
CREATE INDEX IF NOT EXISTS blob_implicit ON blob (version) WHERE implicit=1;
CREATE TABLE IF NOT EXISTS folder (version INTEGER NOT NULL, key TEXT NOT NULL, listing INTEGER NOT NULL,
  PRIMARY KEY (version, key))
  WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS reference (version INTEGER NOT NULL, source TEXT NOT NULL, target TEXT NOT NULL,
  role TEXT NOT NULL, name TEXT, grown INTEGER NOT NULL, PRIMARY KEY (version, source, target, role)) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS remark (version INTEGER NOT NULL, source TEXT NOT NULL, problem TEXT NOT NULL,
  detail TEXT NOT NULL, grown INTEGER NOT NULL, PRIMARY KEY (version, source, problem, detail)) WITHOUT ROWID;
"""
"""A blob without a size is known only by name: a walk found it and no response has described it yet.

`size` and `sha256` describe the stored bytes; `lying_size` and `lying_sha256` describe a file that lies unpacked on
disk. `source` and `target` are keys of blobs; `name` is the name of the target where it differs from its key. `grown`:
derived when the file is read together with others (templates, schema, buffers), so it may change.
"""

MIGRATIONS = {
    3: (
        "ALTER TABLE version ADD COLUMN content TEXT NOT NULL DEFAULT 'stored'",
        "ALTER TABLE blob ADD COLUMN lying_size INTEGER",
        "ALTER TABLE blob ADD COLUMN lying_sha256 BLOB",
    )
}
"""Statements that turn the tables of one schema version into those of the next and keep all rows."""

SCHEMA_VERSION = 4
SCHEMA_VERSIONS = frozenset({*MIGRATIONS, SCHEMA_VERSION})
"""Versions that a catalog can be opened with and that keep their contents."""

EMPTY, NOT_EMPTY, ANY_SIZE = range(1), range(1, 1 << 62), range(1 << 62)
"""Sizes of blobs in bytes. A listing may have blobs without bytes that stand for folders."""

WANTED, STORED, EXCLUDED, MISSING = range(4)
"""Values of `state`.

Excluded: the globs of the version leave the blob out. Missing: a file references the blob and the container does not
have it, so it is not part of the inventory. The SHA-256 of a wanted blob is the one that it must have: a manifest
states it, or the blob was stored before.
"""

BLOB_COLUMNS = (
    f"coalesce(name, key), coalesce(size, {UNKNOWN_SIZE}), etag, md5, content_type, content_encoding, last_modified"
)
WANTED_BLOB_COLUMNS = BLOB_COLUMNS + ", sha256"
STORED_BLOB_COLUMNS = BLOB_COLUMNS + ", sha256, mtime_ns, coalesce(inode, 0), lying_size, lying_sha256"

DESCRIBED_FIELD_COUNT = Blob._fields.index("sha256")
"""Number of fields of a blob that its source describes, the name included; they come first."""

INSERT_BLOB = """
INSERT INTO blob (version, listing, key, name, size, etag, md5, content_type, content_encoding, last_modified,
                  state, sha256, mtime_ns, inode, lying_size, lying_sha256)
VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?) ON CONFLICT DO NOTHING
"""

MARK_BLOB_STORED = """
UPDATE blob SET state=1, size=?, etag=?, md5=?, content_type=?, content_encoding=?, last_modified=?, sha256=?,
                mtime_ns=?, inode=?, kind=?, implicit=? WHERE id=?
"""

MARK_BLOB_UNPACKED = "UPDATE blob SET sha256=?, lying_size=?, lying_sha256=? WHERE id=?"
"""Run after MARK_BLOB_STORED for a file that lies unpacked; a wanted file has nothing on disk."""


def blob_row(
    version: Version, key: str, blob: Blob, stored: StoredFile | None, *, is_included: bool = True
) -> tuple[object, ...]:
    """Build the parameters of INSERT_BLOB: the blob and its stored file; excluded if not `is_included`."""
    name = None if blob.name == key else blob.name
    state: tuple[object, ...] = (WANTED if is_included else EXCLUDED, blob.sha256, None, None, None, None)
    if stored is not None and is_included:
        state = (STORED, *_on_disk_columns(stored))
    return (version.serial, version.listing.number, key, name, *blob[1:DESCRIBED_FIELD_COUNT], *state)


def file_result_row(result: FileResult) -> tuple[object, ...]:
    """Build the parameters of MARK_BLOB_STORED."""
    stored, content = result.stored, result.content
    return (
        *stored.blob[1:DESCRIBED_FIELD_COUNT],
        stored.sha256,
        stored.mtime_ns,
        stored.inode,
        content.kind,
        content.has_implicit_tiling,
        result.file_id,
    )


def unpacked_row(result: FileResult) -> tuple[object, ...]:
    """Build the parameters of MARK_BLOB_UNPACKED."""
    stored = result.stored
    return (stored.stored_sha256, stored.size, stored.sha256, result.file_id)


def _on_disk_columns(stored: StoredFile) -> tuple[object, ...]:
    """Build the columns of a stored file: SHA-256, mtime, inode; size and SHA-256 where it lies unpacked."""
    _, sha256, mtime_ns, inode, unpacked = stored
    if unpacked is None:
        return (sha256, mtime_ns, inode, None, None)
    return (unpacked.stored_sha256, mtime_ns, inode, unpacked.size, sha256)


def read_stored_file(row: Sequence[Any]) -> StoredFile:
    """Read a stored file from a row of STORED_BLOB_COLUMNS."""
    name, size, etag, md5, content_type, encoding, modified, sha256, mtime_ns, inode, on_disk_size, on_disk_sha256 = row
    blob = Blob(name, size, etag, md5, content_type, encoding, modified)
    if on_disk_sha256 is None:
        return StoredFile(blob, sha256, mtime_ns, inode)
    return StoredFile(blob, on_disk_sha256, mtime_ns, inode, UnpackedFile(on_disk_size, sha256))


def version_row(version: Version) -> dict[str, object]:
    """Build the row of a version, by column, without its serial number."""
    return {
        "name": version.name,
        "export": version.export,
        "imodel": version.facts.imodel,
        "changeset": version.facts.changeset,
        "modified": version.facts.modified,
        "record": json.dumps(dict(version.facts.record)),
        "listing": version.listing.number,
        "listed": version.listing.is_complete,
        "marker": version.listing.marker,
        "damaged": version.damaged,
        "published": version.summary.published_at,
        "files": version.summary.files,
        "bytes": version.summary.bytes,
        "manifest_sha256": version.summary.manifest_sha256,
        "inventory": version.inventory,
        "home": version.container_url,
        "include": json.dumps(version.globs.include),
        "exclude": json.dumps(version.globs.exclude),
        **asdict(version.summary.completeness),
        "begun": version.times.started_at,
        "left_at": version.times.replaced_at,
        "retired": version.times.retired_at,
        "content": version.content,
    }


def read_version(row: Sequence[Any]) -> Version:
    """Read a version from its row: the serial number, then the columns of `version_row`.

    Raises ValueError for values that tilesync never writes.
    """
    serial, name, export, imodel, changeset, modified, record, listing, listed, marker, damaged, *rest = row
    (
        published,
        files,
        size,
        digest,
        inventory,
        home,
        include,
        exclude,
        *completeness,
        started,
        replaced,
        retired,
        content,
    ) = rest
    for text in (name, export, imodel, changeset, modified, marker, published, digest, home):
        read_optional(text, read_text)
    return Version(
        serial,
        name,
        export,
        facts=ExportFacts(imodel, changeset, modified, read_or_default(record, _parse_object, {})),
        listing=ListingState(listing, bool(listed), marker),
        inventory=inventory,
        container_url=home,
        globs=Globs(read_texts(parse_json(include)), read_texts(parse_json(exclude))),
        content=Content(content),
        damaged=bool(damaged),
        summary=VersionSummary(published, files, size, digest, Completeness(*completeness)),
        times=VersionTimes(started, replaced, retired),
    )


def _parse_object(document: str) -> Mapping[str, Any]:
    return read_mapping(parse_json(document))


class CatalogDatabase(Database):
    """The database of a catalog with its schema: what the catalog shares with its parts.

    References, duplicates and stale files take this class and not the catalog, so that imports form no circle.
    """

    def __init__(self, path: Path, *, read_only: bool, is_persistent: bool) -> None:
        super().__init__(
            path,
            SCHEMA,
            schema_version=SCHEMA_VERSION,
            migrations=MIGRATIONS,
            read_only=read_only,
            is_persistent=is_persistent,
        )
        self.is_case_insensitive = self.get_value("folds") == "yes"

    def set_case_insensitive(self, *, is_case_insensitive: bool) -> None:
        """Record whether the disk treats names that differ only in case as the same name."""
        if is_case_insensitive != self.is_case_insensitive:
            self.set_value("folds", "yes" if is_case_insensitive else "no")
            self.is_case_insensitive = is_case_insensitive

    def key(self, name: str) -> str:
        """Return the key of a file name; two names with one key cannot both be stored."""
        return unicodedata.normalize("NFC", name).casefold() if self.is_case_insensitive else name

    def versions(self, *, export: str | None = None, name: str | None = None, retired: bool = False) -> list[Version]:
        """List the versions in the order in which they were started; with `retired` also the retired ones."""
        sql = (
            "SELECT * FROM version WHERE export = coalesce(?, export) AND name = coalesce(?, name)"
            " AND (? OR retired IS NULL) ORDER BY serial"
        )
        with self.translate_value_errors():
            return [read_version(row) for row in self.query(sql, export, name, retired)]
