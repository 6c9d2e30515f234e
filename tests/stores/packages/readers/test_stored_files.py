"""Stored files of a package: the same in each format, in this process and in others."""

from __future__ import annotations

import hashlib
import os
import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.packages import KINDS, METHODS, make_stored_file, with_manifest, write_package
from tilesync.catalog.catalog import Catalog
from tilesync.errors import DestinationError, ExportReplaced
from tilesync.model import FileResult, FileStamp, ListingState, Version
from tilesync.stores.packages.readers import stored_files
from tilesync.stores.packages.readers.opening import PackageReference
from tilesync.stores.packages.readers.stored_files import PackageStoredFiles

V1 = Version(1, "e1", "e1")
FILES = {
    "tileset.json": b"{}",
    "tiles/0.glb": random.Random(1).randbytes(3_000_001),
    "tiles/ä b%20+#.bin": b"abc" * 1000,
    "empty": b"",
}


@pytest.fixture(params=KINDS, ids="-".join)
def path(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    ending, method = request.param
    return write_package(tmp_path / f"a b%20#?.{ending}", with_manifest(FILES), method=METHODS[method])


@pytest.fixture
def files(path: Path) -> Iterator[PackageStoredFiles]:
    with closing(PackageStoredFiles(PackageReference(path))) as opened:
        yield opened


def test_every_file_is_read_whole(files: PackageStoredFiles) -> None:
    """Size, bytes, digest and stamp of each file are right, however it is stored."""
    for name, data in FILES.items():
        pieces = list[bytes]()
        assert files.size(V1, name) == len(data)
        assert files.read(V1, name) == data
        assert files.digest(V1, name) == hashlib.sha256(data).digest()
        assert files.read_into(V1, name, pieces.append) == files.stamp(V1, name)
        assert b"".join(pieces) == data


@pytest.mark.parametrize("offset", [0, 1, 2_999, 1 << 20, 3_000_000, 3_000_001, 4_000_000])
def test_reads_begin_at_any_offset(files: PackageStoredFiles, offset: int) -> None:
    """A read yields the bytes from its offset on, and none behind the end."""
    for name, data in FILES.items():
        assert b"".join(files.chunks(V1, name, offset=offset)) == data[offset:]


@pytest.mark.parametrize(
    "name",
    ["no", "tiles", "tiles/", "", "../tileset.json", "/tileset.json", "tilesync-manifest.jsonl", "@3dtilesIndex1@"],
)
def test_other_names_are_missing(files: PackageStoredFiles, name: str) -> None:
    """Names that the version does not have are missing: folders, paths that leave the package, its own entries."""
    assert files.size(V1, name) is None
    assert files.stamp(V1, name) is None
    assert files.digest(V1, name) is None
    assert files.read_into(V1, name, lambda _: pytest.fail("it was read")) is None
    for read in (files.read, lambda version, missing: next(files.chunks(version, missing))):
        with pytest.raises(DestinationError) as raised:
            read(V1, name)
        assert isinstance(raised.value.__cause__, FileNotFoundError)


@pytest.mark.parametrize("limit", [1, 3, 1024])
def test_sizes_after_a_listing(files: PackageStoredFiles, monkeypatch: pytest.MonkeyPatch, limit: int) -> None:
    """After a listing, sizes are right in any order, each time, and the package's own entries are still no files."""
    monkeypatch.setattr(stored_files, "MAX_CACHED_ENTRIES", limit)
    files.prepare_listing(V1)
    for name in [*reversed(FILES), "no", "tilesync-manifest.jsonl", "@3dtilesIndex1@", *FILES]:
        assert files.size(V1, name) == (len(FILES[name]) if name in FILES else None)


def test_reader_for_other_processes(files: PackageStoredFiles) -> None:
    """The reader for worker processes is picklable, and reads the same bytes.

    Two copies are equal: a worker keeps the first, and with it the open package.
    """
    one, other = (pickle.loads(pickle.dumps(files.worker_reader())) for _ in range(2))
    assert (one, hash(one)) == (other, hash(other))
    assert one != PackageStoredFiles(PackageReference(Path("other.3tz")))
    with closing(pickle.loads(pickle.dumps(files.worker_reader()))) as reader:
        assert {name: reader.read(V1, name) for name in FILES} == FILES


@pytest.mark.parametrize(
    "change",
    [
        lambda path: os.replace(write_package(path.with_name(f"new{path.suffix}"), with_manifest(FILES)), path),
        lambda path: os.utime(path, ns=(1, 1)),
        lambda path: path.open("ab").write(b"x"),
    ],
    ids=["replaced", "touched", "longer"],
)
def test_a_worker_notices_another_package(
    files: PackageStoredFiles, path: Path, change: Callable[[Path], object]
) -> None:
    """A worker never reads a package that took the place of the first one."""
    reader = pickle.loads(pickle.dumps(files.worker_reader()))
    change(path)
    with pytest.raises(ExportReplaced):
        reader.read(V1, "tileset.json")


def test_a_change_during_a_read_is_noticed(files: PackageStoredFiles, path: Path) -> None:
    """A read of a package that is written to meanwhile fails at its end."""
    chunks = files.chunks(V1, "tiles/0.glb")
    next(chunks)
    os.utime(path, ns=(1, 1))
    with pytest.raises(ExportReplaced):
        list(chunks)


def test_stamps_are_those_of_the_package(files: PackageStoredFiles, path: Path, tmp_path: Path) -> None:
    """A file is unchanged while the package is, and has the size that is known."""
    stamp = FileStamp(path.stat().st_mtime_ns)
    known = make_stored_file("tileset.json", b"{}")._replace(mtime_ns=stamp.mtime_ns)
    stored = [known, known._replace(mtime_ns=5), known._replace(blob=known.blob._replace(size=3))]
    assert files.stamp(V1, "tileset.json") == stamp
    assert files.unchanged(V1, stored) == [True, False, False]
    catalog = Catalog(tmp_path / "catalog.sqlite3")
    version = catalog.add_version(Version(0, "e1", "e1", listing=ListingState(is_complete=True)))
    catalog.add_stored_files(version, [FileResult(0, known), FileResult(0, make_stored_file("gone", b"x"))])
    (page,) = files.presence_pages(version, catalog, "")
    assert (page.files, [file.blob.name for file in page.doubtful], page.cursor) == (2, ["gone"], "")
    catalog.close()
