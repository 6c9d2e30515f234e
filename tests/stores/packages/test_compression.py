"""Compression of packages: words, formats, and a library that is missing."""

from __future__ import annotations

import sys

import pytest

from tilesync.errors import UsageError
from tilesync.stores.packages.compression import Compression, make_compressor, parse_compression
from tilesync.stores.packages.formats import PackageFormat


def test_words_are_parsed() -> None:
    """Each word of the command line names its compression; any other is a usage error that lists them."""
    assert [parse_compression(each) for each in ("none", "deflate", "zstd")] == list(Compression)
    with pytest.raises(UsageError) as error:
        parse_compression("gzip")
    assert "none, deflate, zstd" in error.value.hint


@pytest.mark.parametrize("package_format", [PackageFormat.TAR, PackageFormat.SQLITE])
def test_formats_without_compression_refuse_it(package_format: PackageFormat) -> None:
    """A tar or SQLite package cannot compress its files; without compression nothing is needed."""
    assert make_compressor(Compression.NONE, package_format) is None
    with pytest.raises(UsageError, match=f"a .{package_format} package cannot compress"):
        make_compressor(Compression.ZSTD, package_format)


def test_missing_library_is_a_usage_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the extra, the hint names it."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(UsageError) as error:
        make_compressor(Compression.ZSTD, PackageFormat.ZIP)
    assert "tilesync[zstd]" in error.value.hint


@pytest.mark.parametrize("compression", [Compression.DEFLATE, Compression.ZSTD])
def test_stream_and_whole_hold_the_same(compression: Compression) -> None:
    """Chunk by chunk or at once, the decompressed bytes are those that went in."""
    import zlib

    import zstandard

    compressor = make_compressor(compression, PackageFormat.ZIP)
    assert compressor is not None
    data = b"tileset" * 100_000
    packed = compressor.compress_whole(data), b"".join(compressor.compress((data[:5], data[5:]), len(data)))
    for each in packed:
        assert len(each) < len(data) / 50
        if compression is Compression.DEFLATE:
            assert zlib.decompress(each, -15) == data
        else:
            assert zstandard.ZstdDecompressor().decompressobj().decompress(each) == data
