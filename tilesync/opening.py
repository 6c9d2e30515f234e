"""Open what a path names, and never hang on it: a FIFO, a device, a socket or a symlink is told from a regular file."""

from __future__ import annotations

import errno
import os
import stat

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Opening fails where a symlink stands (on systems that know it)."""

BINARY = getattr(os, "O_BINARY", 0)
"""Bytes as they are (Windows, where a descriptor opens for text)."""

NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Opening a FIFO waits for no other side, and a terminal does not become that of the process. Source: open(2)."""

_LINKED = frozenset({errno.ELOOP, errno.EMLINK})
"""What opening a symlink with O_NOFOLLOW gives: ELOOP by POSIX, EMLINK on FreeBSD."""

_KINDS = (
    (stat.S_ISREG, "a file"),
    (stat.S_ISDIR, "a folder"),
    (stat.S_ISLNK, "a symlink"),
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a block device"),
)


class WrongFileType(OSError):
    """Something else stands where a file or a folder is needed: `needed` says which."""

    def __init__(self, number: int, found: str, needed: str, path: str) -> None:
        super().__init__(number, f"{found} stands where a {needed} is needed: {path}")
        self.needed = needed


def file_type(mode: int) -> str:
    """What a mode says of the type of a file, in words."""
    return next((words for matches, words in _KINDS if matches(mode)), "something else")


def open_regular(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    *,
    dir_fd: int | None = None,
    follow: bool = False,
    shown: str | None = None,
) -> int:
    """Open a regular file that is there; `follow`: also through a symlink. Returns its descriptor.

    Raises WrongFileType, which names `shown`, for everything else, and OSError.
    """
    flags |= BINARY | (0 if follow else NO_FOLLOW)
    shown = os.fspath(path) if shown is None else shown
    try:
        descriptor = os.open(path, flags | NO_WAIT, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _LINKED and not follow:
            raise WrongFileType(errno.ELOOP, "a symlink", "file", shown) from error
        if error.errno == errno.ENXIO:  # a socket, a FIFO that nobody reads
            mode = os.stat(path, dir_fd=dir_fd, follow_symlinks=follow).st_mode
            raise WrongFileType(errno.ENXIO, file_type(mode), "file", shown) from error
        if not isinstance(error, BlockingIOError):
            raise
        descriptor = os.open(path, flags, dir_fd=dir_fd)  # a regular file with a lease on it, which is given back now
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise WrongFileType(errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, file_type(mode), "file", shown)
