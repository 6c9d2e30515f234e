"""Open a file without waiting for a disk: only through folders that are in the kernel's cache (Linux)."""

from __future__ import annotations

import ctypes
import errno
import os
import struct
import sys
from collections.abc import Callable
from functools import lru_cache

_OPENAT2 = 437
"""Number of openat2(2), the same on all architectures but Alpha. Python has no function for it."""

_RESOLVE_NO_MAGICLINKS, _RESOLVE_NO_SYMLINKS, _RESOLVE_BENEATH, _RESOLVE_CACHED = 0x02, 0x04, 0x08, 0x20
"""Flags for `open_how.resolve`. Source: openat2(2)."""

_OPEN_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_NOCTTY", 0) | getattr(os, "O_CLOEXEC", 0)
_HOW = struct.pack(
    "QQQ", _OPEN_FLAGS, 0, _RESOLVE_CACHED | _RESOLVE_BENEATH | _RESOLVE_NO_SYMLINKS | _RESOLVE_NO_MAGICLINKS
)

_LOCAL_FILE_SYSTEMS = frozenset(
    {0xEF53, 0x58465342, 0x9123683E, 0x01021994, 0x794C7630, 0xF2F52010, 0x2FC12FC1, 0xCA451A4E}
)
"""Types of file systems whose `open` asks nobody: ext4, XFS, Btrfs, tmpfs, overlayfs, F2FS, ZFS, bcachefs.

A network file system, or one of a user's process (FUSE), may ask its server. Source: statfs(2).
"""

OpenCached = Callable[[int, str], int | None]
"""Opens a path below a folder's descriptor and returns a descriptor; None if that could wait, or fails."""


def find_cached_open(folder: int) -> OpenCached | None:
    """Return the function that opens files below this folder without waiting; None if its system has none."""
    if sys.platform != "linux" or _read_file_system_type(folder) not in _LOCAL_FILE_SYSTEMS:
        return None
    open_cached = _create_cached_open()
    try:
        os.close(_call_openat2(_load_libc(), folder, b"."))
    except OSError as error:
        if error.errno != errno.EAGAIN:  # ENOSYS, EPERM: an old kernel, or a sandbox that does not know the call
            return None
    return open_cached


def _create_cached_open() -> OpenCached:
    libc = _load_libc()

    def open_cached(folder: int, path: str) -> int | None:
        try:
            return _call_openat2(libc, folder, os.fsencode(path))
        except OSError:
            return None

    return open_cached


@lru_cache(1)
def _load_libc() -> ctypes.CDLL:
    return ctypes.CDLL(None, use_errno=True)


def _call_openat2(libc: ctypes.CDLL, folder: int, path: bytes) -> int:
    descriptor: int = libc.syscall(_OPENAT2, folder, path, _HOW, len(_HOW))
    if descriptor < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return descriptor


def _read_file_system_type(folder: int) -> int:
    """Return `f_type` of statfs(2), the first word of its result; 0 if the call fails."""
    result = (ctypes.c_long * 32)()
    failed = _load_libc().fstatfs(folder, ctypes.byref(result))
    return 0 if failed else result[0] & 0xFFFFFFFF
