"""Binary tile formats (GLB, b3dm, i3dm, pnts, cmpt, subtree): a streaming parser that reports the URIs in them.

Sources: glTF 2.0, section 4.4 (GLB) and KHR_binary_glTF (GLB version 1); 3D Tiles 1.0, "Batched 3D Model", "Instanced
3D Model", "Point Cloud", "Composite" with the two deprecated headers of b3dm that viewers still read; 3D Tiles 1.1,
"Subtree file format". All numbers are little-endian.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Generator
from dataclasses import dataclass
from typing import Final

from tilesync.core.foreign_json import read_count, read_or_default
from tilesync.errors import BlobDamaged
from tilesync.model import Chunk, Diagnostic, Kind, Role
from tilesync.tiles.json_documents import Buffer, Document
from tilesync.tiles.plain_glb import (
    BIN_CHUNK,
    JSON_CHUNK,
    MAX_BUFFERED_JSON_BYTES,
    UriReference,
    parse_plain_gltf,
    parse_whole_glb,
)

UriHandler = Callable[[Role, str], None]
"""Called with each URI that names a file, and its role."""

KIND_BY_MAGIC: Final = {
    b"glTF": Kind.GLB,
    b"b3dm": Kind.B3DM,
    b"i3dm": Kind.I3DM,
    b"pnts": Kind.PNTS,
    b"cmpt": Kind.CMPT,
    b"vctr": Kind.VECTOR,
    b"geom": Kind.VECTOR,
    b"subt": Kind.SUBTREE,
}
"""Kind by the first four bytes of a payload."""

_MAX_COMPOSITE_DEPTH: Final = 64
"""Maximum nesting of composites."""

_LEGACY_HEADER_THRESHOLD = 0x22000000
"""A length field of b3dm from this value on is really text, so the header is a deprecated, shorter one (CesiumJS)."""


@dataclass(frozen=True, slots=True)
class _ByteSpan:
    """A request for the next `count` bytes: skip them, or feed them to a document."""

    count: int
    document: Document | None = None


@dataclass(frozen=True, slots=True)
class _Rewind:
    """A request to read the last `count` bytes again."""

    count: int


_ParserGenerator = Generator["int | _ByteSpan | _Rewind", bytes, int]
"""Yields requests for bytes (a number, or a span of them); returns how many bytes it consumed."""


class BinaryFormatParser:
    """Streaming parser of one binary payload, whose first four bytes are a key of KIND_BY_MAGIC.

    `buffer_lengths` are those of external buffers, as in Document. `feed` and `finish` raise BlobDamaged.
    """

    def __init__(self, magic: bytes, on_uri: UriHandler) -> None:
        self.kind = KIND_BY_MAGIC[magic]
        self.diagnostics: list[Diagnostic] = []
        self.buffer_lengths: list[tuple[str, int]] = []
        self._on_uri = on_uri
        self._format_name = "GLB" if magic == b"glTF" else self.kind.value
        self._declared_length: int | None = None
        self._received_bytes = 0
        self._buffer, self._offset = b"", 0
        self._parser = self._parse_subtree() if self.kind is Kind.SUBTREE else self._parse_tiles()
        self._pending: int | _ByteSpan | _Rewind | None = next(self._parser)

    def feed(self, data: Chunk) -> None:
        """Parse the next bytes."""
        self._received_bytes += len(data)
        if self._pending is None or (self._received_bytes == len(data) and self._parse_whole_glb(bytes(data))):
            return
        if isinstance(self._pending, _ByteSpan) and self._pending.document is None and len(data) < self._pending.count:
            self._pending = _ByteSpan(self._pending.count - len(data))  # skipped bytes need no copy
            return
        self._buffer, self._offset = self._buffer[self._offset :] + data, 0
        while self._pending is not None and self._advance(self._pending):
            pass

    def _parse_whole_glb(self, data: bytes) -> bool:
        """Try the fast path: True if `data` is one whole ordinary GLB, which is then parsed in one step."""
        if (parsed := parse_whole_glb(data)) is None:
            return False
        buffer, uris, bin_size = parsed
        self._report_uris(uris)
        self._declared_length, self._pending = len(data), None
        self._check_bin_chunk(buffer, bin_size)
        return True

    def _advance(self, request: int | _ByteSpan | _Rewind) -> bool:
        """Serve one request of the parser; return whether all its bytes were there."""
        given = b""
        if isinstance(request, _Rewind):
            self._offset -= request.count
        elif isinstance(request, int):
            if len(self._buffer) - self._offset < request:
                return False
            given = self._read_bytes(request)
        else:
            count = min(request.count, len(self._buffer) - self._offset)
            if request.document is not None:
                request.document.feed(self._read_bytes(count))
            else:
                self._offset += count
            if count < request.count:
                self._pending = _ByteSpan(request.count - count, request.document)
                return False
        try:
            self._pending = self._parser.send(given)
        except StopIteration:
            self._pending, self._buffer = None, b""
        return True

    def _read_bytes(self, count: int) -> bytes:
        data = self._buffer[self._offset : self._offset + count]
        self._offset += count
        return data

    def finish(self) -> None:
        """Check that the payload is complete."""
        if self._pending is not None:
            if self._declared_length is None:
                raise BlobDamaged(f"the {self._format_name} header is cut off")
            raise BlobDamaged(
                f"the {self._format_name} is cut off: its header says {self._declared_length} bytes,"
                f" {self._received_bytes} are there"
            )
        if self._declared_length is not None and (extra := self._received_bytes - self._declared_length) > 0:
            self._add_diagnostic("trailing bytes", f"{extra} bytes follow after the {self._format_name}")

    def _report_uris(self, uris: list[UriReference]) -> None:
        for role, uri, length in uris:
            self._on_uri(role, uri)
            if (required := read_or_default(length, read_count, None)) is not None:
                self.buffer_lengths.append((uri, required))

    def _add_diagnostic(self, problem: str, detail: str) -> None:
        self.diagnostics.append(Diagnostic(problem, detail))

    # --- tiles, one or within composites ---

    def _parse_tiles(self) -> _ParserGenerator:
        """Parse one tile, or all tiles of a composite; inner composites go on a stack, so nothing recurses."""
        offset, composites = 0, list[list[int]]()
        while True:
            header = yield 12
            magic, _, length = struct.unpack("<4sII", header)
            self._check_tile_header(magic, length, composites[-1][0] - offset if composites else None)
            if magic == b"cmpt":
                if len(composites) >= _MAX_COMPOSITE_DEPTH:
                    raise BlobDamaged(f"composites are nested deeper than {_MAX_COMPOSITE_DEPTH}")
                (count,) = struct.unpack("<I", (yield 4))
                composites.append([offset + length, count])
                offset += 16
            else:
                yield _Rewind(12)
                yield from self._parse_tile(magic, length)
                offset += length
            while composites and composites[-1][1] == 0:
                end, _ = composites.pop()
                yield _ByteSpan(end - offset)
                offset = end
            if not composites:
                return offset
            composites[-1][1] -= 1

    def _check_tile_header(self, magic: bytes, length: int, available: int | None) -> None:
        if self._declared_length is None:
            self._declared_length = length
        if KIND_BY_MAGIC.get(magic, Kind.SUBTREE) is Kind.SUBTREE:
            raise BlobDamaged(f"an inner tile has the unknown magic {magic!r}")
        if length < (16 if magic == b"cmpt" else 12):
            raise BlobDamaged(f"a {KIND_BY_MAGIC[magic]} header states a length of {length} bytes")
        if available is not None and length > available:
            raise BlobDamaged(
                f"an inner tile of {length} bytes reaches {length - available} bytes beyond its composite"
            )

    def _parse_tile(self, magic: bytes, length: int) -> _ParserGenerator:
        match magic:
            case b"glTF":
                return (yield from self._parse_glb(length))
            case b"b3dm":
                return (yield from self._parse_b3dm(length))
            case b"i3dm":
                return (yield from self._parse_i3dm(length))
            case b"pnts":
                _, _, _, *tables = struct.unpack("<4s6I", (yield 28))
                yield _ByteSpan(_bytes_after_tables(length, 28, tables))
                yield _ByteSpan(sum(tables))
                return length
            case _:
                yield _ByteSpan(length)
                return length

    def _parse_b3dm(self, length: int) -> _ParserGenerator:
        _, _, _, first, second = struct.unpack("<4s4I", (yield 20))
        third = yield 4
        if _read_uint(third) >= _LEGACY_HEADER_THRESHOLD:
            yield _Rewind(4)
            return (yield from self._parse_model(length, 20, [second]))
        fourth = yield 4
        if _read_uint(fourth) >= _LEGACY_HEADER_THRESHOLD:
            yield _Rewind(4)
            return (yield from self._parse_model(length, 24, [first, second]))
        return (yield from self._parse_model(length, 28, [first, second, _read_uint(third), _read_uint(fourth)]))

    def _parse_i3dm(self, length: int) -> _ParserGenerator:
        _, _, _, *tables, form = struct.unpack("<4s7I", (yield 32))
        if form == 1:
            return (yield from self._parse_model(length, 32, tables))
        if form != 0:
            raise BlobDamaged(f"the gltfFormat of the i3dm is {form}, which is unknown")
        size = _bytes_after_tables(length, 32, tables)
        yield _ByteSpan(sum(tables))
        if size > MAX_BUFFERED_JSON_BYTES:
            raise BlobDamaged(f"the URI of the i3dm has {size} bytes")
        uri = (yield size).decode(errors="replace").strip(" \0")
        self._on_uri(Role.MODEL, uri)
        return length

    def _parse_model(self, length: int, header: int, tables: list[int]) -> _ParserGenerator:
        """Parse the tables after a header, then the glTF; padding may follow."""
        available = _bytes_after_tables(length, header, tables)
        yield _ByteSpan(sum(tables))
        if available == 0:
            self._add_diagnostic("empty", "a tile holds no glTF")
            return length
        if available < 12:
            raise BlobDamaged(f"the glTF of a tile has {available} bytes")
        header_bytes = yield 12
        magic, _, size = struct.unpack("<4sII", header_bytes)
        if magic != b"glTF":
            raise BlobDamaged("a tile has something else in the place of its glTF")
        if size > available:
            raise BlobDamaged(f"the glTF of a tile is cut off: its header says {size} bytes, {available} are there")
        yield _Rewind(12)
        yield from self._parse_glb(size)
        yield _ByteSpan(available - size)
        return length

    # --- binary glTF ---

    def _parse_glb(self, length: int) -> _ParserGenerator:
        _, version, _ = struct.unpack("<4sII", (yield 12))
        if version == 1:
            return (yield from self._parse_glb_1(length))
        if version != 2:
            raise BlobDamaged(f"GLB version {version} is unknown")
        offset, bin_size = 12, None
        buffer: Buffer | None = None
        while offset < length:
            if length - offset < 8:
                raise BlobDamaged("the GLB chunk table is cut off")
            size, chunk_type = struct.unpack("<II", (yield 8))
            if offset == 12 and chunk_type != JSON_CHUNK:
                raise BlobDamaged("the first GLB chunk is not JSON")
            if offset + 8 + size > length:
                raise BlobDamaged(f"a GLB chunk ends at byte {offset + 8 + size}, beyond the declared length {length}")
            if offset == 12:
                buffer = yield from self._parse_gltf_json(size)
            else:
                bin_size = size if chunk_type == BIN_CHUNK and bin_size is None else bin_size
                yield _ByteSpan(size)
            offset += 8 + size
        if offset == 12:
            raise BlobDamaged("the GLB chunk table is cut off")
        self._check_bin_chunk(buffer, bin_size)
        return length

    def _parse_glb_1(self, length: int) -> _ParserGenerator:
        size, form = struct.unpack("<II", (yield 8))
        if form != 0 or 20 + size > length:
            raise BlobDamaged("the header of a GLB of version 1 is broken")
        yield from self._parse_gltf_json(size)
        yield _ByteSpan(length - 20 - size)
        return length

    def _parse_gltf_json(self, size: int) -> Generator[int | _ByteSpan | _Rewind, bytes, Buffer | None]:
        """Parse the JSON of a glTF; return its first buffer."""
        document = Document(self._on_uri)
        if size <= MAX_BUFFERED_JSON_BYTES:
            text = yield size
            if (parsed := parse_plain_gltf(text)) is not None:
                buffer, uris = parsed
                self._report_uris(uris)
                return buffer
            document.feed(text)
        else:
            yield _ByteSpan(size, document)
        document.finish()
        self.buffer_lengths += document.buffer_lengths
        if document.padded:
            self._add_diagnostic("NULs", "the JSON of the glTF is padded with NULs, which JSON readers refuse")
        return document.first_buffer

    def _check_bin_chunk(self, buffer: Buffer | None, bin_size: int | None) -> None:
        """Compare the BIN chunk with the first buffer without a URI; it may be up to 3 bytes longer."""
        stated, is_external = buffer or (None, True)
        if is_external or stated is None:
            return
        if (bin_size or 0) < stated:
            actual = "there is no BIN chunk" if bin_size is None else f"its BIN chunk has {bin_size}"
            raise BlobDamaged(f"its first buffer has {stated} bytes, but {actual}")
        if bin_size is not None and bin_size > stated + 3:
            self._add_diagnostic("padding", f"the BIN chunk is {bin_size - stated} bytes longer than the buffer in it")

    # --- subtrees ---

    def _parse_subtree(self) -> _ParserGenerator:
        _, version, size, body = struct.unpack("<4sIQQ", (yield 24))
        if version != 1:
            raise BlobDamaged(f"subtree version {version} is unknown")
        self._declared_length = 24 + size + body
        document = Document(self._on_uri)
        yield _ByteSpan(size, document)
        document.finish()
        self.buffer_lengths += document.buffer_lengths
        yield _ByteSpan(body)
        return self._declared_length


def _bytes_after_tables(length: int, header: int, tables: list[int]) -> int:
    """Count the bytes of a tile after its header and tables."""
    rest = length - header - sum(tables)
    if rest < 0:
        raise BlobDamaged(f"the tables of a tile end at byte {length - rest}, beyond its declared length {length}")
    return rest


def _read_uint(data: bytes) -> int:
    return int.from_bytes(data, "little")
