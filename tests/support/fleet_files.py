"""Texts of fleet files, and their mistakes."""

from __future__ import annotations

from pathlib import Path

import pytest

from tilesync.fleets.file.mistakes import InvalidFleetFile
from tilesync.fleets.file.reader import read_fleet_file
from tilesync.fleets.file.settings import FleetSettings

IMODEL = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a40"
OTHER = "5c6b3f0e-0d3e-4b5a-9a51-6f2d3c1e7a41"

ONE = f'[[mirror]]\nname = "a"\nimodel = "{IMODEL}"\n'
"""A mirror without its dest; the next line is the fourth of the file."""

GOOD = ONE + 'dest = "out/a"\n'
"""A whole mirror; the next line is the fifth of the file."""


def write_fleet(folder: Path, text: str) -> Path:
    """Write a fleet file."""
    path = folder / "fleet.toml"
    path.write_text(text, encoding="utf-8")
    return path


def read_fleet(folder: Path, text: str) -> FleetSettings:
    """Write a fleet file, and read it."""
    return read_fleet_file(write_fleet(folder, text))


def find_mistakes(folder: Path, text: str) -> list[str]:
    """Return all mistakes of a file, each as `LINE: TABLE KEY: MESSAGE`."""
    path = write_fleet(folder, text)
    with pytest.raises(InvalidFleetFile) as caught:
        read_fleet_file(path)
    return [str(mistake).removeprefix(f"{path}:").strip() for mistake in caught.value.mistakes]


def assert_one(folder: Path, text: str, mistake: str) -> None:
    """Assert that a file has this mistake and no other; `mistake` is its beginning."""
    (found,) = find_mistakes(folder, text)
    assert found.startswith(mistake), found
