"""Reading stored files: never through a symlink."""

import os
from pathlib import Path

import pytest

from tests.support.local_destination import open_destination
from tests.support.store_contract import (
    SAMPLE_VERSION,
    reject_bytes,
)
from tilesync.errors import DestinationError, UnsafeName
from tilesync.model import Blob, StoredFile
from tilesync.protocols import MAX_WHOLE_FILE_BYTES, WholeFile
from tilesync.runtime.safe_open import WrongFileType
from tilesync.stores.local.reader import BatchPathResolver, SafePathResolver


@pytest.mark.parametrize("place", ["versions", "versions/e1", "versions/e1/sub"])
def test_reading_through_planted_links_is_refused(tmp_path: Path, outside: Path, place: str) -> None:
    """Files outside do not count as stored: sizes, digests, reads and removals through a symlink are refused."""
    link = tmp_path / "d" / place
    link.parent.mkdir(parents=True)
    target = {"versions": tmp_path, "versions/e1": outside, "versions/e1/sub": outside / "sub"}[place]
    link.symlink_to(target)
    with open_destination(tmp_path / "d") as destination:
        for look in (destination.files.size, destination.files.digest, destination.files.read):
            with pytest.raises(DestinationError):
                look(SAMPLE_VERSION, "sub/c")
        with pytest.raises(DestinationError):
            destination.files.read_into(SAMPLE_VERSION, "sub/c", reject_bytes)
        with pytest.raises(DestinationError):
            next(destination.files.chunks(SAMPLE_VERSION, "sub/c"))
        with pytest.raises(DestinationError):
            destination.files.remove(SAMPLE_VERSION, ["sub/c"])


def test_symlink_is_not_a_stored_file(tmp_path: Path, outside: Path) -> None:
    """A symlink at the path of a file has no size and no digest, and is never read."""
    link = tmp_path / "d/versions/e1/file"
    link.parent.mkdir(parents=True)
    link.symlink_to(outside / "file")
    with open_destination(tmp_path / "d") as destination:
        assert destination.files.size(SAMPLE_VERSION, "file") is None
        assert destination.files.digest(SAMPLE_VERSION, "file") is None
        assert destination.files.read_into(SAMPLE_VERSION, "file", reject_bytes) is None
        with pytest.raises(DestinationError):
            destination.files.read(SAMPLE_VERSION, "file")
        destination.files.remove(SAMPLE_VERSION, ["file"])
    assert not os.path.lexists(link)


def stored(name: str, size: int) -> StoredFile:
    return StoredFile(Blob(name, size), b"", 0)


def test_only_regular_files_of_the_right_size_are_read_whole(tmp_path: Path, outside: Path) -> None:
    """Bytes and stamp of small regular files come with one read; all else is left to `read_into`."""
    folder = tmp_path / "d/versions/e1"
    (folder / "sub").mkdir(parents=True)
    (folder / "a").write_bytes(b"abc")
    (folder / "sub/b").write_bytes(b"")
    (folder / "longer").write_bytes(b"abcd")
    (folder / "link").symlink_to(outside / "file")
    (folder / "linked").symlink_to(outside)
    os.mkfifo(folder / "fifo")
    names = {"a": 3, "sub/b": 0, "longer": 3, "missing": 1, "link": 1, "linked/c": 1, "fifo": 0, "sub": 4096, "x/y": 1}
    with open_destination(tmp_path / "d") as destination:
        items = [stored(*each) for each in names.items()]
        found = dict(zip(names, destination.files.read_whole(SAMPLE_VERSION, items), strict=True))
        stamps = {name: destination.files.stamp(SAMPLE_VERSION, name) for name in ("a", "sub/b")}
    assert found == dict.fromkeys(names) | {
        "a": WholeFile(b"abc", *(stamps["a"] or ())),
        "sub/b": WholeFile(b"", *(stamps["sub/b"] or ())),
    }


@pytest.mark.parametrize("name", ["../e2/file", "/file", "sub/../../e2/file"])
def test_unsafe_names_are_not_read_whole(tmp_path: Path, name: str) -> None:
    """A name that leads out of the folder of its version is not even opened."""
    for version in ("e1/sub", "e2"):
        (tmp_path / "d/versions" / version).mkdir(parents=True)
    (tmp_path / "d/versions/e2/file").write_bytes(b"x")
    with open_destination(tmp_path / "d") as destination:
        assert list(destination.files.read_whole(SAMPLE_VERSION, [stored(name, 1)])) == [None]


def test_large_files_are_not_read_whole(tmp_path: Path) -> None:
    """A file above the limit is read in chunks, so that memory stays flat."""
    path = tmp_path / "d/versions/e1/large"
    path.parent.mkdir(parents=True)
    for size, is_read in ((MAX_WHOLE_FILE_BYTES, True), (MAX_WHOLE_FILE_BYTES + 1, False)):
        with path.open("wb") as file:
            file.truncate(size)
        with open_destination(tmp_path / "d") as destination:
            (found,) = destination.files.read_whole(SAMPLE_VERSION, [stored("large", size)])
        assert (found is not None) == is_read


def test_batch_resolver_checks_each_folder_once(tmp_path: Path, outside: Path) -> None:
    """Files of a batch go into the folder that was checked, even if a symlink takes its place; the next batch fails."""
    resolver = SafePathResolver(tmp_path)
    batch = BatchPathResolver(resolver)
    first = batch.entry("e1", "sub/a", make=True)
    (tmp_path / "versions/e1/sub").rename(tmp_path / "moved")
    (tmp_path / "versions/e1/sub").symlink_to(outside)
    second = batch.entry("e1", "sub/b", make=True)
    os.close(second.create_new())
    assert second.folder is first.folder
    assert os.listdir(tmp_path / "moved") == ["b"]
    with pytest.raises(WrongFileType):
        BatchPathResolver(resolver).entry("e1", "sub/c", make=True)


@pytest.mark.parametrize("name", ["sub/../a", "sub//a", "sub/\0", "/a", "sub/"])
def test_batch_resolver_refuses_unsafe_names(tmp_path: Path, name: str) -> None:
    """Names are checked in a known folder, too, and versions share none."""
    batch = BatchPathResolver(SafePathResolver(tmp_path))
    first = batch.entry("e1", "sub/a", make=True)
    with pytest.raises(UnsafeName):
        batch.entry("e1", name, make=True)
    assert batch.entry("e2", "sub/a", make=True).folder is not first.folder
