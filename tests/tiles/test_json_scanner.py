"""Streaming JSON scanner."""

from __future__ import annotations

import json
import tracemalloc
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Any, NoReturn

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tilesync.tiles.json_scanner import BOM, MAX_NESTING_DEPTH, MAX_STRING_BYTES, Leaf, MalformedJson, Node, Scanner

MIB = 1 << 20

OPAQUE = Node()
TABLE = Node(scope="top")
TABLE[b"uri"] = Leaf("uri", TABLE)
TABLE[b"\xc3\xa9"] = Leaf("accent", TABLE)
TABLE[b"n"] = Leaf("n", TABLE, is_string=False)
TABLE[b"box"] = Node({"uri": Leaf("boxed", OPAQUE)}, other=TABLE, scope="box")
TABLE[b"list"] = Node({"": Node({"uri": Leaf("item", OPAQUE)}, other=OPAQUE, scope="item")}, other=OPAQUE)
TABLE[b"texts"] = Node({"": Leaf("text", OPAQUE)}, other=OPAQUE)
TABLE[b"extras"] = OPAQUE

RecordedCalls = list[tuple[Any, ...]]


class RecordingHandler:
    """Record each callback and the position of the scanner."""

    def __init__(self) -> None:
        self.calls: RecordedCalls = []
        self.scanner = Scanner(TABLE, self)

    def keys(self) -> tuple[str, ...]:
        return self.scanner.keys if self.scanner.depth < 100 else ()

    def on_string(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        text = text if len(text) < 1000 else f"{text[:20]} and {len(text)} signs, {hash(text)}"
        self.calls.append(("text", leaf.role, text, start, end, self.scanner.depth, self.keys()))

    def on_scalar(self, leaf: Leaf, raw: bytes) -> None:
        self.calls.append(("value", leaf.role, raw))

    def on_object_start(self, scope: str) -> None:
        self.calls.append(("enter", scope, self.scanner.depth, self.keys()))

    def on_object_end(self, scope: str) -> None:
        self.calls.append(("leave", scope, self.scanner.depth, self.keys()))


def pieces(data: bytes, cuts: Sequence[int] | int) -> Iterator[bytes]:
    """Cut the data into pieces of a size, or at random places."""
    inner = range(cuts, len(data), cuts) if isinstance(cuts, int) else sorted(cut % (len(data) + 1) for cut in cuts)
    return (data[start:end] for start, end in pairwise([0, *inner, len(data)]))


def scan(data: bytes, cuts: Sequence[int] | int = ()) -> tuple[RecordedCalls, str | int]:
    """Scan a document; return the callbacks and the error, or the final position."""
    ear = RecordingHandler()
    try:
        for piece in pieces(data, cuts):
            ear.scanner.feed(piece)
        ear.scanner.finish()
    except MalformedJson as error:
        return ear.calls, str(error)
    return ear.calls, ear.scanner.position


def accepted(data: bytes, cuts: Sequence[int] | int = ()) -> bool:
    return isinstance(scan(data, cuts)[1], int)


# --- the oracle: the standard library's parser in strict mode ---


class Pairs(list[tuple[str, Any]]):
    """An object with all its members, double ones too."""


def refuse(constant: str) -> NoReturn:
    raise ValueError(constant)


def read(data: bytes) -> Pairs | None:
    """Parse the object in `data` with the reference parser; None if invalid. A BOM and padding are allowed."""
    text = data.removeprefix(BOM).rstrip(b" \t\n\r\0").decode(errors="replace")
    try:
        value = json.loads(text, parse_constant=refuse, object_pairs_hook=Pairs)
    except ValueError:
        return None
    return value if isinstance(value, Pairs) else None


def expected(value: Any, node: Node | Leaf) -> Iterator[tuple[Any, ...]]:
    """Compute the expected callbacks of an object or array, without positions."""
    node = node.object_node if isinstance(node, Leaf) else node
    members = value if isinstance(value, Pairs) else [("", item) for item in value]
    if scope := isinstance(value, Pairs) and node.scope:
        yield "enter", scope
    for key, value in members:
        child = node[key.encode(errors="replace")]
        if isinstance(value, list):
            yield from expected(value, child)
        elif isinstance(child, Leaf) and (isinstance(value, str) or not child.is_string):
            yield "text" if isinstance(value, str) else "value", child.role, value
    if scope:
        yield "leave", scope


def strip_positions(calls: RecordedCalls) -> RecordedCalls:
    return [(one[0], one[1], json.loads(one[2])) if one[0] == "value" else one[: 3 if one[0] == "text" else 2]
            for one in calls]  # fmt: skip


# --- documents ---

KEYS = st.sampled_from(["uri", "n", "box", "list", "texts", "extras", "é", "", "x", 'a"b\\', "\ud800"]) | st.text(
    max_size=5
)
SCALARS = (
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20)
)
NUMBERS = st.lists(st.integers(-9, 9) | st.floats(-1, 1), max_size=4)
INNER = st.recursive(
    SCALARS | NUMBERS | st.fixed_dictionaries({}, optional={"box": NUMBERS, "sphere": NUMBERS}),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
OBJECTS = st.dictionaries(KEYS, INNER, max_size=5)
STYLES: st.SearchStrategy[dict[str, Any]] = st.sampled_from(
    [{}, {"indent": 1}, {"indent": "\t"}, {"separators": (",", ":")}, {"ensure_ascii": False}]
)
CUTS = st.lists(st.integers(0, 5000), max_size=12)


@st.composite
def documents(draw: st.DrawFn) -> bytes:
    """Generate valid JSON objects."""
    text = json.dumps(draw(OBJECTS), **draw(STYLES))
    frame = draw(st.sampled_from([(b"", b""), (BOM, b""), (b" \n", b"\r\n"), (b"", b"\0\0"), (BOM + b"\t", b" \0 ")]))
    return frame[0] + text.encode(errors="replace") + frame[1]


BITS = st.sampled_from(
    [b'"', b"\\", b"{", b"}", b"[", b"]", b",", b":", b"0", b"01", b"1.", b"-", b"1e", b".5", b"+1", b"e5", b"\0",
     b"\x1f", b"\x7f", b"\xff", b"\xed\xa0\x80", b"\\ud800", b"\\u12", b"\\x", b"\\/", b"NaN", b"Infinity", b"true",
     b"nul", b" ", b"\n", b"\x0c", b"/**/", b"'", BOM, b'"uri":"a",', b'{"box":[1]}', b"[1,2]", b"[1,]", b"[,1]", b'""']
)  # fmt: skip


@st.composite
def broken(draw: st.DrawFn) -> bytes:
    """Generate documents with a few overwritten places; many are still valid."""
    data = draw(documents())
    for _ in range(draw(st.integers(1, 3))):
        at, gone = draw(st.integers(0, len(data))), draw(st.integers(0, 3))
        data = data[:at] + draw(BITS | st.just(b"")) + data[at + gone :]
    return data


# --- strictness ---


@given(documents(), CUTS)
def test_objects_are_read_however_they_are_cut(data: bytes, cuts: list[int]) -> None:
    """A valid object gives the expected callbacks, in pieces of any size and byte by byte."""
    value = read(data)
    assert value is not None
    calls, end = scan(data)
    assert strip_positions(calls) == list(expected(value, TABLE))
    assert end == len(data)
    assert scan(data, cuts) == scan(data, 1) == (calls, end)


@given(broken(), CUTS)
@example(b'{"a":01}', [])
@example(b'{"n":1}' + b"\0" * 3, [7])
@example(b'{"uri":"\xff\xfe"}', [9])
def test_malformed_documents(data: bytes, cuts: list[int]) -> None:
    """A document is accepted where a strict parser accepts it, and the error does not depend on the cuts."""
    result = scan(data)
    assert isinstance(result[1], int) == (read(data) is not None)
    assert scan(data, cuts) == scan(data, 1) == result


@given(st.lists(BITS, max_size=8).map(b"".join), CUTS)
def test_any_bytes(data: bytes, cuts: list[int]) -> None:
    """Any bytes are accepted or refused, raise nothing else, and give the same result however they are cut."""
    for document in (data, b"{" + data, b'{"uri":[' + data + b"]}"):
        assert isinstance(scan(document)[1], int) == (read(document) is not None)
        assert scan(document, cuts) == scan(document, 1) == scan(document)


@pytest.mark.parametrize(
    "value",
    ["01", "1.", "-", "-01", "1e", "1e+", "+1", ".5", "0x1", "1_0", "NaN", "Infinity", "-Infinity", "True", "nul",
     "'a'", '"a', '"\\x"', '"\\u12"', '"\\u12g4"', '"a\nb"', '"\x00"', '"\x1f"', "[1,]", "[,1]", "[1 2]", "[01]",
     "[1.]", "[1", "{", '{"a"}', '{"a":}', '{"a":1,}', "{,}", "{1:2}", "{a:1}", '{"a":1 "b":2}', "1,", "1]", "1}",
     '{"box":[1.]}', '{"box":[1,]}', '{"box":[1]', "//x", "1/**/", "\x0c1", "\u00a01", ""],
)  # fmt: skip
def test_invalid_json_is_refused(value: str) -> None:
    """Common leniencies are refused: numbers, literals, strings, commas and blanks follow RFC 8259."""
    document = f'{{"n":{value}}}'.encode()
    assert not accepted(document)
    assert scan(document, 1) == scan(document)


@pytest.mark.parametrize(
    "document",
    [b"{}", b" \t\r\n{ } ", b'{"a":0}', b'{"a":-0.0e-00}', b'{"a":1E+5,"a":2}', b'{"":"\\/\\u0000\\ud800\x7f"}',
     b'{"a":[ ],"b":[ 1 , 2.5 ],"c":{ "box" : [ ] }}', BOM + b"{}", BOM + b"\n {}", b"{}\0", b"{}\n\0 \0",
     b'{"a":"\xff\xc3"}', b'{"\xff":{}}', b'{"a":[[],[[1]],{},[{}]]}', b'{"a":' + b"9" * 5000 + b"}"],
    ids=range(15),
)  # fmt: skip
def test_unusual_valid_json_is_accepted(document: bytes) -> None:
    """Unusual but valid objects are accepted, and a byte order mark, trailing NULs and invalid UTF-8 in strings too."""
    assert accepted(document)
    assert accepted(document, 1)


@pytest.mark.parametrize(
    ("document", "words"),
    [(b"", "cut off, or broken, at byte 0"), (b"x", "not a JSON object"), (b"[]", "not a JSON object"),
     (b"\0{}", "not a JSON object"),
     (b"1", "not a JSON object"), (BOM[:2] + b"{}", "not a JSON object"), (BOM + BOM + b"{}", "not a JSON object"),
     (BOM, "cut off, or broken, at byte 0"), (b"{", "at byte 1"), (b'{"a":1', "at byte 6"), (b'{"a":1x', "at byte 6"),
     (b"{} {}", "data follows its JSON"), (b"{}x", "data follows its JSON"), (b"{}" + BOM, "data follows its JSON")],
)  # fmt: skip
def test_error_messages(document: bytes, words: str) -> None:
    """The error tells invalid, truncated and trailing data apart, with the byte where scanning ended."""
    assert words in str(scan(document)[1])
    assert scan(document, 1) == scan(document)


def test_padding() -> None:
    """Trailing NULs are noted, blanks are not."""
    for data, padded in ((b"{}\0", True), (b"{} \0 ", True), (b"{}  ", False), (b'{"a":"b"}', False)):
        ear = RecordingHandler()
        for piece in pieces(data, 1):
            ear.scanner.feed(piece)
        ear.scanner.finish()
        assert ear.scanner.padded is padded


# --- callbacks ---


@given(documents(), CUTS)
def test_positions_are_exact(data: bytes, cuts: list[int]) -> None:
    """The reported positions are the raw bytes of the string."""
    for one in scan(data, cuts)[0]:
        if one[0] == "text":
            _, _, text, start, end, _, _ = one
            assert data[start - 1 : start] == data[end : end + 1] == b'"'
            assert json.loads(b'"' + data[start:end] + b'"') == text


@pytest.mark.parametrize("key", ['"\\u0075ri"', '"u\\u0072\\u0069"', '"uri"'])
def test_escaped_keys(key: str) -> None:
    """An escaped key counts as its decoded text."""
    assert strip_positions(scan(f'{{{key}:"a"}}'.encode(), 1)[0])[1:-1] == [("text", "uri", "a")]
    assert strip_positions(scan(f'{{{key}  :"{"a" * 80_000}"}}'.encode(), 999)[0])[1][1] == "uri"


def test_double_keys() -> None:
    """Both members with the same key are reported: readers do not agree which one counts."""
    calls = strip_positions(scan(b'{"uri":"a","uri":"b"}')[0])
    assert calls[1:-1] == [("text", "uri", "a"), ("text", "uri", "b")]


def test_invalid_utf8() -> None:
    """Invalid UTF-8 becomes U+FFFD; escaped halves of surrogate pairs stay."""
    calls = strip_positions(scan(b'{"uri":"a\xffb","uri":"\xffb\\n","uri":"\\ud83c\\udfd9\\ud800"}', 1)[0])
    assert [one[2] for one in calls[1:-1]] == ["a\ufffdb", "\ufffdb\n", "🏙\ud800"]


def test_only_scalars_are_reported_as_scalars() -> None:
    """A leaf for scalars reports no arrays or objects, and a leaf for strings no numbers."""
    calls, _ = scan(b'{"n":1.50,"n":true,"n":[1,2],"n":{"box":[1]},"n":"a","uri":5,"uri":null,"uri":[1]}')
    assert [one[:3] for one in calls if one[0] in {"text", "value"}] == [
        ("value", "n", b"1.50"),
        ("value", "n", b"true"),
        ("text", "n", "a"),
    ]


@pytest.mark.parametrize("inside", [b'{"box":[1,2]}', b'{"x":[]}', b"{}", b'{"x":1}'])
def test_objects_with_a_scope(inside: bytes) -> None:
    """An object with a scope is reported although it looks like a bounding volume, with depth and keys."""
    document = b'{"x":{"box":' + inside + b'},"list":[' + inside + b",[" + inside + b"]]}"
    calls, _ = scan(document)
    assert scan(document, 1)[0] == calls
    assert ("enter", "box", 2, ("x", "box")) in calls
    assert ("leave", "box", 2, ("x", "box")) in calls
    assert [one for one in calls if one[1] == "item"] == [
        ("enter", "item", 2, ("list", "")),
        ("leave", "item", 2, ("list", "")),
    ]


# --- long texts ---

LONG = [MAX_STRING_BYTES - 1, MAX_STRING_BYTES, MAX_STRING_BYTES + 1, MIB + 5]


@pytest.mark.scale
@pytest.mark.parametrize("size", LONG)
@pytest.mark.parametrize("unit", [b"x", b"\\u0041", "é".encode(), b"\\ud83c\\udfd9", b"\\\\", b"ab\\n\xff"])
@pytest.mark.parametrize("step", [MAX_STRING_BYTES, 49_999])
def test_long_strings(size: int, unit: bytes, step: int) -> None:
    """A long string is reported once, at its position, from its start; scanning continues normally after it."""
    body = unit * (size // len(unit))
    document = b'{"extras":"' + body + b'","list":[{"uri":"' + body + b'"}],"texts":["' + body + b'"],"uri":"last"}'
    calls, end = scan(document)
    assert end == len(document)
    assert scan(document, step) == (calls, end)
    texts = [one for one in calls if one[0] == "text"]
    assert [one[1] for one in texts] == ["item", "text", "uri"]
    assert all(bytes_equal(document[start:stop], body) for _, _, _, start, stop, _, _ in texts[:2])


def bytes_equal(one: bytes, other: bytes) -> bool:
    """Compare without a description by pytest of how a megabyte differs."""
    return one == other


@pytest.mark.parametrize("unit", [b"x", b"\\u0041", "é".encode(), b"\\ud83c\\udfd9", b"\\\\", b"ab\\n"])
def test_long_strings_are_truncated(unit: bytes) -> None:
    """A string of MAX_STRING_BYTES is reported whole; of a longer one the beginning, never half an escape."""
    ear = StringRecorder()
    for size in (MAX_STRING_BYTES, MAX_STRING_BYTES + 1, 2 * MAX_STRING_BYTES):
        body = unit * (size // len(unit)) + b"x" * (size % len(unit))
        ear.texts = []
        scanner = Scanner(TABLE, ear)
        scanner.feed(b'{"uri":"' + body + b'"}')
        whole = json.loads(b'"' + body + b'"')
        reported = ear.texts[0].rstrip("\ufffd")
        assert whole.startswith(reported)
        assert (reported == whole) is (size == MAX_STRING_BYTES)
        assert (
            len(json.dumps(reported, ensure_ascii=b"\\u" in unit).encode()) > MAX_STRING_BYTES - 12
            or unit == b"\\u0041"
        )


class StringRecorder(RecordingHandler):
    """Record the strings."""

    def __init__(self) -> None:
        super().__init__()
        self.texts: list[str] = []

    def on_string(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        self.texts.append(text)


@given(st.integers(0, MAX_STRING_BYTES + 40), st.sampled_from([b"\\u00e9", "🏙".encode(), b"\\\\"]), CUTS)
def test_long_strings_cut_anywhere(lead: int, unit: bytes, cuts: list[int]) -> None:
    """An escape or letter cut in two by a piece or by the limit changes nothing."""
    document = b'{"uri":"' + b"a" * lead + unit * 40 + b'","n":1}'
    near = [8 + lead + cut % 250 for cut in cuts] + [8 + MAX_STRING_BYTES]
    assert scan(document, near) == scan(document)


@pytest.mark.parametrize("tail", [b"\x01", b"\n", b"\\x", b"\\u12g4", b"\\u12", b"\\", b"", b'"', b'"]', b'"x', b'"}x'])
@pytest.mark.parametrize("more", [0, 10, MIB])
def test_broken_long_strings(tail: bytes, more: int) -> None:
    """A long string with a bad byte, a bad escape, no end or bad data after it is refused, however it is cut."""
    document = b'{"uri":"' + b"a" * 100_000 + tail + b"b" * more
    result = scan(document)
    assert "at byte" in str(result[1]) or "data follows" in str(result[1])
    assert scan(document, 997) == scan(document, 65_536) == result


@pytest.mark.parametrize("step", [65_536, 700_001])
@pytest.mark.parametrize("over", [0, 1])
@pytest.mark.parametrize(
    ("head", "unit", "tail", "taken"),
    [
        (b"", b" ", b"{}", 0),
        (b"{", b" ", b"}", 0),
        (b"{", b" ", b'"uri":"a"}', 6),
        (b'{"n":', b" ", b"1}", 5),
        (b'{"uri":', b" ", b'"a"}', 6),
        (b'{"uri":', b" ", b'"' + b"a" * 70_000 + b'"}', 6),
        (b'{"', b"k", b'":{}}', 3),
        (b'{"n":', b"1", b"}", 4),
        (b'{"box":', b" ", b"{}}", 6),
        (b'{"box":', b" ", b'{"box":[1]}}', 6),
        (b'{"box":', b" ", b"[1]}", 6),
    ],
    ids=range(11),
)
def test_overlong_tokens(head: bytes, unit: bytes, tail: bytes, taken: int, over: int, step: int) -> None:
    """More than 1 MiB of blanks, of a key or of a number is refused, however it is cut; exactly 1 MiB is not."""
    document = head + unit * (MIB - taken + over) + tail
    result = scan(document)
    assert isinstance(result[1], str) is bool(over), result[1]
    assert scan(document, step) == result


@pytest.mark.scale
@pytest.mark.parametrize(
    "inside",
    [b"[" + b"1, " * 400_000 + b"1]", b'{"box":[' + b"1.25,\n" * 200_000 + b"1]}", b"[" + b"[1,2]," * 180_000 + b"1]",
     b"[1" + b" " * 1_048_577 + b"]", b'{"box":[1,' + b" " * 1_048_600 + b"1]}", b"[" + b"1" * 1_048_577 + b"]"],
    ids=range(6),
)  # fmt: skip
def test_long_arrays(inside: bytes) -> None:
    """An array may have any length, but not one item of it; both give the same result however they are cut."""
    document = b'{"x":' + inside + b',"box":' + inside + b',"uri":"last"}'
    result = scan(document)
    assert scan(document, 65_536) == result
    assert isinstance(result[1], str) == (b" " * 1000 in inside or b"1" * 1000 in inside)


# --- bounds ---


@pytest.mark.scale
@pytest.mark.parametrize(
    ("opening", "inside", "closing", "brackets"),
    [
        (b'{"x":', b"1", b"}", 0),
        (b'{"x":', b"[1]", b"}", 1),
        (b'{"x":', b'{"box":[1]}', b"}", 2),
        (b'{"x":', b'{"x":"a"}', b"}", 1),
        (b'{"children":[', b"{}", b"]}", 1),
    ],
)
def test_depth(opening: bytes, inside: bytes, closing: bytes, brackets: int) -> None:
    """Nested brackets are scanned without recursion up to a limit, the same however they are cut."""
    each = 2 if b"[" in opening else 1
    levels = (MAX_NESTING_DEPTH + 1 - brackets) // each
    for count, fits in ((levels, True), (levels + 1, False)):
        document = opening * count + inside + closing * count
        result = scan(document)
        assert isinstance(result[1], int) is fits
        assert fits or "nested deeper than" in str(result[1])
        assert scan(document, 1000) == result


@pytest.mark.scale
def test_memory_is_bounded() -> None:
    """A document of 20 MB, with long strings and deep and flat parts, takes far less memory than its size."""
    item = b'{"uri":"' + b"a/" * 100 + b'","x":[' + b"1.5," * 300 + b"2]},"
    part = item * 40 + b'{"uri":"data:,' + b"A" * 150_000 + b'"},'
    heard = CountingHandler()
    scanner = Scanner(TABLE, heard)
    tracemalloc.start()
    scanner.feed(b'{"list":[')
    for _ in range(100):
        for start in range(0, len(part), 1 << 16):
            scanner.feed(part[start : start + (1 << 16)])
    scanner.feed(b"{}]}")
    scanner.finish()
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert scanner.position > 20_000_000
    assert heard.count == 4100
    assert peak < 1_000_000


class CountingHandler:
    """Count the strings."""

    count = 0

    def on_string(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        self.count += 1

    def on_scalar(self, leaf: Leaf, raw: bytes) -> None: ...

    def on_object_start(self, scope: str) -> None: ...

    def on_object_end(self, scope: str) -> None: ...
