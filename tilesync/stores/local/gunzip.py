"""Gunzip: unpack gzip payloads into new files, in bounded memory, in steps that can be interrupted."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tilesync.model import FileStamp
from tilesync.runtime.gzip import GZIP_DEFLATE_MAGIC, gunzip_chunks
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import stamp_from_stat

WRITE_STEP_BYTES = 1 << 24
"""Unpacked bytes of one step. A run can be interrupted between two steps."""

_READ_CHUNK_BYTES = 1 << 20


class WrittenFile(NamedTuple):
    """The stamp, the size in bytes and the SHA-256 of a file that was written."""

    stamp: FileStamp
    size: int
    sha256: bytes


class GunzipWriter:
    """Writer that unpacks a gzip payload into a new file. Raises OSError, and BlobDamaged if the payload is broken."""

    def __init__(self, chunks: Iterable[bytes], into: Entry) -> None:
        self._chunks = gunzip_chunks(chunks)
        self._file = open(into.create(), "wb", buffering=0)  # noqa: SIM115 - `write_next` or `close` closes it
        self._sha256 = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the bytes written so far."""
        return self._sha256.digest()

    def write_next(self) -> bool:
        """Write one step; return True if there may be more."""
        step_end = self.size + WRITE_STEP_BYTES
        for chunk in self._chunks:
            self._sha256.update(chunk)
            remaining = memoryview(chunk)
            while remaining:
                remaining = remaining[self._file.write(remaining) :]
            self.size += len(chunk)
            if self.size >= step_end:
                return True
        self._file.close()
        return False

    def close(self) -> None:
        """Close the file as it is. Can be called more than once, and after the last step."""
        self._file.close()


def gunzip_to_file(chunks: Iterable[bytes], into: Entry, modified: float | None) -> WrittenFile:
    """Unpack a gzip payload into a new file with this mtime in seconds (None: now). No file is left after an error.

    Raises OSError, BlobDamaged.
    """
    writer = GunzipWriter(chunks, into)
    try:
        while writer.write_next():
            pass
        if modified is not None:
            into.set_mtime(modified)
        return WrittenFile(stamp_from_stat(into.stat()), writer.size, writer.sha256)
    except BaseException:
        writer.close()
        into.unlink()
        raise


def is_gzip_file(entry: Entry) -> bool:
    """Return whether a regular file starts like gzip. Raises WrongFileType, also for a symlink, and OSError."""
    with open(entry.open(), "rb", buffering=0) as file:
        return file.read(len(GZIP_DEFLATE_MAGIC)) == GZIP_DEFLATE_MAGIC


def read_chunks(entry: Entry) -> Iterator[bytes]:
    """Read the bytes of a regular file in chunks. Raises WrongFileType, also for a symlink, and OSError."""
    with open(entry.open(), "rb", buffering=0) as file:
        while chunk := file.read(_READ_CHUNK_BYTES):
            yield chunk
