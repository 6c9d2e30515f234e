"""Plain GLB: parse a whole GLB of version 2 with an ordinary glTF 2.0 in one step, as nearly all tiles are.

Each function returns None for all other bytes, which the streaming parsers have to judge.
Source: glTF 2.0, section 4.4 (GLB). All numbers are little-endian.
"""

from __future__ import annotations

import json
import re
import struct
from typing import Final, NoReturn

from tilesync.core.foreign_json import read_count, read_or_default
from tilesync.model import Role
from tilesync.tiles.json_documents import Buffer

JSON_CHUNK, BIN_CHUNK = 0x4E4F534A, 0x004E4942
"""Types of the chunks of a GLB."""

MAX_BUFFERED_JSON_BYTES: Final = 1 << 20
"""Maximum bytes of JSON that are parsed at once."""

_START, _CHUNK_HEADER = struct.Struct("<4s4I"), struct.Struct("<2I")
_MIN_BYTES: Final = 28

_URI_KEY = re.compile(rb'"(?:uri|url|[^"]+U(?:ri|RI|rl|RL))"[ \t\n\r]*:')
_URI_KEY_ENDS = (b'uri"', b'url"')
"""Ends of all keys that `_URI_KEY` matches, in lower case."""

_NEEDS_FULL_PARSE = (b"\\", b"KHR_binary_glTF", b"fallback")
_ROLE_BY_ARRAY = (("buffers", Role.BUFFER), ("images", Role.IMAGE))
"""Arrays in which an ordinary glTF names files."""

UriReference = tuple[Role, str, object]
"""Role, URI, and the length that a buffer states."""


def is_plain_glb(data: bytes) -> bool:
    """Return whether `data` is one whole ordinary GLB that names no other file, and needs no diagnostic."""
    if (parsed := parse_whole_glb(data)) is None:
        return False
    buffer, uris, bin_size = parsed
    if uris or buffer is None:
        return not uris
    stated, is_external = buffer
    return is_external or stated is None or stated <= bin_size <= stated + 3


def parse_whole_glb(data: bytes) -> tuple[Buffer | None, list[UriReference], int] | None:
    """Parse a whole GLB: its first buffer, its URIs, and the size of its BIN chunk."""
    if len(data) < _MIN_BYTES:
        return None
    magic, version, length, size, chunk_type = _START.unpack_from(data)
    bin_start = 20 + size
    if (
        magic != b"glTF"
        or version != 2
        or length != len(data)
        or chunk_type != JSON_CHUNK
        or size > MAX_BUFFERED_JSON_BYTES
        or bin_start + 8 > length
    ):
        return None
    bin_size, bin_type = _CHUNK_HEADER.unpack_from(data, bin_start)
    if bin_type != BIN_CHUNK or bin_start + 8 + bin_size != length:
        return None
    parsed = parse_plain_gltf(data[20:bin_start])
    return None if parsed is None else (*parsed, bin_size)


def parse_plain_gltf(text: bytes) -> tuple[Buffer | None, list[UriReference]] | None:
    """Parse the first buffer and the URIs of an ordinary glTF 2.0, ten times as fast as a Document.

    Returns None also for a glTF with URIs outside of buffers and images.
    """
    if any(part in text for part in _NEEDS_FULL_PARSE):
        return None
    try:
        gltf = _DECODER.decode(text.decode())
        items = ((role, item) for key, role in _ROLE_BY_ARRAY for item in gltf.get(key, ()) if "uri" in item)
        uris = [(role, item["uri"], item.get("byteLength")) for role, item in items]
        if len(uris) != _count_uri_keys(text) or not all(type(uri) is str for _, uri, _ in uris):
            return None
        first = next(iter(gltf.get("buffers", ())), None)
        return None if first is None else (
            read_or_default(first.get("byteLength"), read_count, None),
            "uri" in first,
        ), uris
    except (ValueError, RecursionError, AttributeError, TypeError):
        return None


def _count_uri_keys(text: bytes) -> int:
    """Count the keys that name a URI. Most documents have none, which is seen without the regular expression."""
    lower = text.lower()
    return len(_URI_KEY.findall(text)) if any(end in lower for end in _URI_KEY_ENDS) else 0


def reject_constant(constant: str) -> NoReturn:
    """Refuse NaN and the infinities, which are not JSON."""
    raise ValueError(constant)


_DECODER = json.JSONDecoder(parse_constant=reject_constant)
