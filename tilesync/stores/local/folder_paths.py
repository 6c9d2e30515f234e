"""Folder paths: refuse a file where a folder is needed, or a missing folder, and suggest a path to give instead."""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path
from typing import Final

from tilesync.errors import DestinationError, Unreadable
from tilesync.runtime.safe_open import describe_file_type
from tilesync.stores.packages.formats import FORMAT_ENDINGS

_MANIFEST_PATHS: Final = ("manifests", ".tilesync/manifests")

_NO_PATH_ERRNOS: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG})
"""Error numbers for a path that nothing is at."""

READ_HINT: Final = (
    "give a folder that `tilesync mirror` has filled, or a package of `tilesync pack`: its name ends with"
    f" {', '.join(FORMAT_ENDINGS[:-1])} or {FORMAT_ENDINGS[-1]}"
)
"""Hint of a command that only reads."""


def read_mode(path: Path) -> int | None:
    """Return the mode of what is at a path; None if nothing is there. Raises Unreadable if it cannot be told."""
    try:
        return os.stat(path).st_mode
    except ValueError:  # a NUL byte
        return None
    except OSError as error:
        if error.errno in _NO_PATH_ERRNOS:
            return None
        raise Unreadable(
            f"cannot inspect {path}: {error.strerror}",
            hint="check the permissions of this path and of the folders above it, then run again",
        ) from error


def refuse_missing(folder: Path) -> None:
    """Raise DestinationError if there is no folder to read."""
    refuse_file(folder.absolute(), is_read=True)
    if read_mode(folder) is None:
        raise DestinationError(f"there is no folder {folder}", hint=READ_HINT)


def refuse_file(folder: Path, *, hint: str | None = None, is_read: bool = False) -> None:
    """Raise DestinationError if a file is at the path of a folder or above it. A missing folder is no error.

    `hint` replaces the usual hint, which suggests a folder, or also a package if it `is_read` only.
    """
    for path in (folder, *folder.parents):
        try:
            mode = os.stat(path).st_mode
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError:
            return  # opening the folder later reports why that fails
        if not stat.S_ISDIR(mode):
            raise DestinationError(
                f"{path} is {describe_file_type(mode)}, not a folder", hint=hint or folder_hint(path, is_read=is_read)
            )
        return


def folder_hint(file: Path, *, is_read: bool = False) -> str:
    """Suggest a folder to give instead of a file; also a package if it `is_read` only."""
    for folder in file.absolute().parents:
        if any(os.path.isdir(folder / name) for name in _MANIFEST_PATHS):
            return f"give the folder that tilesync filled: {folder}"
    return READ_HINT if is_read else "give a folder, or a path that does not exist yet"
