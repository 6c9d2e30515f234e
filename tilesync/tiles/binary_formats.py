"""The structure of the binary tile formats, followed as a stream without keeping the bytes, and what they name.

Sources: glTF 2.0, section 4.4 (GLB) and KHR_binary_glTF (GLB version 1); 3D Tiles 1.0, "Batched 3D Model", "Instanced
3D Model", "Point Cloud", "Composite" with the two deprecated headers of b3dm that viewers still read; 3D Tiles 1.1,
"Subtree file format". All numbers are little-endian.
"""

from __future__ import annotations

import json
import re
import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final, NoReturn

from tilesync.core.foreign_json import count, lenient
from tilesync.errors import BlobDamaged
from tilesync.model import Kind, Remark, Role
from tilesync.tiles.json_documents import Buffer, Document

Found = Callable[[Role, str], None]
"""Is told each URI that names a file, with what it is asked for."""

KINDS: Final = {
    b"glTF": Kind.GLB,
    b"b3dm": Kind.B3DM,
    b"i3dm": Kind.I3DM,
    b"pnts": Kind.PNTS,
    b"cmpt": Kind.CMPT,
    b"vctr": Kind.VECTOR,
    b"geom": Kind.VECTOR,
    b"subt": Kind.SUBTREE,
}
"""By the first four bytes of a payload."""

_JSON_CHUNK, _BIN_CHUNK = 0x4E4F534A, 0x004E4942
_JSON_AT_ONCE = 1 << 20
_NESTED: Final = 64
"""Composites within composites at most."""

_NO_LENGTH = 0x22000000
"""What stands in a length field of b3dm from here on is text, so the header is a deprecated, shorter one (CesiumJS)."""

_URI_KEY = re.compile(rb'"(?:uri|url|[^"]+U(?:ri|RI|rl|RL))"[ \t\n\r]*:')
_EXTRAORDINARY = re.compile(rb"\\|KHR_binary_glTF|fallback")
_PLACES = (("buffers", Role.BUFFER), ("images", Role.IMAGE))
"""Where an ordinary glTF names files."""

_Named = tuple[Role, str, object]
"""What a URI is asked for as, the URI, and the length that a buffer states."""


@dataclass(frozen=True, slots=True)
class _Span:
    """The next `count` bytes, to be passed over, or given to a document."""

    count: int
    document: Document | None = None


@dataclass(frozen=True, slots=True)
class _Back:
    """So many of the bytes just given are to come again."""

    count: int


_Parse = Generator["int | _Span | _Back", bytes, int]
"""Asks for so many bytes at once, or a span of them; returns how many bytes it took."""


class Shape:
    """Follows one binary payload; its first four bytes are a key of KINDS. `feed` and `finish` raise BlobDamaged.

    `lengths` are those of buffers elsewhere, as of a Document.
    """

    def __init__(self, magic: bytes, found: Found) -> None:
        self.kind = KINDS[magic]
        self.remarks: list[Remark] = []
        self.lengths: list[tuple[str, int]] = []
        self._found = found
        self._label = "GLB" if magic == b"glTF" else self.kind.value
        self._declared: int | None = None
        self._size = 0
        self._buffer, self._at = b"", 0
        self._parse = self._subtree() if self.kind is Kind.SUBTREE else self._tiles()
        self._asks: int | _Span | _Back | None = next(self._parse)

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""
        self._size += len(data)
        if self._asks is None or (self._size == len(data) and self._read_at_once(data)):
            return
        if isinstance(self._asks, _Span) and self._asks.document is None and len(data) < self._asks.count:
            self._asks = _Span(self._asks.count - len(data))  # nothing to look at, so nothing to copy
            return
        self._buffer, self._at = self._buffer[self._at :] + data, 0
        while self._asks is not None and self._serve(self._asks):
            pass

    def _read_at_once(self, data: bytes) -> bool:
        """Whether this is a whole GLB of the ordinary kind, which is read without asking for it piece by piece."""
        if len(data) < 28:
            return False
        magic, version, length, size, form = struct.unpack_from("<4s4I", data)
        rest = length - 20 - size
        if (magic, version, length, form) != (b"glTF", 2, len(data), _JSON_CHUNK) or size > _JSON_AT_ONCE or rest < 8:
            return False
        body, kind = struct.unpack_from("<2I", data, 20 + size)
        if kind != _BIN_CHUNK or body != rest - 8 or (plain := _read_plainly(data[20 : 20 + size])) is None:
            return False
        buffer, uris = plain
        self._tell(uris)
        self._declared, self._asks = length, None
        self._judge_body(buffer, body)
        return True

    def _serve(self, asks: int | _Span | _Back) -> bool:
        """Give the parser what it asks for; whether all of it was there."""
        given = b""
        if isinstance(asks, _Back):
            self._at -= asks.count
        elif isinstance(asks, int):
            if len(self._buffer) - self._at < asks:
                return False
            given = self._take(asks)
        else:
            count = min(asks.count, len(self._buffer) - self._at)
            if asks.document is not None:
                asks.document.feed(self._take(count))
            else:
                self._at += count
            if count < asks.count:
                self._asks = _Span(asks.count - count, asks.document)
                return False
        try:
            self._asks = self._parse.send(given)
        except StopIteration:
            self._asks, self._buffer = None, b""
        return True

    def _take(self, count: int) -> bytes:
        taken = self._buffer[self._at : self._at + count]
        self._at += count
        return taken

    def finish(self) -> None:
        """No more comes."""
        if self._asks is not None:
            if self._declared is None:
                raise BlobDamaged(f"the {self._label} header is cut off")
            raise BlobDamaged(
                f"the {self._label} is cut off: its header says {self._declared} bytes, {self._size} are there"
            )
        if self._declared is not None and self._size > self._declared:
            self._remark("trailing bytes", f"{self._size - self._declared} bytes follow after the {self._label}")

    def _tell(self, uris: list[_Named]) -> None:
        for role, uri, length in uris:
            self._found(role, uri)
            if (least := lenient(length, count, None)) is not None:
                self.lengths.append((uri, least))

    def _remark(self, problem: str, detail: str) -> None:
        self.remarks.append(Remark(problem, detail))

    # --- tiles, one or within composites ---

    def _tiles(self) -> _Parse:
        """One tile, or the tiles of a composite one after another; a composite inside goes on a stack."""
        at, composites = 0, list[list[int]]()
        while True:
            head = yield 12
            magic, _, length = struct.unpack("<4sII", head)
            self._judge_tile(magic, length, composites[-1][0] - at if composites else None)
            if magic == b"cmpt":
                if len(composites) >= _NESTED:
                    raise BlobDamaged(f"composites are nested deeper than {_NESTED}")
                (count,) = struct.unpack("<I", (yield 4))
                composites.append([at + length, count])
                at += 16
            else:
                yield _Back(12)
                yield from self._tile(magic, length)
                at += length
            while composites and composites[-1][1] == 0:
                end, _ = composites.pop()
                yield _Span(end - at)
                at = end
            if not composites:
                return at
            composites[-1][1] -= 1

    def _judge_tile(self, magic: bytes, length: int, room: int | None) -> None:
        if self._declared is None:
            self._declared = length
        if KINDS.get(magic, Kind.SUBTREE) is Kind.SUBTREE:
            raise BlobDamaged(f"an inner tile has the unknown magic {magic!r}")
        if length < (16 if magic == b"cmpt" else 12):
            raise BlobDamaged(f"a {KINDS[magic]} header states a length of {length} bytes")
        if room is not None and length > room:
            raise BlobDamaged(f"an inner tile of {length} bytes reaches {length - room} bytes beyond its composite")

    def _tile(self, magic: bytes, length: int) -> _Parse:
        match magic:
            case b"glTF":
                return (yield from self._glb(length))
            case b"b3dm":
                return (yield from self._b3dm(length))
            case b"i3dm":
                return (yield from self._i3dm(length))
            case b"pnts":
                _, _, _, *tables = struct.unpack("<4s6I", (yield 28))
                yield _Span(_rest(length, 28, tables))
                yield _Span(sum(tables))
                return length
            case _:
                yield _Span(length)
                return length

    def _b3dm(self, length: int) -> _Parse:
        _, _, _, first, second = struct.unpack("<4s4I", (yield 20))
        third = yield 4
        if _number(third) >= _NO_LENGTH:
            yield _Back(4)
            return (yield from self._model(length, 20, [second]))
        fourth = yield 4
        if _number(fourth) >= _NO_LENGTH:
            yield _Back(4)
            return (yield from self._model(length, 24, [first, second]))
        return (yield from self._model(length, 28, [first, second, _number(third), _number(fourth)]))

    def _i3dm(self, length: int) -> _Parse:
        _, _, _, *tables, form = struct.unpack("<4s7I", (yield 32))
        if form == 1:
            return (yield from self._model(length, 32, tables))
        if form != 0:
            raise BlobDamaged(f"the gltfFormat of the i3dm is {form}, which is unknown")
        size = _rest(length, 32, tables)
        yield _Span(sum(tables))
        if size > _JSON_AT_ONCE:
            raise BlobDamaged(f"the URI of the i3dm has {size} bytes")
        uri = (yield size).decode(errors="replace").strip(" \0")
        self._found(Role.MODEL, uri)
        return length

    def _model(self, length: int, header: int, tables: list[int]) -> _Parse:
        """The tables behind a header, and the glTF behind them; padding may follow."""
        room = _rest(length, header, tables)
        yield _Span(sum(tables))
        if room == 0:
            self._remark("empty", "a tile holds no glTF")
            return length
        if room < 12:
            raise BlobDamaged(f"the glTF of a tile has {room} bytes")
        head = yield 12
        magic, _, size = struct.unpack("<4sII", head)
        if magic != b"glTF":
            raise BlobDamaged("a tile holds something else where its glTF should be")
        if size > room:
            raise BlobDamaged(f"the glTF of a tile is cut off: its header says {size} bytes, {room} are there")
        yield _Back(12)
        yield from self._glb(size)
        yield _Span(room - size)
        return length

    # --- binary glTF ---

    def _glb(self, length: int) -> _Parse:
        _, version, _ = struct.unpack("<4sII", (yield 12))
        if version == 1:
            return (yield from self._glb_1(length))
        if version != 2:
            raise BlobDamaged(f"GLB version {version} is unknown")
        at, body = 12, None
        buffer: Buffer | None = None
        while at < length:
            if length - at < 8:
                raise BlobDamaged("the GLB chunk table is cut off")
            size, kind = struct.unpack("<II", (yield 8))
            if at == 12 and kind != _JSON_CHUNK:
                raise BlobDamaged("the first GLB chunk is not JSON")
            if at + 8 + size > length:
                raise BlobDamaged(f"a GLB chunk ends at byte {at + 8 + size}, behind the declared length {length}")
            if at == 12:
                buffer = yield from self._gltf(size)
            else:
                body = size if kind == _BIN_CHUNK and body is None else body
                yield _Span(size)
            at += 8 + size
        if at == 12:
            raise BlobDamaged("the GLB chunk table is cut off")
        self._judge_body(buffer, body)
        return length

    def _glb_1(self, length: int) -> _Parse:
        size, form = struct.unpack("<II", (yield 8))
        if form != 0 or 20 + size > length:
            raise BlobDamaged("the header of a GLB of version 1 is broken")
        yield from self._gltf(size)
        yield _Span(length - 20 - size)
        return length

    def _gltf(self, size: int) -> Generator[int | _Span | _Back, bytes, Buffer | None]:
        """The JSON of a glTF; its first buffer."""
        document = Document(self._found)
        if size <= _JSON_AT_ONCE:
            text = yield size
            if (plain := _read_plainly(text)) is not None:
                buffer, uris = plain
                self._tell(uris)
                return buffer
            document.feed(text)
        else:
            yield _Span(size, document)
        document.finish()
        self.lengths += document.lengths
        if document.padded:
            self._remark("NULs", "the JSON of the glTF is padded with NULs, which JSON readers refuse")
        return document.first_buffer

    def _judge_body(self, buffer: Buffer | None, body: int | None) -> None:
        """The first buffer without a URI is the BIN chunk, which may be up to 3 bytes longer."""
        stated, elsewhere = buffer or (None, True)
        if elsewhere or stated is None:
            return
        if (body or 0) < stated:
            there = "there is no BIN chunk" if body is None else f"its BIN chunk has {body}"
            raise BlobDamaged(f"its first buffer has {stated} bytes, but {there}")
        if body is not None and body > stated + 3:
            self._remark("padding", f"the BIN chunk is {body - stated} bytes longer than the buffer in it")

    # --- subtrees ---

    def _subtree(self) -> _Parse:
        _, version, size, body = struct.unpack("<4sIQQ", (yield 24))
        if version != 1:
            raise BlobDamaged(f"subtree version {version} is unknown")
        self._declared = 24 + size + body
        document = Document(self._found)
        yield _Span(size, document)
        document.finish()
        self.lengths += document.lengths
        yield _Span(body)
        return self._declared


def _rest(length: int, header: int, tables: list[int]) -> int:
    """The bytes of a tile behind its header and tables."""
    rest = length - header - sum(tables)
    if rest < 0:
        raise BlobDamaged(f"the tables of a tile end at byte {length - rest}, behind its declared length {length}")
    return rest


def _number(data: bytes) -> int:
    return int.from_bytes(data, "little")


def _refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=_refuse)


def _read_plainly(text: bytes) -> tuple[Buffer | None, list[_Named]] | None:
    """The first buffer of an ordinary glTF 2.0, and the URIs of buffers and images, ten times as fast as a Document.

    None where there is a URI at any other place, and for all that is to be judged closely.
    """
    if _EXTRAORDINARY.search(text):
        return None
    try:
        said = _DECODER.decode(text.decode())
        named = ((role, item) for key, role in _PLACES for item in said.get(key, ()) if "uri" in item)
        uris = [(role, item["uri"], item.get("byteLength")) for role, item in named]
        if len(uris) != len(_URI_KEY.findall(text)) or not all(type(uri) is str for _, uri, _ in uris):
            return None
        first = next(iter(said.get("buffers", ())), None)
        return None if first is None else (lenient(first.get("byteLength"), count, None), "uri" in first), uris
    except (ValueError, RecursionError, AttributeError, TypeError):
        return None
