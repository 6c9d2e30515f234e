"""Write the files that a user names for output: a report in one step, a log by lines; no device is ever replaced."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress

from tilesync.runtime.safe_open import BINARY, NO_FOLLOW, NO_WAIT, WrongFileType, describe_file_type

_STDOUT_AND_STDERR = (1, 2)


def replace_file(path: str | os.PathLike[str], data: bytes) -> None:
    """Give a file this content, in one step: written beside it under a random name, then renamed. A symlink stays, and
    what it leads to is replaced; a device or FIFO, or what standard output goes to, is written to as it is.

    Raises OSError.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        found = None
    if found is not None and (not stat.S_ISREG(found.st_mode) or find_standard_stream(found) is not None):
        with open(open_to_append(path), "wb", buffering=0) as stream:
            left = memoryview(data)
            while left:
                left = left[stream.write(left) :]
        return
    target = os.path.realpath(path)
    descriptor, temporary = _create_temporary_beside(target)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def open_to_append(path: str | os.PathLike[str], *, create: bool = False) -> int:
    """A descriptor to write to what stands there: a file, of which the end is written, a FIFO that somebody reads, or a
    device such as a terminal. Links are followed. `create`: a file is made where nothing stands.

    Raises WrongFileType for all else, block devices among it, and OSError.
    """
    descriptor = _open_descriptor(path, create=create)
    mode = os.fstat(descriptor).st_mode
    if not (_is_writable_type(mode) or stat.S_ISSOCK(mode)):
        os.close(descriptor)
        raise WrongFileType(errno.EINVAL, describe_file_type(mode), "file", os.fspath(path))
    if os.name != "nt":
        os.set_blocking(descriptor, True)
    return descriptor


def check_replaceable(path: str | os.PathLike[str]) -> None:
    """Raise the OSError that `replace_file` would raise, as far as that shows before: nothing is changed. A FIFO is
    fine, whoever reads it later.
    """
    with suppress(FileNotFoundError):
        found = os.stat(path)
        if find_standard_stream(found) is not None or (
            _is_writable_type(found.st_mode) and not stat.S_ISREG(found.st_mode)
        ):
            return
        if not stat.S_ISREG(found.st_mode):
            raise WrongFileType(errno.EINVAL, describe_file_type(found.st_mode), "file", os.fspath(path))
    descriptor, temporary = _create_temporary_beside(os.path.realpath(path))
    os.close(descriptor)
    os.unlink(temporary)


def find_standard_stream(found: os.stat_result) -> int | None:
    """The descriptor by which this process prints to a file, such as /dev/stdout; None where it does not. Renaming
    would cut that off, and who opens a regular file anew writes at a place of his own in it.
    """
    for descriptor in _STDOUT_AND_STDERR:
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def _open_descriptor(path: str | os.PathLike[str], *, create: bool) -> int:
    with suppress(FileNotFoundError):
        found = os.stat(path)
        shares = stat.S_ISREG(found.st_mode) or stat.S_ISSOCK(found.st_mode)  # one has an offset, one cannot be opened
        if shares and (descriptor := find_standard_stream(found)) is not None:
            return os.dup(descriptor)
    flags = os.O_WRONLY | os.O_APPEND | BINARY | NO_WAIT | (os.O_CREAT if create else 0)
    try:
        return os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise OSError(errno.ENXIO, "no program reads from this FIFO", os.fspath(path)) from error
        raise WrongFileType(errno.ENXIO, describe_file_type(os.stat(path).st_mode), "file", os.fspath(path)) from error


def _is_writable_type(mode: int) -> bool:
    """Whether output may go to a file of this type."""
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _create_temporary_beside(target: str) -> tuple[int, str]:
    """A new file beside another, open to be written, and its path."""
    temporary = os.path.join(os.path.dirname(target), f".tilesync-{secrets.token_hex(8)}")
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY, 0o666), temporary
