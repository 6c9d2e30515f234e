"""What every file operation of a local destination shares: errors in our terms, the barrier, the batch writer."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import os
import sys
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, TypeVar

from tilesync.model import FileStamp
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.runtime.threads import run_all, run_in_thread, set_outcomes
from tilesync.stores.local.directory_handles import DirectoryHandle, Entry

T = TypeVar("T")

_HARD_LINK_ERRORS = frozenset(
    {errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL}
)
"""Another file system, too many links, a file of someone else, a system or file system that knows none. The last
depends on the system: EPERM on FAT, ENOTSUP or ENOSYS on network file systems. Source: link(2).
"""


_MAX_INT64 = (1 << 63) - 1
"""Some file systems number their inodes with 64 bits, or know times behind the year 2262; the catalog keeps 63."""


def stamp_from_stat(found: os.stat_result) -> FileStamp:
    """The trace that a look at a file found."""
    return FileStamp(max(-_MAX_INT64, min(found.st_mtime_ns, _MAX_INT64)), found.st_ino & _MAX_INT64)


def ensure_real_folder(path: str | Path, *, make: bool, mode: int = 0o777) -> bool:
    """Whether a folder is there, made when `make`. Raises DestinationError when a symlink or a file stands there."""
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
    """The bytes of a regular file that is no symlink. Raises WrongFileType, OSError."""
    with open(entry.open(), "rb") as file:
        return file.read()


def write_at(part: Entry, offset: int, data: bytes) -> None:
    """Put `data` at `offset` of a file, which is made anew when `offset` is 0. Doing it twice changes nothing.

    Raises OSError; what was written before that is right where it stands.
    """
    with open(part.open_unshared() if offset else part.create(), "r+b" if offset else "wb", buffering=0) as file:
        file.seek(offset)
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]


def write_whole(entry: Entry, data: bytes, modified: float | None) -> FileStamp:
    """A new file with these bytes, and that mtime (None: now); its trace. What stood there gives way.

    Raises OSError.
    """
    descriptor = entry.create()
    try:
        left = memoryview(data)
        while left:
            left = left[os.write(descriptor, left) :]
        if modified is not None and os.utime in os.supports_fd:
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
    """Whether a hard link to `source` could be made; not on every file system, nor without end. Raises OSError."""
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
    """Copy a regular file that is no symlink; the SHA-256 of what was copied. Raises OSError."""
    sha256 = hashlib.sha256()
    with open(source.open(), "rb", buffering=0) as file, open(copy.create(), "wb") as out:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            out.write(chunk)
    return sha256.digest()


def sync_filesystem(folder: Path) -> None:
    """Return when everything written to the file system of `folder` is durable."""
    if sys.platform == "linux":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            if ctypes.CDLL(None, use_errno=True).syncfs(descriptor) != 0:
                raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        finally:
            os.close(descriptor)
    elif hasattr(os, "sync"):
        os.sync()


def replace_file_durably(temporary: Entry, final: Entry, data: Iterable[bytes]) -> None:
    """Put `data` at `final` in one step, durably: written beside, synced, renamed, and the folder synced.

    Its mtime is of a later second than that of the file it replaces: web servers make their ETag of mtime and size, and
    would take two files of one second and one size for the same.
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


def read_boot_id() -> str | None:
    """What changes when the machine restarts; None where that cannot be told.

    What was written but not yet made durable is whole while this stays the same. Source: random(4).
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


MAX_JOBS_PER_BATCH = 32
"""Small jobs of one hop at most, so that those who wait for the first do not wait for all."""


class ThreadBatcher:
    """Runs small blocking jobs in a thread, many that wait in one hop: a slow disk never stalls the loop.

    In one thread at a time: two fight for the interpreter, and take longer.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._runner: asyncio.Task[None] | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """The result of `job`, or what it raised."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((job, future))
        if self._runner is None:
            self._runner = asyncio.create_task(self._run_pending())
        return await future

    async def _run_pending(self) -> None:
        """Run jobs until none waits; the one who adds the next starts a writer then."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), MAX_JOBS_PER_BATCH))]
            set_outcomes([future for _, future in batch], await run_in_thread(run_all, [job for job, _ in batch]))
        self._runner = None
