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
    DEEPEST,
    MOST_BYTES,
    Availability,
    Cell,
    Implicit,
    Strings,
    Subtree,
    View,
    pattern,
    unpack,
)
from tilesync.tiles.uris import shown

MOST_TILES = 1 << 24
"""How many tiles, and how many child subtrees, one subtree may claim: 12 levels of a quadtree, 8 of an octree."""

MOST_CONTENTS = 16 * MOST_TILES
"""How many contents one subtree may claim: those of all its tiles together."""

_BLOCK = 12
_NO_URIS: Mapping[str, str] = MappingProxyType({})
_ONES = tuple(tuple(bit for bit in range(8) if byte >> bit & 1) for byte in range(256))
_SET_BYTE = re.compile(rb"[^\0]")


@dataclass(frozen=True, slots=True)
class Expansion:
    """What one subtree announces. Both iterators are lazy, go in the order of the bits, and can be walked once.

    `contents` are URIs relative to the tileset; a CONTENT_URI that cannot be read raises BlobDamaged in its turn.
    `count` is that of both, which is the same wherever the subtree lies. `problems` are sentences on what the
    specification forbids and viewers bear.
    """

    contents: Iterator[str]
    subtrees: Iterator[tuple[Cell, str]]
    problems: tuple[str, ...]
    count: int


def expand(
    subtree: Subtree,
    implicit: Implicit,
    at: Cell,
    buffers: Mapping[str, bytes],
    *,
    content_uris: Mapping[str, str] = _NO_URIS,
) -> Expansion:
    """The contents and child subtrees of the subtree whose root tile is `at`.

    `buffers` holds the needed external buffers by URI, plain or gzip-compressed. `content_uris` names, by class of the
    schema, the property of semantic CONTENT_URI: its string, unless empty, replaces what the template says. As in
    viewers, a content counts where its tile is available, and a child subtree where the tile above it is.

    Raises BlobDamaged when the subtree claims too much, or when a bitstream or table is too short for what it tells.
    """
    try:
        return _expand(subtree, implicit, at, buffers, content_uris)
    except BlobDamaged as error:
        raise BlobDamaged(f"{subtree.name}: {error}") from error


class _Bits(NamedTuple):
    """`size` bits as a number, the first the lowest; -1 stands for all of them and costs nothing."""

    size: int
    ones: int

    def total(self) -> int:
        return self.size if self.ones < 0 else self.ones.bit_count()

    def both(self, other: _Bits) -> _Bits:
        return _Bits(self.size, self.ones & other.ones)

    def beside(self, other: _Bits) -> int:
        """How many are set here and not there."""
        return self.total() - self.both(other).total()

    def level(self, number: int, branch: int) -> _Bits:
        """Those of one level of a subtree ("Accessing Availability Bits")."""
        first, size = _tiles_above(number, branch), branch**number
        return _Bits(size, -1 if self.ones < 0 else self.ones >> first & (1 << size) - 1)

    def spread(self, branch: int) -> _Bits:
        """Each bit `branch` times: what children see of their parents. By way of hex digits, in linear time."""
        digits = f"{max(self.ones, 0):b}".replace("1", "f")
        digits = digits if branch == 4 else digits.replace("0", "00").replace("f", "ff")
        return _Bits(self.size * branch, -1 if self.ones < 0 else int(digits, 16))

    def positions(self) -> Iterator[int]:
        """The set bits, ascending; a zero byte costs next to nothing."""
        if self.ones < 0:
            return iter(range(self.size))
        return _set_bits(self.ones.to_bytes((self.size + 7) // 8, "little"))


def _set_bits(octets: bytes) -> Iterator[int]:
    for found in _SET_BYTE.finditer(octets):
        at = found.start()
        for bit in _ONES[octets[at]]:
            yield at * 8 + bit


def _tiles_above(level: int, branch: int) -> int:
    """How many tiles of a subtree lie above a level, which is also the index of its first ("levelOffset")."""
    return int((branch**level - 1) // (branch - 1))


@cache
def _offsets(dimensions: int) -> list[tuple[int, int, int]]:
    """The x, y and z of the Morton indices of 12 bits: x in the lowest bit, then y, then z ("Morton Index")."""
    places = [(0, 0, 0)]
    for bit in range(_BLOCK):
        step = [(bit % dimensions == axis) << bit // dimensions for axis in range(3)]
        places += [(x | step[0], y | step[1], z | step[2]) for x, y, z in places]
    return places


def _places(bits: _Bits, at: Cell, down: int, dimensions: int) -> Iterator[tuple[int, int, int, int]]:
    """Level, x, y and z of the set bits of one level, `down` levels below the cell `at`, in Morton order.

    A block is as many cells as the table has: where it lies is reckoned once for all of them.
    """
    offsets, behind = _offsets(dimensions), 0
    level, x, y, z = at.level + down, at.x << down, at.y << down, at.z << down
    for index in bits.positions():
        if index >= behind:
            block = index >> _BLOCK
            behind = (block + 1) << _BLOCK
            left, front, low = (offset << _BLOCK // dimensions for offset in offsets[block])
        dx, dy, dz = offsets[index & (1 << _BLOCK) - 1]
        yield level, x | left | dx, y | front | dy, z | low | dz


class _Held:
    """The bytes that the views of a subtree show."""

    def __init__(self, subtree: Subtree, buffers: Mapping[str, bytes]) -> None:
        self._binary = subtree.binary
        self._given = buffers
        self._plain: dict[tuple[str, int], bytes] = {}

    def show(self, view: View) -> memoryview:
        """What a view shows, not copied: a small file may show a large buffer many times."""
        data = self._binary if view.uri is None else self._external(view.uri, view.size)
        if view.end > len(data):
            raise BlobDamaged(f"a buffer has {len(data)} bytes, a buffer view ends at byte {view.end}")
        return memoryview(data)[view.begin : view.end]

    def _external(self, uri: str, size: int) -> bytes:
        """The bytes of a file, unpacked once. A bitstream may by chance begin as gzip does: then its size is right."""
        if (uri, size) not in self._plain:
            if uri not in self._given:
                raise BlobDamaged(f"its buffer {shown(uri)} is missing")
            data = self._given[uri]
            try:
                self._plain[uri, size] = unpack(data) if data.startswith(GZIP_MAGIC) else data
            except BlobDamaged:
                if len(data) != size:
                    raise
                self._plain[uri, size] = data
            if sum(map(len, self._plain.values())) > MOST_BYTES:
                raise BlobDamaged(f"its buffers unpack to more than {MOST_BYTES:,} bytes")
        return self._plain[uri, size]

    def bits(self, said: Availability, size: int) -> _Bits:
        """The bits of an availability ("Availability Bitstream Lengths"); those that pad the last byte do not count."""
        if said.view is None:
            return _Bits(size, -said.constant)
        octets = self.show(said.view)[: (size + 7) // 8]
        if len(octets) * 8 < size:
            raise BlobDamaged(f"{said.what} has {len(octets)} bytes, which is less than {size} bits")
        return _Bits(size, int.from_bytes(octets, "little") & (1 << size) - 1)


class _Column(NamedTuple):
    """A column of CONTENT_URI, which has a row for each of the bits `over`."""

    name: str
    over: _Bits
    values: memoryview
    offsets: memoryview
    form: struct.Struct

    def texts(self, chosen: _Bits) -> Iterator[str]:
        """The strings of those bits that are chosen, in order."""
        rows = enumerate(self.over.positions())
        return (self._text(next(row for row, bit in rows if bit == index)) for index in chosen.positions())

    def _text(self, row: int) -> str:
        """What lies between the offset of a row and the next (3D Metadata, "Strings")."""
        begin, end = self.form.unpack_from(self.offsets, row * self.form.size // 2)
        if not begin <= end <= len(self.values):
            raise BlobDamaged(f"{self.name}: the offsets of CONTENT_URI {row} lie outside its values")
        try:
            return str(self.values[begin:end], "utf-8")
        except UnicodeDecodeError as error:
            raise BlobDamaged(f"{self.name}: CONTENT_URI {row} is no UTF-8") from error


@dataclass(frozen=True, slots=True)
class _Announced:
    """The availability of one subtree, and where it lies."""

    implicit: Implicit
    at: Cell
    tiles: _Bits
    contents: tuple[_Bits, ...]
    children: _Bits

    @property
    def branch(self) -> int:
        return 8 if self.implicit.octree else 4

    def places(self, bits: _Bits) -> Iterator[tuple[int, int, int, int]]:
        """Level, x, y and z of those bits, one for a tile."""
        levels, dimensions = range(self.implicit.subtree_levels), self.branch.bit_length() - 1
        return chain.from_iterable(_places(bits.level(n, self.branch), self.at, n, dimensions) for n in levels)

    def uris(self, template: str, content: _Bits, column: _Column | None) -> Iterator[str]:
        """The URIs of one content: of its template, or of the column where that says one."""
        chosen = content.both(self.tiles)
        filled = starmap(pattern(template).format, self.places(chosen))
        return filled if column is None else map(_first_said, column.texts(chosen), filled)

    def below_tiles(self) -> _Bits:
        """The child subtrees that lie below an available tile."""
        parents = self.tiles.level(self.implicit.subtree_levels - 1, self.branch)
        return self.children.both(parents.spread(self.branch))

    @property
    def next_level(self) -> int:
        """The level of the child subtrees."""
        return self.at.level + self.implicit.subtree_levels

    def subtrees(self) -> Iterator[tuple[Cell, str]]:
        """The child subtrees to follow: below the available levels too, since viewers never look at those."""
        template, levels = pattern(self.implicit.subtrees), self.implicit.subtree_levels
        followed = _Bits(0, 0) if self.next_level > DEEPEST else self.below_tiles()
        for place in _places(followed, self.at, levels, self.branch.bit_length() - 1):
            yield Cell(*place), template.format(*place)

    def problems(self) -> Iterator[str]:
        """What the specification forbids ("Tile Availability", "Content Availability", `availableLevels`)."""
        for number in range(len(self.contents) or len(self.implicit.contents), len(self.implicit.contents)):
            yield f"the availability of contents {number} is not stated, and the tileset has a template for them"
        for number, content in enumerate(self.contents):
            if lost := content.beside(self.tiles):
                yield f"{lost} of contents {number} belong to tiles that are not available"
            if number >= len(self.implicit.contents) and content.total():
                yield f"contents {number} are available, but the tileset has no template for them"
        levels = [self.tiles.level(number, self.branch) for number in range(self.implicit.subtree_levels)]
        if lost := sum(level.beside(above.spread(self.branch)) for above, level in pairwise(levels)):
            yield f"{lost} tiles are available, but not the tiles above them"
        available = self.implicit.available_levels
        if lost := sum(level.total() for level in levels[max(0, available - self.at.level) :]):
            yield f"{lost} tiles lie below the {available} available levels"
        if (lost := self.children.total()) and self.next_level > DEEPEST:
            yield f"{lost} child subtrees lie deeper than a tree may go, and are not followed"
        elif lost and self.next_level >= available:
            yield f"{lost} child subtrees lie below the {available} available levels"
        if lost := self.children.beside(self.below_tiles()):
            yield f"{lost} child subtrees lie below tiles that are not available, and are not followed"


def _first_said(said: str, filled: str) -> str:
    return said or filled


def _expand(
    subtree: Subtree, implicit: Implicit, at: Cell, buffers: Mapping[str, bytes], content_uris: Mapping[str, str]
) -> Expansion:
    size, below = _claims(implicit, at, len(subtree.contents))
    held = _Held(subtree, buffers)
    tiles, children = held.bits(subtree.tiles, size), held.bits(subtree.children, below)
    contents = tuple(held.bits(one, size) for one in subtree.contents)
    announced = _Announced(implicit, at, tiles, contents, children)
    columns = [_column(subtree, number, announced, held, content_uris) for number in range(len(contents))]
    uris = chain.from_iterable(map(announced.uris, implicit.contents, contents, columns))
    counted = zip((subtree.tiles, *subtree.contents, subtree.children), (tiles, *contents, children), strict=True)
    problems = (*_remarks(subtree, counted), *announced.problems())
    templated = zip(implicit.contents, contents, strict=False)
    count = sum(content.both(tiles).total() for _, content in templated) + announced.below_tiles().total()
    return Expansion(uris, announced.subtrees(), problems, count)


def _claims(implicit: Implicit, at: Cell, contents: int) -> tuple[int, int]:
    """How many tiles and child subtrees a subtree claims. Raises BlobDamaged when it claims too many, or too deep."""
    branch, levels = 8 if implicit.octree else 4, implicit.subtree_levels
    if at.level + levels - 1 > DEEPEST:
        raise BlobDamaged(f"its tiles reach level {at.level + levels - 1}, the deepest may be {DEEPEST}")
    size, below = _tiles_above(levels, branch), branch**levels
    claims = {
        "tiles": (size, MOST_TILES),
        "child subtrees": (below, MOST_TILES),
        "contents": (size * contents, MOST_CONTENTS),
    }
    for what, (number, most) in claims.items():
        if number > most:
            raise BlobDamaged(f"it claims {number} {what}, more than {most}")
    return size, below


def _column(
    subtree: Subtree, number: int, announced: _Announced, held: _Held, content_uris: Mapping[str, str]
) -> _Column | None:
    """The column of CONTENT_URI of one content: of its own table, or, for the first content, of that of the tiles."""
    tables = [(subtree.tables[number + 1 : number + 2], announced.contents[number])]
    if number == 0:
        tables.append((subtree.tables[:1], announced.tiles))
    for table, over in ((table, over) for few, over in tables for table in few if table):
        key = content_uris.get(table[0])
        if key is not None and key in table[1]:
            return _read_column(subtree.name, table[1][key], over, held)
    return None


def _read_column(name: str, said: Strings | None, over: _Bits, held: _Held) -> _Column:
    if said is None:
        raise BlobDamaged("CONTENT_URI is no column of strings")
    values, offsets, form = held.show(said[0]), held.show(said[1]), struct.Struct(said[2])
    if len(offsets) < (over.total() + 1) * form.size // 2:
        raise BlobDamaged(f"CONTENT_URI has fewer than the {over.total()} rows that it is to have")
    return _Column(name, over, values, offsets, form)


def _remarks(subtree: Subtree, counted: Iterable[tuple[Availability, _Bits]]) -> Iterator[str]:
    """What the file says of itself that is not so."""
    if subtree.surplus:
        yield f"{subtree.surplus} bytes follow the subtree in its file"
    for said, bits in counted:
        if said.claimed is not None and said.claimed != bits.total():
            yield f"availableCount of {said.what} is {said.claimed}, {bits.total()} are available"
