"""JSON documents: the members that name files, and the same members re-based."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tilesync.errors import BlobDamaged
from tilesync.model import Kind, Role
from tilesync.tiles.implicit_tiling import ImplicitTiling
from tilesync.tiles.json_documents import MAX_CONTENTS_PER_TILE, Buffer, Document, rebase
from tilesync.tiles.uris import ResolvedUri, is_relative_path, resolve

PREFIX = "versions/v/"
HOME = "https://acct.blob.core.windows.net/c1"

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

LEVELS = {"subdivisionScheme": "QUADTREE", "subtreeLevels": 2, "availableLevels": 4}
TREE: dict[str, Any] = {**LEVELS, "subtrees": {"uri": "s/{level}/{x}/{y}.subtree"}}
TEMPLATE = "c/{level}/{x}/{y}.glb"


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


def list_uris(document: Any) -> list[tuple[Role, str]]:
    """List the URIs of a document, which must be the same byte by byte."""
    _, result = read(document)
    assert read(document, 1)[1] == result
    return result


def rebased(data: bytes, prefix: str = PREFIX, step: int = 1 << 16) -> bytes:
    return b"".join(rebase(pieces(data, step), prefix))


def values(node: Any) -> list[Any]:
    if isinstance(node, dict):
        return [leaf for value in node.values() for leaf in values(value)]
    return [leaf for value in node for leaf in values(value)] if isinstance(node, list) else [node]


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


def test_every_relative_uri_is_rebased() -> None:
    """Every relative URI gets the prefix, and nothing else changes."""
    before, after = values(EVERYTHING), values(json.loads(rebased(as_bytes(EVERYTHING))))
    changed = {old: new for old, new in zip(before, after, strict=True) if old != new}
    assert changed == {uri: PREFIX + uri for uri in REBASED}


@pytest.mark.parametrize(
    "data",
    [
        as_bytes(EVERYTHING),
        b"\xef\xbb\xbf" + as_bytes(EVERYTHING),
        gzip.compress(as_bytes(EVERYTHING), mtime=0),
        gzip.compress(b"\xef\xbb\xbf" + as_bytes(EVERYTHING), mtime=0),
        gzip.compress(as_bytes(EVERYTHING)[:99], mtime=0) + gzip.compress(as_bytes(EVERYTHING)[99:], mtime=0),
    ],
    ids=["plain", "mark", "gzip", "gzip-mark", "gzip-parts"],
)
def test_encodings(data: bytes) -> None:
    """A tileset stored plain, gzipped or with a byte order mark is re-based to the same plain JSON."""
    plain = rebased(as_bytes(EVERYTHING))
    for step in (1, 2, 3, 4, 1000, 1 << 16):
        assert rebased(data, step=step) == plain
    assert b"".join(rebase([b"", data[:1], b"", data[1:], b""], PREFIX)) == plain


def test_every_other_byte_stays() -> None:
    """Blanks, escapes, double keys, spelling of numbers, invalid UTF-8 and padding stay."""
    data = (
        b' \n{ "root" :\t{"geometricError":1.0e+5,"x":[1.10,-0.0 ],"\\u0063ontent":{"uri" : "%b\\u0061\\/\\u00e9.glb" ,'
        b'"uri":"%b\xff.glb"},"refine":"\\u0041DD","content":{"url":"%b\xc3\xa9"}},"b":"\xfe", "c":1E5 }\r\n\0\0'
    )
    plain, prefixed = data.replace(b"%b", b""), data.replace(b"%b", PREFIX.encode())
    for step in (1, 7, 1 << 16):
        assert rebased(plain, step=step) == prefixed


@pytest.mark.parametrize(
    ("uri", "expected"),
    [
        ("a", "v/a"),
        (" a", "v/a"),
        (" \\u0001\\ta.glb\\u00a0 \\u0000", "v/a.glb\\u00a0"),
        ("\\n\\ud83c\\udfd9 ", "v/\\ud83c\\udfd9"),
        ("a\\nb ", "v/a\\nb "),
        ("\\u002e/a", "v/\\u002e/a"),
        ("x/../a", "v/x/../a"),
        ("x\\\\a", "v/x\\\\a"),
        ("./a:b", "v/./a:b"),
        ("CON", "v/CON"),
        ("\\ud800", "v/\\ud800"),
        ("x/../../a", "x/../../a"),
        ("..\\\\a", "..\\\\a"),
        ("%2e%2e/a", "%2e%2e/a"),
        ("x%2F..%2F..%2Fa", "x%2F..%2F..%2Fa"),
        (" https://h/a", " https://h/a"),
        ("\\u0064ata:,x", "\\u0064ata:,x"),
        (" ", " "),
        (" #a", " #a"),
    ],
)
def test_odd_uris(uri: str, expected: str) -> None:
    """The prefix goes before the first letter, leading blanks go, and URIs that leave the container stay."""
    document = f'{{"root":{{"content":{{"uri":"{uri}"}}}}}}'
    assert rebased(document.encode(), "v/").decode() == document.replace(uri, expected, 1)


@pytest.mark.parametrize("size", [65_000, 65_536, 65_537, 100_000, 2_000_000])
@pytest.mark.parametrize("lead", ["data:,", "x"])
def test_long_uris(size: int, lead: str) -> None:
    """A string longer than any name stays the same, however it is cut."""
    uri = lead + "a" * (size - len(lead))
    document = f'{{"root":{{"content":{{"uri":"{uri}"}},"children":[{{"content":{{"uri":"b"}}}}]}}}}'.encode()
    expected = document.replace(b'"b"', b'"v/b"')
    expected = expected.replace(b'"x', b'"v/x') if lead == "x" and size <= 65_536 else expected
    assert all(rebased(document, "v/", step) == expected for step in (50_000, 1 << 16, 1 << 22))


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b"null", b"5", b"{}", b'{"root": null}', b'{"root": []}', b"\xff\xfe{\0}\0", b"\x1f\x8b",
     b"glTF", gzip.compress(b'{"root": {}}', mtime=0)[:-1], gzip.compress(b'{"root": {}}', mtime=0) + b"x",
     b'{"root": {}} x',
     b'{"asset": {}, "x": {"root": {}}}', b'{"root": {"geometricError": NaN}}', b'{"root": {}, "a": 01}'],
    ids=range(17),
)  # fmt: skip
def test_no_tileset(data: bytes) -> None:
    """A document that is not a tileset is damage, at the end at the latest."""
    for step in (1, 1 << 16):
        with pytest.raises(BlobDamaged):
            rebased(data, step=step)


def test_the_error_names_the_file() -> None:
    """The error about the root names the root."""
    with pytest.raises(BlobDamaged, match=r"^tileset\.json: its JSON is cut off"):
        rebased(b'{"root": {}')
    with pytest.raises(BlobDamaged, match=r"^tileset\.json: .*not a tileset"):
        rebased(b"{}")


def test_rebasing_streams() -> None:
    """A tileset larger than the memory is re-based piece by piece."""
    tile = b'{"content":{"uri":"a.glb"}},'
    parts = [b'{"root":{"children":[', *[tile * 1000] * 50, b"{}]}}"]
    sizes = [len(piece) for piece in rebase(parts, "v/")]
    assert len(sizes) == len(parts)
    assert sum(sizes) == sum(map(len, parts)) + 2 * 50_000
    assert max(sizes) < 2000 + len(tile * 1000) + 2 * 1000


URIS = (
    st.text(st.sampled_from("ab./\\ %2eü:?#~\n\0"), max_size=12)
    | st.text(max_size=8)
    | st.sampled_from(["a.glb", "data:,x", "https://h/a", "", "/a", "?q", "{x}.glb", "../c1/a", "x/../y", " a ", "CON"])
)
EXTENSIONS = st.dictionaries(
    st.sampled_from(["uri", "url", "iconUrl", "x", "extras", "list", "MAXAR_extent", "3DTILES_metadata"]),
    st.recursive(
        URIS | st.integers() | st.none(),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["uri", "schemaUri"]), inner),
        max_leaves=4,
    ),
    max_size=4,
)
CONTENTS = st.fixed_dictionaries({}, optional={"uri": URIS, "url": URIS, "extensions": EXTENSIONS})
SEVERAL = st.fixed_dictionaries({"3DTILES_multiple_contents": st.fixed_dictionaries({"contents": st.lists(CONTENTS)})})
TILES = st.recursive(
    st.fixed_dictionaries(
        {},
        optional={
            "content": CONTENTS,
            "contents": st.lists(CONTENTS, max_size=2),
            "extensions": EXTENSIONS | SEVERAL,
            "implicitTiling": st.fixed_dictionaries(
                {"subtrees": st.fixed_dictionaries({"uri": URIS})},
                optional={key: st.just(LEVELS[key]) for key in LEVELS},
            ),
        },
    ),
    lambda tiles: st.fixed_dictionaries({"children": st.lists(tiles, max_size=3)}, optional={"extras": EXTENSIONS}),
    max_leaves=6,
)
TILESETS = st.fixed_dictionaries(
    {"root": TILES}, optional={"extensions": EXTENSIONS, "schemaUri": URIS, "extras": EXTENSIONS}
)


def every_uri(document: bytes) -> list[tuple[Role, str]]:
    """Collect the reported URIs and the templates of implicit tiles."""
    result, uris = read(document)
    templates = [
        (Role.CONTENT, uri) for one in result.implicit_tilings for uri in (one.subtree_template, *one.content_templates)
    ]
    return uris + templates


@given(TILESETS, st.booleans(), st.integers(1, 60))
@example({"root": {"content": {"uri": "\x01 a"}}}, True, 5)
@example({"root": {"content": {"uri": "../c1/a"}}}, True, 5)
def test_a_rebased_uri_means_the_same_file(tileset: dict[str, Any], ascii_only: bool, step: int) -> None:
    """Seen from the top of a destination, a re-based URI names the same file of the version."""
    before = json.dumps(tileset, ensure_ascii=ascii_only).encode(errors="surrogatepass")
    after = rebased(before)
    assert rebased(before, step=step) == after
    for (role, old), (same_role, new) in zip(every_uri(before), every_uri(after), strict=True):
        meant = resolve(old, "tileset.json", HOME)
        assert role == same_role
        if is_relative_path(old) and isinstance(meant, ResolvedUri) and not meant.is_absolute:
            expected = ResolvedUri(PREFIX + meant.name, meant.has_query, archive_path=meant.archive_path)
            assert resolve(new, "tileset.json", HOME) == expected
        elif not is_relative_path(old):
            assert new == old


@given(TILESETS, st.sampled_from([None, 1]))
def test_rebasing_changes_only_uris(tileset: dict[str, Any], indent: int | None) -> None:
    """Removing the prefix gives the original bytes, if no URI begins with blanks."""
    before = json.dumps(tileset, indent=indent).encode()
    after = rebased(before, "~prefix/")
    assume(not read(before)[0].unreadable_reasons)
    sites = [uri for _, uri in every_uri(before) if is_relative_path(uri)]
    assert after.count(b"~prefix/") <= len(sites)
    assert any(uri[0] <= " " for uri in sites) or after.replace(b"~prefix/", b"") == before


@pytest.mark.parametrize(
    ("uri", "path"),
    [(f"{HOME}/a.glb", "a.glb"), (f"{HOME}/c/a%20b.glb?sv=1&sig=s3cret#f", "c/a%20b.glb"),
     ("/c1/a.glb", "a.glb"), ("../c1/x/a.glb", "x/a.glb"), (f" {HOME}/a.3tz/b.json", "a.3tz/b.json"),
     (f"{HOME}/{{level}}/{{x}}.glb", "{level}/{x}.glb")],
)  # fmt: skip
def test_a_url_of_the_container_becomes_relative(uri: str, path: str) -> None:
    """A URL of the known container becomes relative, without its query, which may be a signature."""
    document = {"root": {"content": {"uri": uri}, "children": [{"content": {"uri": "https://h/a.glb"}}]}}
    for data in (as_bytes(document), json.dumps(document, indent=2).encode()):
        parsed = json.loads(b"".join(rebase(pieces(data, 1), PREFIX, HOME)))
        assert parsed["root"]["content"]["uri"] == PREFIX + path
        assert parsed["root"]["children"] == document["root"]["children"]


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
