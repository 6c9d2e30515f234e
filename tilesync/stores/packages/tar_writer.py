"""Writer of .tar files: POSIX ustar, with PAX headers for names and sizes that do not fit."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable
from typing import IO, Final

from tilesync.stores.packages.formats import MANIFEST_ENTRY, find_reserved_problem

MAX_USTAR_BYTES: Final = 8 << 30
"""Size that the eleven octal digits of ustar cannot write any more."""


class TarWriter:
    """Writer of a tar file. All entries belong to nobody and have no time, so that equal files give equal packages."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._size = 0

    def find_problem(self, name: str, size: int) -> str | None:
        """Return why this format cannot hold a file; None if it can."""
        return find_reserved_problem(name)

    def find_compatibility_problem(self, name: str, size: int) -> str | None:
        """Return None: every program reads every file."""
        return None

    def measure(self, name: str, size: int) -> int:
        """Return the bytes of a file with its headers, padded to blocks."""
        is_plain = name.isascii() and len(name) <= tarfile.LENGTH_NAME and size < MAX_USTAR_BYTES
        header_bytes = tarfile.BLOCKSIZE if is_plain else len(_make_header(name, size))
        return header_bytes + size + _padding(size)

    def add_manifest(self, size: int, chunks: Iterable[bytes]) -> None:
        """Add the manifest."""
        self.add(MANIFEST_ENTRY, size, chunks)

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Add a file."""
        header = _make_header(name, size)
        self._file.write(header)
        self._file.writelines(chunks)
        self._file.write(bytes(_padding(size)))
        self._size += len(header) + size + _padding(size)

    def finish(self) -> None:
        """Write two empty blocks, and fill the last record, as the program tar does."""
        end = self._size + 2 * tarfile.BLOCKSIZE
        self._file.write(bytes(end - self._size + -end % tarfile.RECORDSIZE))


def _padding(size: int) -> int:
    return -size % tarfile.BLOCKSIZE


def _make_header(name: str, size: int) -> bytes:
    entry = tarfile.TarInfo(name)
    entry.size = size
    return entry.tobuf(tarfile.PAX_FORMAT, "utf-8", "strict")
