"""SQLite database file: one connection, its transactions, and its errors as tilesync errors."""

from __future__ import annotations

import shutil
import sqlite3
import tempfile
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tilesync.errors import DestinationError, DiskFull
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.runtime.safe_open import check_unshared, open_regular

_COPY_CHUNK_BYTES = 1 << 20

_BULK_CACHE_KIB = 8 << 10
"""Memory for pages of the file while many rows are written, at most. Digests are random, so each new one changes
another page of an index: with SQLite's own 2 MB most of these would be read from the file, and written to it, again and
again. With 32 MB a night of a million files takes as long as with 8.
"""

_BULK_LOG_PAGES = 8 << 10
"""Pages of the write-ahead log, of 4 KB each, after which they are copied to the file."""


class Database:
    """One SQLite connection, safe to use from any thread.

    `read_only` works on a copy. `is_persistent=False`: nobody opens the file again, so writes need not survive a crash.
    `is_new`: there was no usable file.

    A file of an older `schema_version` keeps its rows where `migrations` lead from that version to this one, step by
    step; else it is emptied, because its contents can be rebuilt. Raises DiskFull and DestinationError for errors of
    the disk.
    """

    def __init__(
        self,
        path: Path,
        schema: str,
        *,
        schema_version: int,
        read_only: bool,
        is_persistent: bool = True,
        migrations: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self._lock = threading.RLock()
        self._copy = tempfile.TemporaryDirectory() if read_only else None
        self._path = path
        self.is_new = not path.exists()
        with _translate_errors(path):
            self._db = _connect_to_copy(path, self._copy.name) if self._copy else _connect(path)
        try:
            self._prepare(schema, schema_version, migrations or {}, is_persistent=is_persistent)
        except BaseException:
            self.close()
            raise

    def _prepare(
        self, schema: str, schema_version: int, migrations: Mapping[int, Sequence[str]], *, is_persistent: bool
    ) -> None:
        with _translate_errors(self._path):
            self._db.execute(f"PRAGMA journal_mode={'WAL' if is_persistent else 'MEMORY'}")
            self._db.execute(f"PRAGMA synchronous={'NORMAL' if is_persistent else 'OFF'}")
            tables = [row[0] for row in self._db.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
            found = self._read_schema_version() if "meta" in tables else 0
            if found > schema_version:
                raise DestinationError("the catalog was written by a newer tilesync", hint="upgrade tilesync")
            while found < schema_version and found in migrations:
                found = self._migrate(found, migrations[found])
            if found < schema_version:
                self.is_new = True
                for table in tables:
                    self._db.execute(f'DROP TABLE "{table}"')
            self._db.executescript(schema)
        if found < schema_version:
            self.set_value("schema", str(schema_version))

    def _migrate(self, version: int, statements: Sequence[str]) -> int:
        """Migrate to the next version, unless another process did so meanwhile; return the version it has then."""
        with self.transaction() as db:
            found = self._read_schema_version()
            if found == version:
                for statement in statements:
                    db.execute(statement)
                found = version + 1
                db.execute("UPDATE meta SET value=? WHERE key='schema'", (str(found),))
        return found

    def _read_schema_version(self) -> int:
        with self.translate_value_errors():
            return parse_schema_version(self.get_value("schema"))

    @contextmanager
    def translate_value_errors(self) -> Iterator[None]:
        """Translate ValueError and TypeError to DestinationError: another program changed the file."""
        try:
            yield
        except (ValueError, TypeError) as error:
            raise make_damage_error(self._path, error) from error

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """Run one transaction; commit at the end, roll back on any exception."""
        with self._lock, _translate_errors(self._path):
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield self._db
            except BaseException:
                if self._db.in_transaction:  # SQLite itself rolls back when the disk is full
                    self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def prepare_for_many_rows(self) -> None:
        """Take more memory, for the many rows of a new inventory, until the file is closed.

        The write-ahead log may become larger, so that a page that many transactions change is copied to the file once
        and not after each of them. Most openings need neither: they read, or find that nothing changed.
        """
        with self._lock, _translate_errors(self._path):
            self._db.execute(f"PRAGMA cache_size=-{_BULK_CACHE_KIB}")
            self._db.execute(f"PRAGMA wal_autocheckpoint={_BULK_LOG_PAGES}")

    def query(self, sql: str, *values: object) -> list[tuple[Any, ...]]:
        """Run a query and return all rows."""
        with self._lock, _translate_errors(self._path):
            return self._db.execute(sql, values).fetchall()

    def close(self) -> None:
        """Close the connection and remove the copy, if any."""
        with self._lock, _translate_errors(self._path):
            self._db.close()
            if self._copy is not None:
                self._copy.cleanup()

    def set_value(self, key: str, value: str) -> None:
        """Store a value about the destination as a whole."""
        with self.transaction() as db:
            db.execute("INSERT OR REPLACE INTO meta VALUES (?, ?)", (key, value))

    def get_value(self, key: str) -> str | None:
        """Read the value stored under `key`; None if there is none."""
        rows = self.query("SELECT value FROM meta WHERE key = ?", key)
        return rows[0][0] if rows else None


def read_schema_version(path: Path) -> int:
    """Read the schema version of a file without changing it; 0 if it states none."""
    _refuse_links(path)
    with (
        _translate_errors(path),
        closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30)) as db,
    ):
        tables = [row[0] for row in db.execute("SELECT name FROM sqlite_schema WHERE type='table'")]
        row = db.execute("SELECT value FROM meta WHERE key='schema'").fetchone() if "meta" in tables else None
    try:
        return parse_schema_version(row[0] if row else None)
    except (ValueError, TypeError) as error:
        raise make_damage_error(path, error) from error


def parse_schema_version(stored: object) -> int:
    """Parse the schema version that a catalog states; 0 if it states none. Raises ValueError."""
    if stored is not None and not (
        isinstance(stored, str) and stored.isascii() and stored.isdecimal() and len(stored) < 10
    ):
        raise ValueError(f"its schema is {str(stored)[:20]!r}, which is not a number")
    return int(stored or 0)


def make_damage_error(path: Path, error: Exception) -> DestinationError:
    """Build the error for a catalog with contents that tilesync did not write."""
    return DestinationError(
        f"the catalog is damaged ({error})",
        hint=f"delete {path}: the next run checks the stored files again; nothing is lost",
    )


def _connect(path: Path) -> sqlite3.Connection:
    """Open a connection to the file."""
    _refuse_links(path)
    return sqlite3.connect(path, check_same_thread=False, isolation_level=None, timeout=30)


def _connect_to_copy(path: Path, folder: str) -> sqlite3.Connection:
    """Open a connection to a copy in `folder`: even SQLite's side files of the original stay untouched."""
    for side in (path, path.with_name(path.name + "-wal")):
        try:
            descriptor = open_regular(side)
        except FileNotFoundError:
            continue
        with open(descriptor, "rb") as file, (Path(folder) / side.name).open("wb") as copy:
            shutil.copyfileobj(file, copy, _COPY_CHUNK_BYTES)
    return _connect(Path(folder) / path.name)


def _refuse_links(path: Path) -> None:
    """Raise DestinationError if the catalog, or a file that SQLite keeps beside it, is a link or not a regular file.

    SQLite would follow a symlink, and writing to a hard link changes the file under its other name too.
    """
    with translate_os_errors("cannot use the catalog"):
        for suffix in ("", "-wal", "-shm", "-journal"):
            check_unshared(path.with_name(path.name + suffix))


@contextmanager
def _translate_errors(path: Path) -> Iterator[None]:
    """Translate SQLite errors to tilesync errors."""
    try:
        yield
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode & 0xFF in {sqlite3.SQLITE_FULL, sqlite3.SQLITE_IOERR}:
            raise DiskFull(f"the catalog cannot be written ({error})") from error
        raise DestinationError(f"the catalog cannot be used ({error})") from error
    except sqlite3.DatabaseError as error:
        raise make_damage_error(path, error) from error
