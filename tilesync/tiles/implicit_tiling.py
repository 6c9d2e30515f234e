"""Implicit tiling: parse the root tile of an implicit tileset and its subtree files.

Source: 3D Tiles 1.1, "Implicit Tiling", and drafts of 3DTILES_implicit_tiling that viewers still read. Untrusted input:
types and byte ranges of everything are checked.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, TypeVar

from tilesync.errors import BlobDamaged
from tilesync.runtime.gzip import GZIP_MAGIC, Unpacker
from tilesync.tiles.uris import redact_uri

MAX_LEVEL = 62
"""Deepest level of a tile: its coordinates fit in 64 bits."""

MAX_UNPACKED_BYTES = 1 << 28
"""Largest size of a gzip-compressed file when unpacked."""

_MAX_JSON_BYTES = 1 << 22
"""Maximum bytes of JSON in a subtree: parsed into objects, it takes many times as much memory."""

_HEADER = struct.Struct("<4sIQQ")
_CHUNK_BYTES = 1 << 16
_OFFSET_FORMAT_BY_TYPE = {"UINT8": "<2B", "UINT16": "<2H", "UINT32": "<2I", "UINT64": "<2Q"}
_T = TypeVar("_T")


@dataclass(frozen=True, slots=True)
class Cell:
    """Coordinates of a tile in its implicit tileset ("Tile Coordinates"): global, from 0; `z` is 0 in a quadtree."""

    level: int
    x: int
    y: int
    z: int = 0


@dataclass(frozen=True, slots=True)
class ImplicitTiling:
    """The implicit tiling of a root tile; the templates are URI templates, relative to the tileset."""

    is_octree: bool
    subtree_levels: int
    available_levels: int
    subtree_template: str
    content_templates: tuple[str, ...]


def parse_implicit_tiling(members: Mapping[str, Any], content_templates: Sequence[str]) -> ImplicitTiling:
    """Parse `implicitTiling`, or 3DTILES_implicit_tiling, together with the content templates of the tile.

    Drafts state `maximumLevel`, one less than `availableLevels`. Raises BlobDamaged with a sentence that names no file.
    """
    scheme = _require_type(dict, members, "implicitTiling").get("subdivisionScheme")
    if scheme not in ("QUADTREE", "OCTREE"):
        raise BlobDamaged("its subdivisionScheme is neither QUADTREE nor OCTREE")
    if (levels := _require_int(members.get("subtreeLevels"), "subtreeLevels", minimum=1)) > MAX_LEVEL + 1:
        raise BlobDamaged(f"its subtreeLevels are more than the {MAX_LEVEL + 1} levels that a tree may have")
    if members.get("availableLevels") is None and "maximumLevel" in members:
        available = _require_int(members["maximumLevel"], "maximumLevel") + 1
    else:
        available = _require_int(members.get("availableLevels"), "availableLevels", minimum=1)
    subtrees = _require_type(dict, members.get("subtrees"), "subtrees")
    if not (template := _require_type(str, subtrees.get("uri") or subtrees.get("url"), "the template of subtrees")):
        raise BlobDamaged("the template of subtrees is empty")
    return ImplicitTiling(scheme == "OCTREE", levels, available, template, tuple(content_templates))


def fill_template(template: str, cell: Cell) -> str:
    """Build the URI of a cell: replace `{level}`, `{x}`, `{y}` and `{z}` by decimal numbers ("Template URIs")."""
    return compile_template(template).format(cell.level, cell.x, cell.y, cell.z)


def compile_template(template: str) -> str:
    """Convert a URI template to a format string of level, x, y and z, in this order."""
    text = template.replace("{", "{{").replace("}", "}}")
    for number, variable in enumerate(("level", "x", "y", "z")):
        text = text.replace(f"{{{{{variable}}}}}", f"{{{number}}}")
    return text


def find_missing_variables(tiling: ImplicitTiling) -> list[str]:
    """Describe each template that lacks a required variable ("Template URIs")."""
    required = ("{level}", "{x}", "{y}", "{z}") if tiling.is_octree else ("{level}", "{x}", "{y}")
    templates = (tiling.subtree_template, *tiling.content_templates)
    missing_by_template = {text: [name for name in required if name not in text] for text in templates}
    sentence = "the template {} lacks {}: one file would stand for many tiles"
    return [sentence.format(redact_uri(text), ", ".join(names)) for text, names in missing_by_template.items() if names]


class BufferView(NamedTuple):
    """A byte range of a buffer; `uri` is None for the binary chunk; `buffer_size` is the stated size of the buffer."""

    uri: str | None
    buffer_size: int
    begin: int
    end: int


class Availability(NamedTuple):
    """A bitstream, or a constant where there is no view; `stated_count` is its availableCount."""

    label: str
    view: BufferView | None
    constant: int
    stated_count: float | None


StringColumn = tuple[BufferView, BufferView, str]
"""A column of strings: values, offsets, and the struct format of two offsets."""

PropertyTable = tuple[str, dict[str, StringColumn | None]]
"""A property table: its class and its properties; None for a property that is not a column of strings."""


@dataclass(frozen=True, slots=True)
class Subtree:
    """One parsed subtree file. `buffer_uris` are its external buffers, relative to the file, in order, without
    duplicates.

    `needed_uris` are those that `expand_subtree` may read: the availability, and every column of strings that describes
    tiles or contents, because only the schema says which of them is CONTENT_URI. `trailing_bytes` counts the bytes
    after the declared length; `tables` are the property tables of the tiles, then of each content.
    """

    name: str
    buffer_uris: tuple[str, ...]
    needed_uris: tuple[str, ...]
    binary: bytes
    trailing_bytes: int
    tiles: Availability
    children: Availability
    contents: tuple[Availability, ...]
    tables: tuple[PropertyTable | None, ...]


def parse_subtree(data: bytes, name: str) -> Subtree:
    """Parse a subtree file: JSON or binary, plain or gzip-compressed, with or without a byte order mark.

    Raises BlobDamaged if it is not a subtree, or if a buffer view exceeds its buffer.
    """
    try:
        text, binary, trailing_bytes = _split_chunks(decompress(data) if data.startswith(GZIP_MAGIC) else data)
        if len(text) > _MAX_JSON_BYTES:
            raise BlobDamaged(f"its JSON has {len(text):,} bytes, more than {_MAX_JSON_BYTES:,}")
        members = json.loads(text.decode("utf-8-sig", errors="replace"))
        return _read_subtree(_require_type(dict, members, "the subtree"), name, binary, trailing_bytes)
    except BlobDamaged as error:
        raise BlobDamaged(f"{name}: {error}") from error
    except RecursionError as error:
        raise BlobDamaged(f"{name}: it is not a readable subtree (it is nested too deep)") from error
    except ValueError as error:
        reason = str(error) if data else "it is empty"
        raise BlobDamaged(f"{name}: it is not a readable subtree ({reason})") from error


def decompress(data: bytes) -> bytes:
    """Decompress a gzip file of at most MAX_UNPACKED_BYTES.

    The data is fed in pieces, because zlib copies all remaining input at the end of each gzip member.
    """
    unpacker, whole = Unpacker(), bytearray()
    for offset in range(0, len(data), _CHUNK_BYTES):
        for piece in unpacker.feed(data[offset : offset + _CHUNK_BYTES]):
            whole += piece
            if len(whole) > MAX_UNPACKED_BYTES:
                raise BlobDamaged(f"its gzip payload unpacks to more than {MAX_UNPACKED_BYTES} bytes")
    unpacker.finish()
    return bytes(whole)


def _split_chunks(data: bytes) -> tuple[bytes, bytes, int]:
    """Split a file into JSON, binary chunk, and the number of trailing bytes, which viewers ignore ("Subtree Binary
    Format").
    """
    if not data.startswith(b"subt"):
        return data, b"", 0
    if len(data) < _HEADER.size:
        raise BlobDamaged("its header is cut off")
    _, version, text, binary = _HEADER.unpack_from(data)
    middle, end = _HEADER.size + text, _HEADER.size + text + binary
    if version != 1:
        raise BlobDamaged(f"subtree version {version} is unknown")
    if end > len(data):
        raise BlobDamaged(f"it is cut off: its header says {end} bytes, {len(data)} are there")
    return data[_HEADER.size : middle], data[middle:end], len(data) - end


def _read_subtree(members: dict[str, Any], name: str, binary: bytes, trailing_bytes: int) -> Subtree:
    buffers = [_read_buffer(item, len(binary)) for item in _get_optional(list, members, "buffers")]
    views = [_read_buffer_view(item, buffers) for item in _get_optional(list, members, "bufferViews")]
    tables = [_read_table(item, views) for item in _get_optional(list, members, "propertyTables")]
    tiles = _read_availability(members.get("tileAvailability"), "tileAvailability", views)
    children = _read_availability(members.get("childSubtreeAvailability"), "childSubtreeAvailability", views)
    contents = tuple(_read_contents(members, views))
    table_indexes = [members.get("tileMetadata"), *_get_optional(list, members, "contentMetadata")]
    chosen_tables = tuple(
        None if index is None else _get_item(tables, index, "a metadata table") for index in table_indexes
    )
    string_columns = [column for table in chosen_tables if table for column in table[1].values() if column]
    uris = tuple(dict.fromkeys(uri for uri, _ in buffers if uri is not None))
    used_uris = {one.view.uri for one in (tiles, children, *contents) if one.view}
    used_uris |= {view.uri for values, offsets, _ in string_columns for view in (values, offsets)}
    needed = tuple(uri for uri in uris if uri in used_uris)
    return Subtree(name, uris, needed, binary, trailing_bytes, tiles, children, contents, chosen_tables)


def _read_buffer(members: Any, internal: int) -> tuple[str | None, int]:
    """Read URI and size. A buffer without a URI is the binary chunk of `internal` bytes, which may include padding."""
    size, uri = (
        _require_int(_require_type(dict, members, "a buffer").get("byteLength"), "byteLength of a buffer"),
        members.get("uri"),
    )
    if uri is None:
        return None, min(size, internal)
    if not _require_type(str, uri, "the uri of a buffer") or uri[:5].lower() == "data:":
        raise BlobDamaged("the uri of a buffer names no file")
    return uri, size


def _read_buffer_view(members: Any, buffers: Sequence[tuple[str | None, int]]) -> BufferView:
    uri, size = _get_item(
        buffers, _require_type(dict, members, "a buffer view").get("buffer"), "the buffer of a buffer view"
    )
    begin = (
        0 if members.get("byteOffset") is None else _require_int(members["byteOffset"], "byteOffset of a buffer view")
    )
    end = begin + _require_int(members.get("byteLength"), "byteLength of a buffer view")
    if end > size:
        raise BlobDamaged(f"a buffer view ends at byte {end} of a buffer that has {size}")
    return BufferView(uri, size, begin, end)


def _read_contents(members: dict[str, Any], views: Sequence[BufferView]) -> Iterator[Availability]:
    """Read one availability per content; drafts use a single object, or a list in 3DTILES_multiple_contents."""
    extension = _get_optional(dict, _get_optional(dict, members, "extensions"), "3DTILES_multiple_contents")
    holder = extension if extension.get("contentAvailability") is not None else members
    items = holder.get("contentAvailability")
    items = [items] if isinstance(items, dict) else _get_optional(list, holder, "contentAvailability")
    for number, item in enumerate(items):
        yield _read_availability(item, f"contentAvailability {number}", views)


def _read_availability(members: Any, label: str, views: Sequence[BufferView]) -> Availability:
    """Read an availability. If it has a bitstream and a constant, the constant counts, as in viewers.

    Drafts call `bitstream` `bufferView`.
    """
    stated_count = _require_type(dict, members, label).get("availableCount")
    stated_count = stated_count if isinstance(stated_count, (int, float)) else None
    if (constant := members.get("constant")) is None:
        bitstream = members.get("bitstream")
        index = members.get("bufferView") if bitstream is None else bitstream
        return Availability(label, _get_item(views, index, label), 0, stated_count)
    if (bit := _require_int(constant, f"constant of {label}")) > 1:
        raise BlobDamaged(f"constant of {label} is neither 0 nor 1")
    return Availability(label, None, bit, stated_count)


def _read_table(members: Any, views: Sequence[BufferView]) -> PropertyTable:
    kind = _require_type(
        str, _require_type(dict, members, "a property table").get("class"), "class of a property table"
    )
    properties = _get_optional(dict, members, "properties")
    return kind, {key: _read_strings(value, views) for key, value in properties.items()}


def _read_strings(members: Any, views: Sequence[BufferView]) -> StringColumn | None:
    offsets = _require_type(dict, members, "a property").get("stringOffsets")
    if offsets is None or members.get("arrayOffsets") is not None:
        return None
    form = _OFFSET_FORMAT_BY_TYPE.get(_get_optional(str, members, "stringOffsetType") or "UINT32")
    if form is None:
        raise BlobDamaged("the stringOffsetType of a property is unknown")
    return _get_item(views, members.get("values"), "values"), _get_item(views, offsets, "stringOffsets"), form


def _require_type(kind: type[_T], value: Any, label: str) -> _T:
    if isinstance(value, kind):
        return value
    raise BlobDamaged(f"{label} is missing, or has the wrong type")


def _get_optional(kind: type[_T], members: Mapping[str, Any], key: str) -> _T:
    """Get a member that may be absent or null; viewers treat null as absent."""
    value = members.get(key)
    return kind() if value is None else _require_type(kind, value, key)


def _require_int(value: Any, label: str, *, minimum: int = 0) -> int:
    """Require a whole number, which JSON may write as `1.0`."""
    if (
        isinstance(value, (int, float))
        and not isinstance(value, bool)
        and minimum <= value < 1 << 63
        and value == int(value)
    ):
        return int(value)
    raise BlobDamaged(f"{label} is missing, or not a whole number of at least {minimum}")


def _get_item(items: Sequence[_T], index: Any, label: str) -> _T:
    if (number := _require_int(index, label)) >= len(items):
        raise BlobDamaged(f"{label} has number {number}, the subtree has {len(items)} of that kind")
    return items[number]
