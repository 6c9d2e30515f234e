"""Structure of packages: overlapping entries, and the index of a .3tz file."""

from __future__ import annotations

import struct
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.support import packages
from tests.support.packages import write_package, write_zip
from tilesync.errors import DamagedPackage
from tilesync.stores.packages.formats import INDEX_ENTRY
from tilesync.stores.packages.readers import name_index
from tilesync.stores.packages.readers.opening import PackageReference, open_package
from tilesync.stores.packages.readers.zip_package import ZipPackage
from tilesync.stores.packages.zip_records import (
    CENTRAL_SIGNATURE,
    INDEX_RECORD,
    LOCAL_HEADER,
    LOCAL_SIGNATURE,
    hash_index_name,
)

FILES = {f"tiles/{number}.glb": bytes([number]) * (number + 1) for number in range(9)}


def find_problems(path: Path) -> list[str]:
    with closing(open_package(PackageReference(path))) as package:
        return list(package.find_index_problems())


@pytest.mark.parametrize("ending", ["3tz", "zip", "tar", "3dtiles"])
def test_good_packages(tmp_path: Path, ending: str) -> None:
    """A good package of each format passes."""
    with closing(open_package(PackageReference(write_package(tmp_path / f"a.{ending}", FILES)))) as package:
        package.refuse_bad_structure()
    assert ending != "3tz" or find_problems(package.file.path) == []


def point_to_first(path: Path, number: int) -> None:
    """Let an entry of the directory share the bytes of the first one."""
    data, place = bytearray(path.read_bytes()), -1
    for _ in range(number + 1):
        place = data.index(CENTRAL_SIGNATURE, place + 1)
    struct.pack_into("<L", data, place + 42, 0)
    path.write_bytes(data)


@pytest.mark.parametrize("number", [1, 5, 8])
def test_entries_that_share_bytes(tmp_path: Path, number: int) -> None:
    """Two entries with the same bytes are refused, as in a Zip bomb."""
    path = write_zip(tmp_path / "a.zip", FILES)
    point_to_first(path, number)
    with closing(open_package(PackageReference(path))) as package, pytest.raises(DamagedPackage, match="bomb"):
        package.refuse_bad_structure()


def test_entries_in_another_order(tmp_path: Path) -> None:
    """A directory in another order than the entries is no fault."""
    path = write_zip(tmp_path / "a.zip", {"a": b"1", "b": b"2"})
    data = path.read_bytes()
    start, second = data.index(CENTRAL_SIGNATURE), data.rindex(CENTRAL_SIGNATURE)
    end = data.rindex(b"PK\5\6")
    path.write_bytes(data[:start] + data[second:end] + data[start:second] + data[end:])
    with closing(open_package(PackageReference(path))) as package:
        assert [entry.name for entry in package.entries()] == ["b", "a"]
        package.refuse_bad_structure()


def edit_index(path: Path, records: list[tuple[bytes, int]]) -> Path:
    """Write a .3tz file with these records as its index."""
    data = b"".join(INDEX_RECORD.pack(*record) for record in records)
    return write_zip(path, {**FILES, INDEX_ENTRY: data})


def read_index(path: Path) -> list[tuple[bytes, int]]:
    with closing(open_package(PackageReference(write_zip(path, FILES, index=True)))) as package:
        assert isinstance(package, ZipPackage)
        assert package.own_index is not None
        return list(package.own_index.records())


MISSED = "has an index that does not lead to "
UNSORTED = "has an index that is not sorted"


def test_faults_of_the_index(tmp_path: Path) -> None:
    """An index that is missing, not the last entry, unsorted, or does not lead to every file is found."""
    path = tmp_path / "a.3tz"
    records = read_index(path)
    digest, offset = records[0]
    name = next(name for name in FILES if hash_index_name(name) == digest)
    assert "has no @3dtilesIndex1@" in find_problems(write_zip(path, FILES))[0]
    assert find_problems(edit_index(path, records)) == []
    assert find_problems(edit_index(path, records[::-1])) == [UNSORTED]
    assert find_problems(edit_index(path, records[1:])) == [MISSED + name, "has an index of 8 entries, but 9 files"]
    assert find_problems(edit_index(path, [(digest, offset + 1), *records[1:]])) == [MISSED + name]
    assert find_problems(edit_index(path, [*records[1:], (digest, offset + 1)])) == [UNSORTED, MISSED + name]
    assert find_problems(edit_index(path, [*records[1:2], *records[1:]])) == [MISSED + name]
    more = [*records, (b"\xff" * 16, offset)]
    assert find_problems(edit_index(path, more)) == ["has an index of 10 entries, but 9 files"]
    index = b"".join(INDEX_RECORD.pack(*record) for record in records)
    assert "has no @3dtilesIndex1@ as its last" in find_problems(write_zip(path, {INDEX_ENTRY: index, **FILES}))[0]
    assert find_problems(write_zip(tmp_path / "b.zip", FILES)) == []


def test_the_index_may_order_equal_hashes_in_any_way(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names with one hash may stand in any order in the index."""
    for module in (packages, name_index):
        monkeypatch.setattr(module, "hash_index_name", lambda name: b"same" * 4)
    path = tmp_path / "a.3tz"
    assert find_problems(edit_index(path, read_index(path)[::-1])) == []


def test_a_large_index_is_compared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of several blocks, whose directory is sorted in several runs, is compared to its last record."""
    monkeypatch.setattr(name_index, "RECORDS_PER_RUN", 200)
    files = {f"tiles/{number}.glb": b"" for number in range(1001)}
    path = write_zip(tmp_path / "a.3tz", files, index=True)
    assert find_problems(path) == []
    data = bytearray(path.read_bytes())
    with zipfile.ZipFile(path) as package:
        place = package.getinfo(INDEX_ENTRY).header_offset + LOCAL_HEADER.size + len(INDEX_ENTRY)
    struct.pack_into("<Q", data, place + 1001 * INDEX_RECORD.size - 8, 5)
    path.write_bytes(data)
    (problem,) = find_problems(path)
    assert problem.startswith(MISSED)


@pytest.mark.parametrize(
    ("field", "value", "problem"), [(6, 8, "has a data descriptor at"), (14, 1, "contradicts the directory")]
)
def test_headers_that_contradict_the_directory(tmp_path: Path, field: int, value: int, problem: str) -> None:
    """Readers of .3tz files read headers, not the directory: both must say the same."""
    path = write_zip(tmp_path / "a.3tz", FILES, index=True)
    data = bytearray(path.read_bytes())
    struct.pack_into("<H", data, data.index(LOCAL_SIGNATURE) + field, value)
    path.write_bytes(data)
    assert problem in find_problems(path)[0]
