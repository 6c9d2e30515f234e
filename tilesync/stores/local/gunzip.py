"""Files whose payload is gzip, unpacked into new ones: in bounded memory, and where that is asked for bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tilesync.core.gzip import GZIP_DEFLATE_MAGIC, gunzip_chunks
from tilesync.model import FileStamp
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import stamp_from_stat

WRITE_STRETCH_BYTES = 1 << 24
"""Unpacked bytes that are written at a time: after so many a run may be interrupted."""

_READ_CHUNK_BYTES = 1 << 20


class WrittenFile(NamedTuple):
    """A file that was written: its trace, its size and its SHA-256."""

    stamp: FileStamp
    size: int
    sha256: bytes


class GunzipWriter:
    """A gzip payload that is unpacked into a new file. Raises OSError, BlobDamaged for a broken payload."""

    def __init__(self, chunks: Iterable[bytes], into: Entry) -> None:
        self._pieces = gunzip_chunks(chunks)
        self._file = open(into.create(), "wb", buffering=0)  # noqa: SIM115 - `go_on` closes it, or `give_up`
        self._sha256 = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> bytes:
        """SHA-256 of what was written."""
        return self._sha256.digest()

    def write_next(self) -> bool:
        """Write a stretch; whether there may be more."""
        until = self.size + WRITE_STRETCH_BYTES
        for piece in self._pieces:
            self._sha256.update(piece)
            left = memoryview(piece)
            while left:
                left = left[self._file.write(left) :]
            self.size += len(piece)
            if self.size >= until:
                return True
        self._file.close()
        return False

    def close(self) -> None:
        """Let go of the file, which is as it is. May be called twice, and when all is written."""
        self._file.close()


def gunzip_to_file(chunks: Iterable[bytes], into: Entry, modified: float | None) -> WrittenFile:
    """A new file with what a gzip payload holds, and that mtime (None: now). When it fails nothing is left.

    Raises OSError, BlobDamaged.
    """
    unpacking = GunzipWriter(chunks, into)
    try:
        while unpacking.write_next():
            pass
        if modified is not None:
            into.set_mtime(modified)
        return WrittenFile(stamp_from_stat(into.stat()), unpacking.size, unpacking.sha256)
    except BaseException:
        unpacking.close()
        into.unlink()
        raise


def is_gzip_file(entry: Entry) -> bool:
    """Whether the payload of a regular file that is no symlink is gzip. Raises OSError."""
    with open(entry.open(), "rb", buffering=0) as file:
        return file.read(len(GZIP_DEFLATE_MAGIC)) == GZIP_DEFLATE_MAGIC


def read_chunks(entry: Entry) -> Iterator[bytes]:
    """The bytes of a file that is no symlink. Raises OSError."""
    with open(entry.open(), "rb", buffering=0) as file:
        while piece := file.read(_READ_CHUNK_BYTES):
            yield piece
