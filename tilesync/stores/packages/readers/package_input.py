"""File of a package: reads of bytes at an offset, and the stamp that shows that another file took its place."""

from __future__ import annotations

import os
import weakref
from collections.abc import Iterator
from pathlib import Path
from threading import Lock
from typing import NamedTuple

from tilesync.errors import DamagedPackage, DestinationError, ExportReplaced, TilesyncError
from tilesync.runtime.os_errors import to_read_error, translate_read_errors
from tilesync.runtime.safe_open import open_regular

READ_CHUNK_BYTES = 1 << 20
"""Bytes read at a time."""

COPY_AGAIN_HINT = "compare its size with that of the original, and copy it again"


class PackageStamp(NamedTuple):
    """Device, inode, size and mtime of a package: a package with another stamp is another package."""

    device: int
    inode: int
    size: int
    mtime_ns: int


def stamp_of(found: os.stat_result) -> PackageStamp:
    """Return the stamp in the stat result of a file."""
    return PackageStamp(found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns)


class PackageInput:
    """An open package. Reads may come from several threads. `close` closes it, as does the end of this object.

    `stamp`: the stamp that it has, and must keep; None: the one that it has now. `descriptor`: the file, if it is open
    already; this object closes it. Raises DestinationError, and ExportReplaced if it has another stamp.
    """

    def __init__(self, path: Path, stamp: PackageStamp | None = None, *, descriptor: int | None = None) -> None:
        self.path = path
        self._lock = Lock()
        with translate_read_errors(f"cannot read {path}"):
            self._descriptor = open_regular(path, follow_symlinks=True) if descriptor is None else descriptor
        self.close = weakref.finalize(self, os.close, self._descriptor)
        try:
            self.stamp = stamp or self._read_stamp()
            self.check_unchanged()
        except TilesyncError:
            self.close()
            raise

    def _read_stamp(self) -> PackageStamp:
        with translate_read_errors(f"cannot read {self.path}"):
            return stamp_of(os.fstat(self._descriptor))

    @property
    def size(self) -> int:
        """Size in bytes."""
        return self.stamp.size

    def check_unchanged(self) -> None:
        """Raise ExportReplaced if the file was changed or replaced after its stamp was taken."""
        if self._read_stamp() != self.stamp:
            raise ExportReplaced(
                f"the package {self.path} changed while it was read",
                hint="run again, and let nothing write to it meanwhile",
            )

    def read_at(self, offset: int, size: int) -> bytes:
        """Return exactly `size` bytes from `offset` on. Raises DamagedPackage if the file ends before."""
        if offset < 0 or offset + size > self.size:
            raise damaged(self, "it refers to bytes behind its end")
        if not self.close.alive:  # its descriptor may belong to another file by now
            raise DestinationError(f"the package {self.path} is closed")
        try:
            data = self._read(offset, size)
        except OSError as error:
            raise to_read_error(error, f"cannot read {self.path}") from error
        if len(data) != size:
            raise DamagedPackage(f"the package {self.path} became shorter while it was read", hint=COPY_AGAIN_HINT)
        return data

    def _read(self, offset: int, size: int) -> bytes:
        if hasattr(os, "pread"):
            data = os.pread(self._descriptor, size, offset)
            while 0 < len(data) < size and (more := os.pread(self._descriptor, size - len(data), offset + len(data))):
                data += more  # one read returns at most 2 GiB (read(2))
            return data
        with self._lock:  # Windows
            os.lseek(self._descriptor, offset, os.SEEK_SET)
            data = os.read(self._descriptor, size)
            while 0 < len(data) < size and (more := os.read(self._descriptor, size - len(data))):
                data += more
            return data

    def read_up_to(self, offset: int, size: int) -> bytes:
        """Return `size` bytes from `offset` on, or those until the end of the file."""
        return self.read_at(offset, max(0, min(size, self.size - offset)))

    def chunks(self, offset: int, size: int) -> Iterator[bytes]:
        """Yield `size` bytes from `offset` on."""
        end = offset + size
        while offset < end:
            chunk = self.read_at(offset, min(READ_CHUNK_BYTES, end - offset))
            offset += len(chunk)
            yield chunk


def damaged(file: PackageInput, problem: str) -> DamagedPackage:
    """Return the error for a package whose structure is damaged."""
    return DamagedPackage(f"the package {file.path} is damaged: {problem}", hint=COPY_AGAIN_HINT)
