"""Binary tile formats: structure, URIs and damage."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tests.support.cpu_limit import limit_cpu_time
from tests.support.tile_formats import (
    FILES,
    NAMED,
    NAMING,
    b3dm,
    b3dm_20,
    b3dm_24,
    chunk,
    cmpt,
    glb,
    glb_1,
    gltf,
    i3dm,
    padded,
    sized,
    subt,
    tile,
)
from tilesync.errors import BlobDamaged
from tilesync.model import Diagnostic, Kind, Role
from tilesync.tiles.binary_formats import KIND_BY_MAGIC, BinaryFormatParser

Outcome = tuple[Kind, list[tuple[Role, str]], list[Diagnostic]] | str

# --- small files of each format ---


def parse(data: bytes, cuts: list[int] | int = 0) -> Outcome:
    """Parse a payload: its kind, URIs and diagnostics, or its damage."""
    uris: list[tuple[Role, str]] = []
    parser = BinaryFormatParser(data[:4], lambda role, uri: uris.append((role, uri)))
    inner = range(cuts, len(data), cuts) if isinstance(cuts, int) and cuts else cuts or []
    assert not isinstance(inner, int)
    try:
        for start, end in pairwise([0, *sorted(cut % (len(data) + 1) for cut in inner), len(data)]):
            parser.feed(data[start:end])
        parser.finish()
    except BlobDamaged as error:
        return str(error)
    return parser.kind, uris, parser.diagnostics


def damage(data: bytes) -> str:
    """Return the damage of a payload, which must not depend on how it is cut."""
    result = parse(data)
    assert isinstance(result, str), result
    assert parse(data, 1) == result
    return result


def diagnostics_of(data: bytes) -> list[Diagnostic]:
    result = parse(data)
    assert not isinstance(result, str), result
    assert parse(data, 1) == result
    return result[2]


# --- what is sound ---


@pytest.mark.parametrize("name", FILES)
def test_sound_files(name: str) -> None:
    """A sound file of each format is parsed to its end, with its URIs, however it is cut."""
    data, named = FILES[name]
    assert parse(data) == parse(data, 1) == parse(data, 7) == (KIND_BY_MAGIC[data[:4]], named, [])


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_cut_anywhere_is_damaged(name: str) -> None:
    """A file cut at any byte is damaged."""
    data, _ = FILES[name]
    for end in range(4, len(data)):
        assert "cut off" in damage(data[:end]), end


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("tail", [b"x", b"\0" * 4, glb()])
def test_trailing_bytes_are_remarked(name: str, tail: bytes) -> None:
    """Trailing bytes are only a diagnostic with their number, as in every viewer."""
    data, named = FILES[name]
    result = parse(data + tail)
    assert result == parse(data + tail, 1)
    assert isinstance(result, tuple)
    assert result[:2] == (KIND_BY_MAGIC[data[:4]], named)
    assert [(diagnostic.problem, diagnostic.detail.split()[0]) for diagnostic in result[2]] == [
        ("trailing bytes", str(len(tail)))
    ]


@pytest.mark.parametrize("name", sorted(set(FILES) - {"subt", "subt-naming"}))
@pytest.mark.parametrize("change", [1, 4, 1000, 1 << 31])
def test_a_length_that_is_too_large(name: str, change: int) -> None:
    """A file shorter than its stated length is cut off; the message has both lengths."""
    data, _ = FILES[name]
    stated = min(len(data) + change, (1 << 32) - 1)
    message = damage(data[:8] + struct.pack("<I", stated) + data[12:])
    assert "cut off" in message or "the URI of the i3dm has" in message
    assert name.startswith(("glb", "i3dm-uri")) or f"says {stated} bytes, {len(data)} are there" in message


@pytest.mark.parametrize("name", sorted(set(FILES) - {"subt", "subt-naming", "vctr", "cmpt-padding"}))
def test_a_length_that_is_too_small(name: str) -> None:
    """A stated length that is too short for its parts is damage; it may shorten a URI and padding."""
    data, _ = FILES[name]
    for stated in range(len(data)):
        result = parse(data[:8] + struct.pack("<I", stated) + data[12:])
        if isinstance(result, tuple):
            assert name.startswith(("i3dm-uri", "glb")) or result[2][0].problem == "empty"
            assert result[2][-1] == Diagnostic(
                "trailing bytes", f"{len(data) - stated} bytes follow after the {label(data)}"
            )
        else:
            assert result == damage(data[:8] + struct.pack("<I", stated) + data[12:])


def label(data: bytes) -> str:
    return "GLB" if data.startswith(b"glTF") else data[:4].decode()


# --- binary glTF ---

JSON = chunk(b"JSON", b'{"asset":{"version":"2.0"}}  ')
BIN = chunk(b"BIN\0", b"\1\2\3\4" * 5)


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (gltf(JSON, version=3), "version 3"),
        (gltf(JSON, version=0), "version 0"),
        (gltf(BIN), "not JSON"),
        (gltf(chunk(b"json", b"{}")), "not JSON"),
        (gltf(length=12), "chunk table is cut off"),
        (gltf(length=11), "states a length of 11 bytes"),
        (gltf(JSON, length=0), "states a length of 0 bytes"),
        (gltf(JSON, BIN, length=len(gltf(JSON, BIN)) - 4), "beyond the declared length"),
        (gltf(JSON, BIN, length=len(gltf(JSON, BIN)) + 4), "cut off"),
        (gltf(JSON, BIN, b"\0\0\0\0"), "chunk table is cut off"),
        (gltf(struct.pack("<I4s", 0xFFFFFFFF, b"JSON")), "beyond the declared length"),
        (gltf(JSON, struct.pack("<I4s", 0xFFFFFFFF, b"BIN\0")), "beyond the declared length"),
        (gltf(chunk(b"JSON", b"{]  ")), "JSON is cut off, or broken"),
        (gltf(chunk(b"JSON", b"")), "JSON is cut off, or broken"),
        (gltf(chunk(b"JSON", b"[1] ")), "not a JSON object"),
        (gltf(chunk(b"JSON", b'{"a":NaN}')), "JSON is cut off, or broken"),
        (gltf(chunk(b"JSON", b'{"a":01, "uri":1}')), "JSON is cut off, or broken"),
        (gltf(chunk(b"JSON", b"{} {}")), "data follows its JSON"),
        (gltf(chunk(b"JSON", b'{"buffers":[{"byteLength":4}]}')), "4 bytes, but there is no BIN chunk"),
        (gltf(chunk(b"JSON", b'{"buffers":[{"byteLength":21}]}'), BIN), "21 bytes, but its BIN chunk has 20"),
        (gltf(chunk(b"JSON", b'{"buffers":[{"byteLength":4}]}'), chunk(b"BIM\0", b"1234")), "there is no BIN chunk"),
        (glb_1(form=1), "version 1 is broken"),
        (gltf(struct.pack("<II", 100, 0), b"{}", version=1), "version 1 is broken"),
        (gltf(struct.pack("<II", 0, 0), b"{}", version=1), "JSON is cut off"),
        (gltf(struct.pack("<II", 2, 0), b"{x", version=1), "JSON is cut off"),
    ],
    ids=range(25),
)
def test_broken_glbs(data: bytes, words: str) -> None:
    """Each defect of a GLB has its own message, within a b3dm too."""
    assert words in damage(data)
    if int.from_bytes(data[8:12], "little") == len(data):
        assert words in damage(b3dm(data))


@pytest.mark.parametrize(
    ("stated", "body", "problems"),
    [
        ({"byteLength": 20}, 20, []),
        ({"byteLength": 17}, 20, []),
        ({"byteLength": 16}, 20, ["padding"]),
        ({"byteLength": 0}, 20, ["padding"]),
        ({"byteLength": 0}, None, []),
        ({"byteLength": 99, "uri": "a.bin"}, None, []),
        ({"byteLength": 99, "uri": "data:,x"}, 4, []),
        ({"byteLength": 99, "extensions": {"EXT_meshopt_compression": {"fallback": True}}}, None, []),
        ({"byteLength": 99, "extensions": {"KHR_meshopt_compression": {"fallback": True}}, "uri": 5}, 4, []),
        ({"byteLength": 20.0}, 20, []),
        ({"byteLength": 16.0}, 20, ["padding"]),
        ({"byteLength": 20.5}, 4, []),
        ({"byteLength": True}, None, []),
        ({"byteLength": "x"}, None, []),
        ({}, None, []),
    ],
)
@pytest.mark.parametrize("more", [{}, {"x": "\\"}, {"x": ["\u00e4"]}])
def test_the_first_buffer(stated: dict[str, Any], body: int | None, problems: list[str], more: dict[str, Any]) -> None:
    """The BIN chunk holds the first buffer without a URI and is at most 3 bytes longer."""
    text = padded(json.dumps({"buffers": [stated, {"byteLength": 1 << 40}], **more}).encode())
    chunks = [chunk(b"JSON", text), *([chunk(b"BIN\0", bytes(body))] if body is not None else [])]
    assert [diagnostic.problem for diagnostic in diagnostics_of(gltf(*chunks))] == problems


@pytest.mark.parametrize("text", [b"null", b"5", b"{}", b'{"byteLength":1}', b"[5]", b'["x"]', b"[[]]", b"[null]"])
def test_odd_buffers(text: bytes) -> None:
    """Buffers that are not a list of objects are not checked."""
    assert diagnostics_of(gltf(chunk(b"JSON", b'{"buffers":' + text + b"}"))) == []


def test_padding_by_nuls_is_remarked() -> None:
    """A JSON chunk padded with NULs is parsed and gets a diagnostic, because most readers refuse it."""
    for text in (b'{"a":1}\0', b'{"images":[{"uri":"a"}]}\0\0'):
        assert [diagnostic.problem for diagnostic in diagnostics_of(gltf(chunk(b"JSON", text)))] == ["NULs"]
    assert diagnostics_of(gltf(chunk(b"JSON", b'{"a":1}   '))) == []


@pytest.mark.parametrize("size", [1 << 10, (1 << 20) - 5, 3 << 20])
def test_large_json(size: int) -> None:
    """JSON of any size is parsed; the fast path for small JSON gives the same result."""
    filler: dict[str, Any] = {"extras": ["x" * 1000] * (size // 1000)}
    result = parse(glb(**filler, images=[{"uri": "a.png"}]), 50_000)
    assert result == (Kind.GLB, [(Role.IMAGE, "a.png")], [])
    assert parse(glb(**filler)) == (Kind.GLB, [], [])
    assert "NaN" in str(parse(glb(**filler, x=float("nan")))) or "broken" in str(parse(glb(**filler, x=float("nan"))))


@pytest.mark.parametrize("key", ["uri", "dataUri", "schemaURI", "imageurl", "xUrl", "\\u0075ri", "ur\\u0069"])
def test_keys_that_may_name_files(key: str) -> None:
    """The fast path is not taken where other keys may name files."""
    text = b'{"extensions":{"X":{"' + key.encode() + b'":"a"}},"images":[{"' + key.encode() + b'":"b"}]}'
    result = parse(gltf(chunk(b"JSON", text)))
    assert isinstance(result, tuple)
    assert (len(result[1]) > 0) is (key != "imageurl")


ITEMS = st.fixed_dictionaries(
    {},
    optional={
        "uri": st.sampled_from(["a.bin", "b.png", "data:,x", "", "x\u00e4"]) | st.none() | st.integers(0, 3),
        "byteLength": st.integers(0, 8) | st.sampled_from([10**25, True, None, 2.0, "4", [4]]),
        "name": st.sampled_from(["uri", "xUri", "buffers"]),
        "extras": st.just({"uri": "no"}),
        "extensions": st.sampled_from(
            [{"X": {"uri": "u"}}, {"KHR_binary_glTF": {}}, {"EXT_meshopt_compression": {"fallback": True}}]
        ),
    },
)
LISTS = st.lists(ITEMS | st.sampled_from(["uri", 5, None, ["uri"]]), max_size=3) | st.dictionaries(
    st.sampled_from(["uri", "b", "binary_glTF"]), ITEMS, max_size=2
)
GLTFS = st.fixed_dictionaries(
    {},
    optional={
        "buffers": LISTS | st.sampled_from([None, 5, "uri", {"uri": "x"}]),
        "images": LISTS,
        "shaders": LISTS,
        "extensions": st.sampled_from([{"EXT_structural_metadata": {"schemaUri": "s.json"}}, {"X": {"dataUrl": "u"}}]),
        "asset": st.just({"version": "2.0"}),
    },
)


@given(GLTFS, st.none() | st.integers(0, 9), st.sampled_from([None, 1]))
def test_the_fast_path_finds_the_same(members: dict[str, Any], body: int | None, indent: int | None) -> None:
    """The fast path and the strict parser give the same result, in any order."""
    outcomes = []
    for more in ({}, {"close": "\x7f\\"}):
        text = json.dumps({**members, **more}, indent=indent).encode()
        result = parse(gltf(chunk(b"JSON", text), *([] if body is None else [chunk(b"BIN\0", bytes(body))])))
        outcomes.append(result if isinstance(result, str) else (sorted(result[1]), result[2]))
    assert outcomes[0] == outcomes[1]


# --- tiles ---


@pytest.mark.parametrize("magic", [b"b3dm", b"i3dm", b"pnts"])
def test_tables_beyond_the_tile(magic: bytes) -> None:
    """Tables that end beyond the declared length are damage."""
    for tables in ([100, 0, 0, 0], [0, 0, 0, 1 << 29], [5, 5, 5, 5]):
        data = struct.pack("<4s6I", magic, 1, 44, *tables) + struct.pack("<I", 1) + bytes(12)
        assert "beyond its declared length 44" in damage(sized(data))


@pytest.mark.parametrize("short", range(12, 32))
def test_tiles_that_are_shorter_than_their_header(short: int) -> None:
    """A tile whose stated length ends within its header is damage, also where more bytes follow."""
    for magic, header in ((b"b3dm", 28), (b"i3dm", 32), (b"pnts", 28)):
        data = struct.pack("<4sII", magic, 1, short) + struct.pack("<5I", 0, 0, 0, 0, 1)
        if short < header:
            assert "beyond its declared length" in damage(data)
        if magic == b"pnts" and short < header:
            assert "beyond its declared length" in damage(cmpt(data[:short], tile(b"geom"), tile(b"geom")))


@pytest.mark.parametrize(
    ("model", "words"),
    [(b"x", "has 1 bytes"), (b"glTF" + bytes(7), "has 11 bytes"), (b"<html>Sorry</html>", "something else"),
     (glb()[:-1], "glTF of a tile is cut off"), (b"m.glb       ", "something else")],
)  # fmt: skip
def test_tiles_without_a_sound_model(model: bytes, words: str) -> None:
    """A tile must hold a complete glTF."""
    for data in (b3dm(model), b3dm_20(model), i3dm(model)):
        if int.from_bytes(data[20:24], "little") < 0x22000000:
            assert words in damage(data)
            assert words in damage(cmpt(data))


def test_tiles_without_any_model() -> None:
    """A tile without a glTF gets only a diagnostic: viewers show nothing of it."""
    for data in (b3dm(b""), i3dm(b""), cmpt(b3dm(b""))):
        assert [diagnostic.problem for diagnostic in diagnostics_of(data)] == ["empty"]


def test_padding_after_a_model() -> None:
    """A model may be followed by padding up to the end of its tile."""
    for make in (b3dm, b3dm_20, lambda model: sized(b3dm_24(model)), i3dm):
        assert diagnostics_of(make(NAMING + bytes(7))) == []
        assert diagnostics_of(cmpt(make(NAMING + bytes(7)), make(NAMING))) == []


@pytest.mark.parametrize("form", [2, 3, 0xFFFFFFFF])
def test_unknown_forms_of_i3dm(form: int) -> None:
    """An i3dm with another gltfFormat than URI and GLB is damage."""
    assert f"gltfFormat of the i3dm is {form}" in damage(i3dm(glb(), form))


@pytest.mark.parametrize(
    ("body", "uri"),
    [(b"", ""), (b"   \0", ""), (b"a b.glb", "a b.glb"), ("ü.glb".encode(), "ü.glb"), (b"\xff.glb", "\ufffd.glb"),
     (b"a\0b", "a\0b"), (b"\0 a \0 \0", "a")],
)  # fmt: skip
def test_uris_of_i3dm(body: bytes, uri: str) -> None:
    """The URI of an i3dm is reported without its padding and without a check."""
    assert parse(i3dm(body, 0)) == parse(i3dm(body, 0), 1) == (Kind.I3DM, [(Role.MODEL, uri)], [])


def test_a_huge_uri() -> None:
    """An i3dm whose URI takes megabytes is damage, before they are buffered."""
    data = sized(i3dm(b"x" * ((1 << 20) + 1), 0))
    assert "URI of the i3dm has 1048577 bytes" in str(parse(data[:200]))


# --- composites ---


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (cmpt(b3dm(glb()) + b"x", count=2, rest=bytes(20)), "unknown magic b'x"),
        (cmpt(subt({})), "unknown magic b'subt'"),
        (cmpt(b"\x1f\x8b\x08\0" + bytes(20)), "unknown magic"),
        (cmpt(tile(b"geom"), length=27), "reaches 1 bytes beyond"),
        (cmpt(tile(b"geom", length=13)), "reaches 1 bytes beyond"),
        (cmpt(cmpt(tile(b"geom"), length=17), rest=bytes(99)), "reaches 11 bytes beyond"),
        (cmpt(cmpt(tile(b"geom"), tile(b"geom"), length=28), rest=bytes(99)), "reaches 12 bytes beyond"),
        (cmpt(cmpt(length=15), rest=bytes(9)), "states a length of 15 bytes"),
        (cmpt(tile(b"geom", length=11), rest=bytes(9)), "states a length of 11 bytes"),
        (cmpt(length=15), "states a length of 15 bytes"),
        (cmpt(count=1), "cut off"),
        (cmpt(tile(b"geom"), count=1 << 31), "cut off"),
        (cmpt(tile(b"geom"), count=2) + tile(b"geom"), "reaches 12 bytes beyond"),
        (cmpt(b3dm(glb()[:-1])), "glTF of a tile is cut off"),
        (cmpt(tile(b"geom"), cmpt(i3dm(glb(), 7))), "gltfFormat"),
    ],
    ids=range(15),
)
def test_broken_composites(data: bytes, words: str) -> None:
    """A tile in a composite is checked as it would be alone, and must lie within the composite."""
    assert words in damage(data)


def test_nested_composites() -> None:
    """Composites within composites are parsed up to a limit, without recursion."""
    data = b3dm(NAMING)
    for _ in range(64):
        data = cmpt(data)
    assert parse(data) == parse(data, 1) == (Kind.CMPT, NAMED, [])
    assert "nested deeper than 64" in damage(cmpt(data))


@pytest.mark.parametrize(
    ("make", "piece"),
    [
        (lambda count: cmpt(*[tile(b"geom")] * count), 1 << 20),
        (lambda count: cmpt(*[cmpt()] * count), 1 << 20),
        (lambda count: gltf(JSON, *[chunk(b"BIN\0", b"")] * count), 1 << 20),
        (lambda count: gltf(JSON, chunk(b"BIN\0", bytes(count * 10))), 10),
    ],
    ids=["tiles", "composites", "chunks", "bytes"],
)
def test_time_grows_with_the_size(make: Callable[[int], bytes], piece: int) -> None:
    """Many small parts in one large chunk, and many small chunks, take linear time."""
    data = make(60_000)
    with limit_cpu_time(4):
        assert isinstance(parse(data, piece), tuple)


# --- subtrees ---


def test_subtrees() -> None:
    """A subtree needs a known version and readable JSON; both parts may be padded."""
    assert "subtree version 2" in damage(subt({}, version=2))
    assert "JSON is cut off" in damage(struct.pack("<4sIQQ", b"subt", 1, 3, 0) + b'{"a')
    assert "not a JSON object" in damage(struct.pack("<4sIQQ", b"subt", 1, 3, 0) + b"[1]")
    assert "cut off" in damage(struct.pack("<4sIQQ", b"subt", 1, 3, (1 << 64) - 1) + b"{} " + bytes(50))
    assert "cut off" in damage(struct.pack("<4sIQQ", b"subt", 1, (1 << 64) - 1, 0) + b"{} " + b" " * 50)
    assert "cut off" in damage(subt({})[:20])


# --- anything ---

CUTS = st.lists(st.integers(0, 5000), max_size=8)
WORDS = st.sampled_from(
    [struct.pack("<I", number) for number in (0, 1, 2, 12, 16, 20, 28, 255, 0x21FFFFFF, 0x22000000, (1 << 32) - 1)]
    + [b"glTF", b"b3dm", b"i3dm", b"cmpt", b"geom", b"subt", b"JSON", b"BIN\0", b'{"a"', b"\0", b'"']
)


@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.integers(4, 400), WORDS), max_size=3), CUTS, CUTS)
def test_mutations(name: str, changes: list[tuple[int, bytes]], ends: list[int], cuts: list[int]) -> None:
    """Any overwritten file is sound or damaged, raises nothing else, and the result does not depend on the cuts."""
    data, _ = FILES[name]
    for at, word in changes:
        at = 4 + at % (len(data) - 3)
        data = data[:at] + word + data[at + len(word) :]
    data = data[: 4 + ends[0] % len(data)] if ends else data
    result = parse(data)
    assert isinstance(result, tuple | str)
    assert parse(data, cuts) == parse(data, 1) == result


@given(st.sampled_from(sorted(KIND_BY_MAGIC)), st.lists(WORDS | st.binary(max_size=6), max_size=20).map(b"".join), CUTS)
@example(b"cmpt", struct.pack("<III", 1, 16, 1), [])
def test_any_bytes(magic: bytes, data: bytes, cuts: list[int]) -> None:
    """Any bytes behind a magic are sound or damaged, raise nothing else, and the result does not depend on the cuts."""
    result = parse(magic + data)
    assert parse(magic + data, cuts) == parse(magic + data, 1) == result
