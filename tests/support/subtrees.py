"""Build subtrees and implicit tilesets."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator
from typing import Any

from tests.support.builders import glb
from tilesync.tiles.availability import SubtreeContents, expand_subtree
from tilesync.tiles.implicit_tiling import (
    Cell,
    ImplicitTiling,
    parse_subtree,
)

ALL, NONE = {"constant": 1}, {"constant": 0}
BOX = {"box": [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1]}
SUBTREES = "s/{level}/{x}/{y}.subtree"
CONTENTS = "c/{level}/{x}/{y}.glb"
GLB = glb(b"x")
SCHEMA = json.dumps(
    {"id": "s", "classes": {"k": {"properties": {"u": {"type": "STRING", "semantic": "CONTENT_URI"}}}}}
).encode()
IMPLICIT_MEMBERS: dict[str, Any] = {
    "subdivisionScheme": "QUADTREE",
    "subtreeLevels": 3,
    "availableLevels": 6,
    "subtrees": {"uri": "s/{level}"},
}
WRONG_VALUES: list[Any] = [None, True, False, 0, -1, 1.5, 10**30, "", "x", [], {}, [[]], [{}], {"uri": 5}, [None]]
EVERYTHING = {"tileAvailability": ALL, "contentAvailability": [ALL], "childSubtreeAvailability": ALL}
SUBTREE_NAME = "subtrees/0.subtree"
ROOT_CELL = Cell(0, 0, 0)
WIDTHS = {"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"}


def implicit_tile(*, levels: int, subtrees: str, content: str, available: int = 9) -> dict[str, Any]:
    subtree_json = {"subdivisionScheme": "QUADTREE", "subtreeLevels": levels, "availableLevels": available}
    return {
        "boundingVolume": BOX,
        "geometricError": 1,
        "content": {"uri": content},
        "implicitTiling": {**subtree_json, "subtrees": {"uri": subtrees}},
    }


def implicit_tileset(
    *more: dict[str, Any],
    levels: int = 1,
    available: int = 9,
    subtrees: str = SUBTREES,
    content: str = CONTENTS,
    **also: Any,
) -> bytes:
    """Return a tileset whose children are implicit root tiles."""
    tiles = [*more] or [implicit_tile(levels=levels, available=available, subtrees=subtrees, content=content)]
    root = {"boundingVolume": BOX, "geometricError": 9, "refine": "ADD", "children": tiles}
    return json.dumps({"asset": {"version": "1.1"}, "geometricError": 9, "root": root, **also}).encode()


def make_subtree(*, content: dict[str, int] = ALL, children: dict[str, int] = NONE, **more: Any) -> bytes:
    """Return a subtree whose tiles are all available."""
    subtree_json = {"tileAvailability": ALL, "contentAvailability": [content], "childSubtreeAvailability": children}
    return json.dumps({**subtree_json, **more}).encode()


def make_binary_subtree(subtree_json: dict[str, Any], data: bytes = b"") -> bytes:
    """Return a binary subtree with `data` in its buffer, with the padding of the specification."""
    text = json.dumps(subtree_json).encode()
    text += b" " * (-len(text) % 8)
    data += bytes(-len(data) % 8)
    return struct.pack("<4sIQQ", b"subt", 1, len(text), len(data)) + text + data


def make_subtree_with_children(bits: int, *, content: dict[str, int] = ALL) -> bytes:
    """Return a binary subtree of one level with some of its four children."""
    subtree_json = {
        "buffers": [{"byteLength": 8}],
        "bufferViews": [{"buffer": 0, "byteOffset": 0, "byteLength": 1}],
        "tileAvailability": ALL,
        "contentAvailability": [content],
        "childSubtreeAvailability": {"bitstream": 0},
    }
    return make_binary_subtree(subtree_json, bytes([bits]) + bytes(7))


def make_subtree_with_buffer(uri: str) -> bytes:
    """Return a subtree of one level whose child availability is in a separate file."""
    views = [{"buffer": 0, "byteOffset": 0, "byteLength": 1}]
    return make_subtree(children={"bitstream": 0}, buffers=[{"uri": uri, "byteLength": 1}], bufferViews=views)


def make_named_subtree(*texts: str, levels: int = 1) -> bytes:
    """Return a subtree without children whose contents have a CONTENT_URI, in property `u` of class `k`."""
    offsets = [len("".join(texts[:row]).encode()) for row in range(len(texts) + 1)]
    column, values = struct.pack(f"<{len(offsets)}I", *offsets), "".join(texts).encode()
    data = column + values
    views = [(0, len(column)), (len(column), len(values))]
    subtree_json = {
        "buffers": [{"byteLength": len(data)}],
        "bufferViews": [{"buffer": 0, "byteOffset": start, "byteLength": size} for start, size in views],
        "tileAvailability": ALL,
        "contentAvailability": [ALL],
        "childSubtreeAvailability": NONE,
        "propertyTables": [{"class": "k", "count": len(texts), "properties": {"u": {"values": 1, "stringOffsets": 0}}}],
        "contentMetadata": [0],
    }
    return make_binary_subtree(subtree_json, data + bytes(-len(data) % 8))


def as_json(members: Any) -> bytes:
    return json.dumps(members).encode()


def pack_bits(bits: list[bool]) -> bytes:
    octets = bytearray((len(bits) + 7) // 8)
    for index, bit in enumerate(bits):
        octets[index >> 3] |= bit << (index & 7)
    return bytes(octets)


class BufferLayout:
    """Place bytes in buffer views of one buffer, 8-byte aligned."""

    def __init__(self) -> None:
        self.data = b""
        self.views: list[dict[str, int]] = []

    def add(self, data: bytes) -> int:
        self.views.append({"buffer": 0, "byteOffset": len(self.data), "byteLength": len(data)})
        self.data += data + bytes(-len(data) % 8)
        return len(self.views) - 1

    def as_subtree(self, more: dict[str, Any], uri: str | None = None) -> dict[str, Any]:
        buffer = {"byteLength": len(self.data)} | ({"uri": uri} if uri else {})
        return {"buffers": [buffer], "bufferViews": self.views, **more}


def make_tiling(levels: int, *, octree: bool = False, available: int = 60, contents: int = 1) -> ImplicitTiling:
    cell = "{level}/{x}/{y}/{z}" if octree else "{level}/{x}/{y}"
    return ImplicitTiling(
        octree, levels, available, f"s/{cell}.subtree", tuple(f"c{n}/{cell}.glb" for n in range(contents))
    )


def list_places(members: Any) -> Iterator[tuple[Any, Any]]:
    """List every place of a JSON document that holds a value."""
    for key in list(members) if isinstance(members, dict) else range(len(members)):
        yield members, key
        if isinstance(members[key], dict | list):
            yield from list_places(members[key])


def expand(data: bytes, spec: ImplicitTiling, at: Cell = ROOT_CELL, **more: Any) -> SubtreeContents:
    return expand_subtree(parse_subtree(data, SUBTREE_NAME), spec, at, more.pop("buffers", {}), **more)


def members_with_buffers() -> dict[str, Any]:
    """Build a subtree with five external buffers: tiles, contents (both in one), strings, other metadata, and an unused
    one.
    """
    uris = ["tiles.bin", "../u.bin", "strings.bin", "tiles.bin", "other.bin"]
    columns = {"uri": {"values": 2, "stringOffsets": 2, "stringOffsetType": "UINT8"}, "height": {"values": 4}}
    return {
        "buffers": [{"uri": uri, "byteLength": 8} for uri in uris],
        "bufferViews": [{"buffer": buffer, "byteOffset": 0, "byteLength": 8} for buffer in range(5)],
        "tileAvailability": {"bitstream": 0},
        "contentAvailability": [{"bitstream": 3}],
        "childSubtreeAvailability": NONE,
        "propertyTables": [{"class": "tile", "count": 1, "properties": columns}],
        "tileMetadata": 0,
    }


def string_column(layout: BufferLayout, texts: list[str], width: str | None) -> dict[str, Any]:
    """Build a column of strings."""
    offsets = [len("".join(texts[:row]).encode()) for row in range(len(texts) + 1)]
    members: dict[str, Any] = {"values": layout.add("".join(texts).encode())}
    form = WIDTHS[width or "UINT32"]
    members["stringOffsets"] = layout.add(struct.pack(f"<{len(offsets)}{form}", *offsets))
    return members | ({"stringOffsetType": width} if width else {})
