"""Writer of .zip and .3tz files: sizes in the local headers, a central directory that is spooled to a file.

The zipfile module of Python keeps an object for each entry: 1,000,000 entries take 700 MB.
"""

from __future__ import annotations

import shutil
import zlib
from collections.abc import Iterable, Iterator
from typing import IO, Final

from tilesync.errors import DestinationError
from tilesync.protocols.package import MAX_WHOLE_BYTES
from tilesync.stores.packages.compression import EntryCompressor
from tilesync.stores.packages.formats import INDEX_ENTRY, MANIFEST_ENTRY, find_reserved_problem
from tilesync.stores.packages.tz3_index import IndexBuilder
from tilesync.stores.packages.zip_records import (
    CENTRAL_HEADER,
    CENTRAL_SIGNATURE,
    END_RECORD,
    END_SIGNATURE,
    EXTRA_HEADER,
    INDEX_RECORD,
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

DOS_DATE: Final = 1 << 5 | 1
"""1980-01-01, the earliest date of the format: packages of one version are equal, bit by bit. The time is 0."""

UNIX_REGULAR_FILE: Final = 0o100644 << 16
"""External attributes: a regular file that all can read. Without them, unpacked files have no permissions."""

MADE_BY_UNIX: Final = 3 << 8 | 63
"""Version 6.3 of the specification, and Unix, whose attributes these are [4.4.2]."""

VERSIONS_NEEDED: Final = {ZipMethod.STORED: 10, ZipMethod.DEFLATED: 20, ZipMethod.ZSTANDARD: 63}
ZIP64_VERSION: Final = 45
"""Versions of the specification that a reader needs [4.4.3]."""

ZIP64_BYTES: Final = EXTRA_HEADER.size + 3 * 8


class ZipWriter:
    """Writer of a Zip file. `directory`: an empty temporary file for the central directory.

    `is_3tz`: write a 3D Tiles Archive, with its index and within its limits. `compressor`: None to store all entries.
    """

    def __init__(
        self, file: IO[bytes], directory: IO[bytes], *, is_3tz: bool, compressor: EntryCompressor | None = None
    ) -> None:
        self._file = file
        self._directory = directory
        self._compressor = compressor
        self._index = IndexBuilder() if is_3tz else None
        self._offset = 0
        self._entries = 0

    def find_problem(self, name: str, size: int) -> str | None:
        """Return why this format cannot hold a file; None if it can."""
        if self._index is None:
            return find_reserved_problem(name)
        if ".3tz" in name.lower():
            return "has .3tz in its name, which the 3D Tiles Archive forbids: write .zip or .tar"
        if _needs_zip64(size, self._compressor):
            return "is larger than 4 GiB, which the 3D Tiles Archive cannot hold: write .zip or .tar"
        return find_reserved_problem(name)

    def find_compatibility_problem(self, name: str, size: int) -> str | None:
        """Return why 3d-tiles-tools cannot read a file of a .3tz package; None if it can."""
        if self._index is None:
            return None
        if not size:
            return "is empty, and 3d-tiles-tools refuses a .3tz file with an empty file"
        return None if name.isascii() else "has a name that is not ASCII, which 3d-tiles-tools cannot find in a .3tz"

    def measure(self, name: str, size: int) -> int:
        """Return the bytes of a file with its records, at most."""
        name_bytes = len(name) if name.isascii() else len(name.encode())
        records = LOCAL_HEADER.size + CENTRAL_HEADER.size + 2 * name_bytes
        large = 2 * ZIP64_BYTES if size + self._offset >= MAX_UINT32 else 0
        return size + records + large + (INDEX_RECORD.size if self._index is not None else 0)

    def add_manifest(self, size: int, chunks: Iterable[bytes]) -> None:
        """Add the manifest."""
        if self._index is not None and _needs_zip64(size, self._compressor):
            raise DestinationError("the manifest is too large for a .3tz file", hint="write .zip or .tar")
        self.add(MANIFEST_ENTRY, size, chunks)

    def add(self, name: str, size: int, chunks: Iterable[bytes]) -> None:
        """Add a file. A small one is compressed only if it gets smaller."""
        if self._index is not None:
            self._index.add(name, self._offset)
        self._write_entry(name, size, chunks, self._compressor)

    def finish(self) -> None:
        """Write the index of a .3tz file, the central directory, and the end records."""
        if self._index is not None:
            index, self._index = self._index, None
            self._write_entry(INDEX_ENTRY, index.size, index.chunks(), None)
        start, size = self._offset, self._directory.tell()
        self._directory.seek(0)
        shutil.copyfileobj(self._directory, self._file, 1 << 20)
        self._file.write(_end_records(self._entries, size, start))

    def _write_entry(self, name: str, size: int, chunks: Iterable[bytes], compressor: EntryCompressor | None) -> None:
        encoded = name.encode()
        flags = 0 if name.isascii() else UTF8_FLAG
        if size <= MAX_WHOLE_BYTES:
            entry = self._write_whole(encoded, flags, b"".join(chunks), compressor)
        else:
            entry = self._write_streamed(encoded, flags, size, chunks, compressor)
        self._directory.write(entry)
        self._entries += 1

    def _write_whole(self, name: bytes, flags: int, data: bytes, compressor: EntryCompressor | None) -> bytes:
        """Write an entry whose header is final at once; return its record for the central directory."""
        packed, method = data, ZipMethod.STORED
        if compressor is not None and len(compressed := compressor.compress_whole(data)) < len(data):
            packed, method = compressed, compressor.method
        fields = flags, method, zlib.crc32(data), len(packed), len(data)
        header = _local_header(name, *fields)
        self._file.writelines((header, packed))
        record = _central_header(name, *fields, self._offset)
        self._offset += len(header) + len(packed)
        return record

    def _write_streamed(
        self, name: bytes, flags: int, size: int, chunks: Iterable[bytes], compressor: EntryCompressor | None
    ) -> bytes:
        """Write an entry chunk by chunk, then its header; return its record for the central directory."""
        method = compressor.method if compressor is not None else ZipMethod.STORED
        is_zip64 = _needs_zip64(size, compressor)
        checksum = _Checksum()
        source = checksum.update_while_reading(chunks)
        header_bytes = self._file.write(_local_header(name, flags, method, 0, 0, size, is_zip64=is_zip64))
        packed_bytes = 0
        for chunk in source if compressor is None else compressor.compress(source, size):
            packed_bytes += self._file.write(chunk)
        fields = flags, method, checksum.crc32, packed_bytes, size
        self._file.seek(self._offset)
        self._file.write(_local_header(name, *fields, is_zip64=is_zip64))
        record = _central_header(name, *fields, self._offset)
        self._offset += header_bytes + packed_bytes
        self._file.seek(self._offset)
        return record


class _Checksum:
    """CRC-32 of chunks that pass through."""

    def __init__(self) -> None:
        self.crc32 = 0

    def update_while_reading(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        for chunk in chunks:
            self.crc32 = zlib.crc32(chunk, self.crc32)
            yield chunk


def _needs_zip64(size: int, compressor: EntryCompressor | None) -> bool:
    """Return whether the sizes of an entry may not fit in 32 bits: incompressible data grows a little."""
    return size + (size >> 8 if compressor is not None else 0) >= MAX_UINT32


def _version_needed(method: ZipMethod, *, is_zip64: bool) -> int:
    return max(VERSIONS_NEEDED[method], ZIP64_VERSION if is_zip64 else 0)


def _local_header(
    name: bytes, flags: int, method: ZipMethod, crc32: int, packed_bytes: int, size: int, *, is_zip64: bool = False
) -> bytes:
    extra = _zip64_extra(size, packed_bytes) if is_zip64 else b""
    sizes = (MAX_UINT32, MAX_UINT32) if is_zip64 else (packed_bytes, size)
    version = _version_needed(method, is_zip64=is_zip64)
    fields = version, flags, method, 0, DOS_DATE, crc32, *sizes, len(name), len(extra)
    return LOCAL_HEADER.pack(LOCAL_SIGNATURE, *fields) + name + extra


def _central_header(
    name: bytes, flags: int, method: ZipMethod, crc32: int, packed_bytes: int, size: int, offset: int
) -> bytes:
    """Make the record of the central directory; only the values that do not fit are in its Zip64 field [4.5.3]."""
    large = [value for value in (size, packed_bytes, offset) if value >= MAX_UINT32]
    extra = _zip64_extra(*large) if large else b""
    version = _version_needed(method, is_zip64=bool(large))
    sizes = min(packed_bytes, MAX_UINT32), min(size, MAX_UINT32)
    fields = MADE_BY_UNIX, version, flags, method, 0, DOS_DATE, crc32, *sizes
    more = len(name), len(extra), 0, 0, 0, UNIX_REGULAR_FILE, min(offset, MAX_UINT32)
    return CENTRAL_HEADER.pack(CENTRAL_SIGNATURE, *fields, *more) + name + extra


def _zip64_extra(*values: int) -> bytes:
    data = b"".join(value.to_bytes(8, "little") for value in values)
    return EXTRA_HEADER.pack(ZIP64_EXTRA_ID, len(data)) + data


def _end_records(entries: int, size: int, start: int) -> bytes:
    """Make the end of a Zip file from the entries, the size and the start of its central directory."""
    zip64 = b""
    if entries >= MAX_UINT16 or max(size, start) >= MAX_UINT32:
        rest = ZIP64_END_RECORD.size - 12  # the signature and this field itself do not count
        zip64 = ZIP64_END_RECORD.pack(
            ZIP64_END_SIGNATURE, rest, MADE_BY_UNIX, ZIP64_VERSION, 0, 0, entries, entries, size, start
        ) + ZIP64_LOCATOR.pack(ZIP64_LOCATOR_SIGNATURE, 0, start + size, 1)
    count = min(entries, MAX_UINT16)
    return zip64 + END_RECORD.pack(END_SIGNATURE, 0, 0, count, count, min(size, MAX_UINT32), min(start, MAX_UINT32), 0)
