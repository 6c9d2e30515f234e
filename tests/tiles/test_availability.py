"""Subtree expansion, compared with an oracle that looks up one bit at a time."""

from __future__ import annotations

import gzip
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import samples
from tests.support.examples import examples
from tests.support.subtrees import (
    ALL,
    EVERYTHING,
    NONE,
    ROOT_CELL,
    SUBTREE_NAME,
    WIDTHS,
    BufferLayout,
    as_json,
    expand,
    make_binary_subtree,
    make_tiling,
    members_with_buffers,
    pack_bits,
    string_column,
)
from tilesync.errors import BlobDamaged
from tilesync.tiles.availability import expand_subtree
from tilesync.tiles.implicit_tiling import (
    Cell,
    ImplicitTiling,
    fill_template,
    find_missing_variables,
    parse_implicit_tiling,
    parse_subtree,
)

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
    spec = make_tiling(levels, octree=octree, contents=draw(st.integers(0, 3)), available=draw(st.integers(1, 12)))
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
        octets = bytearray(pack_bits(bits))
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
        data = make_binary_subtree(whole, b"" if external else layout.data)
    data = gzip.compress(data, mtime=0) if draw(st.booleans()) else data
    packed_buffer = gzip.compress(layout.data, mtime=0) if draw(st.booleans()) else layout.data
    return data, {"b.bin": packed_buffer} if external else {}


@examples(400)
@given(subtrees_with_oracle())
def test_expansion_matches_the_oracle(case: tuple[AvailabilityOracle, bytes, dict[str, bytes]]) -> None:
    """Contents, child subtrees and their cells match a lookup of every single bit, each once."""
    oracle, data, buffers = case
    subtree = parse_subtree(data, SUBTREE_NAME)
    result = expand_subtree(subtree, oracle.spec, oracle.at, {uri: buffers[uri] for uri in subtree.needed_uris})
    contents, children = list(result.contents), list(result.subtrees)
    assert (set(contents), len(contents)) == (oracle.contents(), len(set(contents)))
    assert (set(children), len(children)) == (oracle.subtrees(), len(set(children)))


@examples(400)
@given(subtrees_with_oracle())
def test_problems_are_counted(case: tuple[AvailabilityOracle, bytes, dict[str, bytes]]) -> None:
    """The problems about tiles without parent and contents without tile have the count of the oracle."""
    oracle, data, buffers = case
    problems = " ".join(expand_subtree(parse_subtree(data, SUBTREE_NAME), oracle.spec, oracle.at, buffers).problems)
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


@pytest.mark.scale
def test_large_subtrees_match_the_oracle_too() -> None:
    """Cells are right also where Morton indices need more bits than the table of offsets has."""
    for octree, levels in ((False, 8), (True, 5)):
        branch = 8 if octree else 4
        spec = make_tiling(levels, octree=octree)
        size = sum(branch**level for level in range(levels))
        bits = [index % 1021 == 7 or index == size - 1 for index in range(size)]
        children = [index % 4093 == 5 or index == branch**levels - 1 for index in range(branch**levels)]
        layout = BufferLayout()
        members = {
            "tileAvailability": ALL,
            "contentAvailability": [{"bitstream": layout.add(pack_bits(bits))}],
            "childSubtreeAvailability": {"bitstream": layout.add(pack_bits(children))},
        }
        at = Cell(2, 3, 1, 2 if octree else 0)
        result = expand(make_binary_subtree(layout.as_subtree(members), layout.data), spec, at)
        oracle = AvailabilityOracle(spec, at, [True] * size, [bits], children)
        assert sorted(result.contents) == sorted(oracle.contents())
        assert set(result.subtrees) == oracle.subtrees()


# --- what is announced ----------------------------------------------------------------------------------------------


def test_the_order_is_that_of_the_bits() -> None:
    """Contents come level by level, in Morton order, one content after the other; x is the lowest bit."""
    result = expand(
        as_json(EVERYTHING | {"contentAvailability": [ALL, ALL]}), make_tiling(2, contents=2), Cell(1, 1, 0)
    )
    places = ["1/1/0", "2/2/0", "2/3/0", "2/2/1", "2/3/1"]
    assert list(result.contents) == [f"c{number}/{place}.glb" for number in (0, 1) for place in places]
    assert [cell for cell, _ in result.subtrees][:3] == [Cell(3, 4, 0), Cell(3, 5, 0), Cell(3, 4, 1)]


def test_the_bit_order_of_an_octree() -> None:
    """In an octree z is the highest of three bits."""
    result = expand(as_json(EVERYTHING), make_tiling(2, octree=True))
    assert list(result.contents)[1:6] == [
        f"c0/1/{place}.glb" for place in ("0/0/0", "1/0/0", "0/1/0", "1/1/0", "0/0/1")
    ]


def test_contents_without_availability_are_none() -> None:
    """A template without availability has no content, as has a subtree without any content availability."""
    members = {"tileAvailability": ALL, "childSubtreeAvailability": NONE}
    assert list(expand(as_json(members), make_tiling(2)).contents) == []
    assert list(expand(as_json(members | {"contentAvailability": [ALL]}), make_tiling(1, contents=3)).contents) == [
        "c0/0/0/0.glb"
    ]


def test_availability_without_template_is_a_problem() -> None:
    """Available contents without a template are a problem and are not followed."""
    result = expand(as_json(EVERYTHING | {"contentAvailability": [ALL, ALL, NONE]}), make_tiling(1))
    assert list(result.contents) == ["c0/0/0/0.glb"]
    assert result.problems == ("content 1 is available, but has no template in the tileset",)


def test_a_wrong_count_is_a_problem() -> None:
    """An availableCount that differs from the number of set bits is a problem, for constants too."""
    wrong = {"constant": 1, "availableCount": 3}
    members = {"tileAvailability": wrong, "contentAvailability": [ALL, wrong], "childSubtreeAvailability": wrong}
    assert expand(as_json(members), make_tiling(1, contents=2)).problems == (
        "availableCount of tileAvailability is 3, 1 are available",
        "availableCount of contentAvailability 1 is 3, 1 are available",
        "availableCount of childSubtreeAvailability is 3, 4 are available",
    )


@pytest.mark.parametrize("claimed", [-1, 1.5, 1e400])
def test_an_impossible_count_is_a_problem(claimed: float) -> None:
    """An impossible availableCount is a problem, but the subtree is still read."""
    members = EVERYTHING | {"tileAvailability": {"constant": 1, "availableCount": claimed}}
    assert expand(as_json(members), make_tiling(1)).problems == (
        f"availableCount of tileAvailability is {claimed}, 1 are available",
    )


def test_child_subtrees_below_the_available_levels() -> None:
    """Child subtrees below the available levels are a problem but are followed, as in viewers."""
    result = expand(as_json(EVERYTHING), make_tiling(2, available=4), Cell(2, 0, 0))
    assert len(list(result.subtrees)) == 16
    assert result.problems == ("16 child subtrees lie below the 4 available levels",)
    result = expand(as_json(EVERYTHING), make_tiling(2, available=5), Cell(2, 0, 0))
    assert (len(list(result.subtrees)), result.problems) == (16, ())


def test_child_subtrees_need_a_tile_above() -> None:
    """A child subtree below an unavailable tile is a problem and is not followed, as in viewers."""
    layout = BufferLayout()
    members = {"tileAvailability": {"bitstream": layout.add(b"\x05")}, "childSubtreeAvailability": ALL}
    result = expand(make_binary_subtree(layout.as_subtree(members), layout.data), make_tiling(2))
    assert {cell for cell, _ in result.subtrees} == {Cell(2, x, y) for x in (2, 3) for y in (0, 1)}
    assert result.problems == ("12 child subtrees lie below tiles that are not available, and are not followed",)


def test_tiles_below_the_available_levels_are_a_problem() -> None:
    """Tiles below the available levels are a problem; their contents are followed, as in viewers."""
    result = expand(
        as_json(EVERYTHING | {"childSubtreeAvailability": NONE}), make_tiling(2, available=2), Cell(1, 0, 0)
    )
    assert len(list(result.contents)) == 5
    assert result.problems == ("4 tiles lie below the 2 available levels",)


def test_bytes_after_a_subtree_are_a_problem() -> None:
    """Trailing bytes are only a problem, because viewers accept them."""
    result = expand(make_binary_subtree(EVERYTHING) + b"\0\0", make_tiling(1))
    assert result.problems == ("2 bytes follow the subtree in its file",)


# --- buffers --------------------------------------------------------------------------------------------------------


def test_buffers_are_named() -> None:
    """All external buffers are listed in order, once; availability and columns of strings are needed."""
    subtree = parse_subtree(as_json(members_with_buffers()), SUBTREE_NAME)
    assert subtree.buffer_uris == ("tiles.bin", "../u.bin", "strings.bin", "other.bin")
    assert subtree.needed_uris == ("tiles.bin", "strings.bin")


def test_a_table_that_describes_nothing_is_not_needed() -> None:
    """A property table without reference from tiles or contents needs no buffer."""
    members = members_with_buffers()
    del members["tileMetadata"]
    assert parse_subtree(as_json(members), SUBTREE_NAME).needed_uris == ("tiles.bin",)


def test_only_needed_buffers_are_read() -> None:
    """Strings are not read when the schema has no CONTENT_URI; a missing needed buffer is damage."""
    result = expand(as_json(members_with_buffers()), make_tiling(2), buffers={"tiles.bin": b"\x1f" + bytes(7)})
    assert len(list(result.contents)) == 5
    with pytest.raises(BlobDamaged, match=r"its buffer tiles.bin is missing"):
        expand(as_json(members_with_buffers()), make_tiling(2))


def test_a_bitstream_that_looks_like_gzip() -> None:
    """Bits may begin like gzip by chance: a buffer of the stated size is raw bits; of another size it is damage."""
    chance = b"\x1f\x8b" + bytes(6)
    assert (
        len(list(expand(as_json(members_with_buffers()), make_tiling(2), buffers={"tiles.bin": chance}).contents)) == 5
    )
    with pytest.raises(BlobDamaged, match="gzip"):
        expand(as_json(members_with_buffers()), make_tiling(2), buffers={"tiles.bin": chance + b"\0"})


def test_a_short_buffer_is_damage() -> None:
    """A buffer that ends before one of its views is damage."""
    with pytest.raises(BlobDamaged, match=f"{SUBTREE_NAME}: a buffer has 7 bytes, a buffer view ends at byte 8"):
        expand(as_json(members_with_buffers()), make_tiling(2), buffers={"tiles.bin": bytes(7)})


@pytest.mark.parametrize("key", ["tileAvailability", "contentAvailability", "childSubtreeAvailability"])
def test_a_short_bitstream_is_damage(key: str) -> None:
    """A bitstream with too few bits is damage, not a problem."""
    layout = BufferLayout()
    short = {"bitstream": layout.add(bytes(10))}
    members = EVERYTHING | {key: [short] if key == "contentAvailability" else short}
    with pytest.raises(BlobDamaged, match=f"{key}.* has 10 bytes, which is less than .* bits"):
        expand(make_binary_subtree(layout.as_subtree(members), layout.data), make_tiling(4))


def test_buffers_are_bounded_as_they_unpack(monkeypatch: pytest.MonkeyPatch) -> None:
    """Buffers that are each small enough may together exceed the unpacked limit."""
    layout = BufferLayout()
    views = {"tileAvailability": {"bitstream": layout.add(b"\1")}, "contentAvailability": [{"bitstream": 1}]}
    members = layout.as_subtree({**views, "childSubtreeAvailability": NONE}, "a.bin")
    members["buffers"].append({"uri": "b.bin", "byteLength": 600})
    members["bufferViews"].append({"buffer": 1, "byteOffset": 0, "byteLength": 1})
    buffers = dict.fromkeys(("a.bin", "b.bin"), gzip.compress(b"\1" * 600, mtime=0))
    monkeypatch.setattr("tilesync.tiles.availability.MAX_UNPACKED_BYTES", 1200)
    assert len(list(expand(as_json(members), make_tiling(1), buffers=buffers).contents)) == 1
    monkeypatch.setattr("tilesync.tiles.availability.MAX_UNPACKED_BYTES", 1199)
    with pytest.raises(BlobDamaged, match="its buffers unpack to more than 1,199 bytes"):
        expand(as_json(members), make_tiling(1), buffers=buffers)


def test_the_json_of_a_subtree_is_bounded() -> None:
    """JSON beyond the limit is refused, because its objects take many times its size."""
    data = as_json(EVERYTHING)
    assert parse_subtree(data + b" " * ((1 << 22) - len(data)), SUBTREE_NAME).name == SUBTREE_NAME
    with pytest.raises(BlobDamaged, match=f"{SUBTREE_NAME}: its JSON has 4,194,305 bytes"):
        parse_subtree(data + b" " * ((1 << 22) + 1 - len(data)), SUBTREE_NAME)


def test_null_is_absent() -> None:
    """Null counts as absent and `1.0` as 1, as in viewers."""
    keys = ("buffers", "bufferViews", "propertyTables", "contentMetadata", "extensions", "tileMetadata")
    result = expand(as_json(EVERYTHING | dict.fromkeys(keys)), make_tiling(1))
    assert (len(list(result.contents)), result.problems) == (1, ())
    layout = BufferLayout()
    number = layout.add(b"\1" + bytes(7))
    members = layout.as_subtree(EVERYTHING | {"tileAvailability": {"bitstream": float(number), "constant": None}})
    members["bufferViews"][0] |= {"byteOffset": None, "byteLength": 8.0}
    assert len(list(expand(make_binary_subtree(members, layout.data), make_tiling(1)).contents)) == 1


def test_invalid_utf_8_in_a_name() -> None:
    """Invalid UTF-8 in a name is replaced, as in viewers."""
    assert (
        parse_subtree(as_json(EVERYTHING | {"extras": "@"}).replace(b"@", b"\xe9"), SUBTREE_NAME).name == SUBTREE_NAME
    )


# --- CONTENT_URI ----------------------------------------------------------------------------------------------------


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
    return make_binary_subtree(layout.as_subtree(members), layout.data), layout


@pytest.mark.parametrize("width", [*WIDTHS, None])
def test_content_metadata_names_contents(width: str | None) -> None:
    """Each row is for one available content in bit order, with or without tile; an empty string keeps the template."""
    data, _ = with_content_uris(
        ["a.glb", "no", "", "ü/ß.glb"], tiles=0b11011, contents=0b11101, of="contents", width=width
    )
    result = expand(data, make_tiling(2), content_uri_properties={"k": "u"})
    assert list(result.contents) == ["a.glb", "c0/1/0/1.glb", "ü/ß.glb"]


def test_tile_metadata_names_contents() -> None:
    """Each row belongs to one available tile in bit order, with or without content."""
    data, _ = with_content_uris(["a", "no", "b", ""], tiles=0b11011, contents=0b11101, of="tiles")
    result = expand(data, make_tiling(2), content_uri_properties={"k": "u"})
    assert list(result.contents) == ["a", "b", "c0/1/1/1.glb"]


def test_other_metadata_names_no_contents() -> None:
    """The template is used without a CONTENT_URI in the class of the table, or where the table lacks the property."""
    data, _ = with_content_uris(["a", "b"], tiles=0b11, contents=0b11, of="contents")
    for uris in ({}, {"other": "v"}, {"k": "v"}, {"": "u"}):
        assert list(expand(data, make_tiling(2), content_uri_properties=uris).contents) == [
            "c0/0/0/0.glb",
            "c0/1/0/0.glb",
        ]


def test_content_metadata_has_precedence_over_tile_metadata() -> None:
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
    both = make_binary_subtree(layout.as_subtree(members | {"contentMetadata": [1]}), layout.data)
    of_tiles = make_binary_subtree(layout.as_subtree(members), layout.data)
    spec = make_tiling(1, contents=2)
    assert list(expand(both, spec, content_uri_properties={"k": "u"}).contents) == ["content", "c1/0/0/0.glb"]
    assert list(expand(of_tiles, spec, content_uri_properties={"k": "u"}).contents) == ["tile", "c1/0/0/0.glb"]


@examples(200)
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
    assert list(expand(stored_file, make_tiling(2), content_uri_properties={"k": "u"}).contents) == expected


def test_too_few_rows_are_damage() -> None:
    """A CONTENT_URI column with fewer rows than contents is damage at once."""
    data, _ = with_content_uris(["a", "b"], tiles=31, contents=7, of="contents")
    with pytest.raises(BlobDamaged, match=f"{SUBTREE_NAME}: CONTENT_URI has fewer than the 3 required rows"):
        expand(data, make_tiling(2), content_uri_properties={"k": "u"})


def test_a_column_of_another_type_is_damage() -> None:
    """A CONTENT_URI without offsets is damage."""
    data, _ = with_content_uris(["a", "b"], tiles=3, contents=3, of="contents")
    with pytest.raises(BlobDamaged, match="CONTENT_URI is not a column of strings"):
        expand(data, make_tiling(2), content_uri_properties={"other": "u"})


def test_an_array_of_strings_is_no_content_uri() -> None:
    """A CONTENT_URI property with array offsets is damage."""
    layout = BufferLayout()
    column = string_column(layout, ["a"], None) | {"arrayOffsets": 0}
    members = EVERYTHING | {"propertyTables": [{"class": "k", "properties": {"u": column}}], "tileMetadata": 0}
    with pytest.raises(BlobDamaged, match="CONTENT_URI is not a column of strings"):
        expand(
            make_binary_subtree(layout.as_subtree(members), layout.data),
            make_tiling(1),
            content_uri_properties={"k": "u"},
        )


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
    result = expand(head + after + tail, make_tiling(2), content_uri_properties={"k": "u"})
    with pytest.raises(BlobDamaged, match=f"{SUBTREE_NAME}: .*CONTENT_URI . .*{reason}"):
        list(result.contents)


# --- templates and the implicit root tile -----------------------------------------------------------------------------


# --- damage ---------------------------------------------------------------------------------------------------------


# --- bounds ---------------------------------------------------------------------------------------------------------


# --- real tilesets --------------------------------------------------------------------------------------------------


def walk_sample(folder: Path, entry: str) -> tuple[set[str], set[str], list[str]]:
    """Walk the subtree files of a sample from its root tile: buffers, contents and problems."""
    root = json.loads((folder / entry).read_text())["root"]
    members = root.get("implicitTiling") or root["extensions"]["3DTILES_implicit_tiling"]
    spec = parse_implicit_tiling(members, [root["content"]["uri"]])
    assert find_missing_variables(spec) == []
    files, contents, problems = set[str](), set[str](), list[str]()
    waiting = [(ROOT_CELL, fill_template(spec.subtree_template, ROOT_CELL))]
    while waiting:
        at, uri = waiting.pop()
        subtree = parse_subtree((folder / uri).read_bytes(), uri)
        beside = {name: os.path.normpath((folder / uri).parent / name) for name in subtree.buffer_uris}
        result = expand_subtree(
            subtree, spec, at, {name: Path(beside[name]).read_bytes() for name in subtree.needed_uris}
        )
        files |= {uri, *(Path(path).relative_to(folder).as_posix() for path in beside.values())}
        contents |= set(result.contents)
        waiting += result.subtrees
        problems += result.problems
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
