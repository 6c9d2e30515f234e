"""Translation of operating system errors into errors of tilesync."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from tilesync.errors import DestinationError, DiskFull, Unreadable
from tilesync.runtime.safe_open import WrongFileType

_DISK_FULL_ERRNOS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


@contextmanager
def translate_os_errors(subject: str, *, hint: str | None = None) -> Iterator[None]:
    """Translate an OSError into a DestinationError.

    `subject` begins the message. `hint` replaces the default hint.
    """
    try:
        yield
    except OSError as error:
        raise to_destination_error(error, subject, hint=hint) from error


@contextmanager
def translate_read_errors(subject: str) -> Iterator[None]:
    """Translate an OSError of a read: Unreadable, unless the file is missing or has the wrong type."""
    try:
        yield
    except OSError as error:
        raise to_read_error(error, subject) from error


def to_destination_error(error: OSError, subject: str, *, hint: str | None = None) -> DestinationError:
    """Return the DestinationError that matches an OSError."""
    reason = f"{subject}: {error.strerror or error}"
    if isinstance(error, WrongFileType):
        return DestinationError(reason, hint="move it away, then run again")
    if error.errno in _DISK_FULL_ERRNOS:
        return DiskFull(reason)
    if error.errno in {errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY}:
        return DestinationError(f"{reason} (found a file where a folder is needed, or the reverse)", hint=hint)
    return DestinationError(reason, hint=hint)


def to_read_error(error: OSError, subject: str) -> DestinationError:
    """Return the error that matches an OSError of a read."""
    if isinstance(error, WrongFileType | FileNotFoundError | NotADirectoryError):
        return to_destination_error(error, subject)
    return Unreadable(f"{subject}: {error.strerror or error}")
