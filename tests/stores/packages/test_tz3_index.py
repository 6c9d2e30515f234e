"""Index of a .3tz file: records sorted as the specification says."""

from __future__ import annotations

import hashlib
import struct

from tilesync.stores.packages.tz3_index import IndexBuilder


def test_index_is_sorted_and_whole() -> None:
    """Each entry has one record with the MD5 of its name and its offset, sorted by two little-endian numbers."""
    builder, offsets = IndexBuilder(), {f"tiles/{number}.glb": number * 2**33 for number in range(2000)}
    for name, offset in offsets.items():
        builder.add(name, offset)
    data = b"".join(builder.chunks())
    assert len(data) == builder.size == 24 * len(offsets)
    records = list(struct.iter_unpack("<QQQ", data))
    assert records == sorted(records)
    expected = {struct.unpack("<QQ", hashlib.md5(name.encode()).digest()): at for name, at in offsets.items()}
    assert {(high, low): offset for high, low, offset in records} == expected


def test_index_of_nothing_is_empty() -> None:
    """Without entries the index has no bytes."""
    assert b"".join(IndexBuilder().chunks()) == b""
