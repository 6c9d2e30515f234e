"""JSON documents: the members that name files."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.json_documents import EVERYTHING, LEVELS, PREFIX, REBASED, as_bytes, read, rebased
from tilesync.errors import BlobDamaged
from tilesync.model import Kind, Role
from tilesync.tiles.implicit_tiling import ImplicitTiling
from tilesync.tiles.json_documents import MAX_CONTENTS_PER_TILE, Buffer

KEPT = {
    "data:application/octet-stream;base64,AAAA",
    "https://elsewhere.net/a.glb?sig=1",
    "//elsewhere.net/a.glb",
    "/absolute.glb",
    "../up.glb",
    "?v=1",
    "#here",
    "",
}

TREE: dict[str, Any] = {**LEVELS, "subtrees": {"uri": "s/{level}/{x}/{y}.subtree"}}
TEMPLATE = "c/{level}/{x}/{y}.glb"


def list_uris(document: Any) -> list[tuple[Role, str]]:
    """List the URIs of a document, which must be the same byte by byte."""
    _, result = read(document)
    assert read(document, 1)[1] == result
    return result


# --- the sites ---


def test_every_uri_of_a_tileset() -> None:
    """Contents, schema and URIs of any extension are reported with their role, and nothing else."""
    result = list_uris(EVERYTHING)
    assert {uri: role for role, uri in result} == REBASED | dict.fromkeys(KEPT, Role.CONTENT)
    assert len(result) == len(REBASED) + len(KEPT)


@pytest.mark.parametrize(
    ("document", "result"),
    [
        ({"root": {"content": {"uri": "a"}}}, [(Role.CONTENT, "a")]),
        ({"root": {"content": {"url": "a", "uri": "b"}}}, [(Role.CONTENT, "a"), (Role.CONTENT, "b")]),
        ({"root": {"content": [{"uri": "a"}]}}, [(Role.CONTENT, "a")]),
        ({"root": {"content": {"uri": ["a"]}}}, []),
        ({"root": {"content": {"uri": {"uri": "a"}}}}, [(Role.UNKNOWN, "a")]),
        ({"root": {"content": {"extensions": {"X": {"uri": "a"}}}}}, [(Role.UNKNOWN, "a")]),
        ({"root": {"content": {"boundingVolume": {"uri": "a"}}, "transform": {"uri": "b"}}}, []),
        ({"root": {"viewerRequestVolume": {"extensions": {"X": {"imageUrl": "a"}}}}}, [(Role.UNKNOWN, "a")]),
        ({"root": {"somethingNew": [{"pictureURL": "a", "uri": "b"}]}}, [(Role.UNKNOWN, "a"), (Role.UNKNOWN, "b")]),
        ({"root": {"children": {"x": {"uri": "a"}}}}, [(Role.UNKNOWN, "a")]),
        ({"conditionalContents": [{"uri": "a", "keys": {}}]}, [(Role.UNKNOWN, "a")]),
        ({"extensions": {"MAXAR_extent": {"uri": "a"}}}, [(Role.EXTENT, "a")]),
        ({"extensions": {"EXT_structural_metadata": {"schemaUri": "a"}}}, [(Role.SCHEMA, "a")]),
        ({"extensions": {"EXT_feature_metadata": {"schemaUri": "a"}}}, [(Role.SCHEMA, "a")]),
        ({"extensions": {"X": {"schemaUri": "a"}}}, [(Role.UNKNOWN, "a")]),
        ({"extensions": {"X": {"extras": {"uri": "a"}, "properties": {"uri": "b"}}}}, [(Role.UNKNOWN, "b")]),
        ({"asset": {"version": "1.1", "uri": "a", "extensions": {"X": {"uri": "b"}}}}, [(Role.UNKNOWN, "b")]),
        ({"root": {"metadata": {"class": "c", "properties": {"uri": "a"}}}}, []),
        ({"root": {"content": {"extensions": {"3DTILES_metadata": {"properties": {"uri": "a"}}}}}}, []),
        ({"groups": [{"class": "c", "properties": {"url": "a"}, "extensions": {"X": {"url": "b"}}}]},
         [(Role.UNKNOWN, "b")]),
        ({"extensions": {"3DTILES_metadata": {"groups": {"g": {"properties": {"url": "a"}}}}}}, []),
        ({"tileAvailability": {}, "subtreeMetadata": {"properties": {"url": "a"}}}, []),
        ({"buffers": [{"uri": "a"}, {"byteLength": 1}]}, [(Role.BUFFER, "a")]),
        ({"images": [{"uri": "a"}, {"bufferView": 1}]}, [(Role.IMAGE, "a")]),
        ({"images": [{"extensions": {"X": {"uri": "a"}}, "extras": {"uri": "b"}}]}, [(Role.UNKNOWN, "a")]),
        ({"buffers": {"b": {"uri": "a"}}}, [(Role.BUFFER, "a")]),
        ({"images": {"uri": {"uri": "a"}}}, [(Role.IMAGE, "a")]),
        ({"shaders": {"s": {"uri": "a"}}}, [(Role.SHADER, "a")]),
        ({"shaders": [{"uri": "a"}]}, [(Role.SHADER, "a")]),
        ({"buffers": {"binary_glTF": {"uri": "a"}}}, []),
        ({"buffers": [{"name": "binary_glTF", "uri": "a"}]}, [(Role.BUFFER, "a")]),
        ({"images": {"i": {"uri": "a", "extensions": {"KHR_binary_glTF": {"width": 1}}}}}, []),
        ({"shaders": {"s": {"extensions": {"KHR_binary_glTF": {"x": [1]}}, "uri": "a"}}}, []),
        ({"shaders": {"s": {"extensions": {"KHR_binary_glTF": {}}, "uri": "a"}, "t": {"uri": "b"}}},
         [(Role.SHADER, "b")]),
        ({"type": "FeatureCollection", "features": [{"properties": {"uri": "a"}, "uri": "b"}]}, []),
        ({"tileAvailability": {"constant": 1}, "buffers": [{"uri": "a.bin"}]}, [(Role.BUFFER, "a.bin")]),
        ({"meshes": [{"name": "uri", "uri": "a"}]}, [(Role.UNKNOWN, "a")]),
        ({"root": [{"content": {"uri": "a"}}]}, [(Role.UNKNOWN, "a")]),
        ({"root": "a", "buffers": "b", "schemaUri": 5, "images": ["c"], "type": None}, []),
    ],
)  # fmt: skip
def test_sites(document: dict[str, Any], result: list[tuple[Role, str]]) -> None:
    """Each member that names a file is reported with its role, whatever stands elsewhere."""
    assert list_uris(document) == result


@pytest.mark.parametrize("key", ["extras", "schema", "metadata", "properties", "statistics"])
def test_application_data_is_ignored(key: str) -> None:
    """Strings in `extras` and metadata that look like URIs are not reported, at any depth."""
    mine = {"uri": "b", "x": [{"schemaUri": "c"}], "extensions": {"X": {"uri": "d"}}}
    tileset = {"root": {"content": {"uri": "a.glb", key: mine}, key: mine}, key: mine}
    assert list_uris(tileset) == [(Role.CONTENT, "a.glb")]
    assert rebased(as_bytes(tileset)).count(PREFIX.encode()) == 1


@pytest.mark.parametrize(
    ("document", "kind"),
    [
        ({"asset": {}, "root": {}}, Kind.TILESET),
        ({"root": {"children": []}, "asset": {"version": "1.0"}}, Kind.TILESET),
        ({"root": {"x": [1]}, "classes": {}, "type": "x"}, Kind.TILESET),
        ({"asset": {"version": "2.0"}}, Kind.GLTF),
        ({"asset": {"x": [1]}, "buffers": []}, Kind.GLTF),
        ({"buffers": [], "tileAvailability": {"constant": 1}}, Kind.SUBTREE),
        ({"id": "s", "classes": {}}, Kind.SCHEMA),
        ({"schema": {"classes": {}}}, Kind.JSON),
        ({"type": "Feature", "geometry": None}, Kind.GEOJSON),
        ({"type": 5}, Kind.JSON),
        ({"asset": "x", "root": None, "extras": {"root": {}}, "x": {"asset": {}}}, Kind.JSON),
        ({}, Kind.JSON),
    ],
)
def test_kinds(document: dict[str, Any], kind: Kind) -> None:
    """The kind of a document follows from its keys, as in viewers, however it is cut."""
    assert read(document)[0].kind == read(document, 1)[0].kind == kind


# --- implicit tilesets ---


@pytest.mark.parametrize(
    "root",
    [
        {"content": {"uri": TEMPLATE}, "implicitTiling": TREE},
        {"implicitTiling": TREE, "contents": [{"uri": TEMPLATE}]},
        {"content": {"url": TEMPLATE}, "extensions": {"3DTILES_implicit_tiling": TREE}},
        {"content": {"uri": TEMPLATE}, "extensions": {"3DTILES_implicit_tiling":
            {"subdivisionScheme": "QUADTREE", "subtreeLevels": 2, "maximumLevel": 3,
             "subtrees": {"url": TREE["subtrees"]["uri"]}}}},
        {"extensions": {"3DTILES_implicit_tiling": TREE,
                        "3DTILES_multiple_contents": {"contents": [{"uri": TEMPLATE}]}}},
        {"extensions": {"3DTILES_multiple_contents": {"content": [{"uri": TEMPLATE}]},
                        "3DTILES_implicit_tiling": TREE}},
    ],
    ids=range(6),
)  # fmt: skip
def test_implicit_tilesets(root: dict[str, Any]) -> None:
    """Templates of 1.1, of the extension and of its drafts give the same value and are not reported as files."""
    for tree in ({"root": root}, {"root": {"children": [{"content": {"uri": "a.glb"}}, root]}}):
        document, result = read(tree)
        assert [uri for _, uri in result if "{" in uri] == []
        assert document.implicit_tilings == [ImplicitTiling(False, 2, 4, "s/{level}/{x}/{y}.subtree", (TEMPLATE,))]
        assert read(tree, 1)[0].implicit_tilings == document.implicit_tilings
        again = read(rebased(as_bytes(tree)))[0].implicit_tilings
        assert again == [ImplicitTiling(False, 2, 4, PREFIX + "s/{level}/{x}/{y}.subtree", (PREFIX + TEMPLATE,))]


def test_several_implicit_tiles() -> None:
    """Each implicit tile has its own templates; extensions within them are reported."""
    tiles = [{"content": {"uri": f"{n}/{{x}}"}, "implicitTiling": {**TREE, "extensions": {"X": {"uri": "e"}}}}
             for n in range(3)]  # fmt: skip
    document, result = read({"root": {"children": tiles}})
    assert [one.content_templates for one in document.implicit_tilings] == [("0/{x}",), ("1/{x}",), ("2/{x}",)]
    assert result == [(Role.UNKNOWN, "e")] * 3


@pytest.mark.parametrize(
    "tree",
    [{}, {"x": [1]}, {**TREE, "subdivisionScheme": "OCTAL"}, {**TREE, "subtreeLevels": "2"}, {**TREE, "subtrees": None},
     {**TREE, "subtreeLevels": [2]}, {**TREE, "availableLevels": "HUGE"}, {**TREE, "availableLevels": 1e300},
     {**TREE, "subtrees": {"uri": ""}}, {**TREE, "availableLevels": 2.5}, {**TREE, "subtreeLevels": True}],
    ids=range(11),
)  # fmt: skip
def test_broken_implicit_tiles(tree: dict[str, Any]) -> None:
    """A broken implicit tile gives a reason, and its templates are not reported as files."""
    data = as_bytes({"root": {"content": {"uri": TEMPLATE}, "implicitTiling": tree}})
    for step in (1, 1 << 16):
        document, result = read(data, step)
        assert (document.implicit_tilings, result) == ([], [])
        assert len(document.unreadable_reasons) == 1


def test_content_uris_of_a_schema() -> None:
    """The CONTENT_URI property of a class is found in an embedded schema and in a schema file."""
    schema = {"classes": {
        "tile": {"properties": {"u": {"semantic": "CONTENT_URI"}, "v": {"semantic": "ID"}}},
        "other": {"properties": {"x": {"semantic": "CONTENT_URI", "type": "STRING"}}},
        "none": {"semantic": "CONTENT_URI", "properties": {"y": {"x": {"semantic": "CONTENT_URI"}}, "z": None}},
    }}  # fmt: skip
    expected = {"tile": "u", "other": "x"}
    for document in (
        {"schema": schema},
        schema,
        {"extensions": {"3DTILES_metadata": {"schema": schema}}},
        {"extensions": {"EXT_structural_metadata": {"schema": schema}}},
    ):
        assert read(document)[0].content_uri_properties == read(document, 1)[0].content_uri_properties == expected
    assert read({"statistics": schema, "x": schema})[0].content_uri_properties == {}


# --- glTF ---


@pytest.mark.parametrize(
    ("buffers", "expected"),
    [
        ([], None),
        ([{"byteLength": 5}], (5, False)),
        ([{"uri": "a", "byteLength": 5}, {"byteLength": 7}], (5, True)),
        ([{"uri": "data:,", "byteLength": 0}], (0, True)),
        ([{"byteLength": 5, "extensions": {"EXT_meshopt_compression": {"fallback": True}}}], (5, True)),
        ([{"byteLength": 5, "extensions": {"KHR_meshopt_compression": {"fallback": True}}}], (5, True)),
        ([{"byteLength": 5, "extensions": {"EXT_meshopt_compression": {"fallback": False}}}], (5, False)),
        ([{}], (None, False)),
        ([{"x": [1]}, {"byteLength": 2}], (None, False)),
        ([{"byteLength": [5]}, {"byteLength": {"x": 5}}, {"byteLength": "5"}], (None, False)),
        ([{"byteLength": "HUGE"}], (None, False)),
    ],
)
def test_the_first_buffer(buffers: list[Any], expected: Buffer | None) -> None:
    """The first buffer of a glTF has its stated length and whether its bytes are elsewhere."""
    assert read({"buffers": buffers})[0].first_buffer == read({"buffers": buffers}, 1)[0].first_buffer == expected


@pytest.mark.scale
def test_the_contents_of_a_tile_are_bounded() -> None:
    """A tile may have many contents, up to a limit."""
    tile: dict[str, Any] = {"contents": [{"uri": "a"}] * MAX_CONTENTS_PER_TILE}
    assert len(list_uris({"root": tile})) == MAX_CONTENTS_PER_TILE
    tile["content"] = {"uri": "a"}
    with pytest.raises(BlobDamaged, match="more than 65,536 contents"):
        read({"root": tile})


# --- any document ---


@pytest.mark.parametrize("data", [b"", b"[]", b"{", b'{"a":01}', b'{"root":{}} x', b"\xff\xfe{\0}\0"])
def test_broken_documents(data: bytes) -> None:
    """Malformed documents are damage with a sentence."""
    with pytest.raises(BlobDamaged, match=r"JSON"):
        read(data)


@pytest.mark.scale
@pytest.mark.parametrize("levels", [10, 5_000, 9_000])
def test_deep_trees(levels: int) -> None:
    """A tree of any legal depth is read and re-based without recursion."""
    data = b'{"root":' + b'{"content":{"uri":"a"},"children":[' * levels + b"{}" + b"]}" * levels + b"}"
    assert len(read(data)[1]) == levels
    assert rebased(data, "p/").count(b'"p/a"') == levels


def test_trees_that_are_too_deep() -> None:
    """A tree of 100,000 levels is damage and never crashes the reader."""
    data = b'{"root":' + b'{"content":{"uri":"a"},"children":[' * 100_000 + b"{}" + b"]}" * 100_000 + b"}"
    for reader in (read, rebased):
        with pytest.raises(BlobDamaged, match="nested deeper"):
            reader(data)


ANY_KEYS = st.sampled_from(
    ["root", "content", "contents", "children", "uri", "url", "implicitTiling", "subtrees", "subtreeLevels", "asset",
     "extensions", "3DTILES_multiple_contents", "3DTILES_implicit_tiling", "3DTILES_metadata", "schema", "classes",
     "properties", "semantic", "buffers", "byteLength", "images", "shaders", "KHR_binary_glTF", "binary_glTF", "type",
     "EXT_meshopt_compression", "fallback", "tileAvailability", "schemaUri", "x", "", "subdivisionScheme", "box"]
)  # fmt: skip
ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["a", "CONTENT_URI", "QUADTREE", ""]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(ANY_KEYS, inner, max_size=4),
    max_leaves=25,
)


@given(st.dictionaries(ANY_KEYS, ANYTHING, max_size=4), st.integers(1, 40))
@example({"root": [{"content": {"uri": "a"}}]}, 3)
@example({"type": 5, "schemaUri": None, "classes": {"c": {"properties": {"p": {"semantic": 1}}}}}, 3)
def test_known_keys_at_unknown_places(document: dict[str, Any], step: int) -> None:
    """Known keys at any place are read without an error, and the same however the document is cut."""
    first, second = read(document), read(document, step)
    assert first[1] == second[1]
    for field in ("kind", "implicit_tilings", "unreadable_reasons", "content_uri_properties", "first_buffer"):
        assert getattr(first[0], field) == getattr(second[0], field)


# --- re-basing ---


def test_shaders_of_techniques() -> None:
    """Shaders are found in KHR_techniques_webgl and at the top of glTF 1.0."""
    parsed = {"shaders": [{"type": 35632, "uri": "fs.glsl"}, {"type": 35633, "bufferView": 0}], "techniques": []}
    assert list_uris({"asset": {}, "extensions": {"KHR_techniques_webgl": parsed}}) == [(Role.SHADER, "fs.glsl")]


def test_required_lengths_of_buffers() -> None:
    """An external buffer gives its required length; an embedded or fallback buffer gives none."""
    fallback = {"EXT_meshopt_compression": {"fallback": True}}
    buffers = [{"byteLength": 4}, {"byteLength": 9, "uri": "x.bin"}, {"uri": "y.bin"}, {"byteLength": "z", "uri": "z"},
               {"byteLength": 7, "uri": "f.bin", "extensions": fallback}]  # fmt: skip
    assert read({"asset": {}, "buffers": buffers})[0].buffer_lengths == [("x.bin", 9)]
