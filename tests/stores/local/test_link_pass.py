"""Link pass: which files of another version are linked, and which are left to the default path."""

from __future__ import annotations

import errno
import os
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from tests.support.local_destination import snapshot_tree
from tests.support.store_contract import SAMPLE_VERSION
from tilesync.model import UnchangedFile
from tilesync.stores.local.directory_handles import DirectoryTree
from tilesync.stores.local.reader import SafePathResolver
from tilesync.stores.local.writer import LocalFiles

NAMES = ["a", "f/b", "f/c", "f/sub/d", "g/e"]


@pytest.fixture
def files(tmp_path: Path) -> list[UnchangedFile]:
    """The files of the version `old`, as they were recorded."""
    recorded = []
    for number, name in enumerate(NAMES):
        path = tmp_path / "versions/old" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
        found = path.stat()
        recorded.append(UnchangedFile(number, name, len(name), found.st_size, found.st_mtime_ns, found.st_ino))
    return recorded


def link(root: Path, files: list[UnchangedFile]) -> list[str]:
    (root / "parts").mkdir(exist_ok=True)
    local = LocalFiles([SafePathResolver(root)], DirectoryTree(root / "parts"), lambda _: None, trust_parts=False)
    old, new = (replace(SAMPLE_VERSION, name=name) for name in ("old", "new"))
    return [each.name for each in local.link_unchanged(new, old, files)]


def test_all_files_are_linked(tmp_path: Path, files: list[UnchangedFile]) -> None:
    """Each file is the same file in both versions; a second pass finds them in place."""
    assert link(tmp_path, files) == NAMES
    assert link(tmp_path, files) == NAMES
    for name in NAMES:
        assert (tmp_path / "versions/old" / name).samefile(tmp_path / "versions/new" / name)


def rewritten(path: Path) -> None:
    path.write_text("?" * path.stat().st_size)
    os.utime(path, (1, 1))


def replaced(path: Path) -> None:
    """Replace a file by one of the same size and mtime."""
    found = path.stat()
    path.with_name("copy").write_text("?" * found.st_size)
    os.utime(path.with_name("copy"), ns=(found.st_mtime_ns, found.st_mtime_ns))
    path.with_name("copy").replace(path)


def longer(path: Path) -> None:
    found = path.stat()
    path.write_text("?" * (found.st_size + 1))
    os.utime(path, ns=(found.st_mtime_ns, found.st_mtime_ns))


def symlinked(path: Path) -> None:
    path.rename(path.with_name("real"))
    path.symlink_to("real")


@pytest.mark.parametrize("change", [rewritten, replaced, longer, symlinked, Path.unlink])
def test_a_changed_file_is_not_left_in_place(
    tmp_path: Path, files: list[UnchangedFile], change: Callable[[Path], None]
) -> None:
    """Only the file that the catalog recorded is linked; the others of its folder are."""
    change(tmp_path / "versions/old/f/b")
    assert link(tmp_path, files) == ["a", "f/c", "f/sub/d", "g/e"]
    assert not os.path.lexists(tmp_path / "versions/new/f/b")


def test_a_symlinked_folder_is_not_entered(tmp_path: Path, files: list[UnchangedFile], outside: Path) -> None:
    """Neither the folder that is read nor the one that is written to may be a symlink; other folders are linked."""
    (tmp_path / "versions/old/f").rename(tmp_path / "versions/old/elsewhere")
    (tmp_path / "versions/old/f").symlink_to("elsewhere")
    (tmp_path / "versions/new").mkdir()
    (tmp_path / "versions/new/g").symlink_to(outside)
    assert link(tmp_path, files) == ["a"]


def test_an_existing_file_is_kept(tmp_path: Path, files: list[UnchangedFile]) -> None:
    """A file that is in the way is neither changed nor taken for the recorded one."""
    existing = tmp_path / "versions/new/f/b"
    existing.parent.mkdir(parents=True)
    existing.write_text("f/b")
    assert link(tmp_path, files) == ["a", "f/c", "f/sub/d", "g/e"]
    assert existing.read_text() == "f/b"


def test_unsafe_names_are_left_out(tmp_path: Path, files: list[UnchangedFile]) -> None:
    """A name that leads out of the folder is not followed, whatever the catalog holds."""
    before = snapshot_tree(tmp_path / "versions")
    bad = [files[0]._replace(name=name) for name in ("../old/a", "x/../a", "/a", "")]
    assert link(tmp_path, bad) == []
    assert snapshot_tree(tmp_path / "versions") == before
    assert link(tmp_path, [bad[0], *files]) == NAMES


def test_in_the_flat_layout_files_are_in_place(tmp_path: Path, files: list[UnchangedFile]) -> None:
    """Nothing is linked. Changed files, and files that a version has staged, are left out."""
    root = tmp_path / "versions/old"
    rewritten(root / "f/c")
    (tmp_path / "staged/new/g").mkdir(parents=True)
    (tmp_path / "staged/new/g/e").write_text("staged")
    (tmp_path / "parts").mkdir()
    resolvers = SafePathResolver(tmp_path, within="staged"), SafePathResolver(root, within=None)
    local = LocalFiles(resolvers, DirectoryTree(tmp_path / "parts"), lambda _: None, trust_parts=False)
    old, new, other = (replace(SAMPLE_VERSION, name=name) for name in ("old", "new", "other"))
    before = snapshot_tree(tmp_path)
    in_place = [each.name for each in local.link_unchanged(new, old, files)]
    assert in_place == ["a", "f/b", "f/sub/d"]
    assert [each.name for each in local.link_unchanged(other, old, files)] == ["a", "f/b", "f/sub/d", "g/e"]
    assert snapshot_tree(tmp_path) == before


@pytest.mark.parametrize("reason", [errno.EMLINK, errno.EXDEV, None])
def test_a_file_that_cannot_be_linked_is_left_out(
    tmp_path: Path, files: list[UnchangedFile], monkeypatch: pytest.MonkeyPatch, reason: int | None
) -> None:
    """Too many links of one file concern that file alone."""
    make_link = os.link

    def refuse(source: str, *args: Any, **options: Any) -> None:
        if source == "b":
            raise OSError(reason, os.strerror(reason)) if reason else NotImplementedError
        make_link(source, *args, **options)

    monkeypatch.setattr(os, "link", refuse)
    assert link(tmp_path, files) == ["a", "f/c", "f/sub/d", "g/e"]
