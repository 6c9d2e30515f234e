"""References read from the beginning of a file."""

from __future__ import annotations

import gzip
import struct

import pytest

from tests.support.builders import glb_with_image, tileset
from tilesync.errors import BlobDamaged
from tilesync.model import Blob, ParsedContent
from tilesync.tiles.header import read_header
from tilesync.tiles.validator import ContentCheck

TILE = glb_with_image("textures/a.png", b"x" * 50_000)


def read_start(name: str, data: bytes, count: int) -> ParsedContent | int | None:
    return read_header(Blob(name, len(data)), "", data[:count])


def test_a_glb_is_read_from_its_beginning() -> None:
    """With the JSON chunk, the references are those of the whole file; with less, the needed length is returned."""
    needed = read_start("t/a.glb", TILE, 20)
    assert isinstance(needed, int)
    assert needed < 1000
    assert read_start("t/a.glb", TILE, needed - 1) == needed
    check = ContentCheck(Blob("t/a.glb", len(TILE)))
    check.feed(TILE)
    check.finish()
    whole = check.drain()
    assert [each.target for each in whole.references] == ["t/textures/a.png"]
    for count in (needed, needed + 1, 40_000):
        assert read_start("t/a.glb", TILE, count) == whole


@pytest.mark.parametrize("head", [b"\x89PNG\r\n\x1a\n", b"\0\1\2\3\4\5\6\7", b"voxl\1\0\0\0"])
def test_kinds_without_references(head: bytes) -> None:
    """Images, buffers and voxels need no further reading."""
    result = read_start("a.bin", head + b"\0" * 5000, 4096)
    assert isinstance(result, ParsedContent)
    assert not result.references


@pytest.mark.parametrize(
    "data",
    [
        tileset("a.glb") + b" " * 9000,
        b"b3dm" + b"\1\0\0\0" + b"\0" * 9000,
        b"cmpt" + b"\1\0\0\0" + b"\0" * 9000,
        gzip.compress(TILE, mtime=0),
        b"PK\x03\x04" + b"\0" * 9000,
        b"  \n" * 3000,
        b"gl",
    ],
)
def test_kinds_that_are_read_whole(data: bytes) -> None:
    """Documents, tiles that contain tiles, gzipped files, and unknown beginnings are read whole."""
    try:
        assert read_start("a.bin", data, 4096) is None
    except BlobDamaged:
        assert data.startswith((b"b3dm", b"cmpt"))


def test_a_beginning_that_cannot_be_right_is_damage() -> None:
    """A file without the tile that its name promises, or shorter than its header says, is damage."""
    with pytest.raises(BlobDamaged):
        read_start("a.glb", b"<html>" * 1000, 4096)
    with pytest.raises(BlobDamaged):
        read_header(Blob("a.glb", len(TILE) - 1), "", TILE[:4096])


def test_an_older_glb_is_read_whole() -> None:
    """Version 1 is another format (KHR_binary_glTF)."""
    old = struct.pack("<4s4I", b"glTF", 1, 9000, 100, 0) + b"{}" + b" " * 8978
    assert read_start("a.bin", old, 4096) is None
