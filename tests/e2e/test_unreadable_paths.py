"""Folders and packages that this user may not look into, as arguments of commands that read."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.commandline import make_environment
from tests.support.sequential_exports import FIRST, mirror_each

WITHOUT_OVERRIDE = ("setpriv", "--bounding-set=-dac_override,-dac_read_search", "--inh-caps=-all")
"""Command that runs another one without the capabilities by which root reads everything."""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A mirror `d`, and the folders `closed` and `closed-parent` without permissions, the second with a package."""
    if os.geteuid() == 0 and shutil.which("setpriv") is None:
        pytest.skip("root reads everything, and there is no setpriv")
    folder = tmp_path_factory.mktemp("unreadable")
    mirror_each(folder / "d", FIRST)
    for name in ("closed", "closed-parent"):
        (folder / name).mkdir()
    (folder / "closed-parent/a.zip").write_bytes(b"PK")
    closed = [folder / "closed", folder / "closed-parent"]
    for path in closed:
        path.chmod(0)
    yield folder
    for path in closed:
        path.chmod(0o755)


@pytest.mark.parametrize(
    "words",
    [
        "serve closed", "serve ./closed-parent/a", "serve closed-parent/a.zip",
        "mirror closed new", "diff d current latest@closed", "diff closed current", "pack closed a.zip",
        "mirror ./closed-parent/a new", "mirror closed-parent/a.zip new", "mirror d closed-parent/a.zip",
        "verify closed-parent/a.zip", "pack closed-parent/a.zip b.zip", "versions closed-parent/a.zip",
    ],
)  # fmt: skip
def test_a_path_without_permission(folder: Path, words: str) -> None:
    """Exit 8, and a sentence that names the path and the reason."""
    prefix = WITHOUT_OVERRIDE if os.geteuid() == 0 else ()
    done = subprocess.run(
        [*prefix, sys.executable, "-m", "tilesync", *words.split()],
        cwd=folder,
        env=make_environment(TILESYNC_TOKEN="t"),
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 8, done.stderr
    assert "Permission denied" in done.stderr
    assert "closed" in done.stderr
    assert "Traceback" not in done.stderr
