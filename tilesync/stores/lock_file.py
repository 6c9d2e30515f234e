"""The lock of a folder: the kernel's, so that it ends with its process, also with kill -9."""

from __future__ import annotations

import errno
import json
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from tilesync.errors import DestinationBusy
from tilesync.events import Warned
from tilesync.protocols import Observer
from tilesync.rules.holder import Holder, read_holder
from tilesync.rules.manifest import stamp
from tilesync.rules.ownership import shown
from tilesync.stores.disk import mapped, read_regular, real_folder

LOCK: Final = "lock"
HOLDER: Final = "holder.json"
_NO_LOCKS: Final = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS}
"""A file system without locks. Source: flock(2), and what network file systems answer."""

_TURNS: Final = 10
"""Times in a row that the holder before may take the file away at that very moment."""


def this_process() -> Holder:
    """Who holds a lock that this process takes now."""
    return Holder(os.getpid(), socket.gethostname(), stamp(datetime.now(UTC)))


def busy(place: str, holder: Holder | None, owner: str | None) -> str:
    """The sentence for who is kept out. A process of this host that has ended holds nothing: its record is stale."""
    of = f", for {shown(owner)}" if owner else ""
    if holder is None or (holder.host == socket.gethostname() and not _runs(holder.pid)):
        return f"another run holds {place}{of}"
    return f"another run holds {place}{of}: {holder}"


def _runs(pid: int) -> bool:
    if os.name == "nt":
        return True  # os.kill would end it
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except OSError:
        pass  # another user's
    return True


@contextmanager
def locked_folder(folder: Path, place: str, owner: str | None = None) -> Iterator[None]:
    """The lock of a folder of the state, made where it is missing, as long as the context is open.

    Raises DestinationBusy at once when another process has it, which names the `place`, and whose that is.
    """
    with mapped(f"cannot use {folder}"):
        folder.parent.mkdir(parents=True, exist_ok=True)
        real_folder(folder, make=True, mode=0o700)
    with mapped(f"cannot lock {folder}"):
        release = _taken(folder / LOCK, 0o600)
    if release is None:
        raise DestinationBusy(busy(place, _noted(folder), owner))
    with _held(folder, release):
        yield


@contextmanager
def lent_folder(folder: Path, place: str, owner: str | None, observe: Observer) -> Iterator[None]:
    """Likewise, of a folder that is there for the lock alone, and goes with it: runs whose state is elsewhere meet in
    it, be they of other users.

    A file system that knows no locks is told, and borne with: without it those runs are kept apart by nothing.
    """
    release = None
    for _ in range(_TURNS):
        with mapped(f"cannot lock {folder}"), suppress(FileNotFoundError):  # its last holder took it away just now
            real_folder(folder, make=True)
            try:
                release = _taken(folder / LOCK, 0o666)
            except OSError as error:
                if error.errno not in _NO_LOCKS:
                    raise
                observe(
                    Warned(f"the file system of {place} knows no locks: let no run with another --state-dir go there")
                )
                release = _nothing
            if release is None:
                raise DestinationBusy(busy(place, _noted(folder), owner))
            break
    if release is None:
        raise DestinationBusy(busy(place, None, owner))
    try:
        with _held(folder, release, alone=True):
            yield
    finally:
        with suppress(OSError):  # others use it, or have things in it
            os.rmdir(folder)


@contextmanager
def _held(folder: Path, release: Callable[[], None], *, alone: bool = False) -> Iterator[None]:
    """Say who holds a lock while it is held. `alone`: nothing else is kept in the folder, so its file goes too."""
    _note(folder)
    try:
        yield
    finally:
        with suppress(OSError):
            os.unlink(folder / HOLDER)
        if alone:
            with suppress(OSError):
                left = os.listdir(folder)
                for name in left if all(name.startswith((LOCK, HOLDER)) for name in left) else ():
                    os.unlink(folder / name)
        release()


def _nothing() -> None:
    """Nothing is held."""


def _taken(path: Path, mode: int) -> Callable[[], None] | None:
    """What gives a lock back; None where another process has it. Raises OSError.

    The file that is locked must be the one that stands there: its last holder may have removed it meanwhile.
    """
    if os.name == "nt":
        return _taken_on_windows(path)
    import fcntl

    for _ in range(_TURNS):
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, mode)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            mine = os.path.samestat(os.fstat(descriptor), os.lstat(path))
        except (BlockingIOError, PermissionError):
            os.close(descriptor)
            return None
        except FileNotFoundError:
            mine = False
        except BaseException:
            os.close(descriptor)
            raise
        if mine:
            return lambda: os.close(descriptor)
        os.close(descriptor)
    return None


def _taken_on_windows(path: Path) -> Callable[[], None] | None:
    from filelock import FileLock, Timeout

    lock = FileLock(path, thread_local=False)
    try:
        lock.acquire(blocking=False)
    except Timeout:
        return None
    return lock.release


def _note(folder: Path) -> None:
    """Write down who holds the lock, in one step. It is for a message: where it cannot be, that says less."""
    temporary = folder / f"{HOLDER}.{os.getpid()}"
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
        with open(temporary, "xb") as file:
            file.write(document(this_process()))
        os.replace(temporary, folder / HOLDER)


def _noted(folder: Path) -> Holder | None:
    try:
        return read_holder(said_in(read_regular(str(folder / HOLDER))))
    except OSError:
        return None


def document(holder: Holder) -> bytes:
    """What others read of a holder."""
    return json.dumps(holder.record()).encode()


def said_in(data: bytes) -> object:
    """What a small document says; None where that is no JSON."""
    try:
        return json.loads(data)
    except (ValueError, RecursionError):
        return None
