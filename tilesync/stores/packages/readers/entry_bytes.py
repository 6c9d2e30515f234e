"""Bytes of an entry: unpacked, and compared with the size and the CRC-32 that the package states."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

from tilesync.errors import BlobDamaged, DamagedPackage
from tilesync.stores.packages.readers.package import PackageEntry
from tilesync.stores.packages.readers.package_input import READ_CHUNK_BYTES
from tilesync.stores.packages.zip_records import ZipMethod

_METHOD_NAMES = {1: "Shrink", 6: "Implode", 9: "Deflate64", 12: "bzip2", 14: "LZMA", 95: "XZ", 98: "PPMd"}
"""Names of other methods. Source: APPNOTE.TXT 6.3.10, section 4.4.5."""


def check_method(entry: PackageEntry) -> None:
    """Raise DamagedPackage for a compression method that tilesync does not read."""
    if entry.method not in set(ZipMethod):
        name = _METHOD_NAMES.get(entry.method, f"method {entry.method}")
        raise DamagedPackage(
            f"{entry.name} is compressed with {name}, which tilesync does not read",
            hint="unpack the package, and pack it again without compression (zip -0) or with Deflate",
        )


def unpack_entry(entry: PackageEntry, packed: Iterator[bytes], offset: int = 0) -> Iterator[bytes]:
    """Yield the bytes of an entry from `offset` on, unpacked from `packed`, which are all of its packed bytes.

    Never unpacks more than the size that the entry states. Raises BlobDamaged if size or CRC-32 differ.
    """
    check_method(entry)
    position, crc = 0, 0
    for piece in _unpack_pieces(entry, packed):
        crc = zlib.crc32(piece, crc)
        begin, position = position, position + len(piece)
        if position > entry.size:
            raise BlobDamaged(f"{entry.name}: it is longer than the {entry.size} bytes that the package states")
        if position > offset:
            yield piece[max(0, offset - begin) :] if begin < offset else piece
    if position != entry.size:
        raise BlobDamaged(f"{entry.name}: it has {position} bytes, the package states {entry.size}")
    if entry.crc32 is not None and crc != entry.crc32:
        raise BlobDamaged(f"{entry.name}: its CRC-32 is not the one that the package states")


def _unpack_pieces(entry: PackageEntry, packed: Iterator[bytes]) -> Iterator[bytes]:
    if entry.method == ZipMethod.STORED:
        return packed
    return _inflate(entry, packed) if entry.method == ZipMethod.DEFLATED else _unpack_zstandard(entry, packed)


def _inflate(entry: PackageEntry, packed: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the unpacked bytes of a deflate stream, READ_CHUNK_BYTES at most in each piece."""
    stream = zlib.decompressobj(-zlib.MAX_WBITS)
    try:
        for chunk in packed:
            data = chunk
            if stream.eof:
                break
            while data and not stream.eof:
                if piece := stream.decompress(data, READ_CHUNK_BYTES):
                    yield piece
                data = stream.unconsumed_tail
        if piece := stream.flush():
            yield piece
    except zlib.error as error:
        raise BlobDamaged(f"{entry.name}: its compressed bytes are damaged ({error})") from error
    if not stream.eof or stream.unused_data or next(packed, b""):
        raise BlobDamaged(f"{entry.name}: its compressed bytes are cut off, or more of them follow")


def _unpack_zstandard(entry: PackageEntry, packed: Iterator[bytes]) -> Iterator[bytes]:
    """Yield the unpacked bytes of a Zstandard stream, READ_CHUNK_BYTES at most in each piece."""
    zstandard = _load_zstandard(entry.name)
    source = _ChunkReader(packed)
    try:
        with zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW_BYTES).stream_reader(
            source, read_across_frames=True, closefd=False
        ) as reader:
            while piece := reader.read(READ_CHUNK_BYTES):
                yield piece
    except zstandard.ZstdError as error:
        raise BlobDamaged(f"{entry.name}: its compressed bytes are damaged ({error})") from error


MAX_WINDOW_BYTES = 1 << 27
"""Largest window of a Zstandard stream, which bounds the memory: the limit of the zstd program, 128 MiB."""


def _load_zstandard(name: str) -> Any:
    """Import the module for Zstandard. Raises DamagedPackage with the command that installs it."""
    try:
        import zstandard
    except ImportError:
        raise DamagedPackage(
            f"{name} is compressed with Zstandard, and the module for it is not installed",
            hint="install it: pip install 'tilesync[zstd]'",
        ) from None
    return zstandard


class _ChunkReader:
    """Chunks as a file that a decompressor reads."""

    def __init__(self, chunks: Iterator[bytes]) -> None:
        self._chunks = chunks
        self._rest = b""

    def read(self, size: int) -> bytes:
        """Return up to `size` bytes; none at the end."""
        while not self._rest:
            chunk = next(self._chunks, None)
            if chunk is None:
                return b""
            self._rest = chunk
        data, self._rest = self._rest[:size], self._rest[size:]
        return data
