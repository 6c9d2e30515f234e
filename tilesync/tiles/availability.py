"""What an implicit tileset consists of: the contents and child subtrees that each of its subtrees announces.

Bit for bit as 3D Tiles 1.1, "Implicit Tiling" and "Availability Indexing", say. A subtree is untrusted input: what it
claims is bounded before it is believed, a constant costs no bit a tile, and nothing recurses.
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

from tilesync.core.gzip import GZIP_MAGIC
from tilesync.errors import BlobDamaged
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
"""How many tiles, and how many child subtrees, one subtree may claim: 12 levels of a quadtree, 8 of an octree."""

MAX_CONTENTS_PER_SUBTREE = 16 * MAX_TILES_PER_SUBTREE
"""How many contents one subtree may claim: those of all its tiles together."""

_MORTON_BLOCK_BITS = 12
_NO_PROPERTIES: Mapping[str, str] = MappingProxyType({})
_SET_BITS_BY_BYTE = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))
_NONZERO_BYTE = re.compile(rb"[^\0]")


@dataclass(frozen=True, slots=True)
class SubtreeContents:
    """What one subtree announces. Both iterators are lazy, go in the order of the bits, and can be walked once.

    `contents` are URIs relative to the tileset; a CONTENT_URI that cannot be read raises BlobDamaged in its turn.
    `count` is that of both, which is the same wherever the subtree lies. `problems` are sentences on what the
    specification forbids and viewers bear.
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
    """The contents and child subtrees of the subtree whose root tile is `at`.

    `buffers` holds the needed external buffers by URI, plain or gzip-compressed. `content_uris` names, by class of the
    schema, the property of semantic CONTENT_URI: its string, unless empty, replaces what the template says. As in
    viewers, a content counts where its tile is available, and a child subtree where the tile above it is.

    Raises BlobDamaged when the subtree claims too much, or when a bitstream or table is too short for what it tells.
    """
    try:
        return _expand_unnamed(subtree, tiling, root_cell, buffers, content_uri_properties)
    except BlobDamaged as error:
        raise BlobDamaged(f"{subtree.name}: {error}") from error


class _Bitset(NamedTuple):
    """`size` bits as a number, the first the lowest; -1 stands for all of them and costs nothing."""

    size: int
    ones: int

    def count_ones(self) -> int:
        return self.size if self.ones < 0 else self.ones.bit_count()

    def intersect(self, other: _Bitset) -> _Bitset:
        return _Bitset(self.size, self.ones & other.ones)

    def count_outside(self, other: _Bitset) -> int:
        """How many are set here and not there."""
        return self.count_ones() - self.intersect(other).count_ones()

    def slice_level(self, level: int, branch: int) -> _Bitset:
        """Those of one level of a subtree ("Accessing Availability Bits")."""
        first, size = _count_tiles_above(level, branch), branch**level
        return _Bitset(size, -1 if self.ones < 0 else self.ones >> first & (1 << size) - 1)

    def spread_to_children(self, branch: int) -> _Bitset:
        """Each bit `branch` times: what children see of their parents. By way of hex digits, in linear time."""
        digits = f"{max(self.ones, 0):b}".replace("1", "f")
        digits = digits if branch == 4 else digits.replace("0", "00").replace("f", "ff")
        return _Bitset(self.size * branch, -1 if self.ones < 0 else int(digits, 16))

    def positions(self) -> Iterator[int]:
        """The set bits, ascending; a zero byte costs next to nothing."""
        if self.ones < 0:
            return iter(range(self.size))
        return _iterate_set_bits(self.ones.to_bytes((self.size + 7) // 8, "little"))


def _iterate_set_bits(octets: bytes) -> Iterator[int]:
    for found in _NONZERO_BYTE.finditer(octets):
        at = found.start()
        for bit in _SET_BITS_BY_BYTE[octets[at]]:
            yield at * 8 + bit


def _count_tiles_above(level: int, branch: int) -> int:
    """How many tiles of a subtree lie above a level, which is also the index of its first ("levelOffset")."""
    return int((branch**level - 1) // (branch - 1))


@cache
def _morton_offsets(dimensions: int) -> list[tuple[int, int, int]]:
    """The x, y and z of the Morton indices of 12 bits: x in the lowest bit, then y, then z ("Morton Index")."""
    places = [(0, 0, 0)]
    for bit in range(_MORTON_BLOCK_BITS):
        step = [(bit % dimensions == axis) << bit // dimensions for axis in range(3)]
        places += [(x | step[0], y | step[1], z | step[2]) for x, y, z in places]
    return places


def _iterate_coordinates(bits: _Bitset, at: Cell, down: int, dimensions: int) -> Iterator[tuple[int, int, int, int]]:
    """Level, x, y and z of the set bits of one level, `down` levels below the cell `at`, in Morton order.

    A block is as many cells as the table has: where it lies is reckoned once for all of them.
    """
    offsets, behind = _morton_offsets(dimensions), 0
    level, x, y, z = at.level + down, at.x << down, at.y << down, at.z << down
    for index in bits.positions():
        if index >= behind:
            block = index >> _MORTON_BLOCK_BITS
            behind = (block + 1) << _MORTON_BLOCK_BITS
            left, front, low = (offset << _MORTON_BLOCK_BITS // dimensions for offset in offsets[block])
        dx, dy, dz = offsets[index & (1 << _MORTON_BLOCK_BITS) - 1]
        yield level, x | left | dx, y | front | dy, z | low | dz


class _BufferReader:
    """The bytes that the views of a subtree show."""

    def __init__(self, subtree: Subtree, buffers: Mapping[str, bytes]) -> None:
        self._binary = subtree.binary
        self._external_buffers = buffers
        self._decompressed: dict[tuple[str, int], bytes] = {}

    def read_view(self, view: BufferView) -> memoryview:
        """What a view shows, not copied: a small file may show a large buffer many times."""
        data = self._binary if view.uri is None else self._load_external(view.uri, view.buffer_size)
        if view.end > len(data):
            raise BlobDamaged(f"a buffer has {len(data)} bytes, a buffer view ends at byte {view.end}")
        return memoryview(data)[view.begin : view.end]

    def _load_external(self, uri: str, size: int) -> bytes:
        """The bytes of a file, unpacked once. A bitstream may by chance begin as gzip does: then its size is right."""
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
        """The bits of an availability ("Availability Bitstream Lengths"); those that pad the last byte do not count."""
        if availability.view is None:
            return _Bitset(size, -availability.constant)
        octets = self.read_view(availability.view)[: (size + 7) // 8]
        if len(octets) * 8 < size:
            raise BlobDamaged(f"{availability.label} has {len(octets)} bytes, which is less than {size} bits")
        return _Bitset(size, int.from_bytes(octets, "little") & (1 << size) - 1)


class _ContentUriColumn(NamedTuple):
    """A column of CONTENT_URI, which has a row for each of the bits `over`."""

    name: str
    row_bits: _Bitset
    values: memoryview
    offsets: memoryview
    offset_struct: struct.Struct

    def read_strings(self, chosen: _Bitset) -> Iterator[str]:
        """The strings of those bits that are chosen, in order."""
        rows = enumerate(self.row_bits.positions())
        return (self._read_string(next(row for row, bit in rows if bit == index)) for index in chosen.positions())

    def _read_string(self, row: int) -> str:
        """What lies between the offset of a row and the next (3D Metadata, "Strings")."""
        begin, end = self.offset_struct.unpack_from(self.offsets, row * self.offset_struct.size // 2)
        if not begin <= end <= len(self.values):
            raise BlobDamaged(f"{self.name}: the offsets of CONTENT_URI {row} lie outside its values")
        try:
            return str(self.values[begin:end], "utf-8")
        except UnicodeDecodeError as error:
            raise BlobDamaged(f"{self.name}: CONTENT_URI {row} is no UTF-8") from error


@dataclass(frozen=True, slots=True)
class _SubtreeAvailability:
    """The availability of one subtree, and where it lies."""

    tiling: ImplicitTiling
    root_cell: Cell
    tiles: _Bitset
    contents: tuple[_Bitset, ...]
    children: _Bitset

    @property
    def branching_factor(self) -> int:
        return 8 if self.tiling.is_octree else 4

    def iterate_coordinates(self, bits: _Bitset) -> Iterator[tuple[int, int, int, int]]:
        """Level, x, y and z of those bits, one for a tile."""
        levels, dimensions = range(self.tiling.subtree_levels), self.branching_factor.bit_length() - 1
        return chain.from_iterable(
            _iterate_coordinates(bits.slice_level(n, self.branching_factor), self.root_cell, n, dimensions)
            for n in levels
        )

    def content_uris(self, template: str, content: _Bitset, column: _ContentUriColumn | None) -> Iterator[str]:
        """The URIs of one content: of its template, or of the column where that says one."""
        chosen = content.intersect(self.tiles)
        filled = starmap(compile_template(template).format, self.iterate_coordinates(chosen))
        return filled if column is None else map(_prefer_stated, column.read_strings(chosen), filled)

    def children_below_tiles(self) -> _Bitset:
        """The child subtrees that lie below an available tile."""
        parents = self.tiles.slice_level(self.tiling.subtree_levels - 1, self.branching_factor)
        return self.children.intersect(parents.spread_to_children(self.branching_factor))

    @property
    def child_level(self) -> int:
        """The level of the child subtrees."""
        return self.root_cell.level + self.tiling.subtree_levels

    def subtrees(self) -> Iterator[tuple[Cell, str]]:
        """The child subtrees to follow: below the available levels too, since viewers never look at those."""
        template, levels = compile_template(self.tiling.subtree_template), self.tiling.subtree_levels
        followed = _Bitset(0, 0) if self.child_level > MAX_LEVEL else self.children_below_tiles()
        for place in _iterate_coordinates(followed, self.root_cell, levels, self.branching_factor.bit_length() - 1):
            yield Cell(*place), template.format(*place)

    def problems(self) -> Iterator[str]:
        """What the specification forbids ("Tile Availability", "Content Availability", `availableLevels`)."""
        for number in range(
            len(self.contents) or len(self.tiling.content_templates), len(self.tiling.content_templates)
        ):
            yield f"the availability of contents {number} is not stated, and the tileset has a template for them"
        for number, content in enumerate(self.contents):
            if lost := content.count_outside(self.tiles):
                yield f"{lost} of contents {number} belong to tiles that are not available"
            if number >= len(self.tiling.content_templates) and content.count_ones():
                yield f"contents {number} are available, but the tileset has no template for them"
        levels = [self.tiles.slice_level(number, self.branching_factor) for number in range(self.tiling.subtree_levels)]
        if lost := sum(
            level.count_outside(above.spread_to_children(self.branching_factor)) for above, level in pairwise(levels)
        ):
            yield f"{lost} tiles are available, but not the tiles above them"
        available = self.tiling.available_levels
        if lost := sum(level.count_ones() for level in levels[max(0, available - self.root_cell.level) :]):
            yield f"{lost} tiles lie below the {available} available levels"
        if (lost := self.children.count_ones()) and self.child_level > MAX_LEVEL:
            yield f"{lost} child subtrees lie deeper than a tree may go, and are not followed"
        elif lost and self.child_level >= available:
            yield f"{lost} child subtrees lie below the {available} available levels"
        if lost := self.children.count_outside(self.children_below_tiles()):
            yield f"{lost} child subtrees lie below tiles that are not available, and are not followed"


def _prefer_stated(stated: str, filled: str) -> str:
    return stated or filled


def _expand_unnamed(
    subtree: Subtree,
    tiling: ImplicitTiling,
    root_cell: Cell,
    buffers: Mapping[str, bytes],
    content_uri_properties: Mapping[str, str],
) -> SubtreeContents:
    size, below = _check_claims(tiling, root_cell, len(subtree.contents))
    held = _BufferReader(subtree, buffers)
    tiles, children = held.read_bits(subtree.tiles, size), held.read_bits(subtree.children, below)
    contents = tuple(held.read_bits(one, size) for one in subtree.contents)
    announced = _SubtreeAvailability(tiling, root_cell, tiles, contents, children)
    columns = [
        _find_column(subtree, number, announced, held, content_uri_properties) for number in range(len(contents))
    ]
    uris = chain.from_iterable(map(announced.content_uris, tiling.content_templates, contents, columns))
    counted = zip((subtree.tiles, *subtree.contents, subtree.children), (tiles, *contents, children), strict=True)
    problems = (*_describe_mismatches(subtree, counted), *announced.problems())
    templated = zip(tiling.content_templates, contents, strict=False)
    count = (
        sum(content.intersect(tiles).count_ones() for _, content in templated)
        + announced.children_below_tiles().count_ones()
    )
    return SubtreeContents(uris, announced.subtrees(), problems, count)


def _check_claims(tiling: ImplicitTiling, root_cell: Cell, contents: int) -> tuple[int, int]:
    """How many tiles and child subtrees a subtree claims. Raises BlobDamaged when it claims too many, or too deep."""
    branch, levels = 8 if tiling.is_octree else 4, tiling.subtree_levels
    if root_cell.level + levels - 1 > MAX_LEVEL:
        raise BlobDamaged(f"its tiles reach level {root_cell.level + levels - 1}, the deepest may be {MAX_LEVEL}")
    size, below = _count_tiles_above(levels, branch), branch**levels
    claims = {
        "tiles": (size, MAX_TILES_PER_SUBTREE),
        "child subtrees": (below, MAX_TILES_PER_SUBTREE),
        "contents": (size * contents, MAX_CONTENTS_PER_SUBTREE),
    }
    for what, (number, most) in claims.items():
        if number > most:
            raise BlobDamaged(f"it claims {number} {what}, more than {most}")
    return size, below


def _find_column(
    subtree: Subtree,
    number: int,
    availability: _SubtreeAvailability,
    reader: _BufferReader,
    content_uri_properties: Mapping[str, str],
) -> _ContentUriColumn | None:
    """The column of CONTENT_URI of one content: of its own table, or, for the first content, of that of the tiles."""
    tables = [(subtree.tables[number + 1 : number + 2], availability.contents[number])]
    if number == 0:
        tables.append((subtree.tables[:1], availability.tiles))
    for table, over in ((table, over) for few, over in tables for table in few if table):
        key = content_uri_properties.get(table[0])
        if key is not None and key in table[1]:
            return _read_column(subtree.name, table[1][key], over, reader)
    return None


def _read_column(name: str, column: StringColumn | None, row_bits: _Bitset, reader: _BufferReader) -> _ContentUriColumn:
    if column is None:
        raise BlobDamaged("CONTENT_URI is no column of strings")
    values, offsets, form = reader.read_view(column[0]), reader.read_view(column[1]), struct.Struct(column[2])
    if len(offsets) < (row_bits.count_ones() + 1) * form.size // 2:
        raise BlobDamaged(f"CONTENT_URI has fewer than the {row_bits.count_ones()} rows that it is to have")
    return _ContentUriColumn(name, row_bits, values, offsets, form)


def _describe_mismatches(subtree: Subtree, counted: Iterable[tuple[Availability, _Bitset]]) -> Iterator[str]:
    """What the file says of itself that is not so."""
    if subtree.trailing_bytes:
        yield f"{subtree.trailing_bytes} bytes follow the subtree in its file"
    for said, bits in counted:
        if said.stated_count is not None and said.stated_count != bits.count_ones():
            yield f"availableCount of {said.label} is {said.stated_count}, {bits.count_ones()} are available"
