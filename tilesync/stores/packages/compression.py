"""Compression of the entries of a Zip file: Zstandard, deflate, or none."""

from __future__ import annotations

import zlib
from collections.abc import Callable, Iterable, Iterator
from enum import StrEnum
from typing import Any, Final

from tilesync.errors import UsageError
from tilesync.stores.packages.formats import PackageFormat
from tilesync.stores.packages.zip_records import ZipMethod
from tilesync.values import dataclass

DEFLATE_LEVEL: Final = 6
ZSTANDARD_LEVEL: Final = 3
"""Levels of the programs `zip` and `zstd`, which their authors chose as the best trade."""


class Compression(StrEnum):
    """Compression of a package, by the word of the command line."""

    NONE = "none"
    DEFLATE = "deflate"
    ZSTD = "zstd"


def parse_compression(text: str) -> Compression:
    """Return the compression that a word names. Raises UsageError."""
    try:
        return Compression(text)
    except ValueError:
        words = ", ".join(Compression)
        raise UsageError(f"{text!r} is no compression of packages", hint=f"choose one of: {words}") from None


@dataclass(frozen=True)
class EntryCompressor:
    """Compressor of entries. `open_stream` returns an object with `compress` and `flush`, for an entry of a size."""

    method: ZipMethod
    compress_whole: Callable[[bytes], bytes]
    open_stream: Callable[[int], Any]

    def compress(self, chunks: Iterable[bytes], size: int) -> Iterator[bytes]:
        """Compress an entry of `size` bytes, chunk by chunk."""
        stream = self.open_stream(size)
        for chunk in chunks:
            yield stream.compress(chunk)
        yield stream.flush()


def make_compressor(compression: Compression, package_format: PackageFormat) -> EntryCompressor | None:
    """Make the compressor of a package; None for entries as they are.

    Raises UsageError if the format cannot compress, or if the library of Zstandard is not installed.
    """
    if compression is Compression.NONE:
        return None
    if package_format not in {PackageFormat.TZ3, PackageFormat.ZIP}:
        raise UsageError(
            f"a .{package_format} package cannot compress its files",
            hint="omit --compress, or write .3tz or .zip; a whole .tar can be compressed by the program zstd",
        )
    return _make_deflate() if compression is Compression.DEFLATE else _make_zstandard()


def _make_deflate() -> EntryCompressor:
    def open_stream(size: int) -> Any:
        return zlib.compressobj(DEFLATE_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)

    def compress_whole(data: bytes) -> bytes:
        stream = open_stream(len(data))
        return bytes(stream.compress(data) + stream.flush())

    return EntryCompressor(ZipMethod.DEFLATED, compress_whole, open_stream)


def _make_zstandard() -> EntryCompressor:
    try:
        import zstandard
    except ImportError:
        raise UsageError(
            "--compress zstd needs the library zstandard", hint="run: pip install 'tilesync[zstd]'"
        ) from None
    compressor = zstandard.ZstdCompressor(level=ZSTANDARD_LEVEL)
    return EntryCompressor(ZipMethod.ZSTANDARD, compressor.compress, lambda size: compressor.compressobj(size=size))
