"""Subtree expansion, compared with an oracle that looks up one bit at a time."""

from __future__ import annotations

import gzip
import json
import os
import struct
import time
import tracemalloc
from collections.abc import Iterator
from contextlib import suppress
from itertools import islice
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.support import samples
from tilesync.errors import BlobDamaged
from tilesync.tiles import availability as subtrees
from tilesync.tiles import implicit_tiling as implicit_files
from tilesync.tiles.availability import MAX_TILES_PER_SUBTREE, SubtreeContents, expand_subtree
from tilesync.tiles.implicit_tiling import (
    Cell,
    ImplicitTiling,
    fill_template,
    find_missing_variables,
    parse_implicit_tiling,
    parse_subtree,
)

NAME = "subtrees/0.subtree"
ROOT = Cell(0, 0, 0)
ALL, NONE = {"constant": 1}, {"constant": 0}
EVERYTHING = {"tileAvailability": ALL, "contentAvailability": [ALL], "childSubtreeAvailability": ALL}


def implicit(levels: int, *, octree: bool = False, available: int = 60, contents: int = 1) -> ImplicitTiling:
    cell = "{level}/{x}/{y}/{z}" if octree else "{level}/{x}/{y}"
    return ImplicitTiling(
        octree, levels, available, f"s/{cell}.subtree", tuple(f"c{n}/{cell}.glb" for n in range(contents))
    )


def as_json(members: Any) -> bytes:
    return json.dumps(members).encode()


def as_binary(members: Any, binary: bytes = b"") -> bytes:
    """Build a binary subtree with the padding of the specification."""
    text = json.dumps(members).encode()
    text += b" " * (-len(text) % 8)
    binary += bytes(-len(binary) % 8)
    return struct.pack("<4sIQQ", b"subt", 1, len(text), len(binary)) + text + binary


def packed(bits: list[bool]) -> bytes:
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


# --- the oracle -----------------------------------------------------------------------------------------------------


def morton(x: int, y: int, z: int, *, octree: bool) -> int:
    """Compute a Morton index one bit at a time: x in the lowest bit, then y, then z."""
    code = 0
    axes = (x, y, z) if octree else (x, y)
    for bit in range(20):
        for place, axis in enumerate(axes):
            code |= (axis >> bit & 1) << (bit * len(axes) + place)
    return code


def cells(level: int, *, octree: bool) -> Iterator[tuple[int, int, int]]:
    for z in range(1 << level if octree else 1):
        for y in range(1 << level):
            for x in range(1 << level):
                yield x, y, z


def tile_index(level: int, x: int, y: int, z: int, *, octree: bool) -> int:
    branch = 8 if octree else 4
    return sum(int(branch**above) for above in range(level)) + morton(x, y, z, octree=octree)


def to_global_cell(at: Cell, level: int, x: int, y: int, z: int) -> Cell:
    return Cell(at.level + level, at.x * 2**level + x, at.y * 2**level + y, at.z * 2**level + z)


class AvailabilityOracle:
    """Availability as lists of bits, and the contents and subtrees it implies."""

    def __init__(
        self, spec: ImplicitTiling, at: Cell, tiles: list[bool], contents: list[list[bool]], children: list[bool]
    ):
        self.spec, self.at, self.octree = spec, at, spec.is_octree
        self.tiles, self.content_bits, self.children = tiles, contents, children

    def locals(self) -> Iterator[tuple[int, int, int, int, int]]:
        for level in range(self.spec.subtree_levels):
            for x, y, z in cells(level, octree=self.octree):
                yield tile_index(level, x, y, z, octree=self.octree), level, x, y, z

    def contents(self) -> set[str]:
        return {
            fill_template(template, to_global_cell(self.at, *place))
            for template, bits in zip(self.spec.content_templates, self.content_bits, strict=False)
            for index, *place in self.locals()
            if bits[index] and self.tiles[index]
        }

    def subtrees(self) -> set[tuple[Cell, str]]:
        levels = self.spec.subtree_levels
        return {
            (cell := to_global_cell(self.at, levels, x, y, z), fill_template(self.spec.subtree_template, cell))
            for x, y, z in cells(levels, octree=self.octree)
            if self.children[morton(x, y, z, octree=self.octree)]
            and self.tiles[tile_index(levels - 1, x // 2, y // 2, z // 2, octree=self.octree)]
        }

    def orphans(self) -> int:
        return sum(
            self.tiles[index] and not self.tiles[tile_index(level - 1, x // 2, y // 2, z // 2, octree=self.octree)]
            for index, level, x, y, z in self.locals()
            if level
        )

    def lost_contents(self, number: int) -> int:
        return sum(bit and not tile for bit, tile in zip(self.content_bits[number], self.tiles, strict=True))


@st.composite
def subtrees_with_oracle(draw: st.DrawFn) -> tuple[AvailabilityOracle, bytes, dict[str, bytes]]:
    """Generate a subtree with any availability, in any of its forms, and its expected contents."""
    octree = draw(st.booleans())
    levels = draw(st.integers(1, 3 if octree else 4))
    branch = 8 if octree else 4
    size = sum(branch**level for level in range(levels))
    level = draw(st.integers(0, 5))
    x, y, z = (draw(st.integers(0, 2**level - 1)) for _ in "xyz")
    at = Cell(level, x, y, z * octree)
    spec = implicit(levels, octree=octree, contents=draw(st.integers(0, 3)), available=draw(st.integers(1, 12)))
    layout = BufferLayout()

    def availability(count: int) -> tuple[list[bool], dict[str, int]]:
        constant = draw(st.sampled_from([0, 1, None, None]))
        if constant is not None:
            return [bool(constant)] * count, {"constant": constant}
        number = draw(st.integers(0, 2**count - 1) | st.just(2**count - 1) | st.just(1))
        bits = [bool(number >> index & 1) for index in range(count)]
        key = draw(st.sampled_from(["bitstream", "bufferView"]))
        padding = draw(st.sampled_from([b"", b"\xff", bytes(9)]))
        claimed = {"availableCount": sum(bits)} if draw(st.booleans()) else {}
        octets = bytearray(packed(bits))
        if count % 8 and draw(st.booleans()):
            octets[-1] |= 0x80
        return bits, {key: layout.add(bytes(octets) + padding), **claimed}

    tiles, tile_members = availability(size)
    streams = [availability(size) for _ in range(draw(st.integers(0, 3)))]
    children, child_members = availability(branch**levels)
    contents = [members for _, members in streams]
    members: dict[str, Any] = {"tileAvailability": tile_members, "childSubtreeAvailability": child_members}
    form = draw(st.sampled_from(["list", "single", "extension"] if len(contents) == 1 else ["list", "extension"]))
    if form == "extension":
        members["extensions"] = {"3DTILES_multiple_contents": {"contentAvailability": contents}}
    else:
        members["contentAvailability"] = contents[0] if form == "single" else contents
    data, buffers = draw(stored(layout, members))
    return AvailabilityOracle(spec, at, tiles, [bits for bits, _ in streams], children), data, buffers


@st.composite
def stored(draw: st.DrawFn, layout: BufferLayout, members: dict[str, Any]) -> tuple[bytes, dict[str, bytes]]:
    """Generate the file of a subtree and its external buffers in one of the ways to store them."""
    external = draw(st.booleans())
    whole = layout.as_subtree(members, "b.bin" if external else None)
    if external and draw(st.booleans()):
        data = draw(st.sampled_from([b"", b"\xef\xbb\xbf"])) + as_json(whole)
    else:
        data = as_binary(whole, b"" if external else layout.data)
    data = gzip.compress(data, mtime=0) if draw(st.booleans()) else data
    packed_buffer = gzip.compress(layout.data, mtime=0) if draw(st.booleans()) else layout.data
    return data, {"b.bin": packed_buffer} if external else {}


@settings(max_examples=400)
@given(subtrees_with_oracle())
def test_expansion_matches_the_oracle(case: tuple[AvailabilityOracle, bytes, dict[str, bytes]]) -> None:
    """Contents, child subtrees and their cells match a lookup of every single bit, each once."""
    oracle, data, buffers = case
    subtree = parse_subtree(data, NAME)
    found = expand_subtree(subtree, oracle.spec, oracle.at, {uri: buffers[uri] for uri in subtree.needed_uris})
    contents, children = list(found.contents), list(found.subtrees)
    assert (set(contents), len(contents)) == (oracle.contents(), len(set(contents)))
    assert (set(children), len(children)) == (oracle.subtrees(), len(set(children)))


@settings(max_examples=400)
@given(subtrees_with_oracle())
def test_problems_are_counted(case: tuple[AvailabilityOracle, bytes, dict[str, bytes]]) -> None:
    """The problems about tiles without parent and contents without tile have the count of the oracle."""
    oracle, data, buffers = case
    problems = " ".join(expand_subtree(parse_subtree(data, NAME), oracle.spec, oracle.at, buffers).problems)
    orphans = oracle.orphans()
    assert (f"{orphans} tiles are available, but not the tiles above them" in problems) == bool(orphans)
    for number in range(len(oracle.content_bits)):
        lost = oracle.lost_contents(number)
        assert (f"content {number} is available for {lost} tiles that are not available" in problems) == bool(lost)
    deep = sum(
        oracle.tiles[index] and oracle.at.level + level >= oracle.spec.available_levels
        for index, level, *_ in oracle.locals()
    )
    assert (f"{deep} tiles lie below the" in problems) == bool(deep)
    assert "availableCount" not in problems


def test_large_subtrees_match_the_oracle_too() -> None:
    """Cells are right also where Morton indices need more bits than the table of offsets has."""
    for octree, levels in ((False, 8), (True, 5)):
        branch = 8 if octree else 4
        spec = implicit(levels, octree=octree)
        size = sum(branch**level for level in range(levels))
        bits = [index % 1021 == 7 or index == size - 1 for index in range(size)]
        children = [index % 4093 == 5 or index == branch**levels - 1 for index in range(branch**levels)]
        layout = BufferLayout()
        members = {
            "tileAvailability": ALL,
            "contentAvailability": [{"bitstream": layout.add(packed(bits))}],
            "childSubtreeAvailability": {"bitstream": layout.add(packed(children))},
        }
        at = Cell(2, 3, 1, 2 if octree else 0)
        found = expanded(as_binary(layout.as_subtree(members), layout.data), spec, at)
        oracle = AvailabilityOracle(spec, at, [True] * size, [bits], children)
        assert sorted(found.contents) == sorted(oracle.contents())
        assert set(found.subtrees) == oracle.subtrees()


def expanded(data: bytes, spec: ImplicitTiling, at: Cell = ROOT, **more: Any) -> SubtreeContents:
    return expand_subtree(parse_subtree(data, NAME), spec, at, more.pop("buffers", {}), **more)


# --- what is announced ----------------------------------------------------------------------------------------------


def test_the_order_is_that_of_the_bits() -> None:
    """Contents come level by level, in Morton order, one content after the other; x is the lowest bit."""
    found = expanded(as_json(EVERYTHING | {"contentAvailability": [ALL, ALL]}), implicit(2, contents=2), Cell(1, 1, 0))
    places = ["1/1/0", "2/2/0", "2/3/0", "2/2/1", "2/3/1"]
    assert list(found.contents) == [f"c{number}/{place}.glb" for number in (0, 1) for place in places]
    assert [cell for cell, _ in found.subtrees][:3] == [Cell(3, 4, 0), Cell(3, 5, 0), Cell(3, 4, 1)]


def test_the_bit_order_of_an_octree() -> None:
    """In an octree z is the highest of three bits."""
    found = expanded(as_json(EVERYTHING), implicit(2, octree=True))
    assert list(found.contents)[1:6] == [f"c0/1/{place}.glb" for place in ("0/0/0", "1/0/0", "0/1/0", "1/1/0", "0/0/1")]


def test_contents_without_availability_are_none() -> None:
    """A template without availability has no content, as has a subtree without any content availability."""
    members = {"tileAvailability": ALL, "childSubtreeAvailability": NONE}
    assert list(expanded(as_json(members), implicit(2)).contents) == []
    assert list(expanded(as_json(members | {"contentAvailability": [ALL]}), implicit(1, contents=3)).contents) == [
        "c0/0/0/0.glb"
    ]


def test_availability_without_template_is_a_problem() -> None:
    """Available contents without a template are a problem and are not followed."""
    found = expanded(as_json(EVERYTHING | {"contentAvailability": [ALL, ALL, NONE]}), implicit(1))
    assert list(found.contents) == ["c0/0/0/0.glb"]
    assert found.problems == ("content 1 is available, but has no template in the tileset",)


def test_a_wrong_count_is_a_problem() -> None:
    """An availableCount that differs from the number of set bits is a problem, for constants too."""
    wrong = {"constant": 1, "availableCount": 3}
    members = {"tileAvailability": wrong, "contentAvailability": [ALL, wrong], "childSubtreeAvailability": wrong}
    assert expanded(as_json(members), implicit(1, contents=2)).problems == (
        "availableCount of tileAvailability is 3, 1 are available",
        "availableCount of contentAvailability 1 is 3, 1 are available",
        "availableCount of childSubtreeAvailability is 3, 4 are available",
    )


@pytest.mark.parametrize("claimed", [-1, 1.5, 1e400])
def test_an_impossible_count_is_a_problem(claimed: float) -> None:
    """An impossible availableCount is a problem, but the subtree is still read."""
    members = EVERYTHING | {"tileAvailability": {"constant": 1, "availableCount": claimed}}
    assert expanded(as_json(members), implicit(1)).problems == (
        f"availableCount of tileAvailability is {claimed}, 1 are available",
    )


def test_child_subtrees_below_the_available_levels() -> None:
    """Child subtrees below the available levels are a problem but are followed, as in viewers."""
    found = expanded(as_json(EVERYTHING), implicit(2, available=4), Cell(2, 0, 0))
    assert len(list(found.subtrees)) == 16
    assert found.problems == ("16 child subtrees lie below the 4 available levels",)
    found = expanded(as_json(EVERYTHING), implicit(2, available=5), Cell(2, 0, 0))
    assert (len(list(found.subtrees)), found.problems) == (16, ())


def test_child_subtrees_need_a_tile_above() -> None:
    """A child subtree below an unavailable tile is a problem and is not followed, as in viewers."""
    layout = BufferLayout()
    members = {"tileAvailability": {"bitstream": layout.add(b"\x05")}, "childSubtreeAvailability": ALL}
    found = expanded(as_binary(layout.as_subtree(members), layout.data), implicit(2))
    assert {cell for cell, _ in found.subtrees} == {Cell(2, x, y) for x in (2, 3) for y in (0, 1)}
    assert found.problems == ("12 child subtrees lie below tiles that are not available, and are not followed",)


def test_tiles_below_the_available_levels_are_a_problem() -> None:
    """Tiles below the available levels are a problem; their contents are followed, as in viewers."""
    found = expanded(as_json(EVERYTHING | {"childSubtreeAvailability": NONE}), implicit(2, available=2), Cell(1, 0, 0))
    assert len(list(found.contents)) == 5
    assert found.problems == ("4 tiles lie below the 2 available levels",)


def test_bytes_behind_a_subtree_are_a_problem() -> None:
    """Trailing bytes are only a problem, because viewers accept them."""
    found = expanded(as_binary(EVERYTHING) + b"\0\0", implicit(1))
    assert found.problems == ("2 bytes follow the subtree in its file",)


# --- buffers --------------------------------------------------------------------------------------------------------


def with_buffers() -> dict[str, Any]:
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


def test_buffers_are_named() -> None:
    """All external buffers are listed in order, once; availability and columns of strings are needed."""
    subtree = parse_subtree(as_json(with_buffers()), NAME)
    assert subtree.buffer_uris == ("tiles.bin", "../u.bin", "strings.bin", "other.bin")
    assert subtree.needed_uris == ("tiles.bin", "strings.bin")


def test_a_table_that_describes_nothing_is_not_needed() -> None:
    """A property table without reference from tiles or contents needs no buffer."""
    members = with_buffers()
    del members["tileMetadata"]
    assert parse_subtree(as_json(members), NAME).needed_uris == ("tiles.bin",)


def test_only_needed_buffers_are_read() -> None:
    """Strings are not read when the schema has no CONTENT_URI; a missing needed buffer is damage."""
    found = expanded(as_json(with_buffers()), implicit(2), buffers={"tiles.bin": b"\x1f" + bytes(7)})
    assert len(list(found.contents)) == 5
    with pytest.raises(BlobDamaged, match=r"its buffer tiles.bin is missing"):
        expanded(as_json(with_buffers()), implicit(2))


def test_a_bitstream_that_looks_like_gzip() -> None:
    """Bits may begin like gzip by chance: a buffer of the stated size is raw bits; of another size it is damage."""
    chance = b"\x1f\x8b" + bytes(6)
    assert len(list(expanded(as_json(with_buffers()), implicit(2), buffers={"tiles.bin": chance}).contents)) == 5
    with pytest.raises(BlobDamaged, match="gzip"):
        expanded(as_json(with_buffers()), implicit(2), buffers={"tiles.bin": chance + b"\0"})


def test_a_short_buffer_is_damage() -> None:
    """A buffer that ends before one of its views is damage."""
    with pytest.raises(BlobDamaged, match=f"{NAME}: a buffer has 7 bytes, a buffer view ends at byte 8"):
        expanded(as_json(with_buffers()), implicit(2), buffers={"tiles.bin": bytes(7)})


@pytest.mark.parametrize("key", ["tileAvailability", "contentAvailability", "childSubtreeAvailability"])
def test_a_short_bitstream_is_damage(key: str) -> None:
    """A bitstream with too few bits is damage, not a problem."""
    layout = BufferLayout()
    short = {"bitstream": layout.add(bytes(10))}
    members = EVERYTHING | {key: [short] if key == "contentAvailability" else short}
    with pytest.raises(BlobDamaged, match=f"{key}.* has 10 bytes, which is less than .* bits"):
        expanded(as_binary(layout.as_subtree(members), layout.data), implicit(4))


def test_buffers_are_bounded_as_they_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers that are each small enough may together exceed the unpacked limit."""
    layout = BufferLayout()
    views = {"tileAvailability": {"bitstream": layout.add(b"\1")}, "contentAvailability": [{"bitstream": 1}]}
    members = layout.as_subtree({**views, "childSubtreeAvailability": NONE}, "a.bin")
    members["buffers"].append({"uri": "b.bin", "byteLength": 600})
    members["bufferViews"].append({"buffer": 1, "byteOffset": 0, "byteLength": 1})
    buffers = dict.fromkeys(("a.bin", "b.bin"), gzip.compress(b"\1" * 600, mtime=0))
    monkeypatch.setattr("tilesync.tiles.availability.MAX_UNPACKED_BYTES", 1200)
    assert len(list(expanded(as_json(members), implicit(1), buffers=buffers).contents)) == 1
    monkeypatch.setattr("tilesync.tiles.availability.MAX_UNPACKED_BYTES", 1199)
    with pytest.raises(BlobDamaged, match="its buffers unpack to more than 1,199 bytes"):
        expanded(as_json(members), implicit(1), buffers=buffers)


def test_the_json_of_a_subtree_is_bounded() -> None:
    """JSON beyond the limit is refused, because its objects take many times its size."""
    data = as_json(EVERYTHING)
    assert parse_subtree(data + b" " * ((1 << 22) - len(data)), NAME).name == NAME
    with pytest.raises(BlobDamaged, match=f"{NAME}: its JSON has 4,194,305 bytes"):
        parse_subtree(data + b" " * ((1 << 22) + 1 - len(data)), NAME)


def test_null_is_absent() -> None:
    """Null counts as absent and `1.0` as 1, as in viewers."""
    keys = ("buffers", "bufferViews", "propertyTables", "contentMetadata", "extensions", "tileMetadata")
    found = expanded(as_json(EVERYTHING | dict.fromkeys(keys)), implicit(1))
    assert (len(list(found.contents)), found.problems) == (1, ())
    layout = BufferLayout()
    number = layout.add(b"\1" + bytes(7))
    members = layout.as_subtree(EVERYTHING | {"tileAvailability": {"bitstream": float(number), "constant": None}})
    members["bufferViews"][0] |= {"byteOffset": None, "byteLength": 8.0}
    assert len(list(expanded(as_binary(members, layout.data), implicit(1)).contents)) == 1


def test_invalid_utf_8_in_a_name() -> None:
    """Invalid UTF-8 in a name is replaced, as in viewers."""
    assert parse_subtree(as_json(EVERYTHING | {"extras": "@"}).replace(b"@", b"\xe9"), NAME).name == NAME


# --- CONTENT_URI ----------------------------------------------------------------------------------------------------

WIDTHS = {"UINT8": "B", "UINT16": "H", "UINT32": "I", "UINT64": "Q"}


def string_column(layout: BufferLayout, texts: list[str], width: str | None) -> dict[str, Any]:
    """Build a column of strings."""
    offsets = [len("".join(texts[:row]).encode()) for row in range(len(texts) + 1)]
    members: dict[str, Any] = {"values": layout.add("".join(texts).encode())}
    form = WIDTHS[width or "UINT32"]
    members["stringOffsets"] = layout.add(struct.pack(f"<{len(offsets)}{form}", *offsets))
    return members | ({"stringOffsetType": width} if width else {})


def with_content_uris(
    texts: list[str], *, tiles: int, contents: int, of: str, width: str | None = None
) -> tuple[bytes, BufferLayout]:
    """Build a quadtree of two levels whose contents or tiles have a CONTENT_URI."""
    layout = BufferLayout()
    members: dict[str, Any] = {
        "tileAvailability": {"bitstream": layout.add(bytes([tiles]))},
        "contentAvailability": [{"bitstream": layout.add(bytes([contents]))}],
        "childSubtreeAvailability": NONE,
        "propertyTables": [
            {"class": "other", "count": 1, "properties": {"u": {"values": 0}}},
            {"class": "k", "count": len(texts), "properties": {"u": string_column(layout, texts, width)}},
        ],
    }
    members |= {"tileMetadata": 1} if of == "tiles" else {"tileMetadata": 0, "contentMetadata": [1]}
    return as_binary(layout.as_subtree(members), layout.data), layout


@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_content_metadata_names_contents(width: str | None) -> None:
    """Each row is for one available content in bit order, with or without tile; an empty string keeps the template."""
    data, _ = with_content_uris(
        ["a.glb", "no", "", "ü/ß.glb"], tiles=0b11011, contents=0b11101, of="contents", width=width
    )
    found = expanded(data, implicit(2), content_uri_properties={"k": "u"})
    assert list(found.contents) == ["a.glb", "c0/1/0/1.glb", "ü/ß.glb"]


def test_tile_metadata_names_contents() -> None:
    """Each row belongs to one available tile in bit order, with or without content."""
    data, _ = with_content_uris(["a", "no", "b", ""], tiles=0b11011, contents=0b11101, of="tiles")
    found = expanded(data, implicit(2), content_uri_properties={"k": "u"})
    assert list(found.contents) == ["a", "b", "c0/1/1/1.glb"]


def test_other_metadata_names_no_contents() -> None:
    """The template is used without a CONTENT_URI in the class of the table, or where the table lacks the property."""
    data, _ = with_content_uris(["a", "b"], tiles=0b11, contents=0b11, of="contents")
    for uris in ({}, {"other": "v"}, {"k": "v"}, {"": "u"}):
        assert list(expanded(data, implicit(2), content_uri_properties=uris).contents) == [
            "c0/0/0/0.glb",
            "c0/1/0/0.glb",
        ]


def test_content_metadata_goes_before_that_of_tiles() -> None:
    """The CONTENT_URI of the content wins; that of tiles is used for the first content only."""
    layout = BufferLayout()
    table = {"class": "k", "count": 1}
    members = EVERYTHING | {
        "contentAvailability": [ALL, ALL],
        "propertyTables": [
            table | {"properties": {"u": string_column(layout, [text], None)}} for text in ("tile", "content")
        ],
        "tileMetadata": 0,
    }
    both = as_binary(layout.as_subtree(members | {"contentMetadata": [1]}), layout.data)
    of_tiles = as_binary(layout.as_subtree(members), layout.data)
    spec = implicit(1, contents=2)
    assert list(expanded(both, spec, content_uri_properties={"k": "u"}).contents) == ["content", "c1/0/0/0.glb"]
    assert list(expanded(of_tiles, spec, content_uri_properties={"k": "u"}).contents) == ["tile", "c1/0/0/0.glb"]


@settings(max_examples=200)
@given(st.data())
def test_rows_are_counted_as_the_oracle_counts(data: st.DataObject) -> None:
    """The row of a content is the number of set bits before its own."""
    tiles, contents = data.draw(st.integers(0, 31)), data.draw(st.integers(0, 31))
    of = data.draw(st.sampled_from(["tiles", "contents"]))
    over = tiles if of == "tiles" else contents
    texts = data.draw(st.lists(st.text(max_size=3), min_size=over.bit_count(), max_size=over.bit_count()))
    stored_file, _ = with_content_uris(texts, tiles=tiles, contents=contents, of=of)
    templates = ["0/0/0", "1/0/0", "1/1/0", "1/0/1", "1/1/1"]
    expected = [
        texts[(over & (1 << index) - 1).bit_count()] or f"c0/{templates[index]}.glb"
        for index in range(5)
        if (tiles & contents) >> index & 1
    ]
    assert list(expanded(stored_file, implicit(2), content_uri_properties={"k": "u"}).contents) == expected


def test_too_few_rows_are_damage() -> None:
    """A CONTENT_URI column with fewer rows than contents is damage at once."""
    data, _ = with_content_uris(["a", "b"], tiles=31, contents=7, of="contents")
    with pytest.raises(BlobDamaged, match=f"{NAME}: CONTENT_URI has fewer than the 3 required rows"):
        expanded(data, implicit(2), content_uri_properties={"k": "u"})


def test_a_column_of_another_type_is_damage() -> None:
    """A CONTENT_URI without offsets is damage."""
    data, _ = with_content_uris(["a", "b"], tiles=3, contents=3, of="contents")
    with pytest.raises(BlobDamaged, match="CONTENT_URI is not a column of strings"):
        expanded(data, implicit(2), content_uri_properties={"other": "u"})


def test_an_array_of_strings_is_no_content_uri() -> None:
    """A CONTENT_URI property with array offsets is damage."""
    layout = BufferLayout()
    column = string_column(layout, ["a"], None) | {"arrayOffsets": 0}
    members = EVERYTHING | {"propertyTables": [{"class": "k", "properties": {"u": column}}], "tileMetadata": 0}
    with pytest.raises(BlobDamaged, match="CONTENT_URI is not a column of strings"):
        expanded(as_binary(layout.as_subtree(members), layout.data), implicit(1), content_uri_properties={"k": "u"})


@pytest.mark.parametrize(
    ("before", "after", "reason"),
    [
        (b"\x00\x01\x02", b"\x00\x01\xff", "outside"),
        (b"\x00\x01\x02", b"\x02\x01\x02", "outside"),
        (b"ab", b"\xc3b", "UTF-8"),
    ],
)
def test_broken_strings_are_damage_in_their_turn(before: bytes, after: bytes, reason: str) -> None:
    """Invalid offsets and invalid UTF-8 raise where their content comes in the iteration."""
    data, _ = with_content_uris(["a", "b"], tiles=3, contents=3, of="contents", width="UINT8")
    head, _, tail = data.rpartition(before)
    found = expanded(head + after + tail, implicit(2), content_uri_properties={"k": "u"})
    with pytest.raises(BlobDamaged, match=f"{NAME}: .*CONTENT_URI . .*{reason}"):
        list(found.contents)


# --- templates and the implicit root tile -----------------------------------------------------------------------------


def test_all_variables_are_replaced() -> None:
    """Every occurrence of a variable is replaced, in any order; other braces stay."""
    cell = Cell(7, 12, 345, 6)
    assert fill_template("{z}/{x}/{y}-{level}_{x}", cell) == "6/12/345-7_12"
    assert fill_template("{X}{}{0}{{x}}%7Bx%7D{level", cell) == "{X}{}{0}{12}%7Bx%7D{level"


@given(
    st.text(alphabet="{}xyz0!:level/%", max_size=30)
    | st.lists(st.sampled_from(["{x}", "{y}", "{z}", "{level}", "{", "}"])).map("".join)
)
def test_filling_is_replacing(template: str) -> None:
    """For any template, the result equals a plain replacement of the four variables."""
    cell = Cell(1, 22, 333, 4444)
    expected = template.replace("{level}", "1").replace("{x}", "22").replace("{y}", "333").replace("{z}", "4444")
    assert fill_template(template, cell) == expected


def test_missing_variables() -> None:
    """A template without a variable of its scheme is reported; `{z}` is required in octrees only."""
    whole = "{level}{x}{y}{z}"
    assert find_missing_variables(ImplicitTiling(True, 1, 1, whole, (whole,))) == []
    assert find_missing_variables(ImplicitTiling(False, 1, 1, "{level}{x}{y}", ())) == []
    assert find_missing_variables(ImplicitTiling(True, 1, 1, "{level}{x}{y}", ("all.glb", whole))) == [
        "the template {level}{x}{y} lacks {z}: one file would stand for many tiles",
        "the template all.glb lacks {level}, {x}, {y}, {z}: one file would stand for many tiles",
    ]


IMPLICIT_MEMBERS: dict[str, Any] = {
    "subdivisionScheme": "QUADTREE",
    "subtreeLevels": 3,
    "availableLevels": 6,
    "subtrees": {"uri": "s/{level}"},
}
WRONG: list[Any] = [None, True, False, 0, -1, 1.5, 10**30, "", "x", [], {}, [[]], [{}], {"uri": 5}, [None]]


def test_the_implicit_root_tile_is_read() -> None:
    """Both schemes and both spellings of the levels are parsed."""
    assert parse_implicit_tiling(IMPLICIT_MEMBERS, ["a", "b"]) == ImplicitTiling(False, 3, 6, "s/{level}", ("a", "b"))
    draft = {key: IMPLICIT_MEMBERS[key] for key in IMPLICIT_MEMBERS if key != "availableLevels"} | {"maximumLevel": 2}
    assert parse_implicit_tiling(draft | {"subdivisionScheme": "OCTREE"}, []) == ImplicitTiling(
        True, 3, 3, "s/{level}", ()
    )
    assert parse_implicit_tiling(draft | {"availableLevels": 9}, []).available_levels == 9
    assert parse_implicit_tiling(IMPLICIT_MEMBERS | {"subtrees": {"url": "u"}}, []).subtree_template == "u"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"subdivisionScheme": "quadtree"}, "neither QUADTREE nor OCTREE"),
        ({"subtreeLevels": 0}, "subtreeLevels"),
        ({"subtreeLevels": True}, "subtreeLevels"),
        ({"subtreeLevels": 64}, "more than the 63 levels"),
        ({"availableLevels": 0}, "availableLevels"),
        ({"availableLevels": None, "maximumLevel": -1}, "maximumLevel"),
        ({"subtrees": {}}, "template"),
        ({"subtrees": {"uri": ""}}, "template"),
    ],
)
def test_an_unusable_root_tile_is_damage(change: dict[str, Any], reason: str) -> None:
    """Each defect of an implicit root tile has its own sentence."""
    with pytest.raises(BlobDamaged, match=reason):
        parse_implicit_tiling(IMPLICIT_MEMBERS | change, [])


def test_a_root_tile_of_any_json_raises_nothing_else() -> None:
    """Any JSON in place of any field is parsed or is damage."""
    for wrong in WRONG:
        for members in (wrong, *(IMPLICIT_MEMBERS | {key: wrong} for key in (*IMPLICIT_MEMBERS, "maximumLevel"))):
            with suppress(BlobDamaged):
                assert isinstance(parse_implicit_tiling(members, []), ImplicitTiling)


# --- damage ---------------------------------------------------------------------------------------------------------


def small() -> tuple[dict[str, Any], bytes]:
    """Build a subtree that uses every feature."""
    layout = BufferLayout()
    members = {
        "tileAvailability": {"bitstream": layout.add(b"\x1f"), "availableCount": 5},
        "contentAvailability": [{"bitstream": layout.add(b"\x03")}, {"constant": 1}],
        "childSubtreeAvailability": {"bufferView": layout.add(b"\x01\x80")},
        "propertyTables": [
            {"class": "k", "count": 5, "properties": {"u": string_column(layout, list("abcde"), "UINT16")}}
        ],
        "tileMetadata": 0,
        "contentMetadata": [0, 0],
        "extensions": {"3DTILES_multiple_contents": {}},
    }
    return layout.as_subtree(members), layout.data


def consume(data: bytes, buffers: dict[str, bytes] | None = None) -> None:
    """Expand a subtree to its end."""
    found = expanded(data, implicit(2, contents=2), buffers=buffers or {}, content_uri_properties={"k": "u"})
    list(found.contents)
    list(found.subtrees)


def test_the_small_subtree_is_whole() -> None:
    """The subtree that the tests below damage is sound."""
    consume(as_binary(*small()))


def test_a_subtree_cut_off_anywhere_is_damage() -> None:
    """A subtree cut at any byte, plain or gzipped, is damage, and the message begins with its name."""
    whole = as_binary(*small())
    for data in (
        whole,
        gzip.compress(whole, mtime=0),
        as_json(small()[0] | {"buffers": [{"uri": "b", "byteLength": 999}]}),
    ):
        for end in range(len(data)):
            with pytest.raises(BlobDamaged, match=f"^{NAME}: "):
                parse_subtree(data[:end], NAME)


def places(members: Any) -> Iterator[tuple[Any, Any]]:
    """List every place of a JSON document that holds a value."""
    for key in list(members) if isinstance(members, dict) else range(len(members)):
        yield members, key
        if isinstance(members[key], dict | list):
            yield from places(members[key])


def test_json_of_any_type_in_any_place_raises_nothing_else() -> None:
    """With any JSON in place of any field, or without it, the subtree is expanded or is damage."""
    members, binary = small()
    for holder, key in list(places(members)):
        kept = holder[key]
        for wrong in WRONG:
            holder[key] = wrong
            survive(as_binary(members, binary))
        if isinstance(holder, dict):
            del holder[key]
            survive(as_binary(members, binary))
        holder[key] = kept
    for wrong in WRONG:
        survive(as_binary(wrong, binary))
        survive(as_json(wrong))


def damage(data: bytes) -> str | None:
    """Expand a subtree to its end and return the error; None when it is sound."""
    try:
        consume(data)
    except BlobDamaged as error:
        return str(error)
    return None


def survive(data: bytes) -> None:
    assert (damage(data) or f"{NAME}: ").startswith(f"{NAME}: ")


@settings(max_examples=300)
@given(st.binary(max_size=60) | st.builds(bytes.__add__, st.just(b"subt\1\0\0\0"), st.binary(max_size=60)))
def test_random_bytes_raise_nothing_else(data: bytes) -> None:
    """Random bytes are damage."""
    with pytest.raises(BlobDamaged):
        parse_subtree(data, NAME)


@settings(max_examples=300)
@given(st.data())
def test_flipped_bytes_raise_nothing_else(data: st.DataObject) -> None:
    """A sound subtree with some changed bytes is expanded or is damage."""
    octets = bytearray(as_binary(*small()))
    for _ in range(data.draw(st.integers(1, 3))):
        octets[data.draw(st.integers(0, len(octets) - 1))] = data.draw(st.integers(0, 255))
    survive(bytes(octets))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", r"not a readable subtree \(it is empty\)"),
        (b"subx", "not a readable subtree"),
        (b"[]", "the subtree is missing, or has the wrong type"),
        (b"[" * 100_000, r"not a readable subtree \(it is nested too deep\)"),
        (b"{}", "tileAvailability"),
        (b"\xff\xfe{}", "not a readable subtree"),
        (as_binary(EVERYTHING).replace(b"subt\1", b"subt\2"), "version 2 is unknown"),
        (as_binary(EVERYTHING)[:10], "header is cut off"),
        (as_binary(EVERYTHING)[:-1], "is cut off: its header says"),
        (struct.pack("<4sIQQ", b"subt", 1, 2**64 - 1, 2**64 - 1) + b"{}", "is cut off"),
        (as_json(EVERYTHING | {"tileAvailability": {"constant": 2}}), "neither 0 nor 1"),
        (as_json(EVERYTHING | {"tileAvailability": {"constant": True}}), "constant of tileAvailability"),
        (as_json(EVERYTHING | {"tileAvailability": {"bitstream": 0}}), "tileAvailability has number 0"),
        (as_json(EVERYTHING | {"tileAvailability": {"bitstream": -1}}), "tileAvailability"),
        (as_json(EVERYTHING | {"buffers": [{"byteLength": 1, "uri": "data:,x"}]}), "names no file"),
        (as_json(EVERYTHING | {"buffers": [{"byteLength": 1, "uri": ""}]}), "names no file"),
        (as_json(EVERYTHING | {"bufferViews": [{"buffer": 0, "byteLength": 1}]}), "buffer of a buffer view"),
        (gzip.compress(b"{", mtime=0), "not a readable subtree"),
        (gzip.compress(b"{}", mtime=0)[:-5] + b"12345", "gzip"),
    ],
)
def test_damage_is_explained(data: bytes, reason: str) -> None:
    """Each kind of damage has its own sentence."""
    with pytest.raises(BlobDamaged, match=f"^{NAME}: .*{reason}"):
        parse_subtree(data, NAME)


@pytest.mark.parametrize("view", [(0, 9), (8, 1), (9, 0), (2**62, 2**62)])
def test_views_stay_in_their_buffers(view: tuple[int, int]) -> None:
    """A view beyond the stated size of its buffer, or beyond the binary chunk, is damage."""
    views = [{"buffer": 0, "byteOffset": view[0], "byteLength": view[1]}]
    for stated, binary in ((8, bytes(16)), (2**62, bytes(8))):
        members = EVERYTHING | {"buffers": [{"byteLength": stated}], "bufferViews": views}
        with pytest.raises(BlobDamaged, match="a buffer view ends at byte"):
            parse_subtree(as_binary(members, binary), NAME)


def test_numbers_of_any_length_are_damage() -> None:
    """A huge number is damage in any place, and its message can be printed."""
    vast = 10**4299
    members = with_buffers()
    members["buffers"][0]["byteLength"] = members["bufferViews"][0]["byteLength"] = vast
    with pytest.raises(BlobDamaged, match="byteLength of a buffer is missing, or not a whole number"):
        parse_subtree(as_json(members), NAME)
    with pytest.raises(BlobDamaged, match="subtreeLevels"):
        parse_implicit_tiling(IMPLICIT_MEMBERS | {"subtreeLevels": vast}, [])


# --- bounds ---------------------------------------------------------------------------------------------------------


def refused(spec: ImplicitTiling, at: Cell = ROOT, contents: int = 1) -> str:
    subtree = parse_subtree(as_json(EVERYTHING | {"contentAvailability": [ALL] * contents}), NAME)
    started = time.perf_counter()
    with pytest.raises(BlobDamaged) as caught:
        expand_subtree(subtree, spec, at, {})
    assert time.perf_counter() - started < 0.1
    return str(caught.value)


def test_a_subtree_that_claims_too_much_is_refused() -> None:
    """Too many tiles, up to 2^40, are refused at once, with both numbers; at the limit they are not."""
    assert refused(implicit(21)) == f"{NAME}: it claims 1466015503701 tiles, more than {MAX_TILES_PER_SUBTREE}"
    assert f"{MAX_TILES_PER_SUBTREE}" in refused(implicit(63))
    assert refused(implicit(9, octree=True)).endswith(f"it claims 19173961 tiles, more than {MAX_TILES_PER_SUBTREE}")
    for spec in (implicit(12), implicit(8, octree=True)):
        assert 4**12 == 8**8 == MAX_TILES_PER_SUBTREE
        assert expanded(as_json(EVERYTHING), spec).problems == ()


def test_child_subtrees_are_bounded_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The limit holds also for child subtrees, where there are more of them than tiles."""
    monkeypatch.setattr(subtrees, "MAX_TILES_PER_SUBTREE", 21)
    assert refused(implicit(3)) == f"{NAME}: it claims 64 child subtrees, more than 21"


def test_contents_are_bounded_too() -> None:
    """Too many contents for too many tiles are refused."""
    assert "contents, more than" in refused(implicit(12, contents=99), contents=99)


def test_cells_that_are_too_deep_are_refused() -> None:
    """Cells below level 62 are refused; level 62 works."""
    assert "its tiles reach level 63, below the deepest level, 62" in refused(implicit(3, available=99), Cell(61, 0, 0))
    far = 2**60 - 1
    found = expanded(as_json(EVERYTHING), implicit(3, available=99), Cell(60, far, far))
    *_, last = found.contents
    assert last == f"c0/62/{2**62 - 1}/{2**62 - 1}.glb"
    assert list(found.subtrees) == []


def test_a_full_subtree_is_lazy() -> None:
    """The first contents of a full subtree come at once, and constants take no memory."""
    subtree = parse_subtree(as_json(EVERYTHING), NAME)
    expand_subtree(subtree, implicit(2), ROOT, {})
    started = time.perf_counter()
    tracemalloc.start()
    found = expand_subtree(subtree, implicit(12), ROOT, {})
    assert list(islice(found.contents, 2)) == ["c0/0/0/0.glb", "c0/1/0/0.glb"]
    assert next(found.subtrees) == (Cell(12, 0, 0), "s/12/0/0.subtree")
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 16
    assert time.perf_counter() - started < 0.1


def test_a_sparse_bitstream_is_quick() -> None:
    """The one content of five million tiles is found without a step for each tile."""
    layout = BufferLayout()
    bits = {"bitstream": layout.add(bytes(600_000) + b"\x80" + bytes(4**12 // 8 - 600_001))}
    members = {"tileAvailability": ALL, "contentAvailability": [bits], "childSubtreeAvailability": bits}
    subtree = parse_subtree(as_binary(layout.as_subtree(members), layout.data), NAME)
    started = time.perf_counter()
    found = expand_subtree(subtree, implicit(12), ROOT, {})
    assert (len(list(found.contents)), len(list(found.subtrees))) == (1, 1)
    assert time.perf_counter() - started < 0.5


def test_unpacking_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """A gzip file beyond the unpacked limit is damage; at the limit it is not, in one member or several."""
    whole = as_json(EVERYTHING)
    monkeypatch.setattr(implicit_files, "MAX_UNPACKED_BYTES", len(whole))
    parse_subtree(gzip.compress(whole[:9], mtime=0) + gzip.compress(whole[9:], mtime=0), NAME)
    with pytest.raises(BlobDamaged, match="unpacks to more than"):
        parse_subtree(gzip.compress(whole + b" ", mtime=0), NAME)


def test_many_contents_of_one_large_table_are_quick() -> None:
    """Many contents may use one large column: it is never copied, and read only on demand."""
    layout = BufferLayout()
    table = {"class": "k", "count": 1, "properties": {"u": string_column(layout, ["x" * 10_000_000], None)}}
    members = EVERYTHING | {
        "contentAvailability": [ALL] * 5000,
        "propertyTables": [table],
        "contentMetadata": [0] * 5000,
    }
    subtree = parse_subtree(as_binary(layout.as_subtree(members), layout.data), NAME)
    started = time.perf_counter()
    found = expand_subtree(subtree, implicit(1, contents=5000), ROOT, {}, content_uri_properties={"k": "u"})
    assert next(found.contents) == "x" * 10_000_000
    assert time.perf_counter() - started < 1


# --- real tilesets --------------------------------------------------------------------------------------------------


def walk_sample(folder: Path, entry: str) -> tuple[set[str], set[str], list[str]]:
    """Walk the subtree files of a sample from its root tile: buffers, contents and problems."""
    root = json.loads((folder / entry).read_text())["root"]
    members = root.get("implicitTiling") or root["extensions"]["3DTILES_implicit_tiling"]
    spec = parse_implicit_tiling(members, [root["content"]["uri"]])
    assert find_missing_variables(spec) == []
    files, contents, problems = set[str](), set[str](), list[str]()
    waiting = [(ROOT, fill_template(spec.subtree_template, ROOT))]
    while waiting:
        at, uri = waiting.pop()
        subtree = parse_subtree((folder / uri).read_bytes(), uri)
        beside = {name: os.path.normpath((folder / uri).parent / name) for name in subtree.buffer_uris}
        found = expand_subtree(
            subtree, spec, at, {name: Path(beside[name]).read_bytes() for name in subtree.needed_uris}
        )
        files |= {uri, *(Path(path).relative_to(folder).as_posix() for path in beside.values())}
        contents |= set(found.contents)
        waiting += found.subtrees
        problems += found.problems
    return files, contents, problems


@pytest.mark.parametrize(
    ("sample", "entry", "total", "missing"),
    [
        ("SparseImplicitOctree", "tileset.json", 45, set()),
        ("SparseImplicitQuadtree", "tileset.json", 42, set()),
        ("FullQuadtree", "tileset.json", 23, set()),
        ("ImplicitTileMetadata", "tileset_1.1.json", 7, {"content/1/1/0.b3dm"}),
    ],
)
def test_real_tilesets(sample: str, entry: str, total: int, missing: set[str]) -> None:
    """The expansion of a real tileset is exactly the files of its folder, without problems."""
    folder = samples.sample_folder(sample)
    files, contents, problems = walk_sample(folder, entry)
    here = {path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file()}
    assert {entry, *files, *contents} - missing == here
    assert missing <= contents
    assert len(here) == total
    assert problems == []
