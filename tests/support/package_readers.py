"""Readers of packages that others wrote: Python's modules, programs of the system, and packages of npm."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import tarfile
import zipfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.viewers import INSTALLED_MARKER, PACKAGES, PAGES

READ_TIMEOUT_S = 300


def read_package(path: Path) -> dict[str, bytes]:
    """Read the entries of a package in their order, by Python's own readers."""
    if path.suffix == ".3dtiles":
        with closing(sqlite3.connect(path)) as db:
            return dict(db.execute("SELECT key, content FROM media ORDER BY rowid"))
    if path.suffix == ".tar":
        with tarfile.open(path) as archive:
            files = [(member.name, archive.extractfile(member)) for member in archive]
            return {name: file.read() for name, file in files if file is not None}
    with zipfile.ZipFile(path) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def require_program(name: str) -> str:
    """Return the path of a program; skip the test if it is not installed, and fail if it is required."""
    path = shutil.which(name)
    if path is None:
        if name in os.environ.get("TILESYNC_REQUIRE", "").split(","):
            pytest.fail(f"{name} is required, but not installed")
        pytest.skip(f"{name} is not installed")
    return path


def run_reader(program: str, *arguments: object) -> str:
    """Run a program that reads a package; return what it prints. It must end well."""
    command = [require_program(program), *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=READ_TIMEOUT_S, encoding="utf-8")
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr
    return done.stdout


def require_npm_readers() -> None:
    """Skip the test if the readers of npm are not installed, and fail if they are required."""
    if not INSTALLED_MARKER.exists() or not (PACKAGES / "3d-tiles-tools").is_dir():
        reason = "no readers of npm: `make test` installs them where npm is there"
        if "viewers" in os.environ.get("TILESYNC_REQUIRE", ""):
            pytest.fail(reason)
        pytest.skip(reason)


def write_with_3d_tiles_tools(folder: Path, out: Path) -> None:
    """Write the package of a folder by the program of 3d-tiles-tools."""
    require_npm_readers()
    run_reader(str(PACKAGES / ".bin/3d-tiles-tools"), "convert", "-i", folder, "-o", out)


def read_3tz_digests(reader: str, path: Path, names: Iterable[str]) -> dict[str, str]:
    """Read a .3tz file by `3d-tiles-tools` or `loaders.gl`; return the SHA-256 of each file that it finds."""
    require_npm_readers()
    done = subprocess.run(
        [require_program("node"), str(PAGES / "read_3tz.mjs"), f"{PACKAGES.parent.resolve()}/", reader, str(path)],
        input=json.dumps(list(names)),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=READ_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
