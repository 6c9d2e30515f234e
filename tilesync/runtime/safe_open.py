"""Safe opening of files: regular files only, without blocking on a FIFO, a device or a socket."""

from __future__ import annotations

import errno
import os
import select
import stat
import threading
from pathlib import Path
from time import monotonic

NO_FOLLOW = getattr(os, "O_NOFOLLOW", 0)
"""Open flag that refuses a symlink (0 on systems that lack it)."""

BINARY = getattr(os, "O_BINARY", 0)
"""Open flag for binary mode (Windows, where a descriptor is in text mode by default)."""

NO_WAIT = getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0)
"""Open flags that do not wait for the other side of a FIFO, and do not make a terminal the controlling one.

Source: open(2).
"""

_SYMLINK_ERRNOS = frozenset({errno.ELOOP, errno.EMLINK})
"""Error numbers for a symlink opened with O_NOFOLLOW: ELOOP by POSIX, EMLINK on FreeBSD."""

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
    """A path has another file type than needed; `needed` names the needed one."""

    def __init__(self, number: int, found: str, needed: str, path: str) -> None:
        super().__init__(number, f"found {found} where a {needed} is needed: {path}")
        self.needed = needed


def describe_file_type(mode: int) -> str:
    """Return the file type of a mode in words."""
    return next((words for matches, words in _FILE_TYPES if matches(mode)), "something else")


def open_regular(
    path: str | os.PathLike[str],
    flags: int = os.O_RDONLY,
    *,
    dir_fd: int | None = None,
    follow_symlinks: bool = False,
    display_name: str | None = None,
) -> int:
    """Open an existing regular file and return its descriptor.

    `follow_symlinks`: also open it through a symlink. `display_name`: the path for messages. Raises WrongFileType for
    any other file type, and OSError.
    """
    flags |= BINARY | (0 if follow_symlinks else NO_FOLLOW)
    display_name = os.fspath(path) if display_name is None else display_name
    try:
        descriptor = os.open(path, flags | NO_WAIT, dir_fd=dir_fd)
    except OSError as error:
        if error.errno in _SYMLINK_ERRNOS and not follow_symlinks:
            raise WrongFileType(errno.ELOOP, "a symlink", "file", display_name) from error
        if error.errno == errno.ENXIO:  # a socket, or a FIFO without a reader
            mode = os.stat(path, dir_fd=dir_fd, follow_symlinks=follow_symlinks).st_mode
            raise WrongFileType(errno.ENXIO, describe_file_type(mode), "file", display_name) from error
        if not isinstance(error, BlockingIOError):
            raise
        # A regular file under a lease (fcntl): opening it without O_NONBLOCK waits until the holder gives it up.
        descriptor = os.open(path, flags, dir_fd=dir_fd)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISREG(mode):
        return descriptor
    os.close(descriptor)
    raise WrongFileType(
        errno.EISDIR if stat.S_ISDIR(mode) else errno.ENXIO, describe_file_type(mode), "file", display_name
    )


MAX_SMALL_FILE_BYTES = 1 << 20
"""Maximum bytes of a file that is read whole, such as a token, which has a few thousand."""

PIPE_TIMEOUT_S = 30.0
"""Seconds that the writer of a pipe has to finish."""

_POLL_INTERVAL_S = 0.1


def read_small_file(
    path: str | os.PathLike[str], *, stop: threading.Event | None = None, timeout_s: float = PIPE_TIMEOUT_S
) -> bytes:
    """Read a small file that the user named.

    Symlinks are followed; a pipe or terminal is read until its writer ends, and `stop` cancels that wait. Raises
    TimeoutError if the writer does not end in time, WrongFileType for a folder or a socket, and OSError.
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
    """Read a pipe until its writer ends.

    A pipe without a writer yet also reads as empty (read(2)); only a hang-up shows that there was a writer.
    """
    data, poll = b"", select.poll()
    poll.register(descriptor, select.POLLIN)
    while len(data) <= MAX_SMALL_FILE_BYTES:
        if monotonic() > deadline or (stop is not None and stop.is_set()):
            raise TimeoutError(errno.ETIMEDOUT, "the writer of the pipe does not end")
        for _, event in poll.poll(_POLL_INTERVAL_S * 1000):
            chunk = os.read(descriptor, 1 << 16)
            data += chunk
            if not chunk and (data or event & select.POLLHUP):
                return data
    return data


def check_unshared(path: Path) -> None:
    """Raise WrongFileType unless `path` is missing or is a regular file with no other hard link.

    Libraries that open a file by its path would follow such a link.
    """
    try:
        info = os.lstat(path)
    except FileNotFoundError:
        return
    if not stat.S_ISREG(info.st_mode):
        raise WrongFileType(errno.ENXIO, describe_file_type(info.st_mode), "file", str(path))
    if info.st_nlink > 1:
        raise WrongFileType(errno.EMLINK, "a hard link", "file", str(path))
