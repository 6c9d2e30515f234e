"""Records of Zip files: sizes as the specification has them, and the order of the index of a .3tz file."""

from __future__ import annotations

import struct

from tilesync.stores.packages import zip_records


def test_records_have_the_sizes_of_the_specification() -> None:
    """Each fixed part is as long as APPNOTE.TXT says."""
    sizes = {
        zip_records.LOCAL_HEADER: 30,
        zip_records.CENTRAL_HEADER: 46,
        zip_records.END_RECORD: 22,
        zip_records.ZIP64_END_RECORD: 56,
        zip_records.ZIP64_LOCATOR: 20,
        zip_records.EXTRA_HEADER: 4,
        zip_records.INDEX_RECORD: 24,
    }
    assert {record: record.size for record in sizes} == sizes


def test_index_sorts_by_two_little_endian_numbers() -> None:
    """The order of the keys is that of the digests as two little-endian numbers of eight bytes each."""
    digests = [zip_records.hash_index_name(f"tiles/{number}.glb") for number in range(500)]
    assert sorted(digests, key=zip_records.index_sort_key) == sorted(
        digests, key=lambda digest: struct.unpack("<2Q", digest)
    )


def test_index_names_have_slashes_and_none_in_front() -> None:
    """A name is hashed as the specification normalises it."""
    assert zip_records.hash_index_name("\\a\\b.glb") == zip_records.hash_index_name("a/b.glb")
    assert zip_records.hash_index_name("tileset.json").hex() == "c09bdea7e745894f499a7517db9a7709"
