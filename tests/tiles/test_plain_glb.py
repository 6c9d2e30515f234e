"""Plain GLB: which GLBs one step can judge; tests/tiles/test_validator.py compares its results with the chunks'."""

import struct
from typing import Any

import pytest

from tests.support.tile_formats import chunk, glb, glb_1, gltf
from tilesync.tiles.plain_glb import is_plain_glb, parse_plain_gltf

BODY = b"\1\2\3\4" * 5


def of_text(text: bytes, body: bytes = BODY) -> bytes:
    """Build a GLB of this JSON and this BIN chunk."""
    return gltf(chunk(b"JSON", text), chunk(b"BIN\0", body))


@pytest.mark.parametrize(
    "members", [{}, {"nodes": [{"name": "uri"}]}, {"images": [{"bufferView": 0}]}, {"extras": {"furl": "curious"}}]
)
def test_an_ordinary_glb_is_plain(members: dict[str, Any]) -> None:
    """A GLB that names no file is plain, also if some of its words look like the keys of URIs."""
    assert is_plain_glb(glb(**members))


@pytest.mark.parametrize(
    "members",
    [
        {"images": [{"uri": "a.png"}]},
        {"extensions": {"X": {"uri": "a"}}},
        {"extensions": {"X": {"url": "a"}}},
        {"extensions": {"X": {"imageURL": "a"}}},
        {"extensions": {"X": {"schemaUri": "a"}}},
        {"extensionsUsed": ["KHR_binary_glTF"]},
        {"extensions": {"EXT_meshopt_compression": {"fallback": True}}},
        {"nodes": [{"name": "back\\slash"}]},
        {"images": 5},
        {"buffers": [5]},
    ],
)
def test_a_glb_that_names_files_is_not(members: dict[str, Any]) -> None:
    """A URI, or anything that only the strict parser understands, is left to the streaming parser."""
    assert not is_plain_glb(glb(**members))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        glb()[:27],
        glb()[:-1],
        glb() + b"x",
        glb(b""),
        glb_1(BODY),
        struct.pack("<4sII", b"glTF", 3, 12),
        of_text(b'{"buffers":[{"byteLength":21}]}'),
        of_text(b'{"buffers":[{"byteLength":16}]}'),
        of_text(b'{"buffers":[{"byteLength":NaN}]}'),
        of_text(b'{"buffers":[]'),
        of_text(b'{"buffers":[]}}'),
        of_text(b'{"buffers":[]}\0'),
        of_text(b'{"a":"\xff"}'),
        of_text(b"[" * 100_000),
        gltf(chunk(b"JSON", b"{}"), chunk(b"X\0\0\0", BODY)),
        gltf(chunk(b"JSON", b"{}"), chunk(b"BIN\0", BODY), chunk(b"BIN\0", BODY)),
    ],
)
def test_other_bytes_are_not_plain(data: bytes) -> None:
    """What is cut off, longer, of another version, with other chunks or with broken JSON, is left to that parser."""
    assert not is_plain_glb(data)


def test_uris_of_buffers_and_images() -> None:
    """The URIs of buffers and images come with their roles, and with the length of a buffer."""
    text = b'{"images":[{"uri":"a.png"}],"buffers":[{"uri":"b.bin","byteLength":7}]}'
    assert parse_plain_gltf(text) == ((7, True), [("buffer", "b.bin", 7), ("image", "a.png", None)])
