"""Files of a folder for a server: cached ones are read on the event loop, all others in threads."""

from __future__ import annotations

import os
import stat
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from typing import Final

from tilesync.errors import UnsafeName
from tilesync.model.storage import HEAD_BYTES
from tilesync.runtime.os_errors import translate_read_errors
from tilesync.runtime.safe_open import WrongFileType
from tilesync.runtime.threads import MAX_DISK_THREADS, run_abandonable
from tilesync.stores.local.cached_open import OpenCached, find_cached_open
from tilesync.stores.local.directory_handles import NOT_FOUND_ERRORS
from tilesync.stores.local.reader import SafePathResolver

CHUNK_BYTES: Final = 1 << 17
"""Bytes that are read at a time. A file of at most this size is read when it is opened."""

_HAS_NOWAIT = hasattr(os, "preadv") and hasattr(os, "RWF_NOWAIT")


class OpenedLocalFile:
    """A regular file of a folder, open for one response. Replacing it meanwhile changes nothing."""

    def __init__(self, descriptor: int, found: os.stat_result, pool: ThreadPoolExecutor) -> None:
        self._descriptor = descriptor
        self._pool = pool
        self.size = found.st_size
        self.etag = f'"{found.st_mtime_ns:x}-{found.st_ino:x}-{found.st_size:x}"'
        self.last_modified: int | None = int(found.st_mtime)
        self.head = b""
        self.body: bytes | None = None

    def read_start(self, *, wait: bool) -> bool:
        """Read the head, or all of a small file. Without `wait`, return False if that could wait for the disk.

        The file is closed if it is small, and unless True is returned.
        """
        is_read = False
        try:
            is_read = self._read_start(wait=wait)
            return is_read
        finally:
            if not is_read or self.body is not None:
                self._close()

    def _read_start(self, *, wait: bool) -> bool:
        is_small = self.size <= CHUNK_BYTES
        wanted = self.size if is_small else HEAD_BYTES
        data = os.pread(self._descriptor, wanted, 0) if wait else _read_cached(self._descriptor, wanted, 0)
        if data is None:
            return False
        self.head = data[:HEAD_BYTES]
        if is_small:
            self.size, self.body = len(data), data
        return True

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`. Ends early if the file became shorter."""
        if self.body is not None:
            yield self.body[start:stop]
            return
        while start < stop:
            wanted = min(CHUNK_BYTES, stop - start)
            chunk = _read_cached(self._descriptor, wanted, start)
            if chunk is None:
                chunk = await run_abandonable(self._pool, partial(_read_waiting, self._descriptor, wanted, start))
            if not chunk:
                return
            start += len(chunk)
            yield chunk

    async def aclose(self) -> None:
        """Close the file. May be called twice."""
        self._close()

    def __del__(self) -> None:
        self._close()  # a client that left while a thread opened the file closes nothing

    def _close(self) -> None:
        if self._descriptor >= 0:
            descriptor, self._descriptor = self._descriptor, -1
            os.close(descriptor)


class LocalPublicFiles:
    """The regular files below a folder, by their paths. No symlink below the folder is followed."""

    has_other_files = True

    def __init__(self, root: Path) -> None:
        self._root = root
        self._resolver = SafePathResolver(root, within=None)
        self._pool = ThreadPoolExecutor(MAX_DISK_THREADS, thread_name_prefix="tilesync-files")
        self._root_descriptor: int | None = None
        self._open_cached: OpenCached | None = None
        if _HAS_NOWAIT and os.open in os.supports_dir_fd:
            with translate_read_errors(f"cannot read {root}"):
                self._root_descriptor = os.open(root, os.O_RDONLY | getattr(os, "O_DIRECTORY", 0))
            self._open_cached = find_cached_open(self._root_descriptor)

    async def open(self, path: str) -> OpenedLocalFile | None:
        """Open the regular file at a path below the folder; None if there is none. Raises Unreadable."""
        if self._open_cached is not None and self._root_descriptor is not None:
            descriptor = self._open_cached(self._root_descriptor, path)
            if descriptor is not None and (file := self._adopt(descriptor, wait=False)) is not None:
                return file
        return await run_abandonable(self._pool, partial(self._open_waiting, path))

    def _adopt(self, descriptor: int, *, wait: bool) -> OpenedLocalFile | None:
        """Read the start of an open file; None, with the descriptor closed, if that is not possible."""
        file: OpenedLocalFile | None = None
        try:
            found = os.fstat(descriptor)
            if stat.S_ISREG(found.st_mode):
                file = OpenedLocalFile(descriptor, found, self._pool)
        finally:
            if file is None:
                os.close(descriptor)
        return file if file is not None and file.read_start(wait=wait) else None

    def _open_waiting(self, path: str) -> OpenedLocalFile | None:
        with translate_read_errors(f"cannot read {path}"):
            try:
                descriptor = self._resolver.entry("", path).open()
            except (*NOT_FOUND_ERRORS, WrongFileType, UnsafeName):
                return None
            return self._adopt(descriptor, wait=True)

    def close(self) -> None:
        """Close the folder. Does not wait for reads that hang."""
        self._pool.shutdown(wait=False, cancel_futures=True)
        self._resolver = SafePathResolver(self._root, within=None)  # a thread may keep this object, but no open folder
        if self._root_descriptor is not None:
            os.close(self._root_descriptor)
            self._root_descriptor = None


@contextmanager
def open_public_files(root: Path) -> Iterator[LocalPublicFiles]:
    """Open the files below a folder for a server. Raises Unreadable."""
    with closing(LocalPublicFiles(root)) as files:
        yield files


def _read_waiting(descriptor: int, count: int, offset: int) -> bytes:
    """Read bytes, from the disk if necessary. Raises Unreadable."""
    with translate_read_errors("cannot read an open file"):
        return os.pread(descriptor, count, offset)


def _read_cached(descriptor: int, count: int, offset: int) -> bytes | None:
    """Read bytes from the page cache; None unless all of them are there, or the file ends before."""
    if not _HAS_NOWAIT:
        return None
    buffer = bytearray(count)
    try:
        received = os.preadv(descriptor, [buffer], offset, os.RWF_NOWAIT)
    except OSError:  # EAGAIN: not in the cache; EOPNOTSUPP: this file system cannot tell
        return None
    return bytes(buffer) if received == count else None
