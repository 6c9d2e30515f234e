"""Index of names: search on disk."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from tilesync.stores.archives import tz3_index, zip_records
from tilesync.stores.archives.readers import name_index
from tilesync.stores.archives.readers.name_index import RECORD_BYTES, RECORDS_PER_BLOCK, NameIndex, build_index_file
from tilesync.stores.archives.readers.package_input import PackageInput


@pytest.fixture
def built() -> Iterator[list[Path]]:
    """Return a list of temporary files, which are removed at the end."""
    paths = list[Path]()
    yield paths
    for path in paths:
        path.unlink()


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, RECORDS_PER_BLOCK, RECORDS_PER_BLOCK + 1, 3_000])
def test_every_name_is_found(count: int, built: list[Path]) -> None:
    """A search finds each name and no other."""
    places = {f"tiles/{number}.glb": number * 7 for number in range(count)}
    built.append(build_index_file(places.items()))
    with closing(PackageInput(built[0])) as file:
        index = NameIndex(file, 0, file.size)
        assert index.count == count
        keys = [zip_records.index_sort_key(digest) for digest, _ in index.records()]
        assert keys == sorted(keys)
        assert {name: list(index.find_offsets(name)) for name in places} == {
            name: [place] for name, place in places.items()
        }
        assert list(index.find_offsets("tiles/none.glb")) == []


def test_names_with_one_hash_are_neighbours(built: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    """A search yields the places of all names with the same hash, also if they fill several blocks."""
    for module in (name_index, tz3_index):
        monkeypatch.setattr(module, "hash_index_name", lambda name: bytes([len(name)]) * 16)
    count = 2 * RECORDS_PER_BLOCK + 3
    built.append(build_index_file((each, number) for number in range(count) for each in ("a", "bb", "ccc")))
    with closing(PackageInput(built[0])) as file:
        index = NameIndex(file, 0, file.size)
        assert sorted(index.find_offsets("xx")) == list(range(count))


def test_an_unsorted_index_ends(tmp_path: Path) -> None:
    """A search in records that are not sorted ends, and yields nothing wrong."""
    path = tmp_path / "index"
    path.write_bytes(bytes(range(RECORD_BYTES)) * 1000)
    with closing(PackageInput(path)) as file:
        assert list(NameIndex(file, 0, file.size).find_offsets("a")) == []
