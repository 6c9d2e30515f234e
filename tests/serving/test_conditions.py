"""Test conditional requests and ranges, by the tables of RFC 9110."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.model.storage import ObjectHeaders
from tilesync.serving.conditions import Selection, format_date, select_bytes
from tilesync.serving.tilesets import FileFacts

MODIFIED = 1_767_225_600
FACTS = FileFacts(100, '"v1"', ObjectHeaders("model/gltf-binary"), MODIFIED)
WHOLE = Selection(200, 0, 100)
DATE, EARLIER, LATER = (format_date(MODIFIED + offset) for offset in (0, -1, 1))


@pytest.mark.parametrize(
    ("text", "selection"),
    [
        (b"bytes=0-0", Selection(206, 0, 1)),
        (b"bytes=10-19", Selection(206, 10, 20)),
        (b"Bytes=10-19 ", Selection(206, 10, 20)),
        (b"bytes=90-", Selection(206, 90, 100)),
        (b"bytes=0-1000", Selection(206, 0, 100)),
        (b"bytes=-10", Selection(206, 90, 100)),
        (b"bytes=-1000", Selection(206, 0, 100)),
        (b"bytes=100-", Selection(416, 0, 0)),
        (b"bytes=-0", Selection(416, 0, 0)),
        (b"bytes=0-1,5-6", WHOLE),
        (b"bytes=9-1", WHOLE),
        (b"bytes=-", WHOLE),
        (b"bytes=a-b", WHOLE),
        (b"lines=0-1", WHOLE),
        (b"", WHOLE),
    ],
)
def test_a_range(text: bytes, selection: Selection) -> None:
    """One valid range gets its bytes or 416; anything else gets the whole file, as a server may answer."""
    assert select_bytes(FACTS, {b"range": text}) == selection


@pytest.mark.parametrize(
    ("condition", "status"),
    [(b'"v1"', 206), (b'W/"v1"', 200), (b'"v2"', 200), (DATE, 206), (EARLIER, 200), (LATER, 200), (b"soon", 200)],
)
def test_a_range_on_a_condition(condition: bytes, status: int) -> None:
    """If-Range needs the strong ETag, or the exact time of the last change."""
    assert select_bytes(FACTS, {b"range": b"bytes=0-0", b"if-range": condition}).status == status


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({b"if-none-match": b'"v1"'}, 304),
        ({b"if-none-match": b'W/"v1"'}, 304),
        ({b"if-none-match": b'"v11"'}, 200),
        ({b"if-none-match": b'"v0", "v1"'}, 304),
        ({b"if-none-match": b"*"}, 304),
        ({b"if-none-match": b'"v2"'}, 200),
        ({b"if-none-match": b'"v2"', b"if-modified-since": LATER}, 200),
        ({b"if-modified-since": DATE}, 304),
        ({b"if-modified-since": LATER}, 304),
        ({b"if-modified-since": EARLIER}, 200),
        ({b"if-modified-since": b"never"}, 200),
        ({b"if-none-match": b'"v1"', b"range": b"bytes=0-0"}, 304),
    ],
)
def test_a_file_that_the_client_has(headers: dict[bytes, bytes], status: int) -> None:
    """If-None-Match has priority over If-Modified-Since, and both over Range."""
    assert select_bytes(FACTS, headers).status == status


def test_a_time_is_unknown() -> None:
    """A file without a time is never unchanged since one, and no range depends on one."""
    facts = FileFacts(100, '"v1"', FACTS.headers)
    assert select_bytes(facts, {b"if-modified-since": LATER}) == WHOLE
    assert select_bytes(facts, {b"range": b"bytes=0-0", b"if-range": DATE}) == WHOLE


@given(st.dictionaries(st.sampled_from([b"range", b"if-range", b"if-none-match", b"if-modified-since"]), st.binary()))
def test_any_headers_are_answered(headers: dict[bytes, bytes]) -> None:
    """No header raises, and the bytes are always inside the file."""
    status, start, stop = select_bytes(FACTS, headers)
    assert status in {200, 206, 304, 416}
    assert 0 <= start <= stop <= FACTS.size


def test_an_empty_file() -> None:
    """An empty file has no range."""
    facts = FileFacts(0, '"e"', FACTS.headers)
    assert select_bytes(facts, {}) == Selection(200, 0, 0)
    assert select_bytes(facts, {b"range": b"bytes=0-"}).status == 416


@pytest.mark.parametrize(
    ("wanted", "status"),
    [(b'"x", "e"', 200), (b"*", 200), (b'"x"', 412), (b'W/"e"', 412)],
)
def test_another_file_is_wanted(wanted: bytes, status: int) -> None:
    """If-Match that does not name this file is 412, before all other conditions."""
    facts = FileFacts(10, '"e"', ObjectHeaders("a/b"))
    assert select_bytes(facts, {b"if-match": wanted}).status == status
    if status == 412:
        assert select_bytes(facts, {b"if-match": wanted, b"range": b"bytes=0-1", b"if-none-match": b"*"}).status == 412


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (b"bytes=99999999999999999999-", (416, 0, 0)),
        (b"bytes=2-99999999999999999999", (206, 2, 10)),
        (b"bytes=-99999999999999999999", (206, 0, 10)),
        (b"bytes=" + b"9" * 5000 + b"-", (416, 0, 0)),
    ],
)
def test_numbers_larger_than_any_file(text: bytes, expected: tuple[int, int, int]) -> None:
    """A range beyond the file is 416, and one that ends beyond it ends with the file, however large the numbers."""
    assert select_bytes(FileFacts(10, '"e"', ObjectHeaders("a/b")), {b"range": text}) == expected


def test_weak_tags() -> None:
    """A weak ETag tells that a client has the file, but is not enough for a range of it."""
    facts = FileFacts(10, 'W/"v1"', ObjectHeaders("a/b"))
    for known in (b'W/"v1"', b'"v1"'):
        assert select_bytes(facts, {b"if-none-match": known}).status == 304
    assert select_bytes(facts, {b"range": b"bytes=0-0", b"if-range": b'W/"v1"'}) == WHOLE._replace(stop=10)


def test_only_get_has_ranges() -> None:
    """HEAD tells what GET without a range would send."""
    assert select_bytes(FACTS, {b"range": b"bytes=0-0"}, method="HEAD") == WHOLE
