"""Files whose payload is gzip, unpacked into new ones: in bounded memory, and where that is asked for bit by bit."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from tilesync.core.gzip import PACKED, gunzipped
from tilesync.model import Trace
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import trace_of

STRETCH = 1 << 24
"""Unpacked bytes that are written at a time: after so many a run may be interrupted."""

_READ = 1 << 20


class Laid(NamedTuple):
    """A file that was written: its trace, its size and its SHA-256."""

    trace: Trace
    size: int
    sha256: bytes


class Unpacking:
    """A gzip payload that is unpacked into a new file. Raises OSError, BlobDamaged for a broken payload."""

    def __init__(self, chunks: Iterable[bytes], into: Entry) -> None:
        self._pieces = gunzipped(chunks)
        self._file = open(into.create(), "wb", buffering=0)  # noqa: SIM115 - `go_on` closes it, or `give_up`
        self._sha256 = hashlib.sha256()
        self.size = 0

    @property
    def sha256(self) -> bytes:
        """SHA-256 of what was written."""
        return self._sha256.digest()

    def go_on(self) -> bool:
        """Write a stretch; whether there may be more."""
        until = self.size + STRETCH
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

    def give_up(self) -> None:
        """Let go of the file, which is as it is. May be called twice, and when all is written."""
        self._file.close()


def unpack(chunks: Iterable[bytes], into: Entry, modified: float | None) -> Laid:
    """A new file with what a gzip payload holds, and that mtime (None: now). When it fails nothing is left.

    Raises OSError, BlobDamaged.
    """
    unpacking = Unpacking(chunks, into)
    try:
        while unpacking.go_on():
            pass
        if modified is not None:
            into.date(modified)
        return Laid(trace_of(into.stat()), unpacking.size, unpacking.sha256)
    except BaseException:
        unpacking.give_up()
        into.unlink()
        raise


def is_packed(entry: Entry) -> bool:
    """Whether the payload of a regular file that is no symlink is gzip. Raises OSError."""
    with open(entry.open(), "rb", buffering=0) as file:
        return file.read(len(PACKED)) == PACKED


def pieces_of(entry: Entry) -> Iterator[bytes]:
    """The bytes of a file that is no symlink. Raises OSError."""
    with open(entry.open(), "rb", buffering=0) as file:
        while piece := file.read(_READ):
            yield piece
