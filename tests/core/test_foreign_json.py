"""Untrusted JSON: no value of a wrong type, size or depth gets through parsing and the readers of fields."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.catalog.catalog import Catalog
from tilesync.core import sidecar
from tilesync.core.export_record import sanitize_record
from tilesync.core.foreign_json import (
    MAX_INTEGER,
    MAX_NESTING,
    parse_json,
    read_count,
    read_digest,
    read_mapping,
    read_number,
    read_optional,
    read_or_default,
    read_text,
    read_texts,
    read_timestamp,
)
from tilesync.core.manifest import make_header, make_line, read_defects, read_header, read_latest, read_line
from tilesync.errors import Transient
from tilesync.itwin.responses import api_message, parse_exports, parse_token
from tilesync.model import (
    Blob,
    Completeness,
    Diagnostic,
    ExportFacts,
    Kind,
    ParsedContent,
    Reference,
    Role,
    StoredFile,
    UnpackedFile,
    Version,
    VersionSummary,
)

DEEP = "[" * 50_000 + "]" * 50_000

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters(), max_size=8)
    | st.sampled_from([1 << 63, -(1 << 63), 1 << 200, "", "\ud800", "x" * 500, "0001-01-01T00:00:00Z", [], {}]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=4), inner, max_size=3),
    max_leaves=5,
)
"""Anything that Python can write as JSON, including values that are not valid JSON."""

VERSION = Version(
    0,
    "e1",
    "e1",
    facts=ExportFacts(
        imodel="i",
        changeset="c",
        modified="2026-03-01T08:30:00Z",
        record={"id": "e1", "request": {"iModelId": "i"}, "stats": {"rawSize": 1}},
    ),
    summary=VersionSummary(
        published_at="2026-03-02T00:00:00Z", files=1, bytes=1, completeness=Completeness(1, 0, 0, 0)
    ),
)
LINE = make_line(StoredFile(Blob("a", 1, "e", b"m" * 16, "model/gltf-binary", "gzip", 1), b"s" * 32, 0))
UNPACKED = make_line(
    StoredFile(Blob("a", 1, "e", b"m" * 16, None, "gzip", 1), b"s" * 32, 0, 0, UnpackedFile(2, b"t" * 32))
)
SIDECAR_LINE = sidecar.make_line(
    sidecar.SidecarEntry("a", 7, ParsedContent(Kind.TILESET, (Reference("b", Role.CONTENT),), (Diagnostic("p", "d"),)))
)
ROW = {
    "id": "e1",
    "displayName": "City",
    "status": "Complete",
    "lastModified": "2026",
    "error": {"code": "c"},
    "request": {"iModelId": "i", "changesetId": "c", "exportType": "3DTiles"},
    "stats": {"compressedSize": 1, "metrics": {"numTiles": 1}},
    "_links": {"mesh": {"href": "https://account.blob.core.windows.net/e1?sig=s"}},
}


# --- parsing ---


@given(VALUES)
def test_valid_json_is_parsed_unchanged(value: Any) -> None:
    """Valid JSON is parsed as the standard library does; anything else is refused, wherever it is."""
    data = json.dumps({"a": [value]}).encode()
    try:
        read = parse_json(data)
    except ValueError:
        read = None
    assert read == (json.loads(data) if is_json(value) else None)


def is_json(value: Any) -> bool:
    """Return whether every program can read this value as JSON."""
    try:
        json.dumps(value, allow_nan=False, ensure_ascii=False).encode()
    except ValueError:
        return False
    return True


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (DEEP, "nested more than"),
        ('{"a":' * 40 + "1" + "}" * 40, "nested more than"),
        ("NaN", "NaN is not a number"),
        ('{"a": -Infinity}', "-Infinity is not a number"),
        ("1e999", "too large for a number"),
        ('["\\ud800"]', "surrogate"),
        ('{"\\udc00": 1}', "surrogate"),
        ('[["\\ud83d"]]', "surrogate"),
        ("1" * 5000, "limit"),
        ("{", "Expecting"),
        ("", "Expecting"),
        ("\x00", "Expecting"),
    ],
)
def test_invalid_json_is_refused(data: str, reason: str) -> None:
    """Each invalid document raises ValueError with its reason."""
    with pytest.raises(ValueError, match=reason):
        parse_json(data.encode())


def test_halves_of_surrogate_pairs_are_replaced_on_request() -> None:
    """Each half in a name or a text becomes U+FFFD; whole pairs and other values stay."""
    data = b'{"\\udc00": ["a\\ud800b", {"c": "\\ud83d\\ude00", "d": 1.5}]}'
    assert parse_json(data, replace_surrogates=True) == {"\ufffd": ["a\ufffdb", {"c": "\U0001f600", "d": 1.5}]}


def test_unusual_valid_documents() -> None:
    """A byte order mark, surrogate pairs and many flat brackets are valid; other encodings and too long documents are
    not.
    """
    assert parse_json(b"\xef\xbb\xbf{}") == {}
    assert parse_json(b'"\\ud83d\\ude00"') == "\U0001f600"
    assert parse_json(b"[" + b"[]," * 100 + b"[]]") == [[]] * 101
    assert parse_json(b"[" * MAX_NESTING + b"]" * MAX_NESTING)
    with pytest.raises(ValueError, match="utf-8"):
        parse_json(b'"\xff"')
    with pytest.raises(ValueError, match="it has more than 4 bytes"):
        parse_json(b"[1,2]", max_bytes=4)


@pytest.mark.parametrize(
    ("read", "good", "bad"),
    [
        (read_mapping, [{}], [[], "a", None, 1]),
        (read_text, ["", "ä"], [None, 1, [], {}, b"a"]),
        (
            read_count,
            [0, 1, MAX_INTEGER, 3.0],
            [-1, MAX_INTEGER + 1, 1.5, True, "1", None, math.nan, math.inf, 2.0**63],
        ),
        (read_number, [0, -1.5], [True, "1", None, math.nan, math.inf, 1 << 63]),
        (read_timestamp, ["2026-03-01T08:30:00Z"], ["", "soon", "2026-03-01T08:30:00", None, 1]),
        (read_texts, [[], ["a"]], ["a", None, [1], {}]),
        (lambda value: read_digest(value, 2), ["00ff"], ["00", "xx00", None, 1]),
    ],
)
def test_readers(read: Callable[[Any], Any], good: list[Any], bad: list[Any]) -> None:
    """A reader returns a value of its type, and raises ValueError for anything else."""
    for value in good:
        read(value)
    for value in bad:
        with pytest.raises(ValueError):
            read(value)
        assert read_or_default(value, read, "other") == "other"
    assert read_optional(None, read) is None


# --- every field of every document ---


def list_paths(document: Any, prefix: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """Return the path of each value in a document, including the document itself."""
    inner = (
        document.items() if isinstance(document, dict) else enumerate(document) if isinstance(document, list) else ()
    )
    return [prefix, *(path for key, each in inner for path in list_paths(each, (*prefix, key)))]


def with_value(document: Any, path: tuple[Any, ...], value: Any) -> Any:
    """Return the document with another value at one path."""
    if not path:
        return value
    copy = dict(document) if isinstance(document, dict) else list(document)
    copy[path[0]] = with_value(document[path[0]], path[1:], value)
    return copy


def run_reader(document: Any, read: Callable[[Any], Any]) -> None:
    """Write a document as JSON, parse it and run a reader on it, which may raise ValueError or KeyError."""
    with suppress(ValueError, KeyError):
        read(parse_json(json.dumps(document).encode()))


@pytest.mark.parametrize(
    ("document", "read"),
    [
        (
            make_header(VERSION, ("a",), ("b",)),
            lambda document: (make_header(read_header(document, name="e1")), read_defects(document)),
        ),
        (LINE, lambda document: make_line(read_line(document))),
        (UNPACKED, lambda document: make_line(read_line(document))),
        (SIDECAR_LINE, lambda document: sidecar.make_line(sidecar.read_line(read_mapping(document)))),
    ],
    ids=["header", "line", "unpacked", "sidecar"],
)
@given(st.data())
def test_any_value_in_any_field(document: Any, read: Callable[[Any], Any], data: st.DataObject) -> None:
    """Any value in a field of a manifest or a sidecar line is read or refused as documented; a value that is read can
    be written again.
    """
    path = data.draw(st.sampled_from(list_paths(document)))
    run_reader(with_value(document, path, data.draw(VALUES)), read)


@given(st.data())
def test_any_value_in_any_field_reaches_the_catalog(data: st.DataObject) -> None:
    """Anything that the manifest readers accept can be stored in the catalog and read back."""
    catalog = Catalog(Path(":memory:"))
    try:
        first = with_value(
            make_header(VERSION), data.draw(st.sampled_from(list_paths(make_header(VERSION)))), data.draw(VALUES)
        )
        other = with_value(LINE, data.draw(st.sampled_from(list_paths(LINE))), data.draw(VALUES))
        with suppress(ValueError, KeyError):
            version = catalog.add_version(read_header(parse_json(json.dumps(first).encode()), name="e1"))
            assert catalog.versions() == [version]
            stored = read_line(parse_json(json.dumps(other).encode()))
            catalog.add_page(version, [(stored.blob, stored)], [])
            assert [each for _, each in catalog.list_stored(version, limit=9)] == [stored._replace(inode=0)]
    finally:
        catalog.close()


@given(st.data())
def test_any_value_in_any_field_of_the_service(data: st.DataObject) -> None:
    """For any value in a field of the API, rows are read with the right types, or the list is refused."""
    answer = {"exports": [ROW], "_links": {"next": {"href": "https://api/?$skip=1"}}}
    answer = with_value(answer, data.draw(st.sampled_from(list_paths(answer))), data.draw(VALUES))
    with suppress(Transient):
        rows, following = parse_exports(json.dumps(answer).encode())
        for row in rows:
            read_texts([row.id, row.status, row.name, row.type, row.modified, row.error])
            (
                read_optional(row.imodel, read_text),
                read_optional(row.changeset, read_text),
                read_optional(row.size, read_count),
            )
            assert sanitize_record(parse_json(json.dumps(row.record).encode())) == row.record
        assert following is None or read_texts(list(following.values())) is not None


@given(st.data())
def test_any_value_in_an_error_or_a_token(data: st.DataObject) -> None:
    """An API error always gives a text; a token answer gives a token and a lifetime, or is refused."""
    error = {"error": {"code": "c", "message": "m", "details": [{"code": "c", "target": "t", "message": "m"}]}}
    document = with_value(error, data.draw(st.sampled_from(list_paths(error))), data.draw(VALUES))
    assert isinstance(api_message(json.dumps(document).encode()), str)
    token = {"access_token": "t", "expires_in": 3600}
    document = with_value(token, data.draw(st.sampled_from(list_paths(token))), data.draw(VALUES))
    with suppress(Transient):
        access_token, life = parse_token(json.dumps(document).encode())
        assert read_text(access_token)
        assert 0 < life < 1 << 31


@given(st.data())
def test_any_value_in_latest_json(data: st.DataObject) -> None:
    """It is read only if its version and manifest are texts."""
    latest = {"version": "e1", "export": "e1", "manifest": "manifests/e1.jsonl", "pinned": True}
    document = with_value(latest, data.draw(st.sampled_from(list_paths(latest))), data.draw(VALUES))
    if (read := read_latest(json.dumps(document).encode())) is not None:
        read_texts([read["version"], read["manifest"]])


def test_a_row_without_an_id_is_refused() -> None:
    """The id and the status must be texts; any other field of a wrong type counts as missing."""
    rows: list[Any] = [{**ROW, "id": 5}, {**ROW, "status": None}, 5, None, []]
    for broken in rows:
        with pytest.raises(Transient, match="not an export list"):
            parse_exports(json.dumps({"exports": [broken]}).encode())
    odd = {**ROW, "request": {"iModelId": 5, "changesetId": [], "exportType": {}}, "stats": {"compressedSize": -1}}
    ((row,), _) = parse_exports(json.dumps({"exports": [odd]}).encode())
    assert (row.id, row.imodel, row.changeset, row.type, row.size) == ("e1", None, None, "", None)


@pytest.mark.parametrize(
    "body", [b"<!DOCTYPE html><html></html>", b"\xef\xbb\xbf\n <html>", b"<?xml version='1.0'?><E/>"]
)
def test_a_web_page_instead_of_the_list_is_named(body: bytes) -> None:
    """The message has no name of a Python class, and the hint says what to check."""
    with pytest.raises(Transient, match="a web page, not an export list") as refused:
        parse_exports(body)
    assert "--api-url" in refused.value.hint


@pytest.mark.parametrize(
    ("body", "reason"), [(b"{}", "exports"), (b'{"exports": 5}', "are not a list"), (b"nonsense", "Expecting value")]
)
def test_an_invalid_list_has_a_reason(body: bytes, reason: str) -> None:
    """The message has the reason."""
    with pytest.raises(Transient, match=f"not an export list \\(.*{reason}"):
        parse_exports(body)


@pytest.mark.parametrize("life", [-1, 1e300, 1 << 40, "-5", "inf", "nan", 0, None])
def test_an_impossible_token_lifetime_is_an_hour(life: Any) -> None:
    """An impossible lifetime counts as not stated, which means an hour."""
    assert parse_token(json.dumps({"access_token": "t", "expires_in": life}).encode()) == ("t", 3600.0)
