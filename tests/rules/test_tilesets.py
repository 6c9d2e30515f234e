"""Where a tileset names other files, and the same sites rewritten."""

import gzip
import json
import os
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.errors import BlobDamaged
from tilesync.rules.tilesets import parse_tileset, rebase, relative, sites

PREFIX = "versions/e1/"

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
            {"uri": "../up.glb"},
            {"uri": "./here.glb"},
        ],
        "implicitTiling": {
            "subdivisionScheme": "QUADTREE",
            "subtrees": {"uri": "subtrees/{level}/{x}/{y}.subtree"},
            "extensions": {"E": {"uri": "in-implicit.bin"}},
        },
        "extras": {"uri": "mine.json"},
        "metadata": {"class": "c", "properties": {"uri": "no.json"}},
        "children": [
            {
                "content": {"uri": "{level}/{x}/{y}.glb"},
                "extensions": {"3DTILES_content_gltf": {"uri": "in-tile.glb"}},
                "children": [{"content": {"uri": "deep/tileset.json"}}],
            },
            {"content": {"uri": "data:application/octet-stream;base64,AAAA"}},
            {"content": {"uri": "https://elsewhere.net/a.glb?sig=1"}},
            {"content": {"uri": "//elsewhere.net/a.glb"}},
            {"content": {"uri": "/absolute.glb"}},
            {"content": {"uri": "?v=1"}},
            {"content": {"uri": "#here"}},
            {"content": {"uri": ""}},
            {"content": {"uri": None}},
            {"content": {"url": 5}},
        ],
    },
}

REBASED = {
    "schema.json",
    "old/schema.json",
    "icon.png",
    "d.bin",
    "root.glb",
    "a b/%20ü.glb?v=1#f",
    "legacy.b3dm",
    "../up.glb",
    "./here.glb",
    "subtrees/{level}/{x}/{y}.subtree",
    "in-implicit.bin",
    "{level}/{x}/{y}.glb",
    "in-tile.glb",
    "deep/tileset.json",
}


def as_bytes(tileset: Any) -> bytes:
    return json.dumps(tileset, ensure_ascii=False).encode()


def values(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in values(value)]
    return [leaf for value in node for leaf in values(value)] if isinstance(node, list) else [node]


def test_every_known_site_is_rebased() -> None:
    """Contents, implicit templates, schema and the URIs of any extension get the prefix, and nothing else changes."""
    before, after = values(EVERYTHING), values(json.loads(rebase(as_bytes(EVERYTHING), PREFIX)))
    changed = {old: new for old, new in zip(before, after, strict=True) if old != new}
    assert changed == {uri: PREFIX + uri for uri in REBASED}


def test_rebasing_keeps_structure() -> None:
    """Keys, their order, and everything that is no URI stand where they stood."""
    text = rebase(as_bytes(EVERYTHING), PREFIX).decode()
    assert json.dumps(json.loads(text.replace(PREFIX, "")), sort_keys=False) == json.dumps(EVERYTHING, sort_keys=False)


@pytest.mark.parametrize("key", ["extras", "schema", "metadata", "properties", "statistics"])
def test_what_belongs_to_the_application_is_left_alone(key: str) -> None:
    """`extras` and metadata keep strings that look like URIs, at any depth."""
    tileset = {"root": {"content": {"uri": "a.glb"}, key: {"uri": "b", "x": [{"schemaUri": "c"}]}}, key: {"url": "d"}}
    assert [node[key] for node, key in sites(tileset)] == ["a.glb"]


@pytest.mark.parametrize(
    "data",
    [
        as_bytes(EVERYTHING),
        b"\xef\xbb\xbf" + as_bytes(EVERYTHING),
        gzip.compress(as_bytes(EVERYTHING)),
        gzip.compress(b"\xef\xbb\xbf" + as_bytes(EVERYTHING)),
        b" \n" + as_bytes(EVERYTHING) + b"\n",
    ],
    ids=["plain", "mark", "gzip", "gzip-mark", "space"],
)
def test_encodings(data: bytes) -> None:
    """A tileset stored plain, compressed or with a byte order mark is the same tileset, re-based as plain JSON."""
    assert parse_tileset(data) == EVERYTHING
    assert rebase(data, PREFIX) == rebase(as_bytes(EVERYTHING), PREFIX)


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"5", b"{}", b'{"root": null}', b'{"root": []}', b"\xff\xfe{\0}\0", b"\x1f\x8b",
     b"glTF", gzip.compress(b'{"root": {}}')[:-1], gzip.compress(b'{"root": {}}') + b"x", b'{"root": {}} x'],
    ids=range(14),
)  # fmt: skip
def test_no_tileset(data: bytes) -> None:
    """What is no tileset JSON is damage, told with the name of the file."""
    with pytest.raises(BlobDamaged, match=r"^a/b\.json: "):
        parse_tileset(data, "a/b.json")
    with pytest.raises(BlobDamaged):
        rebase(data, PREFIX)


@pytest.mark.parametrize("levels", [10, 200, *range(480, 500), 5_000, 100_000])
def test_deep_trees(levels: int) -> None:
    """A tree of any depth is re-based, or refused as damage; it never breaks the reader."""
    data = b'{"root":' + b'{"content":{"uri":"a"},"children":[' * levels + b"{}" + b"]}" * levels + b"}"
    try:
        assert rebase(data, "p/").count(b'"p/a"') == levels
    except BlobDamaged:
        assert levels > 300


def test_deep_trees_in_memory() -> None:
    """The walk over a tileset does not recurse: 100,000 levels of children have 100,000 sites."""
    tile: dict[str, Any] = {}
    root = tile
    for _ in range(100_000):
        tile["content"] = {"uri": "a"}
        tile["children"] = [{}]
        tile = tile["children"][0]
    assert sum(1 for _ in sites({"root": root})) == 100_000
    while children := root.pop("children", None):  # taken apart level by level: freeing it at once would recurse
        root = children[0]


@pytest.mark.parametrize("number", ["1e999", "-1e999", "NaN", "Infinity"])
def test_numbers_stay_json(number: str) -> None:
    """A number that JSON cannot write is damage: what comes out is JSON that every viewer reads."""
    data = f'{{"root": {{}}, "geometricError": {number}}}'.encode()
    with pytest.raises(BlobDamaged):
        rebase(data, PREFIX)


@pytest.mark.parametrize(
    ("uri", "is_relative"),
    [("a", True), ("a/b", True), ("../a", True), ("./a:b", True), ("{x}", True), ("a b", True), ("ä:b", True),
     ("1:2", True), ("", False), ("/a", False), ("//h/a", False), ("?a", False), ("#a", False), ("data:,x", False),
     ("DATA:,x", False), ("https://h/a", False), ("blob:x", False), ("c:a", False)],
)  # fmt: skip
def test_relative(uri: str, is_relative: bool) -> None:
    """A relative-path reference is one without scheme, host, leading slash, and with a path."""
    assert relative(uri) is is_relative


URIS = st.text(max_size=12) | st.sampled_from(["a.glb", "data:,x", "https://h/a", "", "/a", "?q", "{x}.glb"])
EXTENSIONS = st.dictionaries(
    st.sampled_from(["uri", "url", "iconUrl", "x", "extras", "list"]),
    st.recursive(URIS | st.integers() | st.none(), lambda inner: st.lists(inner, max_size=3)),
    max_size=4,
)
TILES = st.recursive(
    st.fixed_dictionaries({}, optional={"content": st.fixed_dictionaries({"uri": URIS}), "extensions": EXTENSIONS}),
    lambda tiles: st.fixed_dictionaries({"children": st.lists(tiles, max_size=3)}, optional={"extras": EXTENSIONS}),
    max_leaves=8,
)


@given(TILES, EXTENSIONS)
def test_rebased_and_stripped_is_the_same(root: dict[str, Any], extensions: dict[str, Any]) -> None:
    """Taking the prefix off the sites that have it gives the tileset as it was, and no site lacks it wrongly."""
    tileset = {"root": root, "extensions": extensions}
    rebased = json.loads(rebase(as_bytes(tileset), "\0prefix/"))
    for node, key in sites(rebased):
        assert node[key].startswith("\0prefix/") or not relative(node[key])
        node[key] = node[key].removeprefix("\0prefix/")
    assert rebased == tileset


def test_a_rebased_uri_names_the_same_file() -> None:
    """From the top of the destination, a re-based URI leads to the file that it named inside its version."""
    for uri in ("a.glb", "a/b.glb", "./a.glb", "a/../b.glb"):
        assert os.path.normpath(PREFIX + uri) == os.path.normpath(os.path.join("versions/e1", uri))
