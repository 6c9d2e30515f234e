"""Errors of the operating system, mapped to those of tilesync."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tilesync.errors import DestinationError, DiskFull, Unreadable
from tilesync.runtime.safe_open import WrongFileType

_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def translate_os_errors(subject: str, *, hint: str | None = None) -> Iterator[None]:
    """The operating system's errors in our terms; `what` begins the message. `hint`: what helps, if not the usual."""
    try:
        yield
    except OSError as error:
        raise to_destination_error(error, subject, hint=hint) from error


@contextmanager
def translate_read_errors(subject: str) -> Iterator[None]:
    """Likewise, where something is read or looked at: Unreadable for all but what is not there."""
    try:
        yield
    except OSError as error:
        raise to_read_error(error, subject) from error


def to_destination_error(error: OSError, subject: str, *, hint: str | None = None) -> DestinationError:
    """The error of ours that an OSError means."""
    reason = f"{subject}: {error.strerror or error}"
    if isinstance(error, WrongFileType):
        return DestinationError(reason, hint="move it away, then run again")
    if error.errno in _DISK_FULL_ERRNOS:
        return DiskFull(reason)
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}:
        return DestinationError(f"{reason} (a file stands where a folder is needed, or the other way round)", hint=hint)
    return DestinationError(reason, hint=hint)


def to_read_error(error: OSError, subject: str) -> DestinationError:
    """Likewise, where something is read or looked at."""
    if isinstance(error, WrongFileType | FileNotFoundError | NotADirectoryError):
        return to_destination_error(error, subject)
    return Unreadable(f"{subject}: {error.strerror or error}")
