"""Streaming decompression of gzip payloads."""

from __future__ import annotations

import gzip
import tracemalloc
import zlib
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support.cpu_limit import limit_cpu_time
from tilesync.errors import BlobDamaged
from tilesync.runtime import gzip as runtime_gzip
from tilesync.runtime.gzip import Unpacker, gunzip_chunks_if_packed

TEXT = b"3D Tiles " * 20


def pack(data: bytes, level: int = 9) -> bytes:
    return gzip.compress(data, level, mtime=0)


def with_file_name(data: bytes) -> bytes:
    """Make a gzip member with every optional field of its header (RFC 1952, section 2.3)."""
    raw = zlib.compressobj(wbits=-15)
    body = raw.compress(data) + raw.flush()
    header = b"\x1f\x8b\x08\x1e" + bytes(6) + b"\x03\0abc" + b"name\0" + b"comment\0"
    header += (zlib.crc32(header) & 0xFFFF).to_bytes(2, "little")
    return header + body + zlib.crc32(data).to_bytes(4, "little") + len(data).to_bytes(4, "little")


def split_at(data: bytes, cuts: list[int]) -> list[bytes]:
    edges = [0, *sorted(cut % (len(data) + 1) for cut in cuts), len(data)]
    return [data[start:end] for start, end in pairwise(edges)]


def unpack(data: bytes, step: int = 0) -> bytes:
    parts = [data[at : at + step] for at in range(0, len(data), step)] if step else [data]
    return b"".join(gunzip_chunks_if_packed(parts))


@given(st.lists(st.binary(max_size=300), min_size=1, max_size=4), st.integers(0, 9), st.lists(st.integers(0, 2000)))
def test_members_are_unpacked(parts: list[bytes], level: int, cuts: list[int]) -> None:
    """The packed bytes come out, from one member or several, empty ones too, however they are split."""
    data = b"".join(pack(part, level) for part in parts)
    assert b"".join(gunzip_chunks_if_packed(split_at(data, cuts))) == unpack(data, 1) == b"".join(parts)


@given(st.binary(max_size=100), st.lists(st.integers(0, 200)))
def test_other_bytes_pass(data: bytes, cuts: list[int]) -> None:
    """Bytes that are not gzip pass unchanged, even with empty pieces before or within their start."""
    plain = b"x" + data
    assert (
        b"".join(gunzip_chunks_if_packed(split_at(plain, cuts)))
        == b"".join(gunzip_chunks_if_packed([b"", *split_at(plain, cuts), b""]))
        == plain
    )


@pytest.mark.parametrize("data", [b"", b"\x1f", b"\x8b\x1f", b"\x1f\x8a\x08"])
def test_a_start_that_is_almost_gzip(data: bytes) -> None:
    """A start that is almost gzip's is not gzip."""
    assert unpack(data) == unpack(data, 1) == data


@pytest.mark.parametrize("parts", [[b"", b"\x1f", b"", b"\x8b"], [b"\x1f", b"\x8b", b""], [b"", b"", b"\x1f\x8b"]])
def test_a_start_in_parts(parts: list[bytes]) -> None:
    """Gzip is detected however its first two bytes are split, even with empty pieces between them."""
    assert b"".join(gunzip_chunks_if_packed([*parts, pack(TEXT)[2:]])) == TEXT


def test_optional_fields() -> None:
    """A header with extra field, name, comment and checksum is read."""
    assert unpack(with_file_name(TEXT)) == unpack(with_file_name(TEXT), 1) == TEXT
    assert unpack(with_file_name(TEXT) + pack(TEXT)) == TEXT * 2


@pytest.mark.parametrize(
    "data", [pack(TEXT), with_file_name(TEXT), pack(TEXT) + pack(TEXT)], ids=["plain", "named", "members"]
)
def test_a_truncated_payload_is_damaged(data: bytes) -> None:
    """A truncated payload is damaged, unless it ends exactly after a member."""
    ends = [end for end in range(2, len(data)) if end != len(pack(TEXT))]
    for end in ends:
        with pytest.raises(BlobDamaged, match="gzip payload is cut off"):
            unpack(data[:end])
        with pytest.raises(BlobDamaged, match="gzip payload is cut off"):
            unpack(data[:end], 3)


@pytest.mark.parametrize(
    "data",
    [b"\x1f\x8b garbage", b"\x1f\x8b\x08\xffgarbage", pack(TEXT)[:-8] + bytes(8), pack(TEXT)[:-1] + b"\x01",
     pack(TEXT) + b"x", pack(TEXT) + b"garbage", pack(TEXT)[:30] + b"\xff\xff\xff" + pack(TEXT)[33:]],
    ids=range(7),
)  # fmt: skip
def test_a_wrong_payload_is_damaged(data: bytes) -> None:
    """A wrong method, checksum, length or body is damage, and so is anything after it that is not a member."""
    for step in (0, 1):
        with pytest.raises(BlobDamaged, match="gzip payload is"):
            unpack(data, step)


@given(st.binary(max_size=60), st.integers(0, 60), st.binary(max_size=4))
def test_any_bytes(body: bytes, at: int, patch: bytes) -> None:
    """Any bytes are either unpacked or damaged, with the same result byte by byte."""
    data = pack(body)
    for whole in (b"\x1f\x8b" + body, data[:at] + patch + data[at + len(patch) :]):
        assert unpack_or_error(whole, 0) == unpack_or_error(whole, 1)


def test_zeros_after_a_payload_are_padding() -> None:
    """Zero padding, as block writers add, is ignored, as gzip and viewers do; any other byte is damage."""
    for step in (0, 1):
        assert unpack(pack(TEXT) + bytes(700), step) == TEXT
        with pytest.raises(BlobDamaged):
            unpack(pack(TEXT) + bytes(700) + b"x", step)


def unpack_or_error(data: bytes, step: int) -> bytes | str:
    try:
        return unpack(data, step)
    except BlobDamaged as error:
        return str(error)


def test_memory_is_bounded() -> None:
    """A small payload that unpacks to very much is unpacked in small pieces."""
    data = pack(bytes(30_000_000), 9)
    tracemalloc.start()
    sizes = [len(piece) for piece in gunzip_chunks_if_packed([data])]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sum(sizes) == 30_000_000
    assert max(sizes) <= 1 << 17
    assert peak < 1_000_000


def test_small_members_are_joined() -> None:
    """Very many members of one byte take linear time and give few pieces."""
    data = pack(b"x") * 30_000
    with limit_cpu_time(4):
        pieces = list(gunzip_chunks_if_packed([data]))
    assert b"".join(pieces) == b"x" * 30_000
    assert len(pieces) < 20


def test_unpacked_size_is_limited(monkeypatch: pytest.MonkeyPatch) -> None:
    """A payload that unpacks to more than the limit is damaged."""
    monkeypatch.setattr(runtime_gzip, "MAX_UNPACKED_BYTES", 1000)
    unpacker = Unpacker()
    assert b"".join(unpacker.feed(pack(bytes(1000)))) == bytes(1000)
    unpacker.finish()
    with pytest.raises(BlobDamaged, match="more than 1,000 bytes"):
        unpack(pack(bytes(1001)))
    with pytest.raises(BlobDamaged, match="more than 1,000 bytes"):
        unpack(pack(bytes(600)) * 2)
