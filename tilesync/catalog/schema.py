"""The rows of the catalog: its tables, and what their rows mean in our terms."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from tilesync.core.foreign_json import parse_json, read_mapping, read_optional, read_or_default, read_text, read_texts
from tilesync.model import (
    UNKNOWN_SIZE,
    Blob,
    Completeness,
    Content,
    FileResult,
    Globs,
    StoredFile,
    UnpackedFile,
    Version,
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
"""
"""A blob without a size is known by its name alone: a walk found it, and no answer has described it yet. Its size and
SHA-256 are those of its stored bytes; how a file that is unpacked lies is told beside.
"""

MIGRATIONS = {
    3: (
        "ALTER TABLE version ADD COLUMN content TEXT NOT NULL DEFAULT 'stored'",
        "ALTER TABLE blob ADD COLUMN lying_size INTEGER",
        "ALTER TABLE blob ADD COLUMN lying_sha256 BLOB",
    )
}
"""What makes tables of one schema those of the next, with everything that they hold."""

WANTED, STORED, EXCLUDED, MISSING = range(4)
"""An excluded blob is one that the globs of the version leave out. A missing one is one that a file asks for and that
the container does not have: no part of the inventory. The SHA-256 of a wanted blob is that which it must have: a
manifest says so, or it was held once.
"""

BLOB_COLUMNS = (
    f"coalesce(name, key), coalesce(size, {UNKNOWN_SIZE}), etag, md5, content_type, content_encoding, last_modified"
)
WANTED_BLOB_COLUMNS = BLOB_COLUMNS + ", sha256"
STORED_BLOB_COLUMNS = BLOB_COLUMNS + ", sha256, mtime_ns, coalesce(inode, 0), lying_size, lying_sha256"

DESCRIBED_FIELD_COUNT = Blob._fields.index("sha256")
"""Fields of a blob that its source describes, the name among them; they come first."""

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
"""After HOLD_BLOB, for what lies unpacked; of what is wanted nothing lies."""


def blob_row(
    version: Version, key: str, blob: Blob, stored: StoredFile | None, *, is_included: bool = True
) -> tuple[object, ...]:
    """What INSERT_BLOB takes: the blob as it is described now, with what is held of it. Not `kept`: it is left out."""
    name = None if blob.name == key else blob.name
    state: tuple[object, ...] = (WANTED if is_included else EXCLUDED, blob.sha256, None, None, None, None)
    if stored is not None and is_included:
        state = (STORED, *_on_disk_columns(stored))
    return (version.serial, version.listing_number, key, name, *blob[1:DESCRIBED_FIELD_COUNT], *state)


def file_result_row(result: FileResult) -> tuple[object, ...]:
    """What HOLD_BLOB takes."""
    held, reading = result.stored, result.content
    return (
        *held.blob[1:DESCRIBED_FIELD_COUNT],
        held.sha256,
        held.mtime_ns,
        held.inode,
        reading.kind,
        reading.has_implicit_tiling,
        result.file_id,
    )


def unpacked_row(result: FileResult) -> tuple[object, ...]:
    """What UNPACK_BLOB takes."""
    held = result.stored
    return (held.stored_sha256, held.size, held.sha256, result.file_id)


def _on_disk_columns(stored: StoredFile) -> tuple[object, ...]:
    """The SHA-256 of the stored bytes, the trace, and of what lies unpacked size and SHA-256."""
    _, sha256, mtime_ns, inode, unpacked = stored
    if unpacked is None:
        return (sha256, mtime_ns, inode, None, None)
    return (unpacked.stored_sha256, mtime_ns, inode, unpacked.size, sha256)


def read_stored_file(row: Sequence[Any]) -> StoredFile:
    """The file of a row of HELD_BLOB."""
    sha256, mtime_ns, inode, size, lying = row[DESCRIBED_FIELD_COUNT : DESCRIBED_FIELD_COUNT + 5]
    if lying is None:
        return StoredFile(Blob(*row[:DESCRIBED_FIELD_COUNT]), sha256, mtime_ns, inode)
    return StoredFile(Blob(*row[:DESCRIBED_FIELD_COUNT]), lying, mtime_ns, inode, UnpackedFile(size, sha256))


def version_row(version: Version) -> dict[str, object]:
    """Everything that the catalog keeps of a version but its serial, by column."""
    return {
        "name": version.name,
        "export": version.export,
        "imodel": version.imodel,
        "changeset": version.changeset,
        "modified": version.modified,
        "record": json.dumps(dict(version.record)),
        "listing": version.listing_number,
        "listed": version.listed,
        "marker": version.marker,
        "damaged": version.damaged,
        "published": version.published_at,
        "files": version.files,
        "bytes": version.bytes,
        "manifest_sha256": version.manifest_sha256,
        "inventory": version.inventory,
        "home": version.container_url,
        "include": json.dumps(version.globs.include),
        "exclude": json.dumps(version.globs.exclude),
        **asdict(version.completeness),
        "begun": version.started_at,
        "left_at": version.replaced_at,
        "retired": version.retired_at,
        "content": version.content,
    }


def read_version(row: Sequence[Any]) -> Version:
    """The version of a row: its serial, then the columns of `version_row`. Raises ValueError for what is none."""
    serial, name, export, imodel, changeset, modified, record, listing, listed, marker, damaged, *rest = row
    published, files, size, digest, inventory, home, include, exclude, *counts, begun, left, retired, content = rest
    for each in (name, export, imodel, changeset, modified, marker, published, digest, home):
        read_optional(each, read_text)
    return Version(
        serial, name, export, imodel, changeset, modified, read_or_default(record, _parse_object, {}), listing, bool(listed), marker,
        bool(damaged), published, files, size, digest, inventory, home,
        Globs(read_texts(parse_json(include)), read_texts(parse_json(exclude))), Completeness(*counts), begun, left, retired,
        Content(content),
    )  # fmt: skip


def _parse_object(document: str) -> Mapping[str, Any]:
    return read_mapping(parse_json(document))
