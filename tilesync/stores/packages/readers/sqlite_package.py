"""Package in an SQLite database: a .3dtiles file, with one row for each file.

The database is untrusted: it is opened read-only, without its journal, and only if it has the one table that the format
describes. Source: https://www.sqlite.org/security.html.
"""

from __future__ import annotations

import sqlite3
from collections import deque
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from tilesync.errors import BlobDamaged, DamagedPackage
from tilesync.stores.packages.readers.package import Package, PackageEntry, check_entry_name
from tilesync.stores.packages.readers.package_input import COPY_AGAIN_HINT, READ_CHUNK_BYTES, PackageInput, damaged

SQLITE_MAGIC = b"SQLite format 3\0"

_COLUMNS = [("key", "TEXT", 1), ("content", "BLOB", 0)]
"""Columns of the table: name, type, and place in the primary key. Source: 3d-tiles-tools."""


class SqlitePackage(Package):
    """An open .3dtiles file. Its rows have no checksum: only a manifest can prove them."""

    def __init__(self, file: PackageInput) -> None:
        super().__init__(file)
        self._idle = deque[sqlite3.Connection]()
        if file.read_up_to(0, len(SQLITE_MAGIC)) != SQLITE_MAGIC:
            raise DamagedPackage(f"{file.path} is not an SQLite database, as the ending of its name says")
        journals = [Path(f"{file.path}{ending}") for ending in ("-wal", "-journal")]
        if found := [each for each in journals if each.exists() and each.stat().st_size]:
            raise DamagedPackage(
                f"the package {file.path} is not complete: {found[0].name} beside it has changes",
                hint="close the program that writes it, then try again",
            )
        self._check_size()
        with self._connected() as connection:
            _check_table(connection, file)

    def _check_size(self) -> None:
        """Raise DamagedPackage if the file has fewer pages than it states. Source: SQLite, "Database File Format"."""
        header = self.file.read_up_to(0, 100)
        page_bytes = int.from_bytes(header[16:18], "big")
        pages = int.from_bytes(header[28:32], "big")
        page_bytes = 65536 if page_bytes == 1 else page_bytes
        is_count_valid = header[24:28] == header[92:96]  # old programs do not update the count
        if len(header) < 100 or (is_count_valid and pages * page_bytes > self.file.size):
            raise DamagedPackage(
                f"the package {self.file.path} is cut off: it should have {pages * page_bytes} bytes, and has"
                f" {self.file.size}",
                hint=COPY_AGAIN_HINT,
            )

    @contextmanager
    def _connected(self) -> Iterator[sqlite3.Connection]:
        """Lend a connection to one reader. Translates the errors of SQLite."""
        try:
            connection = self._idle.pop() if self._idle else self._connect()
            try:
                yield connection
            finally:
                self._idle.append(connection)
        except (sqlite3.Error, OverflowError) as error:
            raise damaged(self.file, str(error)) from error

    def _connect(self) -> sqlite3.Connection:
        self.file.check_unchanged()
        uri = f"{self.file.path.absolute().as_uri()}?mode=ro&immutable=1"
        connection = sqlite3.connect(uri, uri=True, check_same_thread=False, isolation_level=None)
        connection.execute("PRAGMA trusted_schema=OFF")
        connection.execute("PRAGMA cell_size_check=ON")
        return connection

    def find(self, name: str) -> PackageEntry | None:
        """Return the row of a name; None if there is none."""
        with self._connected() as connection:
            row = connection.execute(f"{_SELECT} WHERE key = ?", (name,)).fetchone()
        return self._to_entry(row) if row is not None else None

    def read_place(self, place: int) -> PackageEntry | None:
        """Read the row of a number."""
        with self._connected() as connection:
            row = connection.execute(f"{_SELECT} WHERE rowid = ?", (place,)).fetchone()
        return self._to_entry(row) if row is not None else None

    def entries(self) -> Iterator[PackageEntry]:
        """Yield all rows, in the order in which they were written."""
        last, has_more = None, True
        while has_more:
            with self._connected() as connection:
                after = "" if last is None else f" WHERE rowid > {last}"
                rows = connection.execute(f"{_SELECT}{after} ORDER BY rowid LIMIT {ROWS_PER_PAGE}").fetchall()
            for row in rows:
                entry = self._to_entry(row)
                if entry.offset <= (-1 if last is None else last):  # a cycle in the tree of a damaged file
                    raise damaged(self.file, "its rows are not in order")
                last = entry.offset
                yield entry
            has_more = len(rows) == ROWS_PER_PAGE

    def _to_entry(self, row: tuple[int, object, str, int]) -> PackageEntry:
        row_id, key, content_type, size = row
        if not isinstance(key, str) or content_type != "blob":
            raise DamagedPackage(f"the package {self.file.path} has a row without a name or content: {key!r}")
        return PackageEntry(check_entry_name(key, self.file), size, row_id, size)

    def chunks(self, entry: PackageEntry, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an entry from `offset` on; a large one is not loaded whole."""
        with (
            self._connected() as connection,
            closing(connection.blobopen("media", "content", entry.offset, readonly=True)) as blob,
        ):
            if len(blob) != entry.size:
                raise BlobDamaged(f"{entry.name}: it has {len(blob)} bytes, the package states {entry.size}")
            if offset < entry.size:
                blob.seek(offset)
            while offset < entry.size:
                chunk = blob.read(min(READ_CHUNK_BYTES, entry.size - offset))
                if not chunk:
                    raise BlobDamaged(f"{entry.name}: its bytes end too early")
                offset += len(chunk)
                yield chunk

    def prepare_search(self) -> None:
        """Do nothing: the name is the primary key."""

    def refuse_bad_structure(self) -> None:
        """Do nothing: the name is the primary key."""

    def close(self) -> None:
        """Close all connections. May be called twice."""
        super().close()
        while self._idle:
            self._idle.pop().close()


ROWS_PER_PAGE = 1000
_SELECT = "SELECT rowid, key, typeof(content), length(content) FROM media"


def _check_table(connection: sqlite3.Connection, file: PackageInput) -> None:
    """Raise DamagedPackage unless the database has the table of the format, and it is a real table."""
    found = connection.execute("SELECT type, rootpage, sql FROM sqlite_master WHERE name = 'media'").fetchone()
    columns = [
        (name, kind.upper(), key_place)
        for _, name, kind, _, _, key_place, hidden in connection.execute("PRAGMA table_xinfo(media)")
        if not hidden
    ]
    is_table = found is not None and found[0] == "table" and found[1]
    if not is_table or columns != _COLUMNS or "WITHOUT" in str(found[2]).upper():
        raise DamagedPackage(
            f"{file.path} is not a .3dtiles package: it has no table media (key TEXT PRIMARY KEY, content BLOB)"
        )
