"""Index of a package: sorted records of 24 bytes, as in a .3tz file, searched on disk."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from tilesync.runtime.os_errors import translate_os_errors
from tilesync.stores.archives.readers.package_input import PackageInput
from tilesync.stores.archives.tz3_index import IndexBuilder
from tilesync.stores.archives.zip_records import INDEX_RECORD, hash_index_name, index_sort_key

RECORD_BYTES = INDEX_RECORD.size
DIGEST_BYTES = 16

RECORDS_PER_BLOCK = 256
"""Records that the last step of a search reads at once."""


class NameIndex:
    """Sorted records in a part of a file. A record states where the directory or the header of an entry is."""

    def __init__(self, file: PackageInput, offset: int, size: int) -> None:
        self._file = file
        self._offset = offset
        self.count = size // RECORD_BYTES

    def find_offsets(self, name: str) -> Iterator[int]:
        """Yield the offset in each record with the hash of a name: different names may have the same hash."""
        digest = hash_index_name(name)
        key, low, high = index_sort_key(digest), 0, self.count
        while high - low > RECORDS_PER_BLOCK:
            middle = (low + high) // 2
            if self._read_key(middle) < key:
                low = middle + 1
            else:
                high = middle
        for found_digest, offset in self.records(low):
            found_key = index_sort_key(found_digest)
            if found_key == key:
                yield offset
            elif found_key > key:
                return

    def _read_key(self, number: int) -> bytes:
        return index_sort_key(self._file.read_at(self._offset + number * RECORD_BYTES, DIGEST_BYTES))

    def records(self, start: int = 0) -> Iterator[tuple[bytes, int]]:
        """Yield hash and offset of each record from number `start` on."""
        while start < self.count:
            count = min(RECORDS_PER_BLOCK, self.count - start)
            block = self._file.read_at(self._offset + start * RECORD_BYTES, count * RECORD_BYTES)
            yield from INDEX_RECORD.iter_unpack(block)
            start += count


def build_index_file(offsets_by_name: Iterable[tuple[str, int]]) -> Path:
    """Write the sorted records of names and their offsets to a temporary file, and return its path.

    It takes 24 bytes of memory a name, and as many on disk.
    """
    builder = IndexBuilder()
    for name, offset in offsets_by_name:
        builder.add(name, offset)
    with (
        translate_os_errors("cannot write a temporary index of the package"),
        tempfile.NamedTemporaryFile(prefix="tilesync-index-", delete=False) as file,
    ):
        try:
            file.writelines(builder.chunks())
        except BaseException:
            Path(file.name).unlink()
            raise
        return Path(file.name)
