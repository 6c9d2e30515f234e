"""Directory handles: all that is reached through them lies below the folder that was named, whatever is swapped."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from pathlib import Path

import pytest

from tilesync.runtime.safe_open import WrongFileType
from tilesync.stores.local import directory_handles as folders
from tilesync.stores.local.directory_handles import MAX_OPEN_HANDLES, DirectoryHandle, DirectoryTree


@pytest.fixture(params=[True, False], ids=["handles", "paths"], autouse=True)
def handles(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """With directory handles, and without, as on Windows."""
    monkeypatch.setattr(folders, "HAS_DIR_FD", request.param)
    return bool(request.param)


@pytest.fixture
def root(tmp_path: Path) -> Iterator[Path]:
    """A folder with something in it, and one beside it that must stand as it is."""
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
    """A folder goes, and a link stands in its place."""
    folder.rename(folder.with_name("aside"))
    folder.symlink_to(outside)


@pytest.mark.parametrize("linked", ["a", "a/b"])
def test_a_link_is_refused_with_its_path(root: Path, linked: str) -> None:
    """Where a folder is needed a symlink is named, be it there from the start or swapped in while it is used."""
    tree = DirectoryTree(root)
    assert read(tree, "a/b", "file") == b"inside"
    swap(root / linked, root.parent / "outside" / ("b" if linked == "a/b" else "."))
    for each in (tree, DirectoryTree(root), pickle.loads(pickle.dumps(tree))):
        for work in (each.folder, each.find):
            with pytest.raises(WrongFileType, match=f"a symlink where a folder is needed: {root}/{linked}$"):
                work("a/b")
        with pytest.raises(WrongFileType):
            each.folder("a/b", make=True)


def test_a_moved_folder_that_is_linked_back_is_refused(root: Path) -> None:
    """It is the same folder still, and lies elsewhere."""
    tree = DirectoryTree(root)
    tree.folder("a/b")
    (root / "a").rename(root.parent / "moved")
    (root / "a").symlink_to(root.parent / "moved")
    with pytest.raises(WrongFileType):
        tree.folder("a/b")


def test_the_folder_itself_may_be_reached_through_links(root: Path) -> None:
    """As its user named it; what leads on from there may not be one."""
    (root.parent / "named").symlink_to("d")
    assert read(DirectoryTree(root.parent / "named"), "a/b", "file") == b"inside"
    (root / "state").symlink_to(root.parent / "outside")
    with pytest.raises(WrongFileType):
        DirectoryTree.from_path(root.parent / "named/state", root.parent / "named").folder()
    assert DirectoryTree.from_path(root.parent / "outside", root).folder().entry("b").find_stat() is not None


def test_a_folder_that_was_replaced_is_found_anew(root: Path) -> None:
    """Removed and made again, or renamed with all above it: the path decides."""
    tree = DirectoryTree(root)
    tree.folder("a/b")
    (root / "a/b").rename(root / "away")
    assert tree.find("a/b") is None
    assert tree.find_stat("a/b") is None
    (root / "a/b").mkdir()
    (root / "a/b/file").write_bytes(b"new")
    assert read(tree, "a/b", "file") == b"new"


def test_a_handle_stands_while_its_root_is_renamed(root: Path, handles: bool) -> None:
    """Who renames the folder that was named takes what is below it along."""
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


def test_folders_are_made(root: Path) -> None:
    """All that are missing, when that is asked for."""
    tree = DirectoryTree(root)
    with pytest.raises(FileNotFoundError):
        tree.folder("x/y")
    assert tree.folder("x/y", make=True).entry("z").path == str(root / "x/y/z")
    assert (root / "x/y").is_dir()
    with pytest.raises(WrongFileType, match="a file where a folder is needed"):
        tree.folder("a/b/file/x", make=True)


def test_what_stood_there_gives_way_to_a_new_file(root: Path) -> None:
    """A file, a symlink or a hard link of that name is unlinked; what shares its content keeps it."""
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


def test_a_file_with_another_name_is_not_written_to(root: Path) -> None:
    """What is to be continued must be ours alone."""
    os.link(root.parent / "outside/b/file", root / "a/part")
    with pytest.raises(WrongFileType, match="a hard link where a file is needed"):
        DirectoryTree(root).folder("a").entry("part").open_unshared()


def test_entries_do_what_paths_do(root: Path) -> None:
    """Rename, link, date, lead and remove, each in the folder that is open."""
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
    lead = tree.folder().entry("lead")
    lead.symlink_to("a/b")
    assert (lead.read_link(), one.read_link()) == ("a/b", None)
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


def test_a_walk_tells_links_and_does_not_follow_them(root: Path) -> None:
    """Everything that is no folder, by its name from the top."""
    (root / "a/link").symlink_to(root.parent / "outside")
    (root / "a/loop").symlink_to(".")
    tree = DirectoryTree(root)
    assert sorted(name for name, _ in tree.folder().walk()) == ["a/b/file", "a/link", "a/loop"]


def test_few_descriptors_are_kept(tmp_path: Path, handles: bool) -> None:
    """However many folders are used, and none when the tree is gone."""
    before = len(os.listdir("/proc/self/fd"))
    tree = DirectoryTree(tmp_path)
    for number in range(5 * MAX_OPEN_HANDLES):
        tree.folder(f"{number % 7}/{number}/x", make=True)
    assert len(os.listdir("/proc/self/fd")) <= before + MAX_OPEN_HANDLES + 8
    assert (len(os.listdir("/proc/self/fd")) > before) == handles
    del tree
    assert len(os.listdir("/proc/self/fd")) == before


def test_a_folder_in_use_outlives_its_tree(root: Path) -> None:
    """Whoever holds an entry can use it."""
    entry = DirectoryTree(root).folder("a/b").entry("file")
    assert entry.stat().st_size == 6


@pytest.mark.parametrize("kind", [os.mkfifo, Path.touch])
def test_what_is_no_folder_is_named(tmp_path: Path, kind: object) -> None:
    """Also at the top; a FIFO does not keep anybody waiting."""
    assert callable(kind)
    kind(tmp_path / "x")
    with pytest.raises(WrongFileType, match="where a folder is needed"):
        DirectoryHandle(str(tmp_path / "x"))
    with pytest.raises(WrongFileType, match="where a folder is needed"):
        DirectoryTree(tmp_path).folder("x")
