"""Package in a Zip file: .3tz, whose index finds an entry at once, and .zip, for which an index is built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from itertools import pairwise

from tilesync.errors import DamagedPackage
from tilesync.stores.packages.formats import INDEX_ENTRY
from tilesync.stores.packages.readers.entry_bytes import unpack_entry
from tilesync.stores.packages.readers.name_index import RECORD_BYTES, NameIndex
from tilesync.stores.packages.readers.package import IndexReference, Package, PackageEntry, check_entry_name
from tilesync.stores.packages.readers.package_input import PackageInput, damaged
from tilesync.stores.packages.readers.structure import find_header_problems, find_missed_files, refuse_overlaps
from tilesync.stores.packages.readers.zip_directory import (
    DirectoryEntry,
    check_sizes,
    list_directory,
    read_directory,
    read_directory_entry,
    read_local_header,
    refuse_unreadable,
)
from tilesync.stores.packages.zip_records import (
    CENTRAL_HEADER,
    CENTRAL_SIGNATURE,
    DATA_DESCRIPTOR_FLAG,
    ZipMethod,
)

INDEX_TAIL_BYTES = 1 << 16
"""Bytes at the end of the directory in which the record of the index is searched."""


class ZipPackage(Package):
    """An open Zip file. `has_own_index`: it is a .3tz file, which should have an index.

    That index points to the headers of the entries. An index that is built for a file without one points into the
    directory, because other Zip files may state the sizes only there.
    """

    def __init__(self, file: PackageInput, index: IndexReference | None = None, *, has_own_index: bool) -> None:
        super().__init__(file, index)
        self.directory = read_directory(file)
        self._is_3tz = has_own_index
        self.own_index = self._find_own_index() if has_own_index else None

    def _find_own_index(self) -> NameIndex | None:
        """Return the index of a .3tz file; None if it has none, or none that can be used."""
        with suppress(DamagedPackage):
            entry = self._find_index_entry()
            if entry is not None and entry.method == ZipMethod.STORED and not entry.size % RECORD_BYTES:
                return NameIndex(self.file, self._find_data(entry), entry.size)
        return None

    def _find_index_entry(self) -> PackageEntry | None:
        """Return the entry of the index, if it is the last one of the directory."""
        end = self.directory.offset + self.directory.size
        start = max(self.directory.offset, end - INDEX_TAIL_BYTES)
        tail = self.file.read_at(start, end - start)
        place = tail.rfind(CENTRAL_SIGNATURE, 0, max(0, tail.rfind(INDEX_ENTRY.encode())))
        if place < 0 or len(tail) - place < CENTRAL_HEADER.size:
            return None
        entry = read_directory_entry(self.file, self.directory, start + place)
        is_last = start + place + entry.record_bytes == end
        return self._check(entry) if entry.name == INDEX_ENTRY and is_last else None

    def search_index(self) -> NameIndex:
        """Return the index of a .3tz file; the one that is built if it has none."""
        return self.own_index if self.own_index is not None else self.build_index()

    def entries(self) -> Iterator[PackageEntry]:
        """Yield the entries of the directory that are files."""
        return (self._check(entry) for entry in self.list_files())

    def list_files(self) -> Iterator[DirectoryEntry]:
        """Yield the records of the directory that are files, not folders."""
        return (entry for entry in list_directory(self.file, self.directory) if not entry.name.endswith("/"))

    def list_places(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each entry, and the place of its record in the directory; of its header in a .3tz file."""
        if self.own_index is None:
            return ((self._check(entry).name, entry.place) for entry in self.list_files())
        return ((entry.name, entry.offset) for entry, _ in pairwise(self.entries()))  # the last one is the index

    def read_place(self, place: int) -> PackageEntry:
        """Read the entry at a place."""
        if self.own_index is None:
            return self._check(read_directory_entry(self.file, self.directory, place))
        return self._read_header(place)

    def _read_header(self, offset: int) -> PackageEntry:
        """Read the entry whose header begins at an offset: in a .3tz file it has the sizes."""
        header = read_local_header(self.file, offset)
        if header.flags & DATA_DESCRIPTOR_FLAG:
            raise damaged(self.file, f"the header of {header.name} has no sizes, which a .3tz file must have")
        refuse_unreadable(self.file, header.name, header.flags)
        entry = PackageEntry(
            header.name, header.size, offset, header.packed_size, header.method, header.crc32, header.data_offset
        )
        check_sizes(self.file, entry, self.directory.offset)
        return entry

    def refuse_bad_structure(self) -> None:
        """Raise DamagedPackage for entries that share bytes, and for a name with two entries."""
        refuse_overlaps(self.file, self.list_files)
        super().refuse_bad_structure()

    def find_index_problems(self) -> Iterator[str]:
        """Yield a sentence for each fault of a .3tz file that makes readers miss files. Source: 3TZ 1.3."""
        if not self._is_3tz:
            return
        if self.own_index is None:
            yield f"has no {INDEX_ENTRY} as its last entry, or an unreadable one: other readers cannot find its files"
            return
        yield from find_missed_files(self.own_index, self.build_index(), self.list_files)
        yield from find_header_problems(self.file, (entry for entry, _ in pairwise(self.list_files())))

    def _check(self, entry: DirectoryEntry) -> PackageEntry:
        """Return the entry that a record describes. Raises DamagedPackage if it cannot be read safely."""
        refuse_unreadable(self.file, entry.name, entry.flags)
        check_entry_name(entry.name, self.file)
        checked = entry.to_package_entry()
        check_sizes(self.file, checked, self.directory.offset)
        return checked

    def chunks(self, entry: PackageEntry, offset: int = 0) -> Iterator[bytes]:
        """Yield the bytes of an entry from `offset` on."""
        start = self._find_data(entry)
        if entry.method == ZipMethod.STORED and offset:
            return self.file.chunks(start + offset, max(0, entry.size - offset))
        return unpack_entry(entry, self.file.chunks(start, entry.packed_size), offset)

    def _find_data(self, entry: PackageEntry) -> int:
        """Return the offset of the bytes of an entry: its local header may be longer than the directory says."""
        data_offset = entry.data_offset
        if data_offset is None:
            header = read_local_header(self.file, entry.offset)
            if header.name != entry.name:
                raise damaged(self.file, f"the header of {entry.name} names another file")
            data_offset = header.data_offset
        if data_offset + entry.packed_size > self.directory.offset:
            raise damaged(self.file, f"{entry.name} is said to have bytes where none are")
        return data_offset
