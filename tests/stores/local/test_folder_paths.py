"""A file where a folder is needed, and the folder that is suggested instead."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tilesync.errors import DestinationError
from tilesync.stores.local.folder_paths import READ_HINT, folder_hint, refuse_file, refuse_missing


def test_a_folder_and_a_missing_path_are_accepted(tmp_path: Path) -> None:
    """A folder may exist or not; a link to a folder is one."""
    (tmp_path / "link").symlink_to(tmp_path)
    for path in (tmp_path, tmp_path / "new", tmp_path / "new/deeper", tmp_path / "link/new"):
        refuse_file(path)


@pytest.mark.parametrize("path", ["file", "file/below", "link", "link/below/it"])
def test_a_file_is_refused_at_the_path_and_above_it(tmp_path: Path, path: str) -> None:
    """The error names the file, also one above the path or behind a link."""
    (tmp_path / "file").write_bytes(b"x")
    (tmp_path / "link").symlink_to("file")
    with pytest.raises(DestinationError, match=f"{path.partition('/')[0]} is a file, not a folder"):
        refuse_file(tmp_path / path)


def test_a_fifo_is_refused_by_its_type(tmp_path: Path) -> None:
    """What is there instead of a folder is named, and the caller's hint replaces the usual one."""
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(DestinationError, match="not a folder") as error:
        refuse_file(tmp_path / "pipe", hint="check --state-dir")
    assert "is a file" not in str(error.value)
    assert error.value.hint == "check --state-dir"


@pytest.mark.parametrize("manifests", ["manifests", ".tilesync/manifests"])
def test_the_hint_suggests_the_destination_around_a_file(tmp_path: Path, manifests: str) -> None:
    """Of a file in a destination, in either layout, the hint suggests the destination."""
    (tmp_path / "d" / manifests).mkdir(parents=True)
    assert folder_hint(tmp_path / "d/versions/e1/tileset.json").endswith(f": {tmp_path / 'd'}")
    assert "does not exist yet" in folder_hint(tmp_path / "elsewhere/tileset.json")


def test_commands_that_read_suggest_what_can_be_read(tmp_path: Path) -> None:
    """A command that only reads suggests a filled folder or a package, never a path that does not exist yet."""
    (tmp_path / "x.tar.gz").touch()
    assert folder_hint(tmp_path / "x.tar.gz", is_read=True) == READ_HINT
    with pytest.raises(DestinationError) as caught:
        refuse_file(tmp_path / "x.tar.gz", is_read=True)
    assert caught.value.hint == READ_HINT
    for ending in (".3tz", ".3dtiles", ".tar", ".zip"):
        assert ending in READ_HINT


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    """Also one whose name no file system stores; a folder that exists is accepted."""
    for name in ("gone", "gone/below", "x" * 300):
        with pytest.raises(DestinationError, match="there is no folder"):
            refuse_missing(tmp_path / name)
    refuse_missing(tmp_path)
