"""File operations of a local destination: write, copy, hard link, sync, atomic replace; the thread batcher."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeVar

from tilesync.model import Chunk, FileStamp
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.runtime.threads import run_all, run_in_thread, set_outcomes
from tilesync.stores.local.directory_handles import DirectoryHandle, Entry
from tilesync.stores.status_files import encode_document

T = TypeVar("T")

_HARD_LINK_ERRORS = frozenset(
    {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
)
"""Another file system, too many links, a file of another user, or hard links are not supported. The last depends on the
system: EPERM on FAT, ENOTSUP or ENOSYS on network file systems. Source: link(2).
"""


_SETS_MTIME_OF_OPEN_FILES = os.utime in os.supports_fd

_MAX_INT64 = (1 << 63) - 1
"""Some file systems have 64-bit inode numbers or times after the year 2262; the catalog stores 63 bits."""


def stamp_from_stat(found: os.stat_result) -> FileStamp:
    """Create the file stamp from a stat result."""
    return FileStamp(max(-_MAX_INT64, min(found.st_mtime_ns, _MAX_INT64)), found.st_ino & _MAX_INT64)


def ensure_real_folder(path: str | Path, *, make: bool, mode: int = 0o777) -> bool:
    """Return whether the folder exists; create it if `make`. Raises DestinationError if it is a symlink or a file."""
    path = Path(path)
    with translate_os_errors(f"cannot use {path}"):
        try:
            DirectoryHandle(str(path.parent)).enter(path.name, make=make, mode=mode)
        except FileNotFoundError:
            if make:
                raise
            return False
    return True


def read_regular(entry: Entry) -> bytes:
    """Read a regular file. Raises WrongFileType, also for a symlink, and OSError."""
    with open(entry.open(), "rb") as file:
        return file.read()


def write_at(part: Entry, offset: int, data: Chunk) -> None:
    """Write `data` at `offset` of a file; offset 0 creates the file anew. Can be repeated.

    Raises OSError; the bytes written before the error are correct.
    """
    with open(part.open_unshared() if offset else part.create(), "r+b" if offset else "wb", buffering=0) as file:
        file.seek(offset)
        remaining = memoryview(data)
        while remaining:
            remaining = remaining[file.write(remaining) :]


def write_whole(entry: Entry, data: bytes, modified: float | None) -> FileStamp:
    """Write a new file with this mtime in seconds (None: now), and return its stamp. An existing file is replaced.

    Raises OSError.
    """
    return _fill(entry, entry.create(), data, modified)


def write_new(entry: Entry, data: bytes, modified: float | None) -> FileStamp | None:
    """Write a new file like `write_whole`; None if the name exists already. Raises OSError, and leaves no file then."""
    try:
        descriptor = entry.create_new()
    except FileExistsError:
        return None
    try:
        return _fill(entry, descriptor, data, modified)
    except OSError:
        with suppress(OSError):
            entry.unlink()
        raise


def _fill(entry: Entry, descriptor: int, data: bytes, modified: float | None) -> FileStamp:
    """Write all bytes to a new file, set its mtime in seconds (None: keep it), and close it."""
    try:
        written = os.write(descriptor, data)
        while written < len(data):
            written += os.write(descriptor, memoryview(data)[written:])
        if modified is not None and _SETS_MTIME_OF_OPEN_FILES:
            os.utime(descriptor, (modified, modified))
            modified = None
        found = os.fstat(descriptor)
    finally:
        os.close(descriptor)
    if modified is not None:
        entry.set_mtime(modified)
        found = entry.stat()
    return stamp_from_stat(found)


def try_hard_link(source: Entry, link: Entry) -> bool:
    """Create a hard link; False if the file system does not support it or the link limit is reached. Raises OSError."""
    try:
        source.link(link)
    except NotImplementedError:
        return False
    except OSError as error:
        if error.errno in _HARD_LINK_ERRORS:
            return False
        raise
    return True


def copy_file(source: Entry, copy: Entry) -> bytes:
    """Copy a regular file and return the SHA-256 of the copied bytes. Raises WrongFileType, OSError."""
    sha256 = hashlib.sha256()
    with open(source.open(), "rb", buffering=0) as file, open(copy.create(), "wb") as out:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            out.write(chunk)
    return sha256.digest()


def sync_filesystem(folder: Path) -> None:
    """Wait until everything written to the file system of `folder` is durable."""
    if sys.platform == "linux":
        # One syncfs for all files costs far less than an fsync for each of many small files.
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)
    elif hasattr(os, "sync"):
        os.sync()


def replace_file_durably(temporary: Entry, final: Entry, data: Iterable[bytes]) -> None:
    """Replace a file atomically and durably: write a temporary file, sync it, rename it, sync the folder.

    The new mtime is at least one second later than the old one: web servers make the ETag from mtime and size, so two
    files with the same second and size would look the same.
    """
    with open(temporary.create(), "wb") as file:
        file.writelines(data)
        file.flush()
        before = final.find_stat()
        earliest = int(before.st_mtime) + 1 if before is not None else 0
        if os.fstat(file.fileno()).st_mtime < earliest:
            temporary.set_mtime(earliest)
        os.fsync(file.fileno())
    temporary.move(final)
    final.folder.sync()


def write_document(temporary: Entry, final: Entry, content: Mapping[str, Any]) -> None:
    """Replace a status file atomically and durably. Raises OSError."""
    replace_file_durably(temporary, final, [encode_document(content)])


def read_boot_id() -> str | None:
    """Return an id that changes when the machine restarts; None if the system has none.

    While it stays the same, written data is whole even if it is not durable yet. Source: random(4).
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


MAX_JOBS_PER_BATCH = 32
"""Maximum small jobs in one thread call, so that the first result does not wait for all jobs."""


class ThreadBatcher:
    """Batcher of small blocking jobs: runs all waiting jobs in one thread call, and never blocks the event loop.

    One thread at a time: two compete for the interpreter lock and take longer.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """Run `job` in the thread and return its result. Raises what the job raises."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((job, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_pending())
        return await future

    async def _run_pending(self) -> None:
        """Run jobs until none is pending; the next call of `run` starts a new task."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), MAX_JOBS_PER_BATCH))]
            set_outcomes([future for _, future in batch], await run_in_thread(run_all, [job for job, _ in batch]))
        self._runner = None
