"""Plain tileset: which tilesets one step can parse, and that the streaming parser finds the same in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.model import ROOT, Blob, Kind, ParsedContent, Reference, Role
from tilesync.tiles.plain_tileset import parse_plain_tileset
from tilesync.tiles.validator import ContentCheck

HOME = "https://acct.blob.core.windows.net/c1"
BOX = {"box": [0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0, 1e9]}
URIS = ["a.glb", "b/c.glb", "../x.json", "https://elsewhere.example/x.glb", f"{HOME}/y.glb", "z.glb?v=1", "", "ü.glb"]

VOLUMES = st.fixed_dictionaries(
    {}, optional={"boundingVolume": st.just(BOX), "viewerRequestVolume": st.just({"sphere": [0, 0, 0, 1.5]})}
)
CONTENTS = st.fixed_dictionaries({"uri": st.sampled_from(URIS)}, optional={"boundingVolume": st.just(BOX)})
LEAVES = st.builds(lambda volumes, more: {**volumes, **more}, VOLUMES, st.fixed_dictionaries(
    {}, optional={"content": CONTENTS, "refine": st.just("ADD"), "geometricError": st.just(1)}
))  # fmt: skip
TILES = st.recursive(
    LEAVES,
    lambda inner: st.builds(
        lambda tile, children, is_first: {"children": children, **tile} if is_first else {**tile, "children": children},
        LEAVES,
        st.lists(inner, max_size=4),
        st.booleans(),
    ),
    max_leaves=12,
)


def tileset(root: Any = None, **members: Any) -> bytes:
    """Build an ordinary tileset."""
    root = {"boundingVolume": BOX, "geometricError": 1, "content": {"uri": "a.glb"}} if root is None else root
    return json.dumps({"asset": {"version": "1.1"}, "geometricError": 512, "root": root, **members}).encode()


def stream(name: str, data: bytes) -> ParsedContent:
    """Read a document with the streaming parser."""
    check = ContentCheck(Blob(name, len(data)), HOME)
    check.feed(data)
    check.finish()
    return check.drain()


@given(TILES, st.sampled_from([ROOT, "tiles/7/tileset.json"]), st.sampled_from([None, 1]))
def test_same_result_as_the_streaming_parser(root: Any, name: str, indent: int | None) -> None:
    """References, their order and the diagnostics are those of the streaming parser."""
    data = json.dumps({"asset": {"version": "1.0"}, "root": root}, indent=indent, ensure_ascii=False).encode()
    plain = parse_plain_tileset(name, data, HOME)
    if any(":" in uri and uri.encode() in data for uri in URIS):
        assert plain is None  # a colon in a string could be that of a member
    else:
        assert plain == stream(name, data)


def test_references() -> None:
    """The URIs of all tiles are found."""
    root = {"children": [{"content": {"uri": "b.glb"}}, {}], "content": {"uri": "a.glb"}}
    expected = (Reference("t/b.glb", Role.CONTENT), Reference("t/a.glb", Role.CONTENT))
    assert parse_plain_tileset("t/x.json", tileset(root), HOME) == ParsedContent(Kind.TILESET, expected)


TILE = b'{"asset":{"version":"1.1"},"root":{"content":{"uri":"a.glb"}%s}%s}'


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"[]",
        b"{}",
        tileset()[:-1],
        tileset() + b"x",
        tileset() + b"\0",
        b"\xef\xbb\xbf" + tileset(),
        tileset().replace(b"a.glb", b"a\\u002eglb"),
        tileset().replace(b"a.glb", b"\xff.glb"),
        tileset().replace(b"a.glb", b"a" * 5000),
        tileset(5),
        tileset([]),
        tileset({"content": None}),
        tileset({"content": {}}),
        tileset({"content": {"uri": 5}}),
        tileset({"content": {"url": "a.glb"}}),
        tileset({"content": {"uri": "a.glb", "url": "b.glb"}}),
        tileset({"contents": [{"uri": "a.glb"}]}),
        tileset({"children": {"content": {"uri": "a.glb"}}}),
        tileset({"children": [5]}),
        tileset({"implicitTiling": {}}),
        tileset({"extensions": {}}),
        tileset({"extras": {"uri": "a"}}),
        tileset({"boundingVolume": {"extensions": {"X": {"uri": "a"}}}}),
        tileset({"boundingVolume": {"box": [{"uri": "a"}]}}),
        tileset({"transform": [{"imageUri": "a"}]}),
        tileset(schemaUri="schema.json"),
        tileset(properties={}),
        tileset(geometricError=float("nan")),
        tileset(asset={"version": "1.0", "extras": {}}),
        tileset(asset=[]),
        TILE % (b',"content":{"uri":"b.glb"}', b""),
        TILE % (b',"children":[{"content":{"uri":"b.glb"}}],"children":[]', b""),
        TILE % (b',"boundingVolume":{"xUri":"b"},"boundingVolume":{"box":[1]}', b""),
        TILE % (b"", b',"root":{}'),
        b'{"asset":{"version":"1.1"},"root":' + b'{"children":[' * 30_000,
        b'{"asset":{"version":"1.1"},"root":{}}' + b" " * (1 << 20),
    ],
)
def test_other_documents_are_left(data: bytes) -> None:
    """Whatever is not an ordinary tileset, or has a member twice, is left to the streaming parser."""
    assert parse_plain_tileset("x.json", data, HOME) is None
