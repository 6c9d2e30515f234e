"""Structure of a Zip file: entries that do not overlap, and the index of a .3tz file."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import islice, pairwise

from tilesync.errors import DamagedPackage
from tilesync.stores.packages.readers.name_index import (
    NameIndex,
    by_hash,
    by_hash_and_offset,
    find_missing,
    sort_records,
)
from tilesync.stores.packages.readers.package_input import PackageInput, damaged
from tilesync.stores.packages.readers.zip_directory import DirectoryEntry, read_local_header
from tilesync.stores.packages.zip_records import DATA_DESCRIPTOR_FLAG, LOCAL_HEADER

MAX_FINDINGS = 100
"""Findings of one kind: an index that is wrong misses all files."""


def refuse_overlaps(file: PackageInput, list_entries: Callable[[], Iterator[DirectoryEntry]]) -> None:
    """Raise DamagedPackage if two entries share bytes, as in a Zip bomb.

    Entries in the order of their bytes need no memory; others need about 100 bytes each.
    """
    end = 0
    for entry in list_entries():
        if entry.offset < end:
            break
        end = entry.offset + LOCAL_HEADER.size + len(entry.name.encode()) + entry.packed_size
    else:
        return
    places = sorted((entry.offset, entry.offset + LOCAL_HEADER.size + entry.packed_size) for entry in list_entries())
    for (_, end), (start, _) in pairwise(places):
        if start < end:
            raise damaged(file, f"two entries share the bytes at {start}, as in a Zip bomb")


def find_missed_files(
    own: NameIndex, right: NameIndex, list_files: Callable[[], Iterator[DirectoryEntry]]
) -> Iterator[str]:
    """Yield a sentence for each file that readers miss by a .3tz file's own index. `right`: the index of its directory.

    Both are sorted, so that they are compared as streams.
    """
    if own.has_same_records(right):
        return
    if any(first > second for first, second in pairwise(map(by_hash, own.records()))):
        yield "has an index that is not sorted"
    with closing(sort_records(own.records())) as file:
        missing = find_missing(right.records(), NameIndex(file).records(), by_hash_and_offset)
        offsets = set(islice(missing, MAX_FINDINGS))
    for entry in list_files() if offsets else ():
        if entry.offset in offsets:
            yield f"has an index that does not lead to {entry.name}"
    if own.count != right.count:
        yield f"has an index of {own.count} entries, but {right.count} files"


def find_header_problems(file: PackageInput, entries: Iterable[DirectoryEntry]) -> Iterator[str]:
    """Yield a sentence for each entry whose header contradicts the directory: readers of .3tz files read headers."""
    for entry in entries:
        try:
            header = read_local_header(file, entry.offset)
        except DamagedPackage as error:
            yield f"cannot be read by its index: {error}"
            continue
        if header.flags & DATA_DESCRIPTOR_FLAG:
            yield f"has a data descriptor at {entry.name}, where readers of .3tz files expect the sizes in front"
        elif (header.name, header.size, header.packed_size, header.crc32) != (
            entry.name,
            entry.size,
            entry.packed_size,
            entry.crc32,
        ):
            yield f"has a header of {entry.name} that contradicts the directory"
