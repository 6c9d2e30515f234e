"""A small file system of its own, to be filled."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest


@contextmanager
def mounted_small_disk(folder: Path) -> Iterator[Path]:
    """Mount a file system of 2 MiB; skip the test where that is not allowed."""
    folder.mkdir()
    mount = shutil.which("mount")
    if (
        mount is None
        or subprocess.run([mount, "-t", "tmpfs", "-o", "size=2m", "tmpfs", folder], capture_output=True).returncode
    ):
        pytest.skip("mounting a small tmpfs is not allowed here")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def fill_disk(disk: Path, *, free_bytes: int) -> Path:
    """Fill a file system with one file, up to some free bytes; return the file."""
    usage = os.statvfs(disk)
    (disk / "filler").write_bytes(b"\0" * (usage.f_bavail * usage.f_frsize - free_bytes))
    return disk / "filler"
