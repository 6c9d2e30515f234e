"""Package in a Zip file: .3tz, whose index finds an entry at once, and .zip, for which an index is built."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from tilesync.errors import DamagedPackage
from tilesync.stores.archives.formats import INDEX_ENTRY
from tilesync.stores.archives.readers.entry_bytes import unpack_entry
from tilesync.stores.archives.readers.index_files import IndexedPackage
from tilesync.stores.archives.readers.name_index import RECORD_BYTES, NameIndex
from tilesync.stores.archives.readers.package import PackageEntry, check_entry_name
from tilesync.stores.archives.readers.package_input import PackageInput
from tilesync.stores.archives.readers.zip_directory import (
    DirectoryEntry,
    LocalHeader,
    check_sizes,
    damaged,
    list_directory,
    read_directory,
    read_directory_entry,
    read_local_header,
    refuse_unreadable,
)
from tilesync.stores.archives.zip_records import (
    CENTRAL_HEADER,
    CENTRAL_SIGNATURE,
    DATA_DESCRIPTOR_FLAG,
    ZipMethod,
)

INDEX_TAIL_BYTES = 1 << 16
"""Bytes at the end of the directory in which the record of the index is searched."""


class ZipPackage(IndexedPackage):
    """An open Zip file.

    The index of a .3tz file points to the headers of the entries. An index that is built points into the directory,
    because other Zip files may state the sizes only there.
    """

    def __init__(self, file: PackageInput, *, has_index: bool, index_path: Path | None = None) -> None:
        super().__init__(file, index_path=index_path)
        self.directory = read_directory(file)
        self.own_index = self._find_own_index() if has_index else None

    def _find_own_index(self) -> NameIndex | None:
        """Return the index of a .3tz file; None if it has none, or none that can be used."""
        with suppress(DamagedPackage):
            entry = self.find_index_entry()
            if entry is not None and entry.method == ZipMethod.STORED and not entry.size % RECORD_BYTES:
                return NameIndex(self.file, self._find_data(entry), entry.size)
        return None

    def find_index_entry(self) -> PackageEntry | None:
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

    def find(self, name: str) -> PackageEntry | None:
        """Return the entry of a name; None if there is none."""
        if self.own_index is None:
            return super().find(name)
        headers = ((offset, read_local_header(self.file, offset)) for offset in self.own_index.find_offsets(name))
        return next((self._from_header(*each) for each in headers if each[1].name == name), None)

    def _from_header(self, offset: int, header: LocalHeader) -> PackageEntry:
        """Return the entry that a local header describes: in a .3tz file it has the sizes."""
        if header.flags & DATA_DESCRIPTOR_FLAG:
            raise damaged(self.file, f"the header of {header.name} has no sizes, which a .3tz file must have")
        refuse_unreadable(self.file, header.name, header.flags)
        entry = PackageEntry(
            header.name, header.size, offset, header.packed_size, header.method, header.crc32, header.data_offset
        )
        check_sizes(self.file, entry, self.directory.offset)
        return entry

    def prepare_search(self) -> None:
        """Build an index if the package has none."""
        if self.own_index is None:
            self.search_index()

    def first(self) -> PackageEntry | None:
        """Return the first entry of the directory that is a file."""
        return next(self.entries(), None)

    def entries(self) -> Iterator[PackageEntry]:
        """Yield the entries of the directory that are files."""
        return (self._check(entry) for entry in self.list_files())

    def list_files(self) -> Iterator[DirectoryEntry]:
        """Yield the records of the directory that are files, not folders."""
        return (entry for entry in list_directory(self.file, self.directory) if not entry.name.endswith("/"))

    def list_places(self) -> Iterator[tuple[str, int]]:
        """Yield the name of each entry, and the place of its record in the directory."""
        return ((self._check(entry).name, entry.place) for entry in self.list_files())

    def read_place(self, place: int) -> PackageEntry:
        """Read the record at a place of the directory."""
        return self._check(read_directory_entry(self.file, self.directory, place))

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
