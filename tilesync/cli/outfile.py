"""Write the files that a user names for output: a report in one step, a log by lines; no device is ever replaced."""

from __future__ import annotations

import errno
import os
import secrets
import stat
from contextlib import suppress

from tilesync.opening import BINARY, NO_FOLLOW, NO_WAIT, WrongFileType, file_type

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
    if found is not None and (not stat.S_ISREG(found.st_mode) or _is_standard_output(found)):
        with open(open_to_append(path), "wb", buffering=0) as stream:
            left = memoryview(data)
            while left:
                left = left[stream.write(left) :]
        return
    target = os.path.realpath(path)
    temporary = os.path.join(os.path.dirname(target), f".tilesync-{secrets.token_hex(8)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | NO_FOLLOW | BINARY, 0o666)
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
    flags = os.O_WRONLY | os.O_APPEND | BINARY | NO_WAIT | (os.O_CREAT if create else 0)
    try:
        descriptor = os.open(path, flags, 0o666)
    except OSError as error:
        if error.errno != errno.ENXIO:
            raise
        if stat.S_ISFIFO(os.stat(path).st_mode):
            raise OSError(errno.ENXIO, "no program reads from this FIFO", os.fspath(path)) from error
        raise WrongFileType(errno.ENXIO, file_type(os.stat(path).st_mode), "file", os.fspath(path)) from error
    mode = os.fstat(descriptor).st_mode
    if not (stat.S_ISREG(mode) or stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)):
        os.close(descriptor)
        raise WrongFileType(errno.EINVAL, file_type(mode), "file", os.fspath(path))
    if os.name != "nt":
        os.set_blocking(descriptor, True)
    return descriptor


def _is_standard_output(found: os.stat_result) -> bool:
    """Whether it is what this process prints to, such as /dev/stdout: renaming would cut that off."""
    for descriptor in _STDOUT_AND_STDERR:
        with suppress(OSError):
            if os.path.samestat(found, os.fstat(descriptor)):
                return True
    return False
