"""The lock of a folder: the kernel's, so that it ends with its process, also with kill -9."""

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
from tilesync.stores.lock_holder import LockHolder, parse_holder
from tilesync.stores.status_files import encode_document, parse_document

LOCK_FILE: Final = "lock"
HOLDER_FILE: Final = "holder.json"
_LOCKS_UNSUPPORTED: Final = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS}
"""A file system without locks. Source: flock(2), and what network file systems answer."""

_MAX_LOCK_ATTEMPTS: Final = 10
"""Times in a row that the holder before may take the file away at that very moment."""


def current_holder() -> LockHolder:
    """Who holds a lock that this process takes now."""
    return LockHolder(os.getpid(), socket.gethostname(), format_timestamp(datetime.now(UTC)))


def busy_message(place: str, holder: LockHolder | None, owner: str | None) -> str:
    """The sentence for who is kept out. A process of this host that has ended holds nothing: its record is stale."""
    of = f", for {describe_owner(owner)}" if owner else ""
    if holder is None or (holder.host == socket.gethostname() and not _is_running(holder.pid)):
        return f"another run holds {place}{of}"
    return f"another run holds {place}{of}: {holder}"


def _is_running(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill would end it
    try:
        os.kill(pid, 0)
    except (ProcessLookupError, OverflowError):
        return False
    except OSError:
        pass  # another user's
    return True


@contextmanager
def locked_folder(path: Path, place: str, owner: str | None = None, *, hint: str | None = None) -> Iterator[None]:
    """The lock of a folder of the state, made where it is missing, as long as the context is open.

    Raises DestinationBusy at once when another process has it, which names the `place`, and whose that is. `hint`: what
    helps where the folder cannot be used.
    """
    with translate_os_errors(f"cannot use {path}", hint=hint):
        path.parent.mkdir(parents=True, exist_ok=True)
        folder = DirectoryHandle(str(path.parent)).enter(path.name, make=True, mode=0o700)
    with translate_os_errors(f"cannot lock {path}", hint=hint):
        release = _try_lock(folder.entry(LOCK_FILE), 0o600)
    if release is None:
        raise DestinationBusy(busy_message(place, _read_holder(folder), owner))
    with _recorded_holder(folder, release):
        yield


@contextmanager
def locked_temporary_folder(path: Path, place: str, owner: str | None, observe: Observer) -> Iterator[None]:
    """Likewise, of a folder that is there for the lock alone, and goes with it: runs whose state is elsewhere meet in
    it, be they of other users.

    A file system that knows no locks is told, and borne with: without it those runs are kept apart by nothing.
    """
    found = None
    for _ in range(_MAX_LOCK_ATTEMPTS):
        with (
            translate_os_errors(f"cannot lock {path}"),
            suppress(FileNotFoundError),
        ):  # its last holder took it away just now
            found = _lock_temporary_folder(path, place, owner, observe)
            break
    if found is None:
        raise DestinationBusy(busy_message(place, None, owner))
    try:
        with _recorded_holder(*found, remove_all=True):
            yield
    finally:
        with suppress(OSError):  # others use it, or have things in it
            os.rmdir(path)


def _lock_temporary_folder(
    path: Path, place: str, owner: str | None, observe: Observer
) -> tuple[DirectoryHandle, Callable[[], None]]:
    folder = DirectoryHandle(str(path.parent)).enter(path.name, make=True)
    try:
        release = _try_lock(folder.entry(LOCK_FILE), 0o666)
    except OSError as error:
        if error.errno not in _LOCKS_UNSUPPORTED:
            raise
        observe(Warned(f"{place} knows no locks: let no run with another --state-dir go there at the same time"))
        release = _release_nothing
    if release is None:
        raise DestinationBusy(busy_message(place, _read_holder(folder), owner))
    return folder, release


@contextmanager
def _recorded_holder(
    folder: DirectoryHandle, release: Callable[[], None], *, remove_all: bool = False
) -> Iterator[None]:
    """Say who holds a lock while it is held. `alone`: nothing else is kept in the folder, so its file goes too."""
    _write_holder(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            folder.entry(HOLDER_FILE).unlink()
            left = [name for name, _ in folder.scan()] if remove_all else []
            for name in left if all(name.startswith((LOCK_FILE, HOLDER_FILE)) for name in left) else ():
                folder.entry(name).unlink()
        release()


def _release_nothing() -> None:
    """Nothing is held."""


def _try_lock(lock: Entry, mode: int) -> Callable[[], None] | None:
    """What gives a lock back; None where another process has it. Raises WrongFileType, OSError.

    The file that is locked must be the one that stands there: its last holder may have removed it meanwhile.
    """
    if os.name == "nt":
        return _try_lock_on_windows(lock)
    import fcntl

    flags = os.O_RDWR | os.O_CREAT | NO_FOLLOW | NO_WAIT
    for _ in range(_MAX_LOCK_ATTEMPTS):
        descriptor = _open_lock(lock, flags, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine, there = os.fstat(descriptor), lock.find_stat()
            if there is not None and os.path.samestat(mine, there):
                _refuse_shared(mine, lock)
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
    if not stat.S_ISREG(found.st_mode):
        raise WrongFileType(errno.ENXIO, describe_file_type(found.st_mode), "file", lock.path)
    if found.st_nlink > 1:
        raise WrongFileType(errno.EMLINK, "a hard link", "file", lock.path)


def _try_lock_on_windows(lock: Entry) -> Callable[[], None] | None:
    from filelock import FileLock, Timeout

    held = FileLock(lock.path, thread_local=False)
    try:
        held.acquire(blocking=False)
    except Timeout:
        return None
    return held.release


def _write_holder(folder: DirectoryHandle) -> None:
    """Write down who holds the lock, in one step. It is for a message: where it cannot be, that says less."""
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
