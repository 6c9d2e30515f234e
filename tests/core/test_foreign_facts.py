"""Foreign facts about files: impossible ones count as unknown, through to the manifest and back."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from xml.sax.saxutils import escape

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.azure.list_blobs import parse_page
from tilesync.azure.responses import parse_etag, parse_http_date, sanitize_header_value
from tilesync.catalog.catalog import Catalog
from tilesync.core.foreign_json import VALID_EPOCH_SECONDS, parse_json
from tilesync.core.manifest import make_line, read_line
from tilesync.errors import Transient
from tilesync.model import StoredFile, Version

XML = st.text(st.characters(min_codepoint=32, exclude_categories=["Cs", "Cc"], exclude_characters="\ufffe\uffff"))
FOREIGN_DATES = (
    st.datetimes().map(lambda moment: f"Sun, {moment:%d} Mar {moment.year:04d} {moment:%H:%M:%S} GMT")
    | st.builds("Sun, {:02d} Jan {:d} {:02d}:00:00 GMT".format, st.integers(0, 99), st.integers(), st.integers(0, 99))
    | st.sampled_from(
        ["Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "Mon, 01 Jan 1 00:00:00 -2359"]
    )
    | XML
)


def page(name: str, modified: str, etag: str, size: int, kind: str, *, head: str = "") -> bytes:
    """Make a listing page of one blob with these facts."""
    fields = {"Last-Modified": modified, "Etag": etag, "Content-Length": str(size), "Content-Type": kind}
    properties = "".join(f"<{field}>{escape(value)}</{field}>" for field, value in fields.items())
    properties += "<Content-Encoding /><Content-MD5 />"
    return (
        f'<?xml version="1.0" encoding="utf-8"?><EnumerationResults>{head}<Blobs><Blob><Name>{escape(name)}</Name>'
        f"<Properties>{properties}</Properties></Blob></Blobs><NextMarker /></EnumerationResults>"
    ).encode()


@given(FOREIGN_DATES, XML, st.integers(), XML)
def test_a_listing_round_trips_through_the_manifest(modified: str, etag: str, size: int, kind: str) -> None:
    """Anything that a page states about a blob is refused as malformed, or survives the manifest and the catalog
    unchanged.
    """
    try:
        parsed = parse_page(page("a.glb", modified, etag, size, kind))
    except Transient:
        assert not 0 <= size < 1 << 63
        return
    (blob,) = parsed.blobs
    assert parsed.undated == (blob.last_modified is None and bool(modified))
    stored = StoredFile(blob, b"s" * 32, 0)
    assert read_line(parse_json(json.dumps(make_line(stored), ensure_ascii=False).encode())) == stored
    catalog = Catalog(Path(":memory:"))
    version = catalog.add_version(Version(0, "e1", "e1"))
    catalog.add_page(version, [(blob, stored)], [])
    assert [each.blob for _, each in catalog.list_stored(version, limit=2)] == [blob]
    catalog.close()


@pytest.mark.parametrize("head", ["", "<!-- as no Azure writes it -->"], ids=["plain", "parsed"])
@pytest.mark.parametrize("modified", ["Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 31 Dec 9999 23:59:59 GMT", "soon"])
def test_both_page_parsers_count_undated_blobs(modified: str, head: str) -> None:
    """Both parsers of a page count times that no file can have."""
    parsed = parse_page(page("a.glb", modified, "0x8D", 1, "x/y", head=head))
    assert ([blob.last_modified for blob in parsed.blobs], parsed.undated) == ([None], 1)
    assert parse_page(page("a.glb", "", "0x8D", 1, "x/y", head=head)).undated == 0


@given(FOREIGN_DATES)
def test_dates_are_in_range(text: str) -> None:
    """A date is parsed within its range or not at all; no other error is raised."""
    seconds = parse_http_date(text)
    assert seconds is None or (
        seconds in VALID_EPOCH_SECONDS and datetime.fromtimestamp(seconds, UTC).year in range(1970, 2200)
    )


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        ("Tue, 31 Dec 2199 23:59:59 GMT", VALID_EPOCH_SECONDS[-1]),
        ("Wed, 01 Jan 2200 00:00:00 GMT", None),
        ("Wed, 31 Dec 1969 23:59:59 GMT", None),
        ("Mon, 01 Jan 0001 00:00:00 GMT", None),
        ("Fri, 31 Dec 9999 23:59:59 GMT", None),
        ("Fri, 99 Dec 2026 23:59:59 GMT", None),
        ("Fri, 01 Jan 99999999999 00:00:00 GMT", None),
        ("Fri, 01 Jan -5 00:00:00 GMT", None),
    ],
)
def test_the_ends_of_the_range(text: str, seconds: int | None) -> None:
    """Dates are accepted from 1970 to the end of 2199, on days that exist."""
    assert parse_http_date(text) == seconds


def test_values_invalid_in_a_header() -> None:
    """ETags and types that could not be sent back count as none; a valid type is unchanged."""
    assert parse_etag('"' + "x" * 257 + '"') == parse_etag('"a\nb"') == parse_etag("ä") == ""
    assert parse_etag('"' + "x" * 256 + '"') == "x" * 256
    assert (
        sanitize_header_value("x" * 257)
        is sanitize_header_value("a\nb")
        is sanitize_header_value("ä")
        is sanitize_header_value("")
        is None
    )
    assert sanitize_header_value("text/html; charset=utf-8") == "text/html; charset=utf-8"


@pytest.mark.parametrize("last_modified", ["1-01-01T00:00:00Z", "0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", None])
def test_a_time_in_an_earlier_manifest(last_modified: str | None) -> None:
    """An impossible time in a manifest of an earlier release is read as no time."""
    line = make_line(StoredFile(next(iter(parse_page(page("a", "", "e", 1, "x/y")).blobs)), b"s" * 32, 0))
    assert read_line({**line, "last_modified": last_modified}).blob.last_modified is None
