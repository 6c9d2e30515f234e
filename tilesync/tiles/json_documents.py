"""JSON documents of 3D Tiles and glTF, read as a stream: the files that they name, tilings and buffers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from tilesync.core.foreign_json import read_count, read_or_default
from tilesync.errors import BlobDamaged
from tilesync.model import Kind, Role
from tilesync.tiles.implicit_tiling import ImplicitTiling, parse_implicit_tiling
from tilesync.tiles.json_members import DOCUMENT_NODE
from tilesync.tiles.json_scanner import Leaf, MalformedJson, Scanner

MAX_CONTENTS_PER_TILE = 1 << 16
"""Maximum contents of one tile: they are kept in memory until it is known whether they are templates."""

Buffer = tuple[int | None, bool]
"""A buffer of a glTF: its stated length, and whether its bytes are elsewhere."""


@dataclass(slots=True)
class _OpenItem:
    """A tile or resource that is still being read: only its end shows what its URIs are."""

    uris: list[str] = field(default_factory=list)
    implicit_members: dict[str, Any] | None = None
    byte_length: int | None = None
    embedded: bool = False
    fallback: bool = False


class Document:
    """Streaming reader of one JSON document of 3D Tiles or glTF; calls `on_uri` with each URI that names a file.

    Templates of implicit tiles go to `implicit_tilings`, because only the subtrees list the files they stand for;
    `unreadable_reasons` says why a tiling cannot be parsed. `content_uri_properties` holds, by class, the property with
    the semantic CONTENT_URI in the embedded schema ("Metadata Semantics"). `first_buffer` is that of a glTF;
    `buffer_lengths` has the URI and required bytes of each external buffer. `feed` and `finish` raise BlobDamaged.
    """

    def __init__(self, on_uri: Callable[[Role, str], None]) -> None:
        self._on_uri = on_uri
        self._scanner = Scanner(DOCUMENT_NODE, self)
        self._open_items: list[_OpenItem] = []
        self._seen_keys: set[str] = set()
        self.implicit_tilings: list[ImplicitTiling] = []
        self.unreadable_reasons: list[str] = []
        self.content_uri_properties: dict[str, str] = {}
        self.first_buffer: Buffer | None = None
        self.buffer_lengths: list[tuple[str, int]] = []

    def feed(self, data: bytes) -> None:
        """Parse the next bytes."""
        try:
            self._scanner.feed(data)
        except MalformedJson as error:
            raise BlobDamaged(str(error)) from None

    def finish(self) -> None:
        """Check that the document is complete."""
        try:
            self._scanner.finish()
        except MalformedJson as error:
            raise BlobDamaged(str(error)) from None
        if self.kind is Kind.GLTF and "geometricError" in self._seen_keys:
            raise BlobDamaged("it is a tileset without a root tile")

    @property
    def kind(self) -> Kind:
        """Kind of the document, as far as it has been read."""
        return next((kind for mark, kind in _KIND_BY_KEY.items() if mark in self._seen_keys), Kind.JSON)

    @property
    def padded(self) -> bool:
        """True if NULs follow the document."""
        return self._scanner.padded

    # --- ScanHandler ---

    def on_string(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        """Handle a string at a leaf."""
        if not isinstance(leaf.role, Role):
            self._record_string(leaf.role, text)
        elif leaf.role in {Role.UNKNOWN, Role.SCHEMA, Role.EXTENT} or not self._open_items:
            self._on_uri(leaf.role, text)
        elif leaf.role is Role.SUBTREE:
            self._record_implicit_member("subtrees", {"uri": text})
        else:
            self._open_items[-1].uris.append(text)
            if len(self._open_items[-1].uris) > MAX_CONTENTS_PER_TILE:
                raise BlobDamaged(f"a tile has more than {MAX_CONTENTS_PER_TILE:,} contents")

    def on_scalar(self, leaf: Leaf, raw: bytes) -> None:
        """Handle a number or literal at a leaf."""
        if leaf.role == "geometricError":
            self._seen_keys.add(leaf.role)
        elif leaf.role == "byteLength":
            self._open_items[-1].byte_length = read_or_default(_parse_scalar(raw), read_count, None)
        elif leaf.role == "fallback":
            self._open_items[-1].fallback = raw == b"true"
        else:
            self._record_implicit_member(leaf.role, _parse_scalar(raw))

    def _record_string(self, role: str, text: str) -> None:
        if role == "type":
            self._seen_keys.add(role)
        elif role == "semantic" and text == "CONTENT_URI":
            *_, of_class, _, of_property = self._scanner.keys
            self.content_uri_properties[of_class] = of_property
        elif role == "subdivisionScheme":
            self._record_implicit_member(role, text)

    def _record_implicit_member(self, key: str, parsed: object) -> None:
        members = self._open_items[-1].implicit_members
        if members is not None:
            members[key] = parsed  # the last of two equal keys counts, as in every browser

    def on_object_start(self, scope: str) -> None:
        """Handle the start of an object with a scope."""
        if self._scanner.depth == 1:
            self._seen_keys.update(self._scanner.keys)
        if scope == "implicit":
            self._open_items[-1].implicit_members = {}
        elif scope == "embedded":
            self._open_items[-1].embedded = True
        elif scope in _ROLE_BY_SCOPE:
            self._open_items.append(_OpenItem())

    def on_object_end(self, scope: str) -> None:
        """Handle the end of an object with a scope."""
        if scope not in _ROLE_BY_SCOPE:
            return
        item = self._open_items.pop()
        if item.implicit_members is not None:
            self._add_implicit_tiling(item.implicit_members, item.uris)
            return
        if scope == Role.BUFFER:
            item.embedded = item.embedded or self._scanner.keys[-1] == EMBEDDED_BUFFER_ID
            self.first_buffer = self.first_buffer or (item.byte_length, bool(item.uris) or item.fallback)
        if not item.embedded:
            for uri in item.uris:
                self._on_uri(_ROLE_BY_SCOPE[scope], uri)
                if scope == Role.BUFFER and item.byte_length is not None and not item.fallback:
                    self.buffer_lengths.append((uri, item.byte_length))

    def _add_implicit_tiling(self, members: Mapping[str, Any], templates: list[str]) -> None:
        try:
            self.implicit_tilings.append(parse_implicit_tiling(members, templates))
        except BlobDamaged as error:
            self.unreadable_reasons.append(str(error))


def _parse_scalar(raw: bytes) -> Any:
    """Parse a number or literal; None for integers that are too long for Python (4300 digits)."""
    return json.loads(raw) if len(raw) < 4000 else None


EMBEDDED_BUFFER_ID = "binary_glTF"
"""Id of the buffer that is the body of a glTF 1.0 binary (KHR_binary_glTF)."""

_ROLE_BY_SCOPE = {"tile": Role.CONTENT, **{role.value: role for role in (Role.BUFFER, Role.IMAGE, Role.SHADER)}}

_KIND_BY_KEY = {
    "root": Kind.TILESET,
    "tileAvailability": Kind.SUBTREE,
    "asset": Kind.GLTF,
    "classes": Kind.SCHEMA,
    "type": Kind.GEOJSON,
}
"""Kind of a document by the first of these keys that it has (the order of CesiumJS, except subtrees after glTF)."""
