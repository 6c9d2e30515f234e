"""Directory of a Zip file: found by its end record, and checked."""

from __future__ import annotations

import struct
import zipfile
from contextlib import closing
from pathlib import Path

import pytest

from tests.support.packages import write_zip
from tilesync.errors import DamagedPackage
from tilesync.stores.packages.readers import zip_directory
from tilesync.stores.packages.readers.opening import PackageReference, open_package
from tilesync.stores.packages.readers.package_input import PackageInput
from tilesync.stores.packages.readers.zip_directory import (
    DirectoryEntry,
    list_directory,
    read_directory,
    read_directory_entry,
    read_local_header,
)
from tilesync.stores.packages.zip_records import (
    CENTRAL_SIGNATURE,
    END_RECORD,
    END_SIGNATURE,
    ZIP64_END_RECORD,
    ZIP64_END_SIGNATURE,
    ZIP64_LOCATOR,
    ZIP64_LOCATOR_SIGNATURE,
)

FILES = {f"tiles/{number}.glb": bytes([number]) * (number + 1) for number in range(40)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return write_zip(tmp_path / "a.zip", FILES)


def read_entries(path: Path) -> list[DirectoryEntry]:
    """Read the directory, one after another and each alone."""
    with closing(PackageInput(path)) as file:
        directory = read_directory(file)
        entries = list(list_directory(file, directory))
        assert [read_directory_entry(file, directory, entry.place) for entry in entries] == entries
        for entry in entries:
            header = read_local_header(file, entry.offset)
            assert (header.name, header.size, header.crc32) == (entry.name, entry.size, entry.crc32)
        return entries


def test_entries_are_those_of_another_reader(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every entry is as zipfile of Python reads it, also if the directory is read in small pieces."""
    monkeypatch.setattr(zip_directory, "_MAX_RECORD_BYTES", 70)
    monkeypatch.setattr(zip_directory, "_DIRECTORY_CHUNK_BYTES", 200)
    with zipfile.ZipFile(path) as package:
        expected = [(each.filename, each.file_size, each.CRC, each.header_offset) for each in package.infolist()]
    assert [(each.name, each.size, each.crc32, each.offset) for each in read_entries(path)] == expected


def test_zip64(path: Path, tmp_path: Path) -> None:
    """Sizes, offset and counts are read from the Zip64 records where their own fields are full."""
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as package:
        for name, data in FILES.items():
            with package.open(zipfile.ZipInfo(name), "w", force_zip64=True) as entry:
                entry.write(data)
    assert [(each.name, each.size) for each in read_entries(tmp_path / "b.zip")] == [
        (name, len(data)) for name, data in FILES.items()
    ]
    to_zip64_end(path)
    assert len(read_entries(path)) == len(FILES)


def to_zip64_end(path: Path) -> None:
    """Replace the end record of a package by one that refers to a Zip64 end record."""
    data = path.read_bytes()
    body, end = data[: -END_RECORD.size], END_RECORD.unpack(data[-END_RECORD.size :])
    zip64 = ZIP64_END_RECORD.pack(ZIP64_END_SIGNATURE, 44, 45, 45, 0, 0, end[3], end[4], end[5], end[6])
    locator = ZIP64_LOCATOR.pack(ZIP64_LOCATOR_SIGNATURE, 0, len(body), 1)
    full = END_RECORD.pack(END_SIGNATURE, 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    path.write_bytes(body + zip64 + locator + full)


@pytest.mark.parametrize("is_zip64", [False, True])
def test_a_package_that_is_cut_off(path: Path, is_zip64: bool) -> None:
    """Wherever a package ends too early, it is refused; at its end, which has the directory, each byte is tried."""
    if is_zip64:
        to_zip64_end(path)
    data = path.read_bytes()
    for length in (*range(0, len(data) - 300, 37), *range(len(data) - 300, len(data))):
        path.write_bytes(data[:length])
        with pytest.raises(DamagedPackage):
            read_entries(path)
    path.write_bytes(data)
    assert read_entries(path)


def patch_end(path: Path, field: int, value: int) -> None:
    """Change a field of the end record."""
    data = path.read_bytes()
    fields = list(END_RECORD.unpack(data[-END_RECORD.size :]))
    fields[field] = value
    path.write_bytes(data[: -END_RECORD.size] + END_RECORD.pack(*fields))


@pytest.mark.parametrize(
    ("field", "value", "reason"),
    [
        (1, 1, "split"),
        (2, 1, "split"),
        (3, 3, "split"),
        (5, 10, "end at byte"),
        (6, 1, "end at byte"),
        (7, 1, "cut off"),
    ],
)
def test_end_records_that_are_wrong(path: Path, field: int, value: int, reason: str) -> None:
    """An end record that contradicts the file is refused, with the reason."""
    patch_end(path, field, value)
    with pytest.raises(DamagedPackage, match=reason):
        read_entries(path)


@pytest.mark.parametrize("count", [0, 1, len(FILES) - 1, len(FILES) + 1, 0xFFFE])
def test_counts_that_are_wrong(path: Path, count: int) -> None:
    """A directory with more or fewer entries than stated is refused."""
    patch_end(path, 3, count)
    patch_end(path, 4, count)
    with pytest.raises(DamagedPackage):
        read_entries(path)


def test_an_encrypted_package(path: Path) -> None:
    """An encrypted entry is refused by name."""
    with closing(PackageInput(path)) as file, pytest.raises(DamagedPackage, match=r"encrypted: x"):
        zip_directory.refuse_unreadable(file, "x", 1)


@pytest.mark.parametrize("ending", ["tiff", "empty"])
def test_another_file(tmp_path: Path, ending: str) -> None:
    """A file that is no Zip file is not called cut off."""
    path = tmp_path / "a.zip"
    path.write_bytes(b"II*\0" * 100 if ending == "tiff" else b"")
    with pytest.raises(DamagedPackage, match="is not a Zip file"):
        read_entries(path)


def test_impossible_sizes(path: Path) -> None:
    """Sizes that do not fit into the package, or that no compression reaches, are refused."""
    data = path.read_bytes()
    place = data.index(CENTRAL_SIGNATURE)
    for method, packed, size in [(0, 1, 2), (0, 1 << 30, 1 << 30), (8, 1, 2000)]:
        patched = bytearray(data)
        struct.pack_into("<H", patched, place + 10, method)
        struct.pack_into("<LL", patched, place + 20, packed, size)
        path.write_bytes(patched)
        with closing(open_package(PackageReference(path))) as package, pytest.raises(DamagedPackage):
            list(package.entries())
