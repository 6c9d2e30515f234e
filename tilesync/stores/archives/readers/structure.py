"""Structure of a package: names that exist once, entries that do not overlap, and the index of a .3tz file."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

from tilesync.errors import DamagedPackage
from tilesync.stores.archives.formats import INDEX_ENTRY
from tilesync.stores.archives.readers.package import Package
from tilesync.stores.archives.readers.zip_directory import DirectoryEntry, damaged, read_local_header
from tilesync.stores.archives.readers.zip_package import ZipPackage
from tilesync.stores.archives.zip_records import (
    DATA_DESCRIPTOR_FLAG,
    LOCAL_HEADER,
    index_sort_key,
)


def refuse_bad_structure(package: Package) -> None:
    """Raise DamagedPackage for two entries of one name, and for Zip entries that overlap."""
    if isinstance(package, ZipPackage):
        _refuse_overlaps(package)
    package.refuse_duplicates()


def _refuse_overlaps(package: ZipPackage) -> None:
    """Raise DamagedPackage if two entries share bytes, as in a Zip bomb.

    Entries in the order of their bytes need no memory; others need about 100 bytes each.
    """
    end = 0
    for entry in package.entries():
        if entry.offset < end:
            break
        end = entry.offset + LOCAL_HEADER.size + len(entry.name.encode()) + entry.packed_size
    else:
        return
    places = sorted((entry.offset, entry.offset + LOCAL_HEADER.size + entry.packed_size) for entry in package.entries())
    for (_, end), (start, _) in pairwise(places):
        if start < end:
            raise damaged(package.file, f"two entries share the bytes at {start}, as in a Zip bomb")


def find_index_problems(package: ZipPackage) -> Iterator[str]:
    """Yield a sentence for each fault of a .3tz file that makes readers miss files. Source: 3TZ 1.3."""
    if package.own_index is None:
        yield f"has no {INDEX_ENTRY} as its last entry, or an unreadable one: other readers cannot find its files"
        return
    previous, count = b"", 0
    for digest, _ in package.own_index.records():
        key = index_sort_key(digest)
        if key < previous:
            yield "has an index that is not sorted"
            break
        previous = key
    for entry in package.list_files():
        if entry.name == INDEX_ENTRY:
            continue
        count += 1
        if entry.offset not in set(package.own_index.find_offsets(entry.name)):
            yield f"has an index that does not lead to {entry.name}"
        elif problem := _find_header_problem(package, entry):
            yield problem
    if package.own_index.count != count:
        yield f"has an index of {package.own_index.count} entries, but {count} files"


def _find_header_problem(package: ZipPackage, entry: DirectoryEntry) -> str | None:
    """Return the contradiction between the directory and the header of an entry; None if there is none."""
    try:
        header = read_local_header(package.file, entry.offset)
    except DamagedPackage as error:
        return f"cannot be read by its index: {error}"
    if header.flags & DATA_DESCRIPTOR_FLAG:
        return f"has a data descriptor at {entry.name}, where readers of .3tz files expect the sizes in front"
    if (header.name, header.size, header.packed_size, header.crc32) != (
        entry.name,
        entry.size,
        entry.packed_size,
        entry.crc32,
    ):
        return f"has a header of {entry.name} that contradicts the directory"
    return None
