"""Folder paths: refuse a file where a folder is needed, and suggest the destination that contains it."""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Final

from tilesync.errors import DestinationError
from tilesync.runtime.safe_open import describe_file_type

_MANIFEST_PATHS: Final = ("manifests", ".tilesync/manifests")


def refuse_file(folder: Path, *, hint: str | None = None) -> None:
    """Raise DestinationError if a file is at the path of a folder or above it. A missing folder is no error.

    `hint` replaces the usual hint, which suggests a folder.
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
                f"{path} is {describe_file_type(mode)}, not a folder", hint=hint or folder_hint(path)
            )
        return


def folder_hint(file: Path) -> str:
    """Suggest a folder to give instead of a file."""
    for folder in file.absolute().parents:
        if any(os.path.isdir(folder / name) for name in _MANIFEST_PATHS):
            return f"give the folder that tilesync filled: {folder}"
    return "give a folder, or a path that does not exist yet"
