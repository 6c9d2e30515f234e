"""Index of names: search on disk."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import pytest

from tilesync.stores.packages import zip_records
from tilesync.stores.packages.readers import name_index
from tilesync.stores.packages.readers.name_index import (
    RECORD_BYTES,
    RECORDS_PER_BLOCK,
    RECORDS_PER_RUN,
    NameIndex,
    build_index_file,
    by_hash,
    by_hash_and_offset,
    find_missing,
)
from tilesync.stores.packages.readers.package_input import PackageInput


@pytest.mark.parametrize("count", [0, 1, 9, 10, 11, RECORDS_PER_BLOCK, RECORDS_PER_BLOCK + 1, 3_000])
@pytest.mark.parametrize("run", [100, 3_000, RECORDS_PER_RUN])
def test_every_name_is_found(count: int, run: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A search finds each name and no other, however many sorted runs were merged."""
    monkeypatch.setattr(name_index, "RECORDS_PER_RUN", run)
    places = {f"tiles/{number}.glb": number * 7 for number in range(count)}
    with closing(build_index_file(places.items())) as file:
        index = NameIndex(file)
        assert index.count == count
        keys = [zip_records.index_sort_key(digest) for digest, _ in index.records()]
        assert keys == sorted(keys)
        assert {name: list(index.find_offsets(name)) for name in places} == {
            name: [place] for name, place in places.items()
        }
        assert list(index.find_offsets("tiles/none.glb")) == []


def test_names_with_one_hash_are_neighbours(monkeypatch: pytest.MonkeyPatch) -> None:
    """A search yields the places of all names with the same hash, also if they fill several blocks."""
    monkeypatch.setattr(name_index, "hash_index_name", lambda name: bytes([len(name)]) * 16)
    count = 2 * RECORDS_PER_BLOCK + 3
    with closing(build_index_file((each, number) for number in range(count) for each in ("a", "bb", "ccc"))) as file:
        assert list(NameIndex(file).find_offsets("xx")) == list(range(count))


KILLED = """
import os, signal
from tilesync.stores.packages.readers.name_index import build_index_file
file = build_index_file((str(number), number) for number in range(1000))
assert file.size == 24_000
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_nothing_remains_of_a_killed_process(tmp_path: Path) -> None:
    """The temporary index of a process that is killed is removed by the system."""
    done = subprocess.run([sys.executable, "-c", KILLED], env={**os.environ, "TMPDIR": str(tmp_path)}, timeout=60)
    assert done.returncode == -signal.SIGKILL
    assert list(tmp_path.iterdir()) == []


def test_records_that_are_missing() -> None:
    """Records are missing by the key that is compared: the hash, or the hash and the offset."""
    wanted = [(bytes([number]) * 16, number) for number in range(5)]
    known = [(digest, offset + offset // 3) for digest, offset in wanted[1:]]
    assert list(find_missing(wanted, known, by_hash)) == [0]
    assert list(find_missing(wanted, known, by_hash_and_offset)) == [0, 3, 4]
    assert list(find_missing(wanted, [], by_hash)) == [0, 1, 2, 3, 4]
    assert list(find_missing([], wanted, by_hash)) == []


def test_equal_indexes() -> None:
    """Two indexes are equal if all of their records are."""
    names = [(str(number), number) for number in range(1000)]
    with closing(build_index_file(names)) as one, closing(build_index_file(names[:-1])) as shorter:
        assert NameIndex(one).has_same_records(NameIndex(one))
        assert not NameIndex(one).has_same_records(NameIndex(shorter))
        with closing(build_index_file([*names[:-1], ("other", 999)])) as other:
            assert not NameIndex(one).has_same_records(NameIndex(other))


def test_an_unsorted_index_ends(tmp_path: Path) -> None:
    """A search in records that are not sorted ends, and yields nothing wrong."""
    path = tmp_path / "index"
    path.write_bytes(bytes(range(RECORD_BYTES)) * 1000)
    with closing(PackageInput(path)) as file:
        assert list(NameIndex(file).find_offsets("a")) == []
