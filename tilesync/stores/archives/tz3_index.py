"""Index of a .3tz file, as it is written: the offset of each entry, by the MD5 of its name."""

from __future__ import annotations

from collections.abc import Iterator

from tilesync.stores.archives.zip_records import INDEX_RECORD, hash_index_name, index_sort_key


class IndexBuilder:
    """Builder of an index. It keeps 24 bytes an entry, in a bucket for each first byte of the sort key.

    So no more than one bucket exists as a list of objects at a time: a million entries take 24 MB, not 150.
    """

    def __init__(self) -> None:
        self._buckets: list[bytearray] = [bytearray() for _ in range(256)]

    def add(self, name: str, offset: int) -> None:
        """Add the entry whose local header begins at `offset`."""
        digest = hash_index_name(name)
        self._buckets[index_sort_key(digest)[0]] += INDEX_RECORD.pack(digest, offset)

    @property
    def size(self) -> int:
        """Size of the index in bytes."""
        return sum(map(len, self._buckets))

    def chunks(self) -> Iterator[bytes]:
        """Yield the records in the order of the index, bucket by bucket."""
        size = INDEX_RECORD.size
        for bucket in map(bytes, self._buckets):
            records: list[bytes] = [bucket[start : start + size] for start in range(0, len(bucket), size)]
            records.sort(key=lambda record: index_sort_key(record[:16]))
            yield b"".join(records)
