"""A file instead of a folder is an error that names the right folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import run_tilesync
from tests.support.simulator import EXPORT


@pytest.mark.parametrize(
    ("command", "name"),
    [(command, "v/tileset.json") for command in ("verify", "versions", "rollback", "doctor", "mirror", "plan")]
    + [("verify", name) for name in (f"v/versions/{EXPORT}/tileset.json", "v/tileset.json/x", "f/tileset.json")],
)
def test_a_file_as_dest_is_refused_with_the_folder_that_contains_it(
    both_layouts: Path, command: str, name: str
) -> None:
    """The pointer as DEST: the hint names the destination around it."""
    words = {"mirror": ["mirror", IMODEL], "plan": ["mirror", "-n", IMODEL]}.get(command, [command])
    done = run_tilesync(*words, both_layouts / name, TILESYNC_TOKEN="t")
    file, folder = str(both_layouts / name).removesuffix("/x"), both_layouts / name[0]
    assert done.exit_code == 8
    assert f"{file} is a file, not a folder\n" in done.stderr + done.stdout
    assert f"give the folder that tilesync filled: {folder}\n" in done.stderr + done.stdout
    assert "move it away" not in done.stderr + done.stdout


def test_a_file_as_state_folder_is_refused(both_layouts: Path) -> None:
    """A file as --state-dir: the hint names the option."""
    done = run_tilesync("verify", both_layouts / "v", "--state-dir", both_layouts / "v/tileset.json")
    message = f"error: {both_layouts / 'v/tileset.json'} is a file, not a folder\n  check --state-dir\n"
    assert (done.exit_code, done.stderr) == (8, message)


def test_a_device_as_dest_and_a_file_as_source_are_refused(both_layouts: Path, tmp_path: Path) -> None:
    """A device as DEST asks for a folder; a file of a mirror as SOURCE names that mirror."""
    done = run_tilesync("mirror", both_layouts / "v", os.devnull)
    assert (done.exit_code, done.stderr) == (
        8, f"error: {os.devnull} is a device, not a folder\n  give a folder, or a path that does not exist yet\n",
    )  # fmt: skip
    done = run_tilesync("mirror", both_layouts / "v/tileset.json", tmp_path / "d")
    assert done.exit_code == 2
    assert (
        f"tileset.json is not a folder\n  give the folder that tilesync filled: {both_layouts / 'v'}\n" in done.stderr
    )
