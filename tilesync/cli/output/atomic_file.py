"""Write the output files that a user names: a report in one step, a log line by line. Never replace a device."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress

from tilesync.runtime.safe_open import BINARY, NO_FOLLOW, NO_WAIT, WrongFileType, describe_file_type

_STDOUT_AND_STDERR = (1, 2)


def replace_file(path: str | os.PathLike[str], data: bytes, *, mode: int | None = None) -> None:
    """Replace the content of a file in one step: write a temporary file beside it, then rename it. A symlink stays, and
    its target is replaced. A device, a FIFO or the file behind standard output is written to directly.

    `mode`: the permissions of the new file; None for those of the process. Raises OSError.
    """
    try:
        found = os.stat(path)
    except FileNotFoundError:
        found = None
    if found is not None and (not stat.S_ISREG(found.st_mode) or find_standard_stream(found) is not None):
        with open(open_to_append(path), "wb", buffering=0) as stream:
            unwritten = memoryview(data)
            while unwritten:
                unwritten = unwritten[stream.write(unwritten) :]
        return
    target = os.path.realpath(path)
    descriptor, temporary = _create_temporary_beside(target)
    try:
        with open(descriptor, "wb") as file:
            file.write(data)
        if mode is not None:
            os.chmod(temporary, mode)
        os.replace(temporary, target)
    except BaseException:
        with suppress(FileNotFoundError):
            os.unlink(temporary)
        raise


def open_to_append(path: str | os.PathLike[str], *, create: bool = False) -> int:
    """Open a path to append to: a regular file, a FIFO that has a reader, or a character device such as a terminal.
    Follow symlinks. With `create`, make the file if there is none. Return the descriptor.

    Raises OSError, and WrongFileType for every other type, block devices included.
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
    """Check that `replace_file` can write a path, without changing it. Raises the OSError that it would raise, if
    that can be known in advance. A FIFO passes, even without a reader yet.
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
    """Return the descriptor (1 or 2) through which this process already writes to a file; None if there is none.

    Such a file, for example /dev/stdout, must not be renamed: the stream would go on in the old file. It must not be
    opened again either: a second open of a regular file has an offset of its own, and overwrites the stream's output.
    """
    for descriptor in _STDOUT_AND_STDERR:
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(descriptor)):
                return descriptor
    return None


def _open_descriptor(path: str | os.PathLike[str], *, create: bool) -> int:
    with suppress(FileNotFoundError):
        found = os.stat(path)
        # A regular file must share its offset with the stream, and a socket cannot be opened: duplicate the descriptor.
        must_share = stat.S_ISREG(found.st_mode) or stat.S_ISSOCK(found.st_mode)
        if must_share and (descriptor := find_standard_stream(found)) is not None:
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
    """Return whether output may go to a file of this type."""
    return stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)


def _create_temporary_beside(target: str) -> tuple[int, str]:
    """Create a file beside another one; return its descriptor, open for writing, and its path."""
    temporary = os.path.join(os.path.dirname(target), f".tilesync-{secrets.token_hex(8)}")
    return os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY, 0o666), temporary
