"""Writer of .3dtiles files: an SQLite database with one row for each file."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import IO, Final

from tilesync.errors import DestinationError, DiskFull
from tilesync.protocols.package import MAX_WHOLE_BYTES
from tilesync.stores.packages.formats import MANIFEST_ENTRY, MEDIA_TABLE, find_reserved_problem

MAX_ROW_BYTES: Final = 1_000_000_000
"""Maximum bytes of a row that a reader accepts, if it was not compiled with another limit.

Source: "Implementation Limits For SQLite", SQLITE_MAX_LENGTH.
"""

ROW_RESERVE_BYTES: Final = 8192
"""Bytes of a row beside its content: the key, of 1,024 characters at most, and the header of the row."""

IO_HINT: Final = "check the disk, and the limit on the size of files (`ulimit -f`), or choose another folder for OUT"

PAGE_BYTES: Final = 4096
CACHE_PAGES: Final = 2048

_STABLE_FIELDS: Final = ((24, 1), (92, 1), (96, 3_040_000))
"""Fields of the file header that tell by which release, and in how many steps, a file was written: offset and value.

The change counter, the value of that counter for which the version is valid, and the version of SQLite. Constant values
make equal packages of equal versions. Source: "Database File Format", 1.3.
"""


class SqliteWriter:
    """Writer of a .3dtiles file. `file` is open at `path`, and empty. `display_name`: of the package, for messages."""

    def __init__(self, path: str, file: IO[bytes], *, display_name: str | None = None) -> None:
        self._file = file
        self._display_name = display_name or path
        self._db = sqlite3.connect(path, isolation_level=None)
        with self._translated_errors():
            self._db.execute(f"PRAGMA page_size={PAGE_BYTES}")
            self._db.execute(f"PRAGMA cache_size={CACHE_PAGES}")
            for setting in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE"):
                self._db.execute(f"PRAGMA {setting}").close()
            self._db.execute("BEGIN")
            self._db.execute(MEDIA_TABLE)
        self._max_bytes = min(self._db.getlimit(sqlite3.SQLITE_LIMIT_LENGTH), MAX_ROW_BYTES) - ROW_RESERVE_BYTES

    def find_problem(self, name: str, size: int) -> str | None:
        """Return why this format cannot hold a file; None if it can."""
        if size > self._max_bytes:
            return f"is larger than the {self._max_bytes:,} bytes that a .3dtiles row can hold: write .zip or .tar"
        return find_reserved_problem(name)

    def find_compatibility_problem(self, name: str, size: int) -> str | None:
        """Return None: every reader reads every file."""
        return None

    def measure(self, name: str, size: int) -> int:
        """Return the bytes of a file with its key, which is in the index too, and with half-filled pages."""
        return size + 2 * len(name.encode()) + PAGE_BYTES // 2

    def add_manifest(self, size: int, chunks: Iterable[bytes]) -> None:
        """Add the manifest. Raises DestinationError if it is too large."""
        if size > self._max_bytes:
            raise DestinationError("the manifest is too large for a .3dtiles file", hint="write .zip or .tar")
        self.add(MANIFEST_ENTRY, size, chunks)

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Add a file."""
        if size <= MAX_WHOLE_BYTES:
            data = b"".join(chunks)
            with self._translated_errors():
                self._db.execute("INSERT INTO media VALUES (?, ?)", (name, data))
            return
        with self._translated_errors():  # a row of zeros, into which the chunks are written
            row = self._db.execute("INSERT INTO media VALUES (?, zeroblob(?))", (name, size)).lastrowid
            assert row is not None
            with self._db.blobopen("media", "content", row) as content:
                for chunk in chunks:
                    content.write(chunk)

    def finish(self) -> None:
        """Commit, and make the header independent of the release of SQLite."""
        with self._translated_errors():
            self._db.execute("COMMIT")
            self._db.close()
        for offset, value in _STABLE_FIELDS:
            self._file.seek(offset)
            self._file.write(value.to_bytes(4, "big"))

    def close(self) -> None:
        """Close the database; what was not finished is lost."""
        self._db.close()

    @contextmanager
    def _translated_errors(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            message = f"cannot write {self._display_name}: {error}"
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_FULL:
                raise DiskFull(message) from error
            raise DestinationError(message, hint=IO_HINT) from error
