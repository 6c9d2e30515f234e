"""Names that a folder of this machine can store: their characters, length and case."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from tilesync.core.safe_names import are_all_safe, find_problem, raise_if_unsafe
from tilesync.runtime.os_errors import translate_os_errors
from tilesync.stores.local.directory_handles import DirectoryTree

_VERSION_PATH_BYTES = 160
"""Bytes kept for `/versions/<version>/` and the terminator."""


def check_file_names(names: Iterable[str], *, path_bytes: int, reserved: str = "") -> None:
    """Raise UnsafeName if a folder cannot store all names. `reserved`: the name of a folder not for blobs."""
    is_windows, names = os.name == "nt", list(names)
    if not reserved and not is_windows and are_all_safe(names, path_bytes=path_bytes):
        return
    bad = [
        (name, problem)
        for name in names
        if (
            problem := find_problem(name, path_bytes=path_bytes, windows=is_windows, reserved=reserved)
            or _encoding_problem(name)
        )
    ]
    raise_if_unsafe(bad, "a folder cannot store safely", elsewhere="; an object store accepts more names")


def _encoding_problem(name: str) -> str | None:
    try:
        os.fsencode(name)
    except UnicodeEncodeError:
        return "cannot be written in this locale (try LC_ALL=C.UTF-8)"
    return None


def max_name_bytes(root: Path) -> int:
    """Return the maximum bytes of a blob name below `root`, from the system's maximum path; 0 if there is no limit."""
    if not hasattr(os, "pathconf"):
        return 0
    existing = next(folder for folder in (root, *root.parents) if folder.is_dir())
    with translate_os_errors(f"cannot inspect {existing}"):
        return max(1, os.pathconf(existing, "PC_PATH_MAX") - len(os.fsencode(root)) - _VERSION_PATH_BYTES)


def is_case_insensitive(folder: DirectoryTree) -> bool:
    """Return whether the file system treats names that differ only in case as the same."""
    with translate_os_errors(f"cannot write to {folder.path}"):
        probe = folder.folder().entry("case-Probe")
        os.close(probe.create())
        is_insensitive = folder.folder().entry("CASE-pROBE").find_stat() is not None
        probe.unlink()
    return is_insensitive
