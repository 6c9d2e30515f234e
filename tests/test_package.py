"""The installed package says that it is typed."""

from __future__ import annotations

import subprocess
import tomllib
from pathlib import Path

import tilesync

ROOT = Path(__file__).parents[1]
STATUS_PAGE_FILES = ("monitoring/templates/status_page.css", "monitoring/templates/status_page.html")
VIEWER_FILES = (
    "THIRD_PARTY_NOTICES.txt",
    "basis_transcoder.wasm",
    "basis_worker.js",
    "draco_decoder.wasm",
    "draco_wasm_wrapper.js",
    "index.html",
    "viewer.css",
    "viewer.js",
)


def test_the_package_is_marked_as_typed() -> None:
    """`py.typed` is installed beside the modules, so that type checkers read the annotations (PEP 561)."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    assert "Typing :: Typed" in project["project"]["classifiers"]
    assert (Path(tilesync.__file__).parent / "py.typed").read_bytes() == b""


def test_the_wheel_has_every_file_of_the_package() -> None:
    """No rule excludes `py.typed` or a template from the build: hatch takes the folder, except what git ignores."""
    wheel = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    assert wheel == {"packages": ["tilesync"]}
    files = (path for path in (ROOT / "tilesync").rglob("*") if path.is_file())
    data = sorted(path for path in files if path.suffix not in {".py", ".pyc"})
    names = [path.relative_to(ROOT / "tilesync").as_posix() for path in data]
    viewer = [f"serving/viewer_files/{name}" for name in VIEWER_FILES]
    assert names == [*STATUS_PAGE_FILES, "py.typed", *viewer]
    ignored = subprocess.run(["git", "check-ignore", *map(str, data)], cwd=ROOT, check=False)
    assert ignored.returncode == 1
