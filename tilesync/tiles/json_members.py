"""Members that name files in the JSON documents of 3D Tiles and glTF: one table, for reading and for re-basing.

Sources: 3D Tiles 1.1 (tileset, "Implicit Tiling", "3D Metadata"), 1.0 and its extensions 3DTILES_multiple_contents,
3DTILES_implicit_tiling, 3DTILES_metadata with their drafts; glTF 2.0 and 1.0 (KHR_binary_glTF, KHR_techniques_webgl),
EXT_structural_metadata, EXT_feature_metadata; MAXAR_extent, MAXAR_content_geojson. One table serves all documents: the
type is known only after reading, and no key has different meanings in two types.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from tilesync.model import Role
from tilesync.tiles.json_scanner import Leaf, Node

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


DOCUMENT_NODE = _spec_node(
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
