"""Errors of the operating system, mapped to those of tilesync."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tilesync.errors import DestinationError, DiskFull, Unreadable
from tilesync.runtime.safe_open import WrongFileType

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def mapped(what: str, *, hint: str | None = None) -> Iterator[None]:
    """The operating system's errors in our terms; `what` begins the message. `hint`: what helps, if not the usual."""
    try:
        yield
    except OSError as error:
        raise translate(error, what, hint=hint) from error


@contextmanager
def reading(what: str) -> Iterator[None]:
    """Likewise, where something is read or looked at: Unreadable for all but what is not there."""
    try:
        yield
    except OSError as error:
        raise unreadable(error, what) from error


def translate(error: OSError, what: str, *, hint: str | None = None) -> DestinationError:
    """The error of ours that an OSError means."""
    reason = f"{what}: {error.strerror or error}"
    if isinstance(error, WrongFileType):
        return DestinationError(reason, hint="move it away, then run again")
    if error.errno in _FULL:
        return DiskFull(reason)
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}:
        return DestinationError(f"{reason} (a file stands where a folder is needed, or the other way round)", hint=hint)
    return DestinationError(reason, hint=hint)


def unreadable(error: OSError, what: str) -> DestinationError:
    """Likewise, where something is read or looked at."""
    if isinstance(error, WrongFileType | FileNotFoundError | NotADirectoryError):
        return translate(error, what)
    return Unreadable(f"{what}: {error.strerror or error}")
