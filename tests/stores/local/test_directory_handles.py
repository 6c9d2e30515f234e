"""Directory handles: everything reached through them is below the named folder, whatever is swapped meanwhile."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from tilesync.runtime.safe_open import WrongFileType
from tilesync.stores.local import directory_handles as directory_handles
from tilesync.stores.local.directory_handles import MAX_OPEN_HANDLES, DirectoryHandle, DirectoryTree


@pytest.fixture(params=[True, False], ids=["handles", "paths"], autouse=True)
def handles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Run with directory handles, and without, as on Windows."""
    monkeypatch.setattr(directory_handles, "HAS_DIR_FD", request.param)
    return bool(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder with a file, and a folder beside it that must not change."""
    (tmp_path / "d/a/b").mkdir(parents=True)
    (tmp_path / "d/a/b/file").write_bytes(b"inside")
    (tmp_path / "outside/b").mkdir(parents=True)
    (tmp_path / "outside/b/file").write_bytes(b"precious")
    yield tmp_path / "d"
    assert (tmp_path / "outside/b/file").read_bytes() == b"precious"
    assert sorted(path.name for path in (tmp_path / "outside").rglob("*")) == ["b", "file"]


def read(tree: DirectoryTree, folder: str, name: str) -> bytes:
    with open(tree.folder(folder).entry(name).open(), "rb") as file:
        return file.read()


def swap(folder: Path, outside: Path) -> None:
    """Replace a folder with a symlink."""
    folder.rename(folder.with_name("aside"))
    folder.symlink_to(outside)


@pytest.mark.parametrize("linked", ["a", "a/b"])
def test_a_link_is_refused_with_its_path(root: Path, linked: str) -> None:
    """A symlink where a folder is needed is refused and named, planted before or swapped in during use."""
    tree = DirectoryTree(root)
    assert read(tree, "a/b", "file") == b"inside"
    swap(root / linked, root.parent / "outside" / ("b" if linked == "a/b" else "."))
    for candidate in (tree, DirectoryTree(root), pickle.loads(pickle.dumps(tree))):
        for action in (candidate.folder, candidate.find):
            with pytest.raises(WrongFileType, match=f"a symlink where a folder is needed: {root}/{linked}$"):
                action("a/b")
        with pytest.raises(WrongFileType):
            candidate.folder("a/b", make=True)


def test_a_moved_folder_that_is_linked_back_is_refused(root: Path) -> None:
    """A folder that was moved away and linked back is refused, though it is the same folder."""
    tree = DirectoryTree(root)
    tree.folder("a/b")
    (root / "a").rename(root.parent / "moved")
    (root / "a").symlink_to(root.parent / "moved")
    with pytest.raises(WrongFileType):
        tree.folder("a/b")


def test_root_path_may_contain_symlinks(root: Path) -> None:
    """The path of the root may contain symlinks; the paths below it may not."""
    (root.parent / "named").symlink_to("d")
    assert read(DirectoryTree(root.parent / "named"), "a/b", "file") == b"inside"
    (root / "state").symlink_to(root.parent / "outside")
    with pytest.raises(WrongFileType):
        DirectoryTree.from_path(root.parent / "named/state", root.parent / "named").folder()
    assert DirectoryTree.from_path(root.parent / "outside", root).folder().entry("b").find_stat() is not None


def test_replaced_folder_is_opened_again(root: Path) -> None:
    """A folder that was removed and created again, or renamed with its parents, is opened again by its path."""
    tree = DirectoryTree(root)
    tree.folder("a/b")
    (root / "a/b").rename(root / "away")
    assert tree.find("a/b") is None
    assert tree.find_stat("a/b") is None
    (root / "a/b").mkdir()
    (root / "a/b/file").write_bytes(b"new")
    assert read(tree, "a/b", "file") == b"new"


def test_handles_survive_a_rename_of_the_root(root: Path, handles: bool) -> None:
    """With handles, the folders below a root that is renamed can still be used."""
    tree = DirectoryTree(root)
    tree.folder("a/b")
    root.rename(root.with_name("renamed"))
    try:
        if handles:
            assert read(tree, "a/b", "file") == b"inside"
        else:
            assert tree.find("a/b") is None
    finally:
        root.with_name("renamed").rename(root)


def test_missing_folders_are_created(root: Path) -> None:
    """All missing folders are created if `make` is set."""
    tree = DirectoryTree(root)
    with pytest.raises(FileNotFoundError):
        tree.folder("x/y")
    assert tree.folder("x/y", make=True).entry("z").path == str(root / "x/y/z")
    assert (root / "x/y").is_dir()
    with pytest.raises(WrongFileType, match="a file where a folder is needed"):
        tree.folder("a/b/file/x", make=True)


def test_new_file_replaces_what_exists(root: Path) -> None:
    """A file, symlink or hard link with the name of a new file is unlinked; its other names keep their content."""
    outside, folder = root.parent / "outside/b/file", DirectoryTree(root).folder("a")
    for plant in (
        lambda path: path.symlink_to(outside),
        lambda path: os.link(outside, path),
        os.mkfifo,
        lambda path: path.write_bytes(b"old"),
    ):
        plant(root / "a/new")
        with open(folder.entry("new").create(), "wb") as file:
            file.write(b"new")
        assert (root / "a/new").read_bytes() == b"new"
        assert (root / "a/new").stat().st_nlink == 1
        (root / "a/new").unlink()
    (root / "a/new").mkdir()
    with pytest.raises(OSError):
        folder.entry("new").create()


def test_file_with_a_second_hard_link_is_not_continued(root: Path) -> None:
    """A file with a second hard link is never continued."""
    os.link(root.parent / "outside/b/file", root / "a/part")
    with pytest.raises(WrongFileType, match="a hard link where a file is needed"):
        DirectoryTree(root).folder("a").entry("part").open_unshared()


def test_entry_operations(root: Path) -> None:
    """Entries can be renamed, linked, dated, symlinked and removed, each in its open folder."""
    tree = DirectoryTree(root)
    one, other = tree.folder("a/b").entry("file"), tree.folder("x", make=True).entry("moved")
    one.link(other)
    with pytest.raises(FileExistsError):
        one.link(other)
    one.unlink()
    one.unlink()
    assert (one.find_stat(), (root / "x/moved").read_bytes()) == (None, b"inside")
    other.set_mtime(1_700_000_000)
    assert other.stat().st_mtime == 1_700_000_000
    other.move(one)
    assert (root / "a/b/file").read_bytes() == b"inside"
    symlink = tree.folder().entry("lead")
    symlink.symlink_to("a/b")
    assert (symlink.read_link(), one.read_link()) == ("a/b", None)
    with pytest.raises(WrongFileType):
        tree.folder("lead")
    with pytest.raises(OSError):
        tree.folder().remove("lead")
    tree.folder().remove("a")
    assert sorted(os.listdir(root)) == ["lead", "x"]
    tree.folder("x/y/z", make=True)
    tree.folder().remove_empty_tree("x")
    tree.folder("x/y", make=True)
    (root / "x/y/file").touch()
    with pytest.raises(OSError):
        tree.folder().remove_empty_tree("x")
    assert (root / "x/y/file").exists()


def test_walk_lists_symlinks_and_does_not_follow_them(root: Path) -> None:
    """A walk lists everything except folders, with paths from the top; symlinks are not followed."""
    (root / "a/link").symlink_to(root.parent / "outside")
    (root / "a/loop").symlink_to(".")
    tree = DirectoryTree(root)
    assert sorted(name for name, _ in tree.folder().walk()) == ["a/b/file", "a/link", "a/loop"]


def test_few_descriptors_stay_open(tmp_path: Path, handles: bool) -> None:
    """Few descriptors stay open, however many folders are used, and none after the tree is deleted."""
    before = len(os.listdir("/proc/self/fd"))
    tree = DirectoryTree(tmp_path)
    for number in range(5 * MAX_OPEN_HANDLES):
        tree.folder(f"{number % 7}/{number}/x", make=True)
    assert len(os.listdir("/proc/self/fd")) <= before + MAX_OPEN_HANDLES + 8
    assert (len(os.listdir("/proc/self/fd")) > before) == handles
    del tree
    assert len(os.listdir("/proc/self/fd")) == before


def test_entry_outlives_its_tree(root: Path) -> None:
    """An entry can be used after its tree is deleted."""
    entry = DirectoryTree(root).folder("a/b").entry("file")
    assert entry.stat().st_size == 6


@pytest.mark.parametrize("kind", [os.mkfifo, Path.touch])
def test_wrong_file_type_is_named(tmp_path: Path, kind: object) -> None:
    """A path that is not a folder is named in the error, also at the top; a FIFO does not block."""
    assert callable(kind)
    kind(tmp_path / "x")
    with pytest.raises(WrongFileType, match="where a folder is needed"):
        DirectoryHandle(str(tmp_path / "x"))
    with pytest.raises(WrongFileType, match="where a folder is needed"):
        DirectoryTree(tmp_path).folder("x")
