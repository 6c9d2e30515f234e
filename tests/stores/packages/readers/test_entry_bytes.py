"""Unpacking entries: the right bytes, and never more of them than the package states."""

from __future__ import annotations

import random
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.errors import BlobDamaged, DamagedPackage
from tilesync.stores.packages.readers.entry_bytes import unpack_entry
from tilesync.stores.packages.readers.package import PackageEntry
from tilesync.stores.packages.zip_records import ZipMethod

DATA = random.Random(2).randbytes(700_000) + bytes(3_000_000)


def deflate(data: bytes) -> bytes:
    """Compress without a header, as a Zip file does."""
    stream = zlib.compressobj(6, zlib.DEFLATED, -zlib.MAX_WBITS)
    return stream.compress(data) + stream.flush()


def zstandard(data: bytes) -> bytes:
    """Compress with Zstandard."""
    return bytes(pytest.importorskip("zstandard").ZstdCompressor().compress(data))


PACK: dict[ZipMethod, Callable[[bytes], bytes]] = {
    ZipMethod.STORED: bytes,
    ZipMethod.DEFLATED: deflate,
    ZipMethod.ZSTANDARD: zstandard,
}

each_method = pytest.mark.parametrize("method", PACK, ids=lambda method: method.name.lower())


def unpack(
    packed: bytes, data: bytes, method: int, *, offset: int = 0, size: int | None = None, crc: int | None = None
) -> bytes:
    """Unpack bytes in pieces of an odd length."""
    entry = PackageEntry(
        "a.glb",
        len(data) if size is None else size,
        0,
        len(packed),
        method,
        zlib.crc32(data) if crc is None else crc,
    )
    pieces = (packed[start : start + 9_973] for start in range(0, len(packed), 9_973))
    return b"".join(unpack_entry(entry, pieces, offset))


@each_method
@pytest.mark.parametrize("data", [b"", b"x", DATA], ids=["empty", "short", "long"])
def test_bytes_are_unpacked(method: ZipMethod, data: bytes) -> None:
    """The bytes come back, from any offset on."""
    packed = PACK[method](data)
    for offset in (0, 1, 699_999, len(data), len(data) + 5):
        assert unpack(packed, data, method, offset=offset) == data[offset:]


@each_method
@pytest.mark.parametrize("size", [0, 100, len(DATA) - 1, len(DATA) + 1])
def test_another_size_is_damage(method: ZipMethod, size: int) -> None:
    """An entry that is longer or shorter than the package states is damaged."""
    with pytest.raises(BlobDamaged, match=r"a\.glb"):
        unpack(PACK[method](DATA), DATA, method, size=size)


@each_method
def test_another_checksum_is_damage(method: ZipMethod) -> None:
    """An entry with another CRC-32 is damaged."""
    with pytest.raises(BlobDamaged, match="CRC-32"):
        unpack(PACK[method](DATA), DATA, method, crc=1)


@pytest.mark.parametrize("method", [ZipMethod.DEFLATED, ZipMethod.ZSTANDARD])
def test_compressed_bytes_are_cut_off_or_followed_by_others(method: ZipMethod) -> None:
    """Bytes that are missing at the end, or too many, are damage."""
    packed = PACK[method](DATA)
    for broken in (packed[:-1], packed[: len(packed) // 2], b"", packed + b"x", packed + bytes(20_000)):
        with pytest.raises(BlobDamaged, match=r"a\.glb"):
            unpack(broken, DATA, method)


@pytest.mark.parametrize("method", [ZipMethod.DEFLATED, ZipMethod.ZSTANDARD])
def test_a_bomb_is_not_unpacked(method: ZipMethod) -> None:
    """A stream that unpacks to far more than the package states stops soon behind that size."""
    consumed = list[int]()
    packed = PACK[method](bytes(200_000_000))

    def pieces() -> Iterator[bytes]:
        for start in range(0, len(packed), 100):
            consumed.append(start)
            yield packed[start : start + 100]

    entry = PackageEntry("bomb", 1000, 0, len(packed), method)
    with pytest.raises(BlobDamaged, match="longer"):
        list(unpack_entry(entry, pieces()))
    assert method is ZipMethod.ZSTANDARD or len(consumed) < len(packed) / 100 / 10


@pytest.mark.parametrize(("method", "name"), [(12, "bzip2"), (14, "LZMA"), (77, "method 77")])
def test_other_methods_are_refused(method: int, name: str) -> None:
    """A compression that tilesync does not read is named."""
    with pytest.raises(DamagedPackage, match=name):
        unpack(b"abc", b"abc", method)


def test_zstandard_needs_its_module(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without the module for Zstandard the error has the command that installs it."""
    monkeypatch.setitem(sys.modules, "zstandard", None)
    with pytest.raises(DamagedPackage) as raised:
        unpack(b"abc", b"abc", ZipMethod.ZSTANDARD)
    assert "pip install 'tilesync[zstd]'" in raised.value.hint


@given(
    st.sampled_from(sorted(PACK)),
    st.integers(0, 2_000),
    st.binary(min_size=1, max_size=3),
    st.sampled_from([bytes, lambda data: data[::2]]),
)
def test_no_flipped_bytes_pass(method: ZipMethod, place: int, change: bytes, thin: Callable[[bytes], bytes]) -> None:
    """Changed bytes give an error, or the right bytes."""
    data = thin(DATA[699_000:701_000])
    packed = bytearray(PACK[method](data))
    place = min(place, len(packed) - 1)
    packed[place : place + len(change)] = change
    with suppress(BlobDamaged):
        assert unpack(bytes(packed), data, method) == data
