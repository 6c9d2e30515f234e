"""Lock file: the kernel lock of a folder. It ends with its process, even after kill -9."""

from __future__ import annotations

import errno
import os
import socket
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tilesync.core.manifest import format_timestamp
from tilesync.core.ownership import describe_owner
from tilesync.errors import DestinationBusy
from tilesync.events import Warned
from tilesync.protocols import Observer
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.runtime.safe_open import NO_FOLLOW, NO_WAIT, WrongFileType, describe_file_type
from tilesync.stores.local.directory_handles import DirectoryHandle, Entry
from tilesync.stores.local.fs import read_regular
from tilesync.stores.status_files import LockHolder, encode_document, parse_document, parse_holder

LOCK_FILE: Final = "lock"
HOLDER_FILE: Final = "holder.json"
_LOCKS_UNSUPPORTED: Final = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS}
"""The file system does not support locks. Source: flock(2), and the errors of network file systems."""

_MAX_LOCK_ATTEMPTS: Final = 10
"""Maximum attempts when the previous holder removes the lock file just after it was opened."""


def current_holder() -> LockHolder:
    """Create the holder record of this process, with the current time."""
    return LockHolder(os.getpid(), socket.gethostname(), format_timestamp(datetime.now(UTC)))


def busy_message(display_name: str, holder: LockHolder | None, owner: str | None) -> str:
    """Format the message of DestinationBusy.

    It names the holder, unless that was a process of this host that has ended: then the record is stale.
    """
    for_owner = f", for {describe_owner(owner)}" if owner else ""
    if holder is None or (holder.host == socket.gethostname() and not _is_running(holder.pid)):
        return f"another run holds {display_name}{for_owner}"
    return f"another run holds {display_name}{for_owner}: {holder}"


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill would end it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # it is a process of another user
    return True


@contextmanager
def locked_folder(
    path: Path, display_name: str, owner: str | None = None, *, hint: str | None = None
) -> Iterator[None]:
    """Hold the lock of a state folder while the context is open; create the folder if it is missing.

    `display_name` and `owner` name the destination in messages. `hint` is for a folder that cannot be used.

    Raises DestinationBusy at once if another process holds the lock.
    """
    with translate_os_errors(f"cannot use {path}", hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = DirectoryHandle(str(path.parent)).enter(path.name, make=True, mode=0o700)
    with translate_os_errors(f"cannot lock {path}", hint=hint):
        release = _try_lock(folder.entry(LOCK_FILE), 0o600)
    if release is None:
        raise DestinationBusy(busy_message(display_name, _read_holder(folder), owner))
    with _recorded_holder(folder, release):
        yield


@contextmanager
def locked_temporary_folder(path: Path, display_name: str, owner: str | None, observe: Observer) -> Iterator[None]:
    """Hold the lock of a folder that exists only for this lock, and remove it afterwards.

    Runs with different state folders, also of different users, exclude each other through it. On a file system without
    locks this is not possible: a warning is sent, and the run goes on.
    """
    locked = None
    for _ in range(_MAX_LOCK_ATTEMPTS):
        with (
            translate_os_errors(f"cannot lock {path}"),
            suppress(FileNotFoundError),
        ):  # the previous holder removed the folder at this moment: try again
            locked = _lock_temporary_folder(path, display_name, owner, observe)
            break
    if locked is None:
        raise DestinationBusy(busy_message(display_name, None, owner))
    try:
        with _recorded_holder(*locked, remove_all=True):
            yield
    finally:
        with suppress(OSError):  # another run uses it, or foreign files are in it
            os.rmdir(path)


def _lock_temporary_folder(
    path: Path, display_name: str, owner: str | None, observe: Observer
) -> tuple[DirectoryHandle, Callable[[], None]]:
    folder = DirectoryHandle(str(path.parent)).enter(path.name, make=True)
    try:
        release = _try_lock(folder.entry(LOCK_FILE), 0o666)
    except OSError as error:
        if error.errno not in _LOCKS_UNSUPPORTED:
            raise
        observe(
            Warned(
                f"{display_name} does not support file locks: do not start a second run there with another --state-dir"
            )
        )
        release = _release_nothing
    if release is None:
        raise DestinationBusy(busy_message(display_name, _read_holder(folder), owner))
    return folder, release


@contextmanager
def _recorded_holder(
    folder: DirectoryHandle, release: Callable[[], None], *, remove_all: bool = False
) -> Iterator[None]:
    """Record the holder of a lock while it is held.

    `remove_all`: also remove the lock file afterwards, unless foreign files are in the folder.
    """
    _write_holder(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            folder.entry(HOLDER_FILE).unlink()
            names = [name for name, _ in folder.scan()] if remove_all else []
            for name in names if all(name.startswith((LOCK_FILE, HOLDER_FILE)) for name in names) else ():
                folder.entry(name).unlink()
        release()


def _release_nothing() -> None:
    """Release nothing: the file system has no locks."""


def _try_lock(lock: Entry, mode: int) -> Callable[[], None] | None:
    """Try to lock a file; return the function that releases it, None if another process holds it.

    The locked file must still be at its path: the previous holder may have removed it in the meantime.

    Raises WrongFileType, OSError.
    """
    if os.name == "nt":
        return _try_lock_on_windows(lock)
    import fcntl

    flags = os.O_RDWR | os.O_CREAT | NO_FOLLOW | NO_WAIT
    for _ in range(_MAX_LOCK_ATTEMPTS):
        descriptor = _open_lock(lock, flags, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            locked, current = os.fstat(descriptor), lock.find_stat()
            if current is not None and os.path.samestat(locked, current):
                _refuse_shared(locked, lock)
                return lambda: os.close(descriptor)
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        except BaseException:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def _open_lock(lock: Entry, flags: int, mode: int) -> int:
    try:
        return os.open(lock.folder.path_argument(lock.name), flags, mode, dir_fd=lock.folder.fd)
    except OSError:
        if (found := lock.find_stat()) is not None:
            _refuse_shared(found, lock)
        raise


def _refuse_shared(found: os.stat_result, lock: Entry) -> None:
    """Raise WrongFileType if the lock is no regular file, or has another name elsewhere."""
    if not stat.S_ISREG(found.st_mode):
        raise WrongFileType(errno.ENXIO, describe_file_type(found.st_mode), "file", lock.path)
    if found.st_nlink > 1:
        raise WrongFileType(errno.EMLINK, "a hard link", "file", lock.path)


def _try_lock_on_windows(lock: Entry) -> Callable[[], None] | None:
    from filelock import FileLock, Timeout

    lock_file = FileLock(lock.path, thread_local=False)
    try:
        lock_file.acquire(blocking=False)
    except Timeout:
        return None
    return lock_file.release


def is_held(path: Path) -> bool:
    """Return whether a running process holds the lock of a state folder, by its record.

    The lock itself is not touched: a probe could make a run fail that starts at this moment.
    """
    try:
        holder = _read_holder(DirectoryHandle(str(path.parent)).enter(path.name))
    except OSError:
        return False
    return holder is not None and (holder.host != socket.gethostname() or _is_running(holder.pid))


def _write_holder(folder: DirectoryHandle) -> None:
    """Write the holder record atomically. An error is ignored: the record is only for messages."""
    temporary = folder.entry(f"{HOLDER_FILE}.{os.getpid()}")
    with suppress(OSError):
        with open(temporary.create(), "wb") as file:
            file.write(encode_document(current_holder().to_record()))
        temporary.move(folder.entry(HOLDER_FILE))


def _read_holder(folder: DirectoryHandle) -> LockHolder | None:
    try:
        return parse_holder(parse_document(read_regular(folder.entry(HOLDER_FILE))))
    except OSError:
        return None
