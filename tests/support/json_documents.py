"""Documents with every kind of URI, and functions that read and re-base them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

from tilesync.model import Role
from tilesync.tiles.json_documents import Document
from tilesync.tiles.rebase import rebase

PREFIX = "versions/v/"
EVERYTHING: dict[str, Any] = {
    "asset": {"version": "1.1", "tilesetVersion": "x.json", "extras": {"uri": "mine.json"}},
    "schemaUri": "schema.json",
    "schema": {"id": "s", "classes": {"c": {"properties": {"uri": {"type": "STRING", "uri": "no.json"}}}}},
    "statistics": {"classes": {"c": {"uri": "no.json"}}},
    "metadata": {"class": "c", "properties": {"uri": "no.json"}},
    "properties": {"Height": {"minimum": 1, "maximum": 2, "uri": "no.json"}},
    "groups": [{"class": "g", "properties": {"uri": "no.json"}}],
    "extras": {"uri": "mine.json", "deep": [{"url": "mine.json"}]},
    "extensions": {
        "3DTILES_metadata": {"schemaUri": "old/schema.json", "groups": {}},
        "MAXAR_extent": {"uri": "extent.geojson"},
        "MAXAR_content_geojson": {"propertiesSchemaUri": "geojson.schema.json"},
        "VENDOR_unknown": {
            "iconUrl": "icon.png",
            "list": [[{"dataURI": "d.bin"}]],
            "title": "x.json",
            "uris": ["no.json"],
        },
    },
    "extensionsUsed": ["VENDOR_unknown"],
    "root": {
        "content": {"uri": "root.glb", "extras": {"uri": "mine"}, "metadata": {"properties": {"uri": "no"}}},
        "contents": [
            {"uri": "a b/%20ü.glb?v=1#f"},
            {"url": "legacy.b3dm"},
            {"uri": "both.b3dm", "url": "both-legacy.b3dm"},
            {"uri": "./here.glb"},
        ],
        "extras": {"uri": "mine.json"},
        "metadata": {"class": "c", "properties": {"uri": "no.json"}},
        "boundingVolume": {"extensions": {"VENDOR_volume": {"uri": "volume.bin"}}},
        "children": [
            {
                "content": {"uri": "{level}/{x}/{y}.glb"},
                "extensions": {"3DTILES_content_gltf": {"uri": "in-tile.glb"}},
                "children": [{"content": {"uri": "deep/tileset.json"}}],
            },
            {"extensions": {"3DTILES_multiple_contents": {"contents": [{"uri": "m1.glb"}, {"url": "m2.glb"}]}}},
            {"extensions": {"3DTILES_multiple_contents": {"content": [{"uri": "draft.glb"}]}}},
            {"content": {"uri": "data:application/octet-stream;base64,AAAA"}},
            {"content": {"uri": "https://elsewhere.net/a.glb?sig=1"}},
            {"content": {"uri": "//elsewhere.net/a.glb"}},
            {"content": {"uri": "/absolute.glb"}},
            {"content": {"uri": "../up.glb"}},
            {"content": {"uri": "?v=1"}},
            {"content": {"uri": "#here"}},
            {"content": {"uri": ""}},
            {"content": {"uri": None}},
            {"content": {"url": 5}},
        ],
    },
}
REBASED = {
    "schema.json": Role.SCHEMA,
    "old/schema.json": Role.SCHEMA,
    "extent.geojson": Role.EXTENT,
    "geojson.schema.json": Role.SCHEMA,
    "icon.png": Role.UNKNOWN,
    "d.bin": Role.UNKNOWN,
    "root.glb": Role.CONTENT,
    "a b/%20ü.glb?v=1#f": Role.CONTENT,
    "legacy.b3dm": Role.CONTENT,
    "both.b3dm": Role.CONTENT,
    "both-legacy.b3dm": Role.CONTENT,
    "./here.glb": Role.CONTENT,
    "volume.bin": Role.UNKNOWN,
    "{level}/{x}/{y}.glb": Role.CONTENT,
    "in-tile.glb": Role.UNKNOWN,
    "deep/tileset.json": Role.CONTENT,
    "m1.glb": Role.CONTENT,
    "m2.glb": Role.CONTENT,
    "draft.glb": Role.CONTENT,
}
LEVELS = {"subdivisionScheme": "QUADTREE", "subtreeLevels": 2, "availableLevels": 4}


def as_bytes(document: Any) -> bytes:
    return json.dumps(document, ensure_ascii=False).replace('"HUGE"', "9" * 5000).encode()


def pieces(data: bytes, step: int) -> Iterator[bytes]:
    return (data[start : start + step] for start in range(0, len(data), step))


def read(document: Any, step: int = 1 << 16) -> tuple[Document, list[tuple[Role, str]]]:
    """Read a document; return it with the URIs it reported."""
    uris: list[tuple[Role, str]] = []
    read = Document(lambda role, uri: uris.append((role, uri)))
    for piece in pieces(document if isinstance(document, bytes) else as_bytes(document), step):
        read.feed(piece)
    read.finish()
    return read, uris


def rebased(data: bytes, prefix: str = PREFIX, step: int = 1 << 16) -> bytes:
    return b"".join(rebase(pieces(data, step), prefix))
