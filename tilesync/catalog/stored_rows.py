"""Rows of files that were read in place: insert them as stored by a few statements of many rows.

`listing_rows` says why a statement has many rows, and stand-ins for None.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from tilesync.catalog.listing_rows import NO_BYTES, rows_per_statement
from tilesync.catalog.schema import STORED
from tilesync.model import FileResult, Version

_VALUES = (
    "(?1, ?2, ?, nullif(?, ''), ?, ?, nullif(?, x''), nullif(?, ''), nullif(?, ''), nullif(?, -1),"
    f" {STORED}, ?, ?, ?, nullif(?, -1), nullif(?, x''), ?, ?)"
)
_SHARED_VALUES, _OWN_VALUES = 2, 15
_NO_UNPACKED_FILE: Final = -1, NO_BYTES


def insert_stored_files(
    db: sqlite3.Connection, version: Version, keys: Sequence[str], results: Sequence[FileResult]
) -> str | None:
    """Insert files, within a transaction; return the name of one that the version already has, None if it has none."""
    step = rows_per_statement(db, shared_values=_SHARED_VALUES, own_values=_OWN_VALUES)
    last_id: int = db.execute("SELECT coalesce(max(id), 0) FROM blob").fetchone()[0]
    changes_before = db.total_changes
    for start in range(0, len(keys), step):
        rows = map(_make_values, keys[start : start + step], results[start : start + step])
        values = list(chain.from_iterable(rows))
        sql = _insert_statement(len(values) // _OWN_VALUES)
        db.execute(sql, (version.serial, version.listing.number, *values))
    if db.total_changes - changes_before == len(keys):
        return None
    seen = set[str]()
    for key, result in zip(keys, results, strict=True):
        row_id = db.execute("SELECT id FROM blob WHERE version=? AND key=?", (version.serial, key)).fetchone()[0]
        if key in seen or row_id <= last_id:
            return result.stored.blob.name
        seen.add(key)
    raise AssertionError("fewer rows than files, but no file comes twice")


def _make_values(key: str, result: FileResult) -> tuple[object, ...]:
    """Make the values of one row."""
    (name, size, etag, md5, content_type, content_encoding, last_modified, *_), sha256, mtime_ns, inode, unpacked = (
        result.stored
    )
    content = result.content
    stored_sha256, on_disk = sha256, _NO_UNPACKED_FILE
    if unpacked is not None:
        stored_sha256, on_disk = unpacked.stored_sha256, (unpacked.size, bytearray(sha256))
    return (
        key,
        "" if name == key else name,
        size,
        etag,
        bytearray(md5) if md5 else NO_BYTES,
        content_type or "",
        content_encoding or "",
        -1 if last_modified is None else last_modified,
        bytearray(stored_sha256),
        mtime_ns,
        inode,
        *on_disk,
        content.kind.value,
        content.has_implicit_tiling,
    )


@lru_cache(maxsize=8)
def _insert_statement(rows: int) -> str:
    return (
        "INSERT INTO blob (version, listing, key, name, size, etag, md5, content_type, content_encoding, last_modified,"
        " state, sha256, mtime_ns, inode, lying_size, lying_sha256, kind, implicit)"
        f" VALUES {', '.join([_VALUES] * rows)} ON CONFLICT DO NOTHING"
    )
