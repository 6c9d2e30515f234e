"""Open what a path names, and never hang on it: a FIFO, a device, a socket or a symlink is told from a regular file."""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
from pathlib import Path
from time import monotonic

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Opening fails where a symlink stands (on systems that know it)."""

BINARY = getattr(os, "O_BINARY", 0)
"""Bytes as they are (Windows, where a descriptor opens for text)."""

NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Opening a FIFO waits for no other side, and a terminal does not become that of the process. Source: open(2)."""

_SYMLINK_ERRNOS = frozenset({errno.ELOOP, errno.EMLINK})
"""What opening a symlink with O_NOFOLLOW gives: ELOOP by POSIX, EMLINK on FreeBSD."""

_FILE_TYPES = (
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


def describe_file_type(mode: int) -> str:
    """What a mode says of the type of a file, in words."""
    return next((words for matches, words in _FILE_TYPES if matches(mode)), "something else")


def open_regular(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    *,
    dir_fd: int | None = None,
    follow_symlinks: bool = False,
    display_name: str | None = None,
) -> int:
    """Open a regular file that is there; `follow`: also through a symlink. Returns its descriptor.

    Raises WrongFileType, which names `shown`, for everything else, and OSError.
    """
    flags |= BINARY | (0 if follow_symlinks else NO_FOLLOW)
    display_name = os.fspath(path) if display_name is None else display_name
    try:
        descriptor = os.open(path, flags | NO_WAIT, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _SYMLINK_ERRNOS and not follow_symlinks:
            raise WrongFileType(errno.ELOOP, "a symlink", "file", display_name) from error
        if error.errno == errno.ENXIO:  # a socket, a FIFO that nobody reads
            mode = os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks).st_mode
            raise WrongFileType(errno.ENXIO, describe_file_type(mode), "file", display_name) from error
        if not isinstance(error, BlockingIOError):
            raise
        descriptor = os.open(path, flags, dir_fd=dir_fd)  # a regular file with a lease on it, which is given back now
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise WrongFileType(
        errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, describe_file_type(mode), "file", display_name
    )


MAX_SMALL_FILE_BYTES = 1 << 20
"""Bytes of a file that is read whole, such as a token: it has some thousand."""

PIPE_TIMEOUT_S = 30.0
"""Seconds that a pipe may take to say what it has to say."""

_POLL_INTERVAL_S = 0.1


def read_small_file(
    path: str | os.PathLike[str], *, stop: threading.Event | None = None, timeout_s: float = PIPE_TIMEOUT_S
) -> bytes:
    """The bytes of a small file that its user named: through symlinks, and of a pipe or terminal until its other side
    ends. `stop` ends the wait for that.

    Raises TimeoutError when it has not ended in time, WrongFileType for a folder or the like, OSError.
    """
    descriptor = os.open(path, os.O_RDONLY | BINARY | NO_WAIT)
    try:
        mode = os.fstat(descriptor).st_mode
        if stat.S_ISREG(mode):
            data = _read_file(descriptor)
        elif (stat.S_ISFIFO(mode) or stat.S_ISCHR(mode)) and hasattr(select, "poll"):
            data = _read_pipe(descriptor, stop, monotonic() + timeout_s)
        else:
            raise WrongFileType(errno.EINVAL, describe_file_type(mode), "file", os.fspath(path))
    finally:
        os.close(descriptor)
    if len(data) > MAX_SMALL_FILE_BYTES:
        raise OSError(errno.EFBIG, f"it is longer than {MAX_SMALL_FILE_BYTES:,} bytes")
    return data


def _read_file(descriptor: int) -> bytes:
    data = b""
    while len(data) <= MAX_SMALL_FILE_BYTES and (chunk := os.read(descriptor, 1 << 16)):
        data += chunk
    return data


def _read_pipe(descriptor: int, stop: threading.Event | None, deadline: float) -> bytes:
    """Nobody writing yet looks like an end (read(2) gives nothing), but for a hang-up: that comes after a writer."""
    data, poll = b"", select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(data) <= MAX_SMALL_FILE_BYTES:
        if monotonic() > deadline or (stop is not None and stop.is_set()):
            raise TimeoutError(errno.ETIMEDOUT, "its other side does not end")
        for _, event in poll.poll(_POLL_INTERVAL_S * 1000):
            chunk = os.read(descriptor, 1 << 16)
            data += chunk
            if not chunk and (data or event & select.POLLHUP):
                return data
    return data


def check_unshared(path: Path) -> None:
    """Raise WrongFileType where something else stands than a file, or one that has another name elsewhere: what opens
    files by their paths alone would follow it. Missing is no error.
    """
    try:
        found = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(found.st_mode):
        raise WrongFileType(errno.ENXIO, describe_file_type(found.st_mode), "file", str(path))
    if found.st_nlink > 1:
        raise WrongFileType(errno.EMLINK, "a hard link", "file", str(path))
