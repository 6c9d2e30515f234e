"""File of a package: written beside its final name under a lock, and renamed when it is whole and durable."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Final

from tilesync.core.wording import format_size
from tilesync.errors import DestinationBusy, DiskFull, UsageError
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.runtime.safe_open import BINARY, NO_FOLLOW, NO_WAIT, describe_file_type

WRITE_BUFFER_BYTES: Final = 1 << 20
MAX_ATTEMPTS: Final = 10
"""Maximum attempts to create the temporary file, if other runs come and go at the same moment."""

_LOCKS_UNSUPPORTED: Final = {errno.ENOTSUP, errno.EOPNOTSUPP, errno.ENOLCK, errno.ENOSYS}
"""The file system does not support locks. Source: flock(2), and the errors of network file systems."""

WRITE_HINT: Final = "check the folder and its permissions, or choose another one, then run again"
DISK_FULL_HINT: Final = "free some space, or choose another folder for the package, then run the same command again"


class PackageOutput:
    """Temporary file of a package. `file` is open for writing, at `path`."""

    def __init__(self, path: str, final: Path, file: IO[bytes]) -> None:
        self.path = path
        self.file = file
        self.is_committed = False
        self._final = final

    def check_space(self, size: int) -> None:
        """Raise DiskFull if the disk has less than `size` bytes free."""
        free = shutil.disk_usage(self._final.parent).free
        if free < size:
            raise DiskFull(
                f"the package needs {format_size(size)}, but {self._final.parent} has only {format_size(free)} free",
                hint=DISK_FULL_HINT,
            )

    def open_spool(self) -> IO[bytes]:
        """Open a temporary file without a name, on the disk of the package."""
        return tempfile.TemporaryFile(dir=str(self._final.parent))

    def commit(self) -> int:
        """Make the file durable, and rename it; return its size. Raises OSError."""
        self.file.flush()
        os.fsync(self.file.fileno())
        size = os.fstat(self.file.fileno()).st_size
        if os.name == "nt":
            self.file.close()  # an open file cannot be renamed
        os.replace(self.path, self._final)
        self.is_committed = True
        if os.name != "nt":
            folder = os.open(self._final.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        return size


@contextmanager
def open_package_output(out: Path, *, overwrite: bool) -> Iterator[PackageOutput]:
    """Create the temporary file of a package at `out`; remove it at the end, unless `commit` has renamed it.

    A file that a killed run left is replaced. Raises UsageError if `out` exists and `overwrite` is false,
    DestinationBusy if another run writes it, DiskFull and other DestinationErrors also in the `with` block.
    """
    final = _check_target(out, overwrite=overwrite)
    temporary = str(final.with_name(f".{final.name}.part"))
    try:
        with (
            translate_os_errors(f"cannot write {out}", hint=WRITE_HINT),
            open(_create_locked(temporary, out), "wb", buffering=WRITE_BUFFER_BYTES) as file,
        ):
            output = PackageOutput(temporary, final, file)
            try:
                yield output
            finally:
                if not output.is_committed:
                    with suppress(OSError):
                        os.unlink(temporary)  # still under the lock: it is not the file of another run
    except DiskFull as error:
        raise DiskFull(str(error), hint=DISK_FULL_HINT) from error


def _check_target(out: Path, *, overwrite: bool) -> Path:
    """Return the path of the file that the package becomes; a symlink stays, and its target is replaced."""
    with translate_os_errors(f"cannot inspect {out}"):
        final = Path(os.path.realpath(out))
        if not final.parent.is_dir():
            raise UsageError(f"there is no folder {out.parent} for the package", hint="create it, then run again")
        try:
            found = os.stat(final)
        except FileNotFoundError:
            return final
    if not stat.S_ISREG(found.st_mode):
        raise UsageError(f"{out} is {describe_file_type(found.st_mode)}, not a file", hint="choose another name")
    if not overwrite:
        raise UsageError(f"{out} exists", hint="choose another name, or give --overwrite to replace it")
    return final


def _create_locked(temporary: str, out: Path) -> int:
    """Create and lock the temporary file, return its descriptor. Raises DestinationBusy, OSError.

    The lock ends with its process, even after kill -9, so a file whose lock is free was left by a dead run. It is
    removed under its lock, and never continued.
    """
    flags = os.O_RDWR | BINARY | NO_FOLLOW | NO_WAIT
    for _ in range(MAX_ATTEMPTS):
        try:
            descriptor, is_new = os.open(temporary, flags | os.O_CREAT | os.O_EXCL, 0o666), True
        except FileExistsError:
            try:
                descriptor, is_new = os.open(temporary, flags), False
            except FileNotFoundError:  # the other run has just ended
                continue
        is_locked = False
        try:
            is_locked = _lock_current(descriptor, temporary, out)
            if is_locked and not is_new:
                os.unlink(temporary)
        finally:
            if not (is_locked and is_new):
                os.close(descriptor)
        if is_locked and is_new:
            return descriptor
    raise DestinationBusy(f"other runs write {out} all the time")


def _lock_current(descriptor: int, temporary: str, out: Path) -> bool:
    """Lock an open file; return whether it is still the one at its path. Raises DestinationBusy."""
    if os.name == "nt":
        return True  # a file that is open there cannot be removed
    import fcntl

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise DestinationBusy(f"another run writes {out}", hint="wait for the other run to end") from None
    except OSError as error:
        if error.errno not in _LOCKS_UNSUPPORTED:
            raise
    try:
        return os.path.samestat(os.fstat(descriptor), os.lstat(temporary))
    except FileNotFoundError:
        return False


def refuse_inside(out: Path, folder: Path) -> None:
    """Raise UsageError if a package would be in the destination `folder`, which a web server may give to everybody."""
    real, root = Path(os.path.realpath(out)), Path(os.path.realpath(folder))
    if real == root:
        raise UsageError(f"{out} is DEST itself", hint="give the package another name")
    if real.is_relative_to(root):
        raise UsageError(
            f"{out} is inside DEST, where a web server would give the package to everybody",
            hint=f"write it beside DEST: {root.parent / real.name}",
        )
