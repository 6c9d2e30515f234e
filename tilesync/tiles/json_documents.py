"""Where the JSON documents of 3D Tiles name other files: one table of sites, read by the walk and by re-basing alike.

Sources: 3D Tiles 1.1 (tileset, "Implicit Tiling", "3D Metadata"), 1.0 and its extensions 3DTILES_multiple_contents,
3DTILES_implicit_tiling, 3DTILES_metadata with their drafts; glTF 2.0 and 1.0 (KHR_binary_glTF, KHR_techniques_webgl),
EXT_structural_metadata, EXT_feature_metadata; MAXAR_extent, MAXAR_content_geojson. One table serves all documents,
since the type of one is known only once it has been read, and no key means different things in two of them.
"""

from __future__ import annotations

import json
import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote

from tilesync.core.foreign_json import count, lenient
from tilesync.core.gzip import unpacked
from tilesync.errors import BlobDamaged
from tilesync.model import ROOT, Kind, Role
from tilesync.tiles.implicit_tiling import Implicit, read_implicit
from tilesync.tiles.json_scanner import BOM, LONGEST, Leaf, Malformed, Node, Scanner
from tilesync.tiles.uris import Inside, Outside, relative, resolve

# --- the table ---

_URI_KEY = re.compile(rb"uri|url|.+U(?:ri|RI|rl|RL)")


class _Open(Node):
    """An object that may hold what no table knows: `uri`, `url` and `…Uri` strings in it may name files."""

    def __missing__(self, key: bytes) -> Node | Leaf:
        return _UNKNOWN_URI if _URI_KEY.fullmatch(key) else self.other


_OPAQUE = Node()
_APPLICATION = dict.fromkeys(("extras", "metadata", "properties", "statistics", "schema"), _OPAQUE)
"""What belongs to the application, whatever its keys are called."""

_UNKNOWN = _Open({"extras": _OPAQUE})
_UNKNOWN_URI = Leaf(Role.UNKNOWN, _UNKNOWN)
_METADATA_EXTENSIONS = ("3DTILES_metadata", "EXT_structural_metadata", "EXT_feature_metadata")


def _uri(role: Role) -> Leaf:
    return Leaf(role, _UNKNOWN)


def _value(role: str) -> Leaf:
    return Leaf(role, _OPAQUE, text=False)


_METADATA = _Open(_APPLICATION, other=_UNKNOWN)
"""What describes a tile, a content or a group: its properties may be called anything."""


def _known(
    members: Mapping[str, Node | Leaf], *, scope: str = "", extensions: Mapping[str, Node] | None = None
) -> Node:
    """An object of a specification."""
    more = _Open({**dict.fromkeys(_METADATA_EXTENSIONS, _METADATA), **(extensions or {})}, other=_UNKNOWN)
    return _Open({**_APPLICATION, **members, "extensions": more}, other=_UNKNOWN, scope=scope)


_CONTENT = _known({"uri": _uri(Role.CONTENT), "url": _uri(Role.CONTENT), "boundingVolume": _OPAQUE})
_CONTENT[b""] = _CONTENT

_IMPLICIT = _known(
    {
        "subdivisionScheme": Leaf("subdivisionScheme", _OPAQUE),
        **{key: _value(key) for key in ("subtreeLevels", "availableLevels", "maximumLevel")},
        "subtrees": _known({"uri": _uri(Role.SUBTREE), "url": _uri(Role.SUBTREE)}),
    },
    scope="implicit",
)

_TILE = _known(
    {
        "content": _CONTENT,
        "contents": _CONTENT,
        "implicitTiling": _IMPLICIT,
        "boundingVolume": _known({}),
        "viewerRequestVolume": _known({}),
        **dict.fromkeys(("transform", "geometricError", "refine"), _OPAQUE),
    },
    scope="tile",
    extensions={
        "3DTILES_multiple_contents": _known({"contents": _CONTENT, "content": _CONTENT}),
        "3DTILES_implicit_tiling": _IMPLICIT,
    },
)
_TILE[b"children"] = Node({"": _TILE}, other=_UNKNOWN)

_CLASS = Node({"properties": Node(other=Node({"semantic": Leaf("semantic", _OPAQUE)}, other=_OPAQUE))}, other=_OPAQUE)
_CLASSES = Node(other=_CLASS, scope="classes")
_SCHEMA = Node({"classes": _CLASSES}, other=_OPAQUE)
_GROUPS = Node({"": _METADATA}, other=_METADATA)
_WITH_SCHEMA = _known({"schemaUri": _uri(Role.SCHEMA), "schema": _SCHEMA, "groups": _GROUPS})


_MESHOPT = ("EXT_meshopt_compression", "KHR_meshopt_compression")
"""Extensions whose buffers may have no bytes of their own (`fallback`)."""


def _resource(role: Role, **more: Node | Leaf) -> Node:
    """An array of resources, or a dictionary of them (glTF 1.0)."""
    embedded = Node(other=_OPAQUE, scope="embedded")
    fallback = Node({"fallback": _value("fallback")}, other=_OPAQUE)
    extensions = {"KHR_binary_glTF": embedded, **dict.fromkeys(_MESHOPT, fallback)}
    item = _known({"uri": _uri(role), **more}, scope=role, extensions=extensions)
    return Node({"": item}, other=item)


_DOCUMENT = _known(
    {
        "asset": Node({"extensions": _UNKNOWN}, other=_OPAQUE, scope="asset"),
        "geometricError": _value("geometricError"),
        "groups": _GROUPS,
        "root": _TILE,
        "schemaUri": _uri(Role.SCHEMA),
        "schema": _SCHEMA,
        # glTF
        "buffers": _resource(Role.BUFFER, byteLength=_value("byteLength")),
        "images": _resource(Role.IMAGE),
        "shaders": _resource(Role.SHADER),
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
        "MAXAR_extent": _known({"uri": _uri(Role.EXTENT)}),
        "KHR_techniques_webgl": _known({"shaders": _resource(Role.SHADER)}),
        "MAXAR_content_geojson": _known({"propertiesSchemaUri": _uri(Role.SCHEMA)}),
    },
)


# --- the documents ---

MOST_OF_A_TILE = 1 << 16
"""Contents of one tile: they are kept until it is known whether they are templates."""

Buffer = tuple[int | None, bool]
"""A buffer of a glTF: the length that it states, and whether its bytes are elsewhere."""


@dataclass(slots=True)
class _Item:
    """A tile or a resource that is being read: it is known at its end what its URIs are."""

    uris: list[str] = field(default_factory=list)
    said: dict[str, Any] | None = None
    bytes: int | None = None
    embedded: bool = False
    fallback: bool = False


class Document:
    """Reads one JSON document of 3D Tiles or glTF, fed in pieces; tells each URI that names a file by `found`.

    What an implicit tile names is in `implicit`, not told: its templates stand for files that only the subtrees know.
    `unreadable` says why where that cannot be understood.
    `content_uris` holds, by class, the property that the schema inside gives the semantic CONTENT_URI ("Metadata
    Semantics"). `first_buffer` is that of a glTF; `lengths` holds the URI of each buffer elsewhere, with the bytes that
    it must have. `feed` and `finish` raise BlobDamaged with a sentence.
    """

    def __init__(self, found: Callable[[Role, str], None]) -> None:
        self._found = found
        self._scanner = Scanner(_DOCUMENT, self)
        self._open: list[_Item] = []
        self._marks: set[str] = set()
        self.implicit: list[Implicit] = []
        self.unreadable: list[str] = []
        self.content_uris: dict[str, str] = {}
        self.first_buffer: Buffer | None = None
        self.lengths: list[tuple[str, int]] = []

    def feed(self, data: bytes) -> None:
        """Read on."""
        try:
            self._scanner.feed(data)
        except Malformed as error:
            raise BlobDamaged(str(error)) from None

    def finish(self) -> None:
        """No more comes."""
        try:
            self._scanner.finish()
        except Malformed as error:
            raise BlobDamaged(str(error)) from None
        if self.kind is Kind.GLTF and "geometricError" in self._marks:
            raise BlobDamaged("it is a tileset without a root tile")

    @property
    def kind(self) -> Kind:
        """What the document is, as far as it has been read."""
        return next((kind for mark, kind in _KINDS.items() if mark in self._marks), Kind.JSON)

    @property
    def padded(self) -> bool:
        """Whether NULs stand behind it."""
        return self._scanner.padded

    # --- as a Hearer ---

    def text(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        """A text at a leaf."""
        if not isinstance(leaf.role, Role):
            self._fact(leaf.role, text)
        elif leaf.role in {Role.UNKNOWN, Role.SCHEMA, Role.EXTENT} or not self._open:
            self._found(leaf.role, text)
        elif leaf.role is Role.SUBTREE:
            self._say("subtrees", {"uri": text})
        else:
            self._open[-1].uris.append(text)
            if len(self._open[-1].uris) > MOST_OF_A_TILE:
                raise BlobDamaged(f"a tile has more than {MOST_OF_A_TILE:,} contents")

    def value(self, leaf: Leaf, raw: bytes) -> None:
        """A flat value at a leaf."""
        if leaf.role == "geometricError":
            self._marks.add(leaf.role)
        elif leaf.role == "byteLength":
            self._open[-1].bytes = lenient(_number(raw), count, None)
        elif leaf.role == "fallback":
            self._open[-1].fallback = raw == b"true"
        else:
            self._say(leaf.role, _number(raw))

    def _fact(self, role: str, text: str) -> None:
        if role == "type":
            self._marks.add(role)
        elif role == "semantic" and text == "CONTENT_URI":
            *_, of_class, _, of_property = self._scanner.keys
            self.content_uris[of_class] = of_property
        elif role == "subdivisionScheme":
            self._say(role, text)

    def _say(self, key: str, value: object) -> None:
        said = self._open[-1].said
        if said is not None:
            said[key] = value  # of a key that stands twice the last one counts, as in every browser

    def enter(self, scope: str) -> None:
        """An object with a scope begins."""
        if self._scanner.depth == 1:
            self._marks.update(self._scanner.keys)
        if scope == "implicit":
            self._open[-1].said = {}
        elif scope == "embedded":
            self._open[-1].embedded = True
        elif scope in _ITEMS:
            self._open.append(_Item())

    def leave(self, scope: str) -> None:
        """It ends."""
        if scope not in _ITEMS:
            return
        item = self._open.pop()
        if item.said is not None:
            self._take_implicit(item.said, item.uris)
            return
        if scope == Role.BUFFER:
            item.embedded = item.embedded or self._scanner.keys[-1] == EMBEDDED_BUFFER
            self.first_buffer = self.first_buffer or (item.bytes, bool(item.uris) or item.fallback)
        if not item.embedded:
            for uri in item.uris:
                self._found(_ITEMS[scope], uri)
                if scope == Role.BUFFER and item.bytes is not None and not item.fallback:
                    self.lengths.append((uri, item.bytes))

    def _take_implicit(self, said: Mapping[str, Any], templates: list[str]) -> None:
        try:
            self.implicit.append(read_implicit(said, templates))
        except BlobDamaged as error:
            self.unreadable.append(str(error))


def _number(raw: bytes) -> Any:
    """What a number or literal says; None for whole numbers that Python refuses to read (4300 digits)."""
    return json.loads(raw) if len(raw) < 4000 else None


EMBEDDED_BUFFER = "binary_glTF"
"""The id of the buffer that is the body of a glTF 1.0 binary (KHR_binary_glTF)."""

_ITEMS = {"tile": Role.CONTENT, **{role.value: role for role in (Role.BUFFER, Role.IMAGE, Role.SHADER)}}

_KINDS = {
    "root": Kind.TILESET,
    "tileAvailability": Kind.SUBTREE,
    "asset": Kind.GLTF,
    "classes": Kind.SCHEMA,
    "type": Kind.GEOJSON,
}
"""By which of its keys a document is told (CesiumJS looks in this order, but for subtrees after glTF)."""


# --- the pointer ---


_BLANK = "".join(map(chr, range(0x21)))
"""What viewers drop at the ends of a URI (WHATWG URL)."""

_IN_A_PATH = "/{}~!$&'()*+,;=:@"
"""What may stand in the path of a URI as it is; the braces are those of templates."""


class _Sites:
    """Notes where a document holds URIs that lead from its own folder into the container, and the edit for each."""

    def __init__(self, prefix: str, home: str) -> None:
        self._prefix = prefix
        self._home = home
        self.edits: deque[tuple[int, int, bytes]] = deque()
        self.tileset = False

    def text(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        """Note the edit that re-bases a URI: the prefix before its first letter."""
        if not isinstance(leaf.role, Role) or end - start > LONGEST:
            return
        if back := _way_back(text, self._home):
            self.edits.append((start, end, json.dumps(self._prefix + back)[1:-1].encode()))
        elif not relative(text) or _leaves(text):
            return
        elif text[0] > " ":
            self.edits.append((start, start, self._prefix.encode()))
        else:
            self.edits.append((start, end, json.dumps(self._prefix + text.strip(_BLANK))[1:-1].encode()))

    def value(self, leaf: Leaf, raw: bytes) -> None:
        """No URI."""

    def enter(self, scope: str) -> None:
        """Only a tileset has tiles."""
        self.tileset = self.tileset or scope == "tile"

    def leave(self, scope: str) -> None:
        """No URI."""


def _leaves(uri: str) -> bool:
    """Whether a relative URI of the root climbs out of the container: it does so from anywhere."""
    target = resolve(uri, ROOT, "https://host/container")
    return isinstance(target, Outside) and not target.unsafe


def _way_back(uri: str, home: str) -> str | None:
    """The path in the container that a URI of the root leads back to: without its query, which may sign it."""
    target = resolve(uri, ROOT, home) if home else None
    if not isinstance(target, Inside) or not target.absolute:
        return None
    return quote(f"{target.name}/{target.inner}" if target.inner else target.name, safe=_IN_A_PATH)


def rebase(chunks: Iterable[bytes], prefix: str, home: str = "") -> Iterator[bytes]:
    """The tileset document in `chunks` with each relative URI prefixed, to stand that many folders above its place.

    Every other byte stays as it is; a gzip payload is unpacked, a byte order mark dropped. URIs that lead back to the
    container, whose bare URL is `home`, become relative. Other absolute ones, `data:` and empty URIs stay, as do those
    that begin with `/`, `?` or `#` and those that leave the container. Raises BlobDamaged, at the end at the latest,
    when this is no tileset.
    """
    sites = _Sites(prefix, home)
    scanner = Scanner(_DOCUMENT, sites)
    window, at = b"", 0
    try:
        for chunk in unpacked(chunks):
            window += chunk
            scanner.feed(chunk)
            piece, window, at = _edited(window, at, scanner.position, sites.edits)
            yield piece
        scanner.finish()
    except Malformed as error:
        raise BlobDamaged(f"{ROOT}: {error}") from None
    if not sites.tileset:
        raise BlobDamaged(f"{ROOT}: it is JSON, but no tileset (it has no root tile)")


def _edited(window: bytes, at: int, until: int, edits: deque[tuple[int, int, bytes]]) -> tuple[bytes, bytes, int]:
    """The bytes of the window, which begins at `at`, up to `until` with the edits made; what is left, and where."""
    pieces, done = [], len(BOM) if at == 0 and window.startswith(BOM) else at
    while edits:
        start, end, text = edits.popleft()
        pieces += [window[done - at : start - at], text]
        done = end
    pieces.append(window[done - at : until - at])
    return b"".join(pieces), window[until - at :], until
