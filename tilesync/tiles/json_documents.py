"""JSON documents of 3D Tiles and glTF: one table of the members that name files, for reading and for re-basing.

Sources: 3D Tiles 1.1 (tileset, "Implicit Tiling", "3D Metadata"), 1.0 and its extensions 3DTILES_multiple_contents,
3DTILES_implicit_tiling, 3DTILES_metadata with their drafts; glTF 2.0 and 1.0 (KHR_binary_glTF, KHR_techniques_webgl),
EXT_structural_metadata, EXT_feature_metadata; MAXAR_extent, MAXAR_content_geojson. One table serves all documents: the
type is known only after reading, and no key has different meanings in two types.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tilesync.core.foreign_json import read_count, read_or_default
from tilesync.core.gzip import gunzip_chunks_if_packed
from tilesync.errors import BlobDamaged
from tilesync.model import ROOT, Kind, Role
from tilesync.tiles.implicit_tiling import ImplicitTiling, parse_implicit_tiling
from tilesync.tiles.json_scanner import BOM, MAX_STRING_BYTES, Leaf, MalformedJson, Node, Scanner
from tilesync.tiles.uris import RejectedUri, ResolvedUri, is_relative_path, resolve

# --- the table ---

_URI_KEY = re.compile(rb"uri|url|.+U(?:ri|RI|rl|RL)")


class _ExtensibleNode(Node):
    """An object whose members no specification defines: `uri`, `url` and `…Uri` strings in it may name files."""

    def __missing__(self, key: bytes) -> Node | Leaf:
        return _UNKNOWN_URI if _URI_KEY.fullmatch(key) else self.other


_OPAQUE = Node()
_APPLICATION_MEMBERS = dict.fromkeys(("extras", "metadata", "properties", "statistics", "schema"), _OPAQUE)
"""Members that belong to the application, whatever the keys in them are."""

_UNKNOWN = _ExtensibleNode({"extras": _OPAQUE})
_UNKNOWN_URI = Leaf(Role.UNKNOWN, _UNKNOWN)
_METADATA_EXTENSIONS = ("3DTILES_metadata", "EXT_structural_metadata", "EXT_feature_metadata")


def _uri_leaf(role: Role) -> Leaf:
    return Leaf(role, _UNKNOWN)


def _value_leaf(role: str) -> Leaf:
    return Leaf(role, _OPAQUE, is_string=False)


_METADATA = _ExtensibleNode(_APPLICATION_MEMBERS, other=_UNKNOWN)
"""Metadata of a tile, a content or a group: its properties may have any name."""


def _spec_node(
    members: Mapping[str, Node | Leaf], *, scope: str = "", extensions: Mapping[str, Node] | None = None
) -> Node:
    """Build the node of an object of a specification."""
    more = _ExtensibleNode({**dict.fromkeys(_METADATA_EXTENSIONS, _METADATA), **(extensions or {})}, other=_UNKNOWN)
    return _ExtensibleNode({**_APPLICATION_MEMBERS, **members, "extensions": more}, other=_UNKNOWN, scope=scope)


_CONTENT = _spec_node({"uri": _uri_leaf(Role.CONTENT), "url": _uri_leaf(Role.CONTENT), "boundingVolume": _OPAQUE})
_CONTENT[b""] = _CONTENT

_IMPLICIT = _spec_node(
    {
        "subdivisionScheme": Leaf("subdivisionScheme", _OPAQUE),
        **{key: _value_leaf(key) for key in ("subtreeLevels", "availableLevels", "maximumLevel")},
        "subtrees": _spec_node({"uri": _uri_leaf(Role.SUBTREE), "url": _uri_leaf(Role.SUBTREE)}),
    },
    scope="implicit",
)

_TILE = _spec_node(
    {
        "content": _CONTENT,
        "contents": _CONTENT,
        "implicitTiling": _IMPLICIT,
        "boundingVolume": _spec_node({}),
        "viewerRequestVolume": _spec_node({}),
        **dict.fromkeys(("transform", "geometricError", "refine"), _OPAQUE),
    },
    scope="tile",
    extensions={
        "3DTILES_multiple_contents": _spec_node({"contents": _CONTENT, "content": _CONTENT}),
        "3DTILES_implicit_tiling": _IMPLICIT,
    },
)
_TILE[b"children"] = Node({"": _TILE}, other=_UNKNOWN)

_CLASS = Node({"properties": Node(other=Node({"semantic": Leaf("semantic", _OPAQUE)}, other=_OPAQUE))}, other=_OPAQUE)
_CLASSES = Node(other=_CLASS, scope="classes")
_SCHEMA = Node({"classes": _CLASSES}, other=_OPAQUE)
_GROUPS = Node({"": _METADATA}, other=_METADATA)
_WITH_SCHEMA = _spec_node({"schemaUri": _uri_leaf(Role.SCHEMA), "schema": _SCHEMA, "groups": _GROUPS})


_MESHOPT_EXTENSIONS = ("EXT_meshopt_compression", "KHR_meshopt_compression")
"""Extensions whose buffers may have no bytes of their own (`fallback`)."""


def _resource_node(role: Role, **more: Node | Leaf) -> Node:
    """Build the node of an array of resources, or a dictionary of them (glTF 1.0)."""
    embedded = Node(other=_OPAQUE, scope="embedded")
    fallback = Node({"fallback": _value_leaf("fallback")}, other=_OPAQUE)
    extensions = {"KHR_binary_glTF": embedded, **dict.fromkeys(_MESHOPT_EXTENSIONS, fallback)}
    item = _spec_node({"uri": _uri_leaf(role), **more}, scope=role, extensions=extensions)
    return Node({"": item}, other=item)


_DOCUMENT_NODE = _spec_node(
    {
        "asset": Node({"extensions": _UNKNOWN}, other=_OPAQUE, scope="asset"),
        "geometricError": _value_leaf("geometricError"),
        "groups": _GROUPS,
        "root": _TILE,
        "schemaUri": _uri_leaf(Role.SCHEMA),
        "schema": _SCHEMA,
        # glTF
        "buffers": _resource_node(Role.BUFFER, byteLength=_value_leaf("byteLength")),
        "images": _resource_node(Role.IMAGE),
        "shaders": _resource_node(Role.SHADER),
        # subtree, metadata schema, GeoJSON
        "tileAvailability": Node(other=_OPAQUE, scope="availability"),
        "subtreeMetadata": _METADATA,
        "classes": _CLASSES,
        "enums": _OPAQUE,
        "type": Leaf("type", _OPAQUE),
        "features": _OPAQUE,
        "geometry": _OPAQUE,
    },
    extensions={
        **dict.fromkeys(_METADATA_EXTENSIONS, _WITH_SCHEMA),
        "MAXAR_extent": _spec_node({"uri": _uri_leaf(Role.EXTENT)}),
        "KHR_techniques_webgl": _spec_node({"shaders": _resource_node(Role.SHADER)}),
        "MAXAR_content_geojson": _spec_node({"propertiesSchemaUri": _uri_leaf(Role.SCHEMA)}),
    },
)


# --- the documents ---

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
        self._scanner = Scanner(_DOCUMENT_NODE, self)
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


# --- re-basing the tileset of the pointer ---

_URI_BLANKS = "".join(map(chr, range(0x21)))
"""Characters that viewers drop at the ends of a URI (WHATWG URL)."""

_PATH_SAFE = "/{}~!$&'()*+,;=:@"
"""Characters that may stand unencoded in the path of a URI; the braces belong to templates."""


class _UriRebaser:
    """Collect the edits that re-base each URI of a document that leads into the container."""

    def __init__(self, prefix: str, container_url: str) -> None:
        self._prefix = prefix
        self._container_url = container_url
        self.edits: deque[tuple[int, int, bytes]] = deque()
        self.is_tileset = False

    def on_string(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        """Add the edit of one URI: insert the prefix before its first character."""
        if not isinstance(leaf.role, Role) or end - start > MAX_STRING_BYTES:
            return
        if path := _path_in_container(text, self._container_url):
            self.edits.append((start, end, json.dumps(self._prefix + path)[1:-1].encode()))
        elif not is_relative_path(text) or _leaves_container(text):
            return
        elif text[0] > " ":
            self.edits.append((start, start, self._prefix.encode()))
        else:
            self.edits.append((start, end, json.dumps(self._prefix + text.strip(_URI_BLANKS))[1:-1].encode()))

    def on_scalar(self, leaf: Leaf, raw: bytes) -> None:
        """Do nothing: not a URI."""

    def on_object_start(self, scope: str) -> None:
        """Detect a tileset: only a tileset has tiles."""
        self.is_tileset = self.is_tileset or scope == "tile"

    def on_object_end(self, scope: str) -> None:
        """Do nothing: only URIs are edited."""


def _leaves_container(uri: str) -> bool:
    """Return whether a relative URI of the root climbs out of the container; it then does so from anywhere."""
    target = resolve(uri, ROOT, "https://host/container")
    return isinstance(target, RejectedUri) and not target.has_unsafe_name


def _path_in_container(uri: str, container_url: str) -> str | None:
    """Find the path in the container that an absolute URI of the root names, without its query, which may be a
    signature.
    """
    target = resolve(uri, ROOT, container_url) if container_url else None
    if not isinstance(target, ResolvedUri) or not target.is_absolute:
        return None
    return quote(f"{target.name}/{target.archive_path}" if target.archive_path else target.name, safe=_PATH_SAFE)


def rebase(chunks: Iterable[bytes], prefix: str, container_url: str = "") -> Iterator[bytes]:
    """Prefix each relative URI of a tileset document, so that it works in another folder.

    Every other byte stays the same; gzip is unpacked, a byte order mark dropped. URIs that point to the container,
    whose bare URL is `container_url`, become relative. Other absolute URIs, `data:` and empty URIs stay, as do those
    that begin with `/`, `?` or `#` and those that leave the container. Raises BlobDamaged, at the end at the latest, if
    it is not a tileset.
    """
    rebaser = _UriRebaser(prefix, container_url)
    scanner = Scanner(_DOCUMENT_NODE, rebaser)
    window, offset = b"", 0
    try:
        for chunk in gunzip_chunks_if_packed(chunks):
            window += chunk
            scanner.feed(chunk)
            edited, window, offset = _apply_edits(window, offset, scanner.position, rebaser.edits)
            yield edited
        scanner.finish()
    except MalformedJson as error:
        raise BlobDamaged(f"{ROOT}: {error}") from None
    if not rebaser.is_tileset:
        raise BlobDamaged(f"{ROOT}: it is JSON, but not a tileset (it has no root tile)")


def _apply_edits(window: bytes, at: int, until: int, edits: deque[tuple[int, int, bytes]]) -> tuple[bytes, bytes, int]:
    """Return the bytes of the window (it begins at `at`) up to `until` with the edits applied; the rest, and its
    offset.
    """
    pieces, done = [], len(BOM) if at == 0 and window.startswith(BOM) else at
    while edits:
        start, end, text = edits.popleft()
        pieces += [window[done - at : start - at], text]
        done = end
    pieces.append(window[done - at : until - at])
    return b"".join(pieces), window[until - at :], until
