"""Rows of a listing page: insert the blobs of a page by a few statements of many rows.

One statement a row costs more than the rows themselves: Python's sqlite3 adapts each None and each bytes object by a
search for an adapter, and takes and gives up the interpreter lock around each statement. So a statement has many rows,
and no value is None or bytes: the SQL turns stand-ins into NULL, and binary values are bytearrays.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Iterable, Sequence
from functools import lru_cache
from itertools import chain
from typing import Final

from tilesync.catalog.schema import EXCLUDED, WANTED
from tilesync.core.filters import glob_matcher
from tilesync.errors import Incomplete
from tilesync.model import BlobColumns, Version

MAX_ROWS_PER_STATEMENT: Final = 500
"""More rows do not make it faster."""

_VALUES = (
    "(?1, ?2, ?, nullif(?, ''), ?, ?, nullif(?, x''), nullif(?, ''), nullif(?, ''), nullif(?, -1), ?, nullif(?, x''))"
)
_SHARED_VALUES, _OWN_VALUES = 2, 10
NO_BYTES: Final = bytearray()


def insert_blobs(
    db: sqlite3.Connection, version: Version, keys: Sequence[str], blobs: BlobColumns, states: Sequence[int]
) -> int:
    """Insert blobs without stored files, within a transaction; return how many of them are new.

    A blob whose key the version already has is left out.
    """
    step = rows_per_statement(db, shared_values=_SHARED_VALUES, own_values=_OWN_VALUES)
    changes_before = db.total_changes
    for start in range(0, len(keys), step):
        part = slice(start, start + step)
        values = _make_values(keys[part], BlobColumns(*(column[part] for column in blobs.columns())), states[part])
        sql = _insert_statement(len(values) // _OWN_VALUES)
        db.execute(sql, (version.serial, version.listing.number, *values))
    return db.total_changes - changes_before


def _make_values(keys: Sequence[str], blobs: BlobColumns, states: Sequence[int]) -> list[object]:
    """Make the values of one statement, row by row."""
    rows = zip(
        keys,
        ["" if name == key else name for name, key in zip(blobs.names, keys, strict=True)],
        blobs.sizes,
        blobs.etags,
        _encode_bytes(blobs.md5s),
        [text or "" for text in blobs.content_types],
        [text or "" for text in blobs.content_encodings],
        [-1 if seconds is None else seconds for seconds in blobs.last_modified],
        states,
        _encode_bytes(blobs.sha256s),
        strict=True,
    )
    return list(chain.from_iterable(rows))


def rows_per_statement(db: sqlite3.Connection, *, shared_values: int, own_values: int) -> int:
    """Return how many rows one statement may have: each has its own values, and all of them share some."""
    max_values = db.getlimit(sqlite3.SQLITE_LIMIT_VARIABLE_NUMBER)
    return min(MAX_ROWS_PER_STATEMENT, (max_values - shared_values) // own_values)


@lru_cache(maxsize=8)
def _insert_statement(rows: int) -> str:
    return (
        "INSERT INTO blob (version, listing, key, name, size, etag, md5, content_type, content_encoding, last_modified,"
        f" state, sha256) VALUES {', '.join([_VALUES] * rows)} ON CONFLICT DO NOTHING"
    )


def _encode_bytes(column: Sequence[bytes | None]) -> list[bytearray]:
    return [bytearray(value) if value else NO_BYTES for value in column]


def choose_states(version: Version, names: Sequence[str]) -> list[int]:
    """Return the state of each new blob: wanted, or excluded by the globs of the version."""
    if not version.globs:
        return [WANTED] * len(names)
    return [WANTED if is_included else EXCLUDED for is_included in map(glob_matcher(version.globs), names)]


def delete_older_rows(db: sqlite3.Connection, version: Version, keys: Iterable[str]) -> None:
    """Delete the rows that these keys have from an earlier listing, within a transaction.

    Readers page by row id, so names get new rows at the end.
    """
    if version.listing.number > 1:
        rows = ((version.serial, version.listing.number, key) for key in keys)
        db.executemany("DELETE FROM blob WHERE version=? AND listing<? AND key=?", rows)


def make_repeated_name_error(names: Iterable[str], make_key: Callable[[str], str]) -> Incomplete:
    """Make the error for a page with a name that its listing already had, in this page or an earlier one."""
    seen, repeated = dict[str, str](), "a name from an earlier page"
    for name in names:
        if other := seen.get(make_key(name)):
            repeated = name if other == name else f"{other} and {name}, which are the same name on this disk"
            break
        seen[make_key(name)] = name
    return Incomplete(
        f"the listing contains a file twice: {repeated}",
        hint="this export was not published; the next run lists the container again",
    )
