"""Index of a .3tz file, as it is written: the offset of each entry, by the MD5 of its name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from tilesync.stores.packages.zip_records import INDEX_RECORD, hash_index_name, index_sort_key

KEY_BYTE: Final = 7
"""Place in a record of the first byte of its sort key."""


class IndexBuilder:
    """Builder of an index. It keeps the 24 bytes of an entry and nothing else: a million entries take 24 MB.

    They are sorted in 256 parts, by the first byte of the sort key, so that few of them are objects at a time.
    """

    def __init__(self) -> None:
        self._records = bytearray()

    def add(self, name: str, offset: int) -> None:
        """Add the entry whose local header begins at `offset`."""
        self.add_record(hash_index_name(name), offset)

    def add_record(self, digest: bytes, offset: int) -> None:
        """Add the entry of a name with this hash."""
        self._records += INDEX_RECORD.pack(digest, offset)

    @property
    def size(self) -> int:
        """Size of the index in bytes."""
        return len(self._records)

    def chunks(self) -> Iterator[bytes]:
        """Yield the records in the order of the index, part by part; those of one hash by their offsets."""
        size = INDEX_RECORD.size
        first_bytes = bytes(self._records[KEY_BYTE::size])
        for value in range(256):
            places = (at * size for at in _find_all(first_bytes, value))
            records = [bytes(self._records[place : place + size]) for place in places]
            records.sort(key=lambda record: index_sort_key(record[:16]) + record[:15:-1])  # the offset, big-endian
            yield b"".join(records)


def _find_all(data: bytes, value: int) -> Iterator[int]:
    """Yield the places of a byte."""
    at = data.find(value)
    while at >= 0:
        yield at
        at = data.find(value, at + 1)
