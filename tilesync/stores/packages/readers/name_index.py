"""Index of a package: sorted records of 24 bytes, as in a .3tz file, searched on disk."""

from __future__ import annotations

import heapq
import os
import tempfile
from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice
from pathlib import Path
from typing import IO, Any

from tilesync.runtime.os_errors import translate_os_errors
from tilesync.stores.packages.readers.package_input import PackageInput
from tilesync.stores.packages.tz3_index import IndexBuilder
from tilesync.stores.packages.zip_records import INDEX_RECORD, hash_index_name, index_sort_key

RECORD_BYTES = INDEX_RECORD.size
DIGEST_BYTES = 16

RECORDS_PER_BLOCK = 256
"""Records that are read at once."""

RECORDS_PER_RUN = 1 << 20
"""Records that are sorted in memory, which take 24 MB. More are merged from sorted runs on disk."""

Record = tuple[bytes, int]
"""Hash of a name, and the offset of the directory record or of the header of its entry."""


class NameIndex:
    """Sorted records in a part of a file. `size`: bytes of this part; None: all."""

    def __init__(self, file: PackageInput, offset: int = 0, size: int | None = None) -> None:
        self._file = file
        self._offset = offset
        self.count = (file.size if size is None else size) // RECORD_BYTES

    def find_offsets(self, name: str) -> Iterator[int]:
        """Yield the offset in each record with the hash of a name: different names may have the same hash."""
        key = index_sort_key(hash_index_name(name))
        for digest, offset in self.records(bisect_left(range(self.count), key, key=self._read_key)):
            if index_sort_key(digest) != key:
                return
            yield offset

    def _read_key(self, number: int) -> bytes:
        return index_sort_key(self._file.read_at(self._offset + number * RECORD_BYTES, DIGEST_BYTES))

    def _blocks(self, start: int = 0) -> Iterator[bytes]:
        for number in range(start, self.count, RECORDS_PER_BLOCK):
            count = min(RECORDS_PER_BLOCK, self.count - number)
            yield self._file.read_at(self._offset + number * RECORD_BYTES, count * RECORD_BYTES)

    def records(self, start: int = 0) -> Iterator[Record]:
        """Yield each record from number `start` on."""
        for block in self._blocks(start):
            yield from INDEX_RECORD.iter_unpack(block)

    def has_same_records(self, other: NameIndex) -> bool:
        """Return whether both have the same records in the same order. Fast: bytes are compared."""
        return self.count == other.count and all(map(bytes.__eq__, self._blocks(), other._blocks()))


def by_hash(record: Record) -> bytes:
    """Return the key by which an index is sorted."""
    return index_sort_key(record[0])


def by_hash_and_offset(record: Record) -> tuple[bytes, int]:
    """Return the key by which a built index is sorted: equal hashes have an order too."""
    return index_sort_key(record[0]), record[1]


def find_missing(wanted: Iterable[Record], known: Iterable[Record], key: Callable[[Record], Any]) -> Iterator[int]:
    """Yield the offset of each record whose key no known record has; both are sorted by it."""
    known_keys = map(key, known)
    known_key = next(known_keys, None)
    for record in wanted:
        wanted_key = key(record)
        while known_key is not None and known_key < wanted_key:
            known_key = next(known_keys, None)
        if known_key != wanted_key:
            yield record[1]


def build_index_file(offsets_by_name: Iterable[tuple[str, int]]) -> PackageInput:
    """Write the sorted records of names and their offsets to a temporary file, as `sort_records` does."""
    return sort_records((hash_index_name(name), offset) for name, offset in offsets_by_name)


def sort_records(records: Iterable[Record]) -> PackageInput:
    """Write records to a temporary file, sorted by hash and offset, and open it.

    The file has no name, so that the system removes it when this process ends, also if it is killed. While it is open,
    Linux lets other processes open it by the path of the result. Memory stays flat for any number of records.
    """
    remaining = iter(records)
    with translate_os_errors("cannot write a temporary index of the package"):
        with tempfile.TemporaryFile() as file:
            while _write_run(file, islice(remaining, RECORDS_PER_RUN)):
                pass
            runs = _open_temporary(file)
        if runs.size <= RECORDS_PER_RUN * RECORD_BYTES:
            return runs
        with closing(runs), tempfile.TemporaryFile() as file:
            file.writelines(INDEX_RECORD.pack(*record) for record in _merge_runs(runs))
            return _open_temporary(file)


def _write_run(file: IO[bytes], records: Iterable[Record]) -> int:
    """Append records in their order; return their size."""
    builder = IndexBuilder()
    for record in records:
        builder.add_record(*record)
    file.writelines(builder.chunks())
    return builder.size


def _merge_runs(runs: PackageInput) -> Iterator[Record]:
    run_bytes = RECORDS_PER_RUN * RECORD_BYTES
    indexes = (NameIndex(runs, start, min(run_bytes, runs.size - start)) for start in range(0, runs.size, run_bytes))
    return heapq.merge(*(index.records() for index in indexes), key=by_hash_and_offset)


def _open_temporary(file: IO[bytes]) -> PackageInput:
    file.flush()
    descriptor = os.dup(file.fileno())
    return PackageInput(Path(f"/proc/{os.getpid()}/fd/{descriptor}"), descriptor=descriptor)
