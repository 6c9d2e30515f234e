"""Readers of packages that others wrote: Python's modules, programs of the system, and packages of npm."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import tarfile
from collections.abc import Iterable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.viewers import INSTALLED_MARKER, PACKAGES, PAGES

if sys.version_info >= (3, 14):
    import zipfile
else:
    from backports.zstd import zipfile

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
    with open_zip(path) as zipped:
        return {name: zipped.read(name) for name in zipped.namelist()}


def open_zip(path: Path) -> zipfile.ZipFile:
    """Open a Zip file by the module of Python 3.14, which reads Zstandard."""
    return zipfile.ZipFile(path)


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


def _node_command(script: Path, *arguments: object) -> list[str]:
    require_npm_readers()
    return [require_program("node"), f"--require={PAGES / 'better_sqlite3.cjs'}", str(script), *map(str, arguments)]


def write_with_3d_tiles_tools(folder: Path, out: Path) -> None:
    """Write the package of a folder by the program of 3d-tiles-tools."""
    run_reader(*_node_command(PACKAGES / ".bin/3d-tiles-tools", "convert", "-i", folder, "-o", out))


def read_digests(reader: str, path: Path, names: Iterable[str]) -> dict[str, str]:
    """Read a package by `3d-tiles-tools`, or a .3tz file by `loaders.gl`; return the SHA-256 of each file found."""
    done = subprocess.run(
        _node_command(PAGES / "read_package.mjs", f"{PACKAGES.parent.resolve()}/", reader, path),
        input=json.dumps(list(names)),
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=READ_TIMEOUT_S,
    )
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found
