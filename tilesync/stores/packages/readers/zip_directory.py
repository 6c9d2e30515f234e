"""Directory of a Zip file: its end record, its entries one after another, and the header in front of an entry.

Nothing is loaded whole: a directory of a million entries has a hundred megabytes. Source: APPNOTE.TXT 6.3.10.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tilesync.errors import DamagedPackage
from tilesync.stores.packages.readers.package import PackageEntry
from tilesync.stores.packages.readers.package_input import COPY_AGAIN_HINT, PackageInput, damaged
from tilesync.stores.packages.zip_records import (
    CENTRAL_HEADER,
    CENTRAL_SIGNATURE,
    DATA_DESCRIPTOR_FLAG,
    ENCRYPTED_FLAG,
    END_RECORD,
    END_SIGNATURE,
    EXTRA_HEADER,
    LOCAL_HEADER,
    LOCAL_SIGNATURE,
    MAX_UINT16,
    MAX_UINT32,
    UTF8_FLAG,
    ZIP64_END_RECORD,
    ZIP64_END_SIGNATURE,
    ZIP64_EXTRA_ID,
    ZIP64_LOCATOR,
    ZIP64_LOCATOR_SIGNATURE,
    ZipMethod,
)

MAX_COMMENT_BYTES = MAX_UINT16

_OTHER_ENCRYPTION_FLAGS = 1 << 6 | 1 << 13
"""Strong encryption, and an encrypted directory. Source: section 4.4.4."""

_MAX_DEFLATE_RATIO = 1032
"""Largest ratio of Deflate: 258 bytes for two bits. Source: zlib, "Technical Details"."""


class ZipDirectory(NamedTuple):
    """Place of the central directory, and the number of its entries."""

    offset: int
    size: int
    entries: int


class DirectoryEntry(NamedTuple):
    """One entry of the central directory.

    `place`: offset of its record in the directory. `name`: as it is written; a folder ends with a slash. `offset`: of
    its local header.
    """

    place: int
    name: str
    flags: int
    method: int
    crc32: int
    packed_size: int
    size: int
    offset: int
    record_bytes: int

    def to_package_entry(self) -> PackageEntry:
        """Return the entry as readers see it."""
        return PackageEntry(self.name, self.size, self.offset, self.packed_size, self.method, self.crc32)


def read_directory(file: PackageInput) -> ZipDirectory:
    """Find the central directory by the end record. Raises DamagedPackage for a file without one."""
    tail_offset = max(0, file.size - END_RECORD.size - MAX_COMMENT_BYTES)
    tail = file.read_up_to(tail_offset, END_RECORD.size + MAX_COMMENT_BYTES)
    place = tail.rfind(END_SIGNATURE)
    while place >= 0:
        if place + END_RECORD.size <= len(tail):
            fields = END_RECORD.unpack_from(tail, place)
            if place + END_RECORD.size + fields[-1] == len(tail):
                return _check_directory(file, tail_offset + place, fields)
        place = tail.rfind(END_SIGNATURE, 0, place + len(END_SIGNATURE) - 1)
    begins_as_zip = file.read_up_to(0, 4) in {LOCAL_SIGNATURE, END_SIGNATURE}
    raise (
        DamagedPackage(f"the package {file.path} is cut off: the directory at its end is missing", hint=COPY_AGAIN_HINT)
        if begins_as_zip
        else DamagedPackage(f"{file.path} is not a Zip file, as the ending of its name says")
    )


def _check_directory(file: PackageInput, end: int, fields: tuple[int, ...]) -> ZipDirectory:
    _, disk, directory_disk, here, count, size, offset, _ = fields
    if MAX_UINT16 in {disk, directory_disk, here, count} or MAX_UINT32 in {size, offset}:
        end, (disk, directory_disk, here, count, size, offset) = _read_zip64_end(file, end)
    if disk or directory_disk or here != count:
        raise DamagedPackage(
            f"the package {file.path} is one part of a split Zip file",
            hint="join the parts first: zip -s 0 IN --out OUT",
        )
    if offset + size != end:
        raise damaged(file, f"its directory should end at byte {offset + size}, but ends at byte {end}")
    if count * CENTRAL_HEADER.size > size:
        raise damaged(file, f"its directory is too small for {count} entries")
    return ZipDirectory(offset, size, count)


def _read_zip64_end(file: PackageInput, end: int) -> tuple[int, tuple[int, ...]]:
    """Return the offset of the Zip64 end record, and its fields from the number of the disk on."""
    place = end - ZIP64_LOCATOR.size
    if place < 0:
        raise damaged(file, "its Zip64 locator is missing")
    signature, disk, offset, disks = ZIP64_LOCATOR.unpack(file.read_at(place, ZIP64_LOCATOR.size))
    if signature != ZIP64_LOCATOR_SIGNATURE:
        raise damaged(file, "its Zip64 locator is missing")
    if disk or disks > 1:
        raise DamagedPackage(f"the package {file.path} is one part of a split Zip file", hint="join the parts first")
    fields = ZIP64_END_RECORD.unpack(file.read_at(offset, ZIP64_END_RECORD.size))
    if fields[0] != ZIP64_END_SIGNATURE or offset + 12 + fields[1] != place:
        raise damaged(file, "its Zip64 end record is missing")
    return offset, fields[4:]


def list_directory(file: PackageInput, directory: ZipDirectory) -> Iterator[DirectoryEntry]:
    """Yield the entries of the central directory. Raises DamagedPackage; nothing that it yields is checked further."""
    buffer, start, place = b"", directory.offset, directory.offset
    end = directory.offset + directory.size
    for number in range(1, directory.entries + 1):
        if place + _MAX_RECORD_BYTES > start + len(buffer) < end:
            start, buffer = place, file.read_at(place, min(_DIRECTORY_CHUNK_BYTES, end - place))
        entry = _parse_entry(file, buffer, place - start, place)
        if entry is None:
            raise damaged(file, f"entry {number} of its directory is not readable")
        yield entry
        place += entry.record_bytes
    if place != end:
        raise damaged(file, f"its directory has more than the {directory.entries} entries that it states")


_MAX_RECORD_BYTES = CENTRAL_HEADER.size + 3 * MAX_UINT16
"""Longest record of the directory: with a name, extra fields and a comment."""

_DIRECTORY_CHUNK_BYTES = 1 << 20
"""Bytes of the directory that are read at a time."""


def read_directory_entry(file: PackageInput, directory: ZipDirectory, place: int) -> DirectoryEntry:
    """Read the entry at an offset inside the central directory. Raises DamagedPackage if there is none."""
    end, entry = directory.offset + directory.size, None
    for length in (_ENTRY_GUESS_BYTES, _MAX_RECORD_BYTES):
        if entry is None and directory.offset <= place < end:
            entry = _parse_entry(file, file.read_at(place, min(length, end - place)), 0, place)
    if entry is None:
        raise damaged(file, "an entry of its directory is not readable")
    return entry


_ENTRY_GUESS_BYTES = 512
"""Bytes that are read for one entry: its names rarely have more."""


def _parse_entry(file: PackageInput, data: bytes, begin: int, place: int) -> DirectoryEntry | None:
    """Parse the record of the directory that begins in `data`; None if there is none, or not the whole of it."""
    name_begin = begin + CENTRAL_HEADER.size
    if len(data) < name_begin:
        return None
    fields = CENTRAL_HEADER.unpack_from(data, begin)
    signature, _, _, flags, method, _, _, crc32, packed_size, size = fields[:10]
    name_bytes, extra_bytes, comment_bytes, disk, _, _, offset = fields[10:]
    name_end = name_begin + name_bytes
    end = name_end + extra_bytes + comment_bytes
    if signature != CENTRAL_SIGNATURE or len(data) < end:
        return None
    name = decode_name(file, data[name_begin:name_end], flags)
    if MAX_UINT32 in {size, packed_size, offset}:
        extra = data[name_end : name_end + extra_bytes]
        size, packed_size, offset = read_zip64_fields(file, name, extra, size, packed_size, offset)
    if disk and disk != MAX_UINT16:
        raise DamagedPackage(f"the package {file.path} is one part of a split Zip file", hint="join the parts first")
    return DirectoryEntry(place, name, flags, method, crc32, packed_size, size, offset, end - begin)


def decode_name(file: PackageInput, data: bytes, flags: int) -> str:
    """Decode a name: UTF-8; without its flag code page 437, unless it is valid UTF-8, as many programs write it."""
    try:
        return data.decode()
    except UnicodeDecodeError:
        if flags & UTF8_FLAG:
            raise damaged(file, f"a name in it is not valid UTF-8: {data!r}") from None
    return data.decode("cp437")


def read_zip64_fields(file: PackageInput, name: str, extra: bytes, *values: int) -> tuple[int, ...]:
    """Return sizes and offset, each from the Zip64 extra field if it does not fit into its own."""
    if MAX_UINT32 not in values:
        return values
    field, place = _find_extra_field(extra, ZIP64_EXTRA_ID), 0
    result = list[int]()
    for value in values:
        if value == MAX_UINT32:
            if len(field) < place + 8:
                raise damaged(file, f"the Zip64 sizes of {name} are missing")
            value, place = int.from_bytes(field[place : place + 8], "little"), place + 8
        result.append(value)
    return tuple(result)


def _find_extra_field(extra: bytes, wanted: int) -> bytes:
    """Return the data of an extra field; empty if there is none. Padding that is no field is passed over."""
    place = 0
    while place + EXTRA_HEADER.size <= len(extra):
        number, length = EXTRA_HEADER.unpack_from(extra, place)
        place += EXTRA_HEADER.size
        if number == wanted:
            return extra[place : place + length]
        place += length
    return b""


def refuse_unreadable(file: PackageInput, name: str, flags: int) -> None:
    """Raise DamagedPackage for an encrypted entry."""
    if flags & (ENCRYPTED_FLAG | _OTHER_ENCRYPTION_FLAGS):
        raise DamagedPackage(
            f"the package {file.path} is encrypted: {name}", hint="decrypt it, and pack it again without a password"
        )


def check_sizes(file: PackageInput, entry: PackageEntry, end: int) -> None:
    """Raise DamagedPackage if the sizes of an entry are impossible. `end`: end of the bytes of all entries."""
    if entry.offset + LOCAL_HEADER.size + entry.packed_size > end:
        raise damaged(file, f"{entry.name} is said to have bytes where none are")
    if entry.method == ZipMethod.STORED and entry.size != entry.packed_size:
        raise damaged(file, f"{entry.name} is stored without compression, but has two sizes")
    if entry.method == ZipMethod.DEFLATED and entry.size > entry.packed_size * _MAX_DEFLATE_RATIO:
        raise damaged(file, f"{entry.name} is said to have {entry.size} bytes, which cannot be in {entry.packed_size}")


class LocalHeader(NamedTuple):
    """Header in front of the bytes of an entry. `data_offset`: offset of these bytes."""

    name: str
    flags: int
    method: int
    crc32: int
    packed_size: int
    size: int
    data_offset: int


def read_local_header(file: PackageInput, offset: int) -> LocalHeader:
    """Read the header of an entry. Raises DamagedPackage if there is none."""
    data = file.read_up_to(offset, _ENTRY_GUESS_BYTES)
    if len(data) < LOCAL_HEADER.size or not data.startswith(LOCAL_SIGNATURE):
        raise damaged(file, f"there is no entry at byte {offset}")
    _, _, flags, method, _, _, crc32, packed_size, size, name_bytes, extra_bytes = LOCAL_HEADER.unpack_from(data)
    name_end, length = LOCAL_HEADER.size + name_bytes, LOCAL_HEADER.size + name_bytes + extra_bytes
    data = data if length <= len(data) else file.read_at(offset, length)
    name = decode_name(file, data[LOCAL_HEADER.size : name_end], flags)
    if not flags & DATA_DESCRIPTOR_FLAG:
        size, packed_size = read_zip64_fields(file, name, data[name_end:length], size, packed_size)
    return LocalHeader(name, flags, method, crc32, packed_size, size, offset + length)
