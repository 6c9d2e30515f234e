"""Validator: digests, kinds, structure and references of one blob."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.support import samples
from tests.support.tile_formats import FILES, NAMED, NAMING, b3dm, chunk, cmpt, glb, glb_1, gltf, i3dm, subt
from tilesync.errors import BlobDamaged
from tilesync.model import ROOT, UNKNOWN_SIZE, Blob, Diagnostic, Digests, Kind, ParsedContent, Reference, Role
from tilesync.model.tiles import DAMAGED, EMPTY_TILE, UNPACKED_BYTES
from tilesync.tiles.binary_formats import KIND_BY_MAGIC
from tilesync.tiles.validator import ContentCheck, check_whole

REAL = (
    sorted(path for path in samples.SAMPLES_FOLDER.glob("*/**/*") if path.is_file()) if samples.SAMPLES_FOLDER else []
)
HOME = "https://acct.blob.core.windows.net/c1"

WHOLE = glb()
ONE = glb_1(b"rest")
BOMB = gltf(chunk(b"JSON", b'{"asset":{"version":"2.0"}}  '), chunk(b"BIN\0", bytes(400_000)))
TILESET: dict[str, Any] = {"asset": {"version": "1.1"}, "root": {"content": {"uri": "a.glb"}, "children": []}}


def packed(data: bytes) -> bytes:
    return gzip.compress(data, mtime=0)


def as_bytes(document: Any) -> bytes:
    return json.dumps(document).encode()


SAMPLES = {
    "plain.bin": b"anything at all",
    "empty": b"",
    "empty.glb": b"",
    "tile.glb": WHOLE,
    "TILE.GLB": WHOLE + b"trailing bytes",
    "tile": WHOLE,
    "old.glb": ONE,
    "short.glb": WHOLE[:-1],
    "packed.glb": packed(WHOLE),
    "packed-in-parts.glb": packed(WHOLE[:9]) + packed(WHOLE[9:]),
    "packed-short.glb": packed(WHOLE)[:-3],
    "packed-bad.glb": packed(WHOLE)[:-6] + b"\xff" * 6,
    "packed-big.glb": packed(BOMB),
    "packed-none.glb": packed(b"no glTF here"),
    "packed-empty": packed(b""),
    "packed-twice": packed(packed(as_bytes(TILESET))),
    "none.glb": b"<html>Sorry</html>",
    "tileset.json": as_bytes(TILESET),
    "mark.json": b"\xef\xbb\xbf\r\n" + as_bytes(TILESET),
    "blank.json": b" " * 300 + as_bytes(TILESET),
    "blank-list.json": b"     [1]",
    "blanks.json": b" " * 5000,
    "broken.json": b'{"a":',
    "broken.txt": b'  {"a":',
    "odd.json": b'{"schemaUri":5,"type":null,"root":[{}],"classes":{"c":{"properties":{"p":{"semantic":1}}}}}',
    "broken-tileset": as_bytes(TILESET) + b"x",
    "packed.json": packed(as_bytes(TILESET)),
    "packed-broken.txt": packed(b'{"a":'),
    "b3dm": b3dm(NAMING),
    "cmpt": packed(cmpt(b3dm(NAMING), i3dm(b"m.glb", 0))),
}
CUTS = st.lists(st.integers(0, 2000), max_size=20)


def check(
    name: str, data: bytes, cuts: list[int] | int = 0, *, md5: bytes | None = None
) -> tuple[Any, ParsedContent] | str:
    """Check a blob; return digests and content, or the error."""
    checked = ContentCheck(Blob(name, len(data), md5=md5), HOME)
    inner = list(range(cuts, len(data), cuts)) if isinstance(cuts, int) and cuts else cuts or []
    assert isinstance(inner, list)
    for start, end in pairwise([0, *sorted(cut % (len(data) + 1) for cut in inner), len(data)]):
        checked.feed(data[start:end])
    try:
        return checked.finish(), checked.drain()
    except BlobDamaged as error:
        return str(error)


def content_of(name: str, data: bytes) -> ParsedContent:
    """Return the content of sound bytes, which must not depend on how they are cut; except the size of gzipped ones."""
    result = check(name, data)
    assert not isinstance(result, str), result
    assert check(name, data, 1) == check(name, data, 3) == result
    content = result[1]
    return content._replace(
        diagnostics=tuple(diagnostic for diagnostic in content.diagnostics if diagnostic.problem != UNPACKED_BYTES)
    )


def error_of(name: str, data: bytes) -> str:
    result = check(name, data)
    assert isinstance(result, str), result
    assert check(name, data, 1) == check(name, data, 3) == result
    return result


# --- what is proved ---


@given(st.sampled_from(sorted(SAMPLES)), CUTS)
def test_chunking_makes_no_difference(name: str, cuts: list[int]) -> None:
    """Digests and content, or the error, do not depend on how the bytes are cut."""
    data = SAMPLES[name]
    md5 = hashlib.md5(data).digest()
    assert check(name, data, cuts, md5=md5) == check(name, data, md5=md5)


@pytest.mark.parametrize("listed", ["none", "right", "wrong", "sha256", "wrong sha256", "both", "size"])
@pytest.mark.parametrize("stated", [None, "right", "wrong"])
def test_a_whole_blob_has_the_result_of_its_chunks(listed: str, stated: str | None) -> None:
    """The check of a whole blob returns or raises what a ContentCheck does, whatever digests are claimed."""
    for name, data in SAMPLES.items():
        md5, sha256 = hashlib.md5(data).digest(), hashlib.sha256(data).digest()
        claims: dict[str, dict[str, Any]] = {
            "none": {},
            "right": {"md5": md5},
            "wrong": {"md5": bytes(16)},
            "sha256": {"sha256": sha256},
            "wrong sha256": {"sha256": bytes(32)},
            "both": {"sha256": sha256, "md5": md5},
            "size": {"size": len(data) + 1},
        }
        blob = Blob(**{"name": name, "size": len(data), **claims[listed]})
        stated_md5 = {None: None, "right": md5, "wrong": bytes(16)}[stated]
        for compute_md5 in (False, True):
            whole = outcome(check_whole, blob, data, compute_md5=compute_md5, stated_md5=stated_md5)
            chunks = outcome(check_chunk, blob, data, compute_md5=compute_md5, stated_md5=stated_md5)
            assert whole == chunks, name


def check_chunk(
    blob: Blob, data: bytes, container_url: str, *, compute_md5: bool, stated_md5: bytes | None
) -> tuple[Digests, ParsedContent]:
    checked = ContentCheck(blob, container_url, compute_md5=compute_md5)
    checked.expect_md5(stated_md5)
    checked.feed(data)
    return checked.finish(), checked.drain()


def outcome(
    work: Callable[..., tuple[Digests, ParsedContent]], blob: Blob, data: bytes, **options: Any
) -> tuple[Digests, ParsedContent] | str:
    try:
        return work(blob, data, HOME, **options)
    except BlobDamaged as error:
        return str(error)


@pytest.mark.parametrize("name", sorted(set(SAMPLES) - {"packed-big.glb"}))
def test_byte_by_byte_makes_no_difference(name: str) -> None:
    """Single bytes give the same result as one chunk."""
    assert check(name, SAMPLES[name], 1) == check(name, SAMPLES[name])


@pytest.mark.parametrize(
    ("name", "kind"),
    [("plain.bin", Kind.NONE), ("empty", Kind.EMPTY), ("tile.glb", Kind.GLB), ("TILE.GLB", Kind.GLB),
     ("tile", Kind.GLB), ("old.glb", Kind.GLB), ("packed.glb", Kind.GLB), ("packed-in-parts.glb", Kind.GLB),
     ("packed-big.glb", Kind.GLB), ("packed-empty", Kind.EMPTY), ("packed-twice", Kind.NONE),
     ("tileset.json", Kind.TILESET), ("mark.json", Kind.TILESET), ("blank.json", Kind.TILESET),
     ("blank-list.json", Kind.NONE), ("broken.txt", Kind.NONE), ("odd.json", Kind.SCHEMA),
     ("packed.json", Kind.TILESET), ("packed-broken.txt", Kind.NONE), ("b3dm", Kind.B3DM), ("cmpt", Kind.CMPT)],
)  # fmt: skip
def test_digests(name: str, kind: Kind) -> None:
    """Sound content has its length and SHA-256, and the kind of its payload."""
    data = SAMPLES[name]
    result = check(name, data)
    assert not isinstance(result, str), result
    assert result[0] == Digests(len(data), hashlib.sha256(data).digest())
    assert result[1].kind == kind


@pytest.mark.parametrize(
    ("name", "data", "words"),
    [
        ("a.glb", b"gl", "holds no glTF"),
        ("a.glb", b"<htm", "holds no glTF"),
        ("a.glb", b"[1]", "holds no glTF"),
        ("a.glb", b'{"code": "x"}', "holds no glTF"),
        ("a.glb", b'{"asset": {}', "JSON"),
        ("a.glb", b"\x89PNG....", "holds no glTF"),
        ("none.glb", SAMPLES["none.glb"], "a page of HTML"),
        ("a.glb", b"glTF", "GLB header is cut off"),
        ("packed-none.glb", SAMPLES["packed-none.glb"], "holds no glTF"),
        ("a.glb", packed(packed(WHOLE)), "holds no glTF"),
        ("packed-short.glb", SAMPLES["packed-short.glb"], "gzip payload is cut off"),
        ("packed-bad.glb", SAMPLES["packed-bad.glb"], "gzip payload is damaged"),
        ("a.glb", gltf(length=12), "chunk table is cut off"),
        *((f"a.{kind}", b"what is this", "holds no tile") for kind in ("b3dm", "i3dm", "PNTS", "cmpt", "vctr", "geom")),
        ("a.b3dm", b'{"error": 1}', "holds no tile"),
        ("a.subtree", b"what is this", "holds no subtree"),
        *((f"a.{kind}", b"what is this", "holds no image") for kind in ("png", "JPG", "jpeg", "webp", "ktx2", "gif")),
        ("a.png", b'{"error": 1}', "holds no image"),
        ("no-suffix", WHOLE[:-1], "GLB is cut off"),
        ("no-suffix", b"b3dm", "b3dm header is cut off"),
        ("no-suffix", subt({"a": 1})[:-1], "subtree is cut off"),
        ("no-suffix", b"\x1f\x8b\x08\x08garbage", "gzip payload is"),
        ("no-suffix", packed(b"x")[:-2], "gzip payload is cut off"),
        ("no-suffix", packed(b"x") + b"x", "gzip payload is"),
    ],
)
def test_damaged_content(name: str, data: bytes, words: str) -> None:
    """Each kind of damage has its own message, with the name of the blob."""
    message = error_of(name, data)
    assert message.startswith(f"{name}: ")
    assert words in message


@pytest.mark.parametrize("data", [WHOLE, ONE, packed(WHOLE)], ids=["v2", "v1", "gzip"])
def test_a_glb_cut_anywhere_is_damaged(data: bytes) -> None:
    """A GLB cut at any byte is damaged, although its length is the listed one."""
    for end in range(1, len(data)):
        assert isinstance(check("a.glb", data[:end]), str), end


@pytest.mark.parametrize("name", sorted(FILES))
def test_a_packed_file_cut_anywhere_is_damaged(name: str) -> None:
    """A file within gzip has the kind of its payload, and is damaged where it is cut, inside or outside."""
    data, named = FILES[name]
    result = content_of("x", packed(data))
    assert result == content_of("x", data)
    assert (result.kind, [reference.role for reference in result.references]) == (
        KIND_BY_MAGIC[data[:4]],
        [r for r, _ in named],
    )
    for end in range(4, len(data), 5):
        assert isinstance(check("x", packed(data[:end])), str), end
    for end in range(4, len(packed(data)), 3):
        assert "gzip payload is cut off" in str(check("x", packed(data)[:end])), end


def test_trailing_bytes_are_tolerated() -> None:
    """Trailing bytes of a GLB are only a diagnostic, as in every viewer."""
    for tail in (b"x", b"\0" * 100, WHOLE):
        for data in (WHOLE + tail, packed(WHOLE + tail)):
            (diagnostic,) = content_of("a.glb", data).diagnostics
            assert diagnostic == Diagnostic("trailing bytes", f"{len(tail)} bytes follow after the GLB")


@pytest.mark.parametrize("data", [b"gl", b"\x1f\x8b", b"\x1f\x8b\0\0\0\0\0\0", b"subx", b"[1]", b"<x/>", b'"{"'])
def test_other_files_have_no_structure(data: bytes) -> None:
    """A file of an unknown kind is not parsed, although it is nearly gzip."""
    assert content_of("a.bin", data) == content_of("a", data) == ParsedContent(Kind.NONE)


PAGES = (b"<html>", b"<!DOCTYPE html><p>", b" \r\n<HTML lang=de>", b"\xef\xbb\xbf<!doctype HTML>", packed(b"<html>"))


@pytest.mark.parametrize("page", PAGES)
def test_a_page_of_html(page: bytes) -> None:
    """A page of HTML is damage, unless its name says that it is one."""
    for name in ("a", "t/a.b3dm", "a.json", "a.bin", "a.png", ROOT):
        assert "page of HTML" in error_of(name, page)
    assert content_of("index.html", page) == content_of("a.HTM", page) == ParsedContent(Kind.NONE)


TILES = [(b3dm(WHOLE), Kind.B3DM), (as_bytes(TILESET), Kind.TILESET), (as_bytes({"asset": {}}), Kind.GLTF)]


@pytest.mark.parametrize(("data", "kind"), TILES)
def test_a_tile_of_another_format_than_its_suffix(data: bytes, kind: Kind) -> None:
    """Viewers detect the format themselves: a `.glb` with another tile gets a diagnostic and is parsed."""
    for stored in (data, packed(data)):
        result, plain = content_of("a.GLB", stored), content_of("a", stored)
        assert result._replace(diagnostics=()) == plain
        (diagnostic,) = result.diagnostics
        assert (diagnostic.problem, kind in diagnostic.detail) == ("other format", True)
    assert content_of("a.b3dm", WHOLE).diagnostics[0].problem == "other format"


def test_a_glb_without_bytes() -> None:
    """An empty `.glb` is no damage but has its own diagnostic: its referrer gets no tile."""
    for data in (b"", packed(b"")):
        result = content_of("a.glb", data)
        assert (result.kind, [diagnostic.problem for diagnostic in result.diagnostics]) == (Kind.EMPTY, [EMPTY_TILE])
    assert content_of("a.b3dm", b"") == content_of("a", b"") == ParsedContent(Kind.EMPTY)


# --- what is broken and proven ---

BROKEN = [("a.glb", WHOLE[:-1]), ("a.json", b"<html>"), (ROOT, b'{"root": {'), ("a.json", b""), ("a.png", b"no png")]


@pytest.mark.parametrize(("name", "data"), BROKEN)
def test_broken_bytes_that_are_proven(name: str, data: bytes) -> None:
    """Damage is only a diagnostic where a digest proves the bytes, or they came before; else an error."""
    for blob, seen in (
        (Blob(name, len(data), md5=hashlib.md5(data).digest()), []),
        (Blob(name, len(data), sha256=hashlib.sha256(data).digest()), []),
        (Blob(name, len(data)), [b"?", hashlib.sha256(data).digest()]),
    ):
        checked = ContentCheck(blob)
        checked.feed(data)
        assert checked.finish(known_sha256s=seen).sha256 == hashlib.sha256(data).digest()
        assert DAMAGED in {diagnostic.problem for diagnostic in checked.drain().diagnostics}
    error_of(name, data)


def test_wrong_bytes_are_never_proven() -> None:
    """Broken bytes with another length or digest are an error, although they came before."""
    data = WHOLE[:-1]
    for blob in (Blob("a.glb", len(data), md5=b"\0" * 16), Blob("a.glb", len(WHOLE))):
        checked = ContentCheck(blob)
        checked.feed(data)
        with pytest.raises(BlobDamaged, match="cut off"):
            checked.finish(known_sha256s=[hashlib.sha256(data).digest()])


def test_a_damaged_tileset_has_no_references() -> None:
    """A damaged tileset has no references: its implicit tiles may be half read."""
    tree = {"subdivisionScheme": "OCTREE", "subtreeLevels": 2, "availableLevels": 3, "subtrees": {"uri": "s"}}
    data = as_bytes({"schemaUri": "s.json", "root": {"content": {"uri": "c"}, "implicitTiling": tree}})[:-1]
    checked = ContentCheck(Blob("a.json", len(data), md5=hashlib.md5(data).digest()))
    checked.feed(data)
    checked.finish()
    result = checked.drain()
    assert (result.references, result.has_implicit_tiling) == ((), False)


@pytest.mark.parametrize(
    ("begins", "kind"),
    [(b"\x89PNG", Kind.IMAGE), (b"\xff\xd8\xff\xe0", Kind.IMAGE), (b"RIFF", Kind.IMAGE), (b"\xabKTX 20", Kind.IMAGE),
     (b"GIF89a", Kind.IMAGE), (b"voxl", Kind.VOXELS), (b"vctr", Kind.VECTOR), (b"geom", Kind.VECTOR)],
)  # fmt: skip
def test_other_kinds(begins: bytes, kind: Kind) -> None:
    """Files without references are detected by their first bytes."""
    data = begins + b"\1\0\0\0\x0c\0\0\0" if kind is Kind.VECTOR else begins + b"whatever"
    assert content_of("x.bin", data) == ParsedContent(kind)


def test_archives() -> None:
    """An archive is one file, with a diagnostic that its files are not followed."""
    result = content_of("a.3tz", b"PK\x03\x04 and so on")
    assert result.kind == Kind.ARCHIVE
    assert [diagnostic.problem for diagnostic in result.diagnostics] == ["unfollowed"]


# --- JSON ---


@pytest.mark.parametrize(
    ("name", "data"),
    [("tileset.json", b'{"a":'), ("tileset.json", b" "), ("a.gltf", b'{"asset":{}'), ("a", b'{"root":{'),
     ("a", b'{"asset":{},'), ("a", b'{"tileAvailability":{}'), ("a.txt", b'\xef\xbb\xbf {"asset":{}} x'),
     ("a", packed(b'{"root":{}} x')), ("a", b'{"root":{}}\0'), (ROOT, as_bytes(TILESET) + b"\0\0"), (ROOT, b"[1]"),
     ("a.json", as_bytes({"root": {}}).decode().encode("utf-16")), ("a.json", "{}".encode("utf-16-le"))],
)  # fmt: skip
def test_broken_json_is_damaged(name: str, data: bytes) -> None:
    """Broken JSON is damage where its beginning shows 3D Tiles, and in the root tileset."""
    assert "JSON" in error_of(name, data)


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.json", b'{"a":'), ("a.json", b'{"a":1}x'), ("A.JSON", b"{]"), ("a.gltf", b"{"), ("a.geojson", b'{"type":"x"'),
     ("a.json", packed(b'{"a":')), ("a.json", b"\xef\xbb"), ("a.json", b'{"a":1}\n{"a":2}'), ("a.json", b'{"a":NaN}'),
     ("a.json", b" " * 5000), ("a.json", b"what is this"), ("a.json", b"nu"), ("a.json", b"{}\0")],
)  # fmt: skip
def test_broken_json_under_a_json_name(name: str, data: bytes) -> None:
    """Broken JSON of an unknown kind is damage under a JSON name: whether that matters depends on its referrer."""
    assert "JSON" in error_of(name, data)


def test_a_json_list() -> None:
    """A `.json` with a list is sound, but unreadable as a document of 3D Tiles."""
    for data in (b"[1]", b"  [{}]", packed(b"[")):
        assert [diagnostic.problem for diagnostic in content_of("a.json", data).diagnostics] == ["unreadable"]


@pytest.mark.parametrize("blank", [b" " * 4095, b" " * 4096, b"\n" * 20_000, b"\xef\xbb\xbf" + b"\t" * 9000])
def test_json_after_blanks(blank: bytes) -> None:
    """A tileset is detected after any number of blanks."""
    for data in (blank + json.dumps(TILESET).encode(), packed(blank + json.dumps(TILESET).encode())):
        assert content_of("a", data) == content_of("a", json.dumps(TILESET).encode())


def test_a_content_uri_of_explicit_tiles_is_remarked() -> None:
    """A CONTENT_URI in the metadata of explicit tiles is not followed, and gets a diagnostic."""
    classes = {"c": {"properties": {"u": {"type": "STRING", "semantic": "CONTENT_URI"}}}}
    (diagnostic,) = content_of("a", json.dumps(TILESET | {"schema": {"classes": classes}}).encode()).diagnostics
    assert diagnostic.problem == "unfollowed"
    assert "CONTENT_URI" in diagnostic.detail


@pytest.mark.parametrize(
    ("name", "data"),
    [("a.txt", b'{"a":'), ("a", b"{ this is a text }"), ("a.bin", b"{\0\1\2"), ("a", b'{"x":{"root":{}},'),
     ("log.jsonl", b'{"type":"x"}\n{"type":"y"}\n'), ("a", packed(b"{,")), ("a.jsonx", b"{")],
)  # fmt: skip
def test_unknown_broken_json(name: str, data: bytes) -> None:
    """A file that only begins like JSON, without a sign of 3D Tiles, is of kind NONE."""
    assert content_of(name, data).kind == Kind.NONE


@pytest.mark.parametrize(
    ("document", "kind"),
    [(TILESET, Kind.TILESET), ({"asset": {"version": "2.0"}}, Kind.GLTF), ({"tileAvailability": {}}, Kind.SUBTREE),
     ({"classes": {}}, Kind.SCHEMA), ({"type": "Feature"}, Kind.GEOJSON), ({"x": 1}, Kind.JSON)],
)  # fmt: skip
def test_kinds_of_json(document: dict[str, Any], kind: Kind) -> None:
    """The kind of JSON follows from its keys, whatever its name, plain or gzipped."""
    for name in ("a.json", "a", "a.tile"):
        assert content_of(name, as_bytes(document)).kind == content_of(name, packed(as_bytes(document))).kind == kind


def test_implicit_tilesets() -> None:
    """A tileset has the flag of implicit tiling, and a reason where a tiling cannot be parsed."""
    tree = {"subdivisionScheme": "OCTREE", "subtreeLevels": 2, "availableLevels": 3, "subtrees": {"uri": "s"}}
    good = as_bytes({"root": {"content": {"uri": "c"}, "implicitTiling": tree}})
    for data in (good, packed(good)):
        assert content_of("tileset.json", data) == ParsedContent(Kind.TILESET, has_implicit_tiling=True)
    bad = as_bytes({"root": {"implicitTiling": {**tree, "subdivisionScheme": "?"}}})
    for data in (bad, packed(bad)):
        result = content_of("tileset.json", data)
        assert [diagnostic.problem for diagnostic in result.diagnostics] == ["unreadable"]
        assert not result.has_implicit_tiling
    assert not content_of("tileset.json", as_bytes(TILESET)).has_implicit_tiling


# --- references ---


@pytest.mark.parametrize(
    "data",
    [NAMING, b3dm(NAMING), cmpt(b3dm(NAMING)), cmpt(cmpt(i3dm(NAMING))), packed(NAMING), packed(cmpt(b3dm(NAMING))),
     as_bytes({"images": [{"uri": "a.png"}], "extensions": {"EXT_structural_metadata": {"schemaUri": "s.json"}}})],
    ids=["glb", "b3dm", "cmpt", "cmpt-cmpt", "gzip", "gzip-cmpt", "gltf"],
)  # fmt: skip
def test_references_are_relative_to_the_file(data: bytes) -> None:
    """References of a model are relative to the file that holds it, at any depth."""
    assert content_of("d/e/x.tile", data).references == tuple(Reference(f"d/e/{uri}", role) for role, uri in NAMED)
    assert content_of("x", data).references == tuple(Reference(uri, role) for role, uri in NAMED)


def test_references_of_instances() -> None:
    """The padded URI of an i3dm is its reference."""
    data = cmpt(i3dm(b"../m%20.gltf?v=1  ", 0))
    result = content_of("d/x.cmpt", data)
    assert result.references == (Reference("m .gltf", Role.MODEL),)
    assert [diagnostic.problem for diagnostic in result.diagnostics] == ["query"]


def test_references_are_reported_once() -> None:
    """A file that is named a thousand times is one reference; tilesets reference contents, schema and extent."""
    tileset = {
        "schemaUri": "s.json",
        "extensions": {"MAXAR_extent": {"uri": "e.geojson"}, "X": {"uri": "https://h/a"}},
        "root": {"children": [{"content": {"uri": f"{HOME}/t/{n % 3}.glb"}} for n in range(1000)]},
    }
    result = content_of("t/tileset.json", as_bytes(tileset))
    assert result.references == (
        Reference("t/s.json", Role.SCHEMA),
        Reference("t/e.geojson", Role.EXTENT),
        *(Reference(f"t/{n}.glb", Role.CONTENT) for n in range(3)),
    )
    assert [diagnostic.problem for diagnostic in result.diagnostics] == ["unfollowed", "absolute URL"]


def test_references_can_be_drained_early() -> None:
    """References can be drained before the end, so that a tileset of any size fits in memory."""
    data = as_bytes({"root": {"children": [{"content": {"uri": f"{n}.glb"}} for n in range(500)]}})
    checked, taken = ContentCheck(Blob("tileset.json", UNKNOWN_SIZE), HOME), list[Reference]()
    for start in range(0, len(data), 100):
        checked.feed(data[start : start + 100])
        if checked.pending_count > 10:
            taken += checked.drain().references
            assert checked.pending_count == 0
    assert len(taken) > 400
    checked.finish()
    last = checked.drain()
    assert [reference.target for reference in (*taken, *last.references)] == [f"{n}.glb" for n in range(500)]
    assert last.kind == Kind.TILESET


# --- length, MD5 ---


@pytest.mark.parametrize(("listed", "sent"), [(4, b"abc"), (2, b"abc"), (1, b""), (0, b"a")])
def test_wrong_lengths(listed: int, sent: bytes) -> None:
    """Fewer or more bytes than listed are damage; the message has both numbers."""
    checked = ContentCheck(Blob("a", listed))
    checked.feed(sent)
    with pytest.raises(BlobDamaged, match=f"it has {len(sent)} bytes, but the listing says {listed}"):
        checked.finish()


def test_unknown_lengths() -> None:
    """A blob of unknown size may have any length."""
    for sent in (b"", b"abc"):
        checked = ContentCheck(Blob("a", UNKNOWN_SIZE))
        checked.feed(sent)
        assert checked.finish().size == len(sent)


def test_wrong_md5() -> None:
    """Bytes without the listed MD5 are damage; without a listed MD5 they are not."""
    checked = ContentCheck(Blob("a", 3, md5=hashlib.md5(b"abd").digest()))
    checked.feed(b"abc")
    with pytest.raises(BlobDamaged, match="MD5"):
        checked.finish()
    assert content_of("a", b"abc") == ParsedContent(Kind.NONE)


def test_every_problem_is_reported() -> None:
    """Length, MD5 and structure are reported together, not only the first."""
    checked = ContentCheck(Blob("a.glb", 9, md5=b"\0" * 16))
    checked.feed(b"<html>")
    with pytest.raises(BlobDamaged, match=r"it has 6 bytes.*MD5.*page of HTML"):
        checked.finish()


@pytest.mark.parametrize("cut", [1, 7, 1 << 20])
def test_a_claimed_sha256_is_checked(cut: int) -> None:
    """Valid bytes without the SHA-256 of the manifest are damaged, however they are cut; the right ones pass."""
    for claim, right in ((hashlib.sha256(WHOLE).digest(), True), (hashlib.sha256(b"").digest(), False)):
        checked = ContentCheck(Blob("a.glb", len(WHOLE), sha256=claim))
        for start in range(0, len(WHOLE), cut):
            checked.feed(WHOLE[start : start + cut])
        if right:
            assert checked.finish().sha256 == claim
        else:
            with pytest.raises(BlobDamaged, match="its SHA-256 is not the one that the manifest states"):
                checked.finish()


def test_reset() -> None:
    """After a reset nothing of the earlier bytes counts, not even a final error or references."""
    checked = ContentCheck(Blob("a.glb", len(WHOLE), md5=hashlib.md5(WHOLE).digest()))
    for before in (b"<html>" + random.Random(1).randbytes(100), NAMING, packed(NAMING)[:50]):
        checked.feed(before)
        checked.reset()
        assert (checked.size, checked.pending_count, checked.sha256) == (0, 0, hashlib.sha256().digest())
    checked.feed(WHOLE)
    assert checked.finish()[:2] == (len(WHOLE), hashlib.sha256(WHOLE).digest())
    assert checked.drain() == ParsedContent(Kind.GLB)


# --- anything ---


@given(st.binary(max_size=80), st.sampled_from(["a.glb", "a.json", "a"]), CUTS)
def test_any_bytes(data: bytes, name: str, cuts: list[int]) -> None:
    """Any bytes pass or are damaged; nothing else is raised."""
    for whole in (data, b"glTF" + data, b'{"root":' + data, packed(data)[:-1] + data[:1], packed(data) + data[:9]):
        assert check(name, whole, cuts) == check(name, whole, 1) == check(name, whole)


@given(
    st.sampled_from(sorted(SAMPLES)), st.lists(st.tuples(st.integers(0, 600), st.binary(max_size=3)), max_size=3), CUTS
)
def test_mutations(name: str, changes: list[tuple[int, bytes]], cuts: list[int]) -> None:
    """Any overwritten file is sound or damaged, raises nothing else, and the result does not depend on the cuts."""
    data = SAMPLES[name]
    for at, patch in changes:
        at %= len(data) + 1
        data = data[:at] + patch + data[at + len(patch) :]
    if len(data) < 10_000:
        assert check(name, data, cuts) == check(name, data, 1) == check(name, data)


# --- real files ---


@samples.requires_samples
@pytest.mark.parametrize("path", REAL, ids=lambda path: path.relative_to(samples.sample_folder()).as_posix())
def test_real_files(path: Path) -> None:
    """Real files are sound, except the one that is known to be cut off, however they are cut."""
    data, name = path.read_bytes(), path.relative_to(samples.sample_folder()).as_posix()
    result = check(name, data)
    assert check(name, data, 1000) == result
    if name == "TilesetOfTilesetsWithError/tileset3/ll.b3dm":
        assert result == f"{name}: the b3dm is cut off: its header says 9716 bytes, 9684 are there"
        return
    assert not isinstance(result, str), result
    assert result[1].kind is not Kind.NONE or path.suffix in {".bin", ".md"}
    assert all((samples.sample_folder() / reference.target).exists() for reference in result[1].references)
