"""Subtree expansion: the contents and child subtrees that a subtree of an implicit tileset announces.

Source: 3D Tiles 1.1, "Implicit Tiling" and "Availability Indexing". A subtree is untrusted input: the counts that it
claims are compared with limits first, a constant availability needs no memory per tile, and nothing recurses.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from itertools import chain, pairwise, starmap
from types import MappingProxyType
from typing import NamedTuple

from tilesync.errors import BlobDamaged
from tilesync.runtime.gzip import GZIP_MAGIC
from tilesync.tiles.implicit_tiling import (
    MAX_LEVEL,
    MAX_UNPACKED_BYTES,
    Availability,
    BufferView,
    Cell,
    ImplicitTiling,
    StringColumn,
    Subtree,
    compile_template,
    decompress,
)
from tilesync.tiles.uris import redact_uri

MAX_TILES_PER_SUBTREE = 1 << 24
"""Maximum tiles of one subtree, and maximum child subtrees: 12 levels of a quadtree, 8 of an octree."""

MAX_CONTENTS_PER_SUBTREE = 16 * MAX_TILES_PER_SUBTREE
"""Maximum contents of one subtree: the sum over its tiles."""

_MORTON_BLOCK_BITS = 12
_NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})
_SET_BITS_BY_BYTE = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))
_NONZERO_BYTE = re.compile(rb"[^\0]")


@dataclass(frozen=True, slots=True)
class SubtreeContents:
    """Contents and child subtrees of one subtree. Both iterators are lazy, in bit order, and can be used once.

    `contents` are URIs relative to the tileset; the iterator raises BlobDamaged at a CONTENT_URI that cannot be read.
    `count` is the number of contents and child subtrees together; it does not depend on the cell of the subtree.
    `problems` are sentences about violations of the specification that viewers tolerate.
    """

    contents: Iterator[str]
    subtrees: Iterator[tuple[Cell, str]]
    problems: tuple[str, ...]
    count: int


def expand_subtree(
    subtree: Subtree,
    tiling: ImplicitTiling,
    root_cell: Cell,
    buffers: Mapping[str, bytes],
    *,
    content_uri_properties: Mapping[str, str] = _NO_PROPERTIES,
) -> SubtreeContents:
    """Expand the subtree whose root tile is `root_cell` into its contents and child subtrees.

    `buffers` holds the needed external buffers by URI, plain or gzip-compressed. `content_uri_properties` maps a class
    of the schema to its property with the semantic CONTENT_URI; a string of that property, unless empty, replaces the
    URI from the template. As in viewers, a content counts only if its tile is available, and a child subtree only if
    the tile above it is.

    Raises BlobDamaged if the subtree claims more than a limit allows, or if a bitstream or table is too short.
    """
    try:
        return _expand(subtree, tiling, root_cell, buffers, content_uri_properties)
    except BlobDamaged as error:
        raise BlobDamaged(f"{subtree.name}: {error}") from error


class _Bitset(NamedTuple):
    """A row of `size` bits. `ones` is a number whose lowest bit is the first; -1 means that all bits are set."""

    size: int
    ones: int

    def count_ones(self) -> int:
        return self.size if self.ones < 0 else self.ones.bit_count()

    def intersect(self, other: _Bitset) -> _Bitset:
        return _Bitset(self.size, self.ones & other.ones)

    def count_outside(self, other: _Bitset) -> int:
        """Count the bits that are set here and not in `other`."""
        return self.count_ones() - self.intersect(other).count_ones()

    def slice_level(self, level: int, branch: int) -> _Bitset:
        """Return the bits of one level of a subtree ("Accessing Availability Bits")."""
        first, size = _count_tiles_above(level, branch), branch**level
        return _Bitset(size, -1 if self.ones < 0 else self.ones >> first & (1 << size) - 1)

    def spread_to_children(self, branch: int) -> _Bitset:
        """Repeat each bit `branch` times: each child gets the bit of its parent.

        Each bit becomes one or two hexadecimal digits, so the time is linear.
        """
        digits = f"{max(self.ones, 0):b}".replace("1", "f")
        digits = digits if branch == 4 else digits.replace("0", "00").replace("f", "ff")
        return _Bitset(self.size * branch, -1 if self.ones < 0 else int(digits, 16))

    def positions(self) -> Iterator[int]:
        """Iterate over the positions of set bits, ascending. Zero bytes are skipped quickly."""
        if self.ones < 0:
            return iter(range(self.size))
        return _iterate_set_bits(self.ones.to_bytes((self.size + 7) // 8, "little"))


def _iterate_set_bits(octets: bytes) -> Iterator[int]:
    for found in _NONZERO_BYTE.finditer(octets):
        at = found.start()
        for bit in _SET_BITS_BY_BYTE[octets[at]]:
            yield at * 8 + bit


def _count_tiles_above(level: int, branch: int) -> int:
    """Count the tiles of a subtree above a level: the index of the first tile of the level ("levelOffset")."""
    return int((branch**level - 1) // (branch - 1))


@cache
def _morton_offsets(dimensions: int) -> list[tuple[int, int, int]]:
    """Build x, y and z of all 12-bit Morton indices: x in the lowest bit, then y, then z ("Morton Index")."""
    offsets = [(0, 0, 0)]
    for bit in range(_MORTON_BLOCK_BITS):
        step = [(bit % dimensions == axis) << bit // dimensions for axis in range(3)]
        offsets += [(x | step[0], y | step[1], z | step[2]) for x, y, z in offsets]
    return offsets


def _iterate_coordinates(bits: _Bitset, at: Cell, down: int, dimensions: int) -> Iterator[tuple[int, int, int, int]]:
    """Iterate over level, x, y and z of the set bits of one level, `down` levels below `at`, in Morton order.

    Works in blocks as large as the table of `_morton_offsets`: the offset of a block is computed once.
    """
    offsets, block_end = _morton_offsets(dimensions), 0
    level, x, y, z = at.level + down, at.x << down, at.y << down, at.z << down
    for index in bits.positions():
        if index >= block_end:
            block = index >> _MORTON_BLOCK_BITS
            block_end = (block + 1) << _MORTON_BLOCK_BITS
            block_x, block_y, block_z = (offset << _MORTON_BLOCK_BITS // dimensions for offset in offsets[block])
        dx, dy, dz = offsets[index & (1 << _MORTON_BLOCK_BITS) - 1]
        yield level, x | block_x | dx, y | block_y | dy, z | block_z | dz


class _BufferReader:
    """Reader of the buffer views of a subtree."""

    def __init__(self, subtree: Subtree, buffers: Mapping[str, bytes]) -> None:
        self._binary = subtree.binary
        self._external_buffers = buffers
        self._decompressed: dict[tuple[str, int], bytes] = {}

    def read_view(self, view: BufferView) -> memoryview:
        """Return the bytes of a view without a copy: a small file may view a large buffer many times."""
        data = self._binary if view.uri is None else self._load_external(view.uri, view.buffer_size)
        if view.end > len(data):
            raise BlobDamaged(f"a buffer has {len(data)} bytes, a buffer view ends at byte {view.end}")
        return memoryview(data)[view.begin : view.end]

    def _load_external(self, uri: str, size: int) -> bytes:
        """Load an external buffer and decompress it once.

        A plain bitstream may begin like gzip by chance. So data that is no gzip but has the stated size is used as is.
        """
        if (uri, size) not in self._decompressed:
            if uri not in self._external_buffers:
                raise BlobDamaged(f"its buffer {redact_uri(uri)} is missing")
            data = self._external_buffers[uri]
            try:
                self._decompressed[uri, size] = decompress(data) if data.startswith(GZIP_MAGIC) else data
            except BlobDamaged:
                if len(data) != size:
                    raise
                self._decompressed[uri, size] = data
            if sum(map(len, self._decompressed.values())) > MAX_UNPACKED_BYTES:
                raise BlobDamaged(f"its buffers unpack to more than {MAX_UNPACKED_BYTES:,} bytes")
        return self._decompressed[uri, size]

    def read_bits(self, availability: Availability, size: int) -> _Bitset:
        """Read the bits of an availability ("Availability Bitstream Lengths") without the padding of the last byte."""
        if availability.view is None:
            return _Bitset(size, -availability.constant)
        octets = self.read_view(availability.view)[: (size + 7) // 8]
        if len(octets) * 8 < size:
            raise BlobDamaged(f"{availability.label} has {len(octets)} bytes, which is less than {size} bits")
        return _Bitset(size, int.from_bytes(octets, "little") & (1 << size) - 1)


class _ContentUriColumn(NamedTuple):
    """A CONTENT_URI column. It has one row for each set bit of `row_bits`."""

    name: str
    row_bits: _Bitset
    values: memoryview
    offsets: memoryview
    offset_struct: struct.Struct

    def read_strings(self, chosen: _Bitset) -> Iterator[str]:
        """Read the strings of the chosen bits, in order."""
        rows = enumerate(self.row_bits.positions())
        return (self._read_string(next(row for row, bit in rows if bit == index)) for index in chosen.positions())

    def _read_string(self, row: int) -> str:
        """Read the bytes between the offset of a row and the next offset (3D Metadata, "Strings")."""
        begin, end = self.offset_struct.unpack_from(self.offsets, row * self.offset_struct.size // 2)
        if not begin <= end <= len(self.values):
            raise BlobDamaged(f"{self.name}: the offsets of CONTENT_URI {row} lie outside its values")
        try:
            return str(self.values[begin:end], "utf-8")
        except UnicodeDecodeError as error:
            raise BlobDamaged(f"{self.name}: CONTENT_URI {row} is not UTF-8") from error


@dataclass(frozen=True, slots=True)
class _SubtreeAvailability:
    """The availability bits of one subtree, and the cell of its root tile."""

    tiling: ImplicitTiling
    root_cell: Cell
    tiles: _Bitset
    contents: tuple[_Bitset, ...]
    children: _Bitset

    @property
    def branching_factor(self) -> int:
        return 8 if self.tiling.is_octree else 4

    def iterate_coordinates(self, bits: _Bitset) -> Iterator[tuple[int, int, int, int]]:
        """Iterate over level, x, y and z of these bits, one per tile."""
        levels, dimensions = range(self.tiling.subtree_levels), self.branching_factor.bit_length() - 1
        return chain.from_iterable(
            _iterate_coordinates(bits.slice_level(n, self.branching_factor), self.root_cell, n, dimensions)
            for n in levels
        )

    def content_uris(self, template: str, content: _Bitset, column: _ContentUriColumn | None) -> Iterator[str]:
        """Build the URIs of one content: from the column where it has a string, else from the template."""
        chosen = content.intersect(self.tiles)
        filled = starmap(compile_template(template).format, self.iterate_coordinates(chosen))
        return filled if column is None else map(_prefer_stated, column.read_strings(chosen), filled)

    def children_below_tiles(self) -> _Bitset:
        """Return the child subtrees that lie below an available tile."""
        parents = self.tiles.slice_level(self.tiling.subtree_levels - 1, self.branching_factor)
        return self.children.intersect(parents.spread_to_children(self.branching_factor))

    @property
    def child_level(self) -> int:
        """Level of the child subtrees."""
        return self.root_cell.level + self.tiling.subtree_levels

    def subtrees(self) -> Iterator[tuple[Cell, str]]:
        """Iterate over the child subtrees to follow, even below `availableLevels`, which viewers do not check."""
        template, levels = compile_template(self.tiling.subtree_template), self.tiling.subtree_levels
        followed = _Bitset(0, 0) if self.child_level > MAX_LEVEL else self.children_below_tiles()
        for place in _iterate_coordinates(followed, self.root_cell, levels, self.branching_factor.bit_length() - 1):
            yield Cell(*place), template.format(*place)

    def problems(self) -> Iterator[str]:
        """Describe violations of the specification ("Tile Availability", "Content Availability", `availableLevels`)."""
        for number in range(
            len(self.contents) or len(self.tiling.content_templates), len(self.tiling.content_templates)
        ):
            yield f"content {number} has a template in the tileset, but no availability"
        for number, content in enumerate(self.contents):
            if extra := content.count_outside(self.tiles):
                yield f"content {number} is available for {extra} tiles that are not available"
            if number >= len(self.tiling.content_templates) and content.count_ones():
                yield f"content {number} is available, but has no template in the tileset"
        levels = [self.tiles.slice_level(number, self.branching_factor) for number in range(self.tiling.subtree_levels)]
        if extra := sum(
            level.count_outside(above.spread_to_children(self.branching_factor)) for above, level in pairwise(levels)
        ):
            yield f"{extra} tiles are available, but not the tiles above them"
        available = self.tiling.available_levels
        if extra := sum(level.count_ones() for level in levels[max(0, available - self.root_cell.level) :]):
            yield f"{extra} tiles lie below the {available} available levels"
        if (extra := self.children.count_ones()) and self.child_level > MAX_LEVEL:
            yield f"{extra} child subtrees lie below the deepest allowed level, and are not followed"
        elif extra and self.child_level >= available:
            yield f"{extra} child subtrees lie below the {available} available levels"
        if extra := self.children.count_outside(self.children_below_tiles()):
            yield f"{extra} child subtrees lie below tiles that are not available, and are not followed"


def _prefer_stated(stated: str, filled: str) -> str:
    return stated or filled


def _expand(
    subtree: Subtree,
    tiling: ImplicitTiling,
    root_cell: Cell,
    buffers: Mapping[str, bytes],
    content_uri_properties: Mapping[str, str],
) -> SubtreeContents:
    size, child_count = _check_claims(tiling, root_cell, len(subtree.contents))
    reader = _BufferReader(subtree, buffers)
    tiles, children = reader.read_bits(subtree.tiles, size), reader.read_bits(subtree.children, child_count)
    contents = tuple(reader.read_bits(one, size) for one in subtree.contents)
    availability = _SubtreeAvailability(tiling, root_cell, tiles, contents, children)
    columns = [
        _find_column(subtree, number, availability, reader, content_uri_properties) for number in range(len(contents))
    ]
    uris = chain.from_iterable(map(availability.content_uris, tiling.content_templates, contents, columns))
    stated_and_read = zip(
        (subtree.tiles, *subtree.contents, subtree.children), (tiles, *contents, children), strict=True
    )
    problems = (*_describe_mismatches(subtree, stated_and_read), *availability.problems())
    templated = zip(tiling.content_templates, contents, strict=False)
    count = (
        sum(content.intersect(tiles).count_ones() for _, content in templated)
        + availability.children_below_tiles().count_ones()
    )
    return SubtreeContents(uris, availability.subtrees(), problems, count)


def _check_claims(tiling: ImplicitTiling, root_cell: Cell, contents: int) -> tuple[int, int]:
    """Return the numbers of tiles and of child subtrees that a subtree claims.

    Raises BlobDamaged if they exceed a limit, or if the subtree is too deep.
    """
    branch, levels = 8 if tiling.is_octree else 4, tiling.subtree_levels
    if root_cell.level + levels - 1 > MAX_LEVEL:
        raise BlobDamaged(f"its tiles reach level {root_cell.level + levels - 1}, below the deepest level, {MAX_LEVEL}")
    size, child_count = _count_tiles_above(levels, branch), branch**levels
    claims = {
        "tiles": (size, MAX_TILES_PER_SUBTREE),
        "child subtrees": (child_count, MAX_TILES_PER_SUBTREE),
        "contents": (size * contents, MAX_CONTENTS_PER_SUBTREE),
    }
    for label, (number, limit) in claims.items():
        if number > limit:
            raise BlobDamaged(f"it claims {number} {label}, more than {limit}")
    return size, child_count


def _find_column(
    subtree: Subtree,
    number: int,
    availability: _SubtreeAvailability,
    reader: _BufferReader,
    content_uri_properties: Mapping[str, str],
) -> _ContentUriColumn | None:
    """Find the CONTENT_URI column of one content: in its own table; for the first content also in the tile table."""
    tables = [(subtree.tables[number + 1 : number + 2], availability.contents[number])]
    if number == 0:
        tables.append((subtree.tables[:1], availability.tiles))
    for table, bits in ((table, bits) for candidates, bits in tables for table in candidates if table):
        key = content_uri_properties.get(table[0])
        if key is not None and key in table[1]:
            return _read_column(subtree.name, table[1][key], bits, reader)
    return None


def _read_column(name: str, column: StringColumn | None, row_bits: _Bitset, reader: _BufferReader) -> _ContentUriColumn:
    if column is None:
        raise BlobDamaged("CONTENT_URI is not a column of strings")
    values, offsets, offset_struct = reader.read_view(column[0]), reader.read_view(column[1]), struct.Struct(column[2])
    if len(offsets) < (row_bits.count_ones() + 1) * offset_struct.size // 2:
        raise BlobDamaged(f"CONTENT_URI has fewer than the {row_bits.count_ones()} required rows")
    return _ContentUriColumn(name, row_bits, values, offsets, offset_struct)


def _describe_mismatches(subtree: Subtree, stated_and_read: Iterable[tuple[Availability, _Bitset]]) -> Iterator[str]:
    """Describe what the file wrongly states about itself: its length, and its counts of available bits."""
    if subtree.trailing_bytes:
        yield f"{subtree.trailing_bytes} bytes follow the subtree in its file"
    for stated, bits in stated_and_read:
        if stated.stated_count is not None and stated.stated_count != bits.count_ones():
            yield f"availableCount of {stated.label} is {stated.stated_count}, {bits.count_ones()} are available"
