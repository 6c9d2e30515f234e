"""What every file operation of a local destination shares: errors in our terms, the barrier, the batch writer."""

from __future__ import annotations

import asyncio
import ctypes
import errno
import hashlib
import os
import stat
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, TypeVar

from tilesync.errors import DestinationError, DiskFull
from tilesync.model import Trace
from tilesync.threads import outcomes, tell

T = TypeVar("T")

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Opening fails where a symlink stands (on systems that know it)."""

BINARY = getattr(os, "O_BINARY", 0)
"""Bytes as they are (Windows, where a descriptor opens for text)."""

_NO_LINK = frozenset({errno.EXDEV, errno.EMLINK, errno.EPERM, errno.EACCES, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL})
"""Another file system, too many links, a file of someone else, a system or file system that knows none. The last
depends on the system: EPERM on FAT, ENOTSUP or ENOSYS on network file systems. Source: link(2).
"""

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


_SIGNED = (1 << 63) - 1
"""Some file systems number their inodes with 64 bits, or know times behind the year 2262; the catalog keeps 63."""


def trace_of(found: os.stat_result) -> Trace:
    """The trace that a look at a file found."""
    return Trace(max(-_SIGNED, min(found.st_mtime_ns, _SIGNED)), found.st_ino & _SIGNED)


@contextmanager
def mapped(what: str, *, hint: str | None = None) -> Iterator[None]:
    """The operating system's errors in our terms; `what` begins the message. `hint`: what helps, if not the usual."""
    try:
        yield
    except OSError as error:
        raise translate(error, what, hint=hint) from error


def translate(error: OSError, what: str, *, hint: str | None = None) -> DestinationError:
    """The error of ours that an OSError means."""
    reason = f"{what}: {error.strerror or error}"
    if error.errno in _FULL:
        return DiskFull(reason)
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}:
        return DestinationError(f"{reason} (a file stands where a folder is needed, or the other way round)", hint=hint)
    return DestinationError(reason, hint=hint)


def real_folder(path: str | Path, *, make: bool, mode: int = 0o777) -> bool:
    """Whether a folder is there, made when `make`. Raises DestinationError when a symlink or a file stands there."""
    try:
        found = os.lstat(path).st_mode
    except FileNotFoundError:
        if not make:
            return False
        with suppress(FileExistsError):  # another thread was here in the meantime
            os.mkdir(path, mode)
        found = os.lstat(path).st_mode
    if not stat.S_ISDIR(found):
        kind = "a symlink" if stat.S_ISLNK(found) else "a file"
        raise DestinationError(f"{kind} stands where a folder is needed: {path}", hint="move it away, then run again")
    return True


def read_regular(path: str) -> bytes:
    """The bytes of a regular file that is no symlink. Raises OSError."""
    with open(os.open(path, os.O_RDONLY | NO_FOLLOW), "rb") as file:
        return file.read()


def create(path: Path) -> IO[bytes]:
    """A new or emptied file to write to; a symlink in its place is not followed. Raises OSError."""
    return open(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_FOLLOW, 0o666), "wb")


def write_at(path: Path, offset: int, data: bytes) -> None:
    """Put `data` at `offset` of a file, which is made, or emptied when `offset` is 0. Doing it twice changes nothing.

    Raises OSError; what was written before that is right where it stands.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | NO_FOLLOW | (0 if offset else os.O_TRUNC), 0o666)
    with open(descriptor, "r+b", buffering=0) as file:
        file.seek(offset)
        left = memoryview(data)
        while left:
            left = left[file.write(left) :]


def write_whole(path: str, data: bytes, modified: float | None) -> Trace:
    """A new or emptied file with these bytes, and that mtime (None: now); its trace. A symlink is not followed.

    Raises OSError.
    """
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | NO_FOLLOW | BINARY, 0o666)
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
        os.utime(path, (modified, modified))
        found = os.lstat(path)
    return trace_of(found)


def linked(source: str, link: str) -> bool:
    """Whether a hard link to `source` could be made; not on every file system, nor without end. Raises OSError."""
    try:
        os.link(source, link)
    except NotImplementedError:
        return False
    except OSError as error:
        if error.errno in _NO_LINK:
            return False
        raise
    return True


def copied(source: str, copy: Path) -> bytes:
    """Copy a regular file that is no symlink; the SHA-256 of what was copied. Raises OSError."""
    sha256 = hashlib.sha256()
    with open(os.open(source, os.O_RDONLY | NO_FOLLOW), "rb", buffering=0) as file, create(copy) as out:
        while chunk := file.read(1 << 20):
            sha256.update(chunk)
            out.write(chunk)
    return sha256.digest()


def barrier(folder: Path) -> None:
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


def place(temporary: Path, final: Path, data: Iterable[bytes]) -> None:
    """Put `data` at `final` in one step, durably: written beside, synced, renamed, and the folder synced.

    Its mtime is of a later second than that of the file it replaces: web servers make their ETag of mtime and size, and
    would take two files of one second and one size for the same.
    """
    with create(temporary) as file:
        file.writelines(data)
        file.flush()
        _date_behind(temporary, final)
        os.fsync(file.fileno())
    os.replace(temporary, final)
    sync_folder(final.parent)


def _date_behind(path: Path, other: Path) -> None:
    try:
        earliest = int(os.lstat(other).st_mtime) + 1
    except FileNotFoundError:
        return
    if os.stat(path).st_mtime < earliest:
        os.utime(path, (earliest, earliest))


def sync_folder(folder: Path) -> None:
    """Make renames in `folder` durable, where the system lets a folder be synced."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def boot_id() -> str | None:
    """What changes when the machine restarts; None where that cannot be told.

    What was written but not yet made durable is whole while this stays the same. Source: random(4).
    """
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    except OSError:
        return None


TOGETHER = 32
"""Small jobs of one hop at most, so that those who wait for the first do not wait for all."""


class BatchWriter:
    """Runs small blocking jobs in a thread, many that wait in one hop: a slow disk never stalls the loop.

    In one thread at a time: two fight for the interpreter, and take longer.
    """

    def __init__(self) -> None:
        self._pending: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._writer: asyncio.Task[None] | None = None

    async def run(self, job: Callable[[], T]) -> T:
        """The result of `job`, or what it raised."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((job, future))
        if self._writer is None:
            self._writer = asyncio.create_task(self._write())
        return await future

    async def _write(self) -> None:
        """Run jobs until none waits; the one who adds the next starts a writer then."""
        while self._pending:
            batch = [self._pending.popleft() for _ in range(min(len(self._pending), TOGETHER))]
            tell([future for _, future in batch], await asyncio.to_thread(outcomes, [job for job, _ in batch]))
        self._writer = None
