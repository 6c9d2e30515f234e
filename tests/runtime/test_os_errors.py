"""Errors of the operating system as errors of a destination."""

from __future__ import annotations

import errno
import os

import pytest

from tilesync.errors import DestinationError, DiskFull, Unreadable
from tilesync.runtime.os_errors import (
    to_destination_error,
    to_read_error,
    translate_os_errors,
    translate_read_errors,
)


def os_error(number: int) -> OSError:
    """Build the OSError that the system raises with this number."""
    return OSError(number, os.strerror(number))


@pytest.mark.parametrize(
    ("number", "kind"),
    [
        (errno.ENOSPC, DiskFull),
        (errno.EDQUOT, DiskFull),
        (errno.EFBIG, DiskFull),
        (errno.EACCES, DestinationError),
        (errno.ENOTDIR, DestinationError),
        (errno.EIO, DestinationError),
    ],
)
def test_each_error_has_its_class(number: int, kind: type[DestinationError]) -> None:
    """A full disk, a quota and a size limit are DiskFull; the message has the subject and the reason."""
    error = to_destination_error(os_error(number), "a/b cannot be written")
    assert type(error) is kind
    assert str(error).startswith(f"a/b cannot be written: {os.strerror(number)}")


@pytest.mark.parametrize("number", [errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOTEMPTY])
def test_a_file_in_place_of_a_folder_is_explained(number: int) -> None:
    """The numbers of a wrong kind of file are explained in words, with the caller's hint."""
    error = to_destination_error(os_error(number), "a", hint="move it")
    assert "a file where a folder is needed" in str(error)
    assert error.hint == "move it"


def test_a_missing_file_is_not_unreadable() -> None:
    """A file that may not be read is Unreadable; a missing one is not."""
    assert type(to_read_error(os_error(errno.EACCES), "a")) is Unreadable
    assert type(to_read_error(os_error(errno.ENOENT), "a")) is DestinationError


def test_errors_are_translated_in_a_block() -> None:
    """The blocks translate an OSError, keep it as the cause, and let other errors pass."""
    with pytest.raises(DiskFull) as full, translate_os_errors("a"):
        raise os_error(errno.ENOSPC)
    assert isinstance(full.value.__cause__, OSError)
    with pytest.raises(Unreadable), translate_read_errors("a"):
        raise os_error(errno.EIO)
    with pytest.raises(ZeroDivisionError), translate_os_errors("a"), translate_read_errors("a"):
        raise ZeroDivisionError
