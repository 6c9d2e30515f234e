"""The installed package says that it is typed."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import tilesync

ROOT = Path(__file__).parents[1]


def test_the_package_is_marked_as_typed() -> None:
    """`py.typed` is installed beside the modules, so that type checkers read the annotations (PEP 561)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "Typing :: Typed" in project["project"]["classifiers"]
    assert (Path(tilesync.__file__).parent / "py.typed").read_bytes() == b""


def test_the_wheel_has_every_file_of_the_package() -> None:
    """No rule excludes `py.typed` or a template from the build: hatch takes the folder, except what git ignores."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["tilesync"]}
    data = sorted(path for path in (ROOT / "tilesync").rglob("*") if path.suffix in {".typed", ".html", ".css"})
    assert [path.name for path in data] == ["status_page.css", "status_page.html", "py.typed"]
    ignored = subprocess.run(["git", "check-ignore", *map(str, data)], cwd=ROOT, check=False)
    assert ignored.returncode == 1
