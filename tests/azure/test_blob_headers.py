"""Headers of a storage response."""

from __future__ import annotations

import pytest

from tilesync.azure.blob_headers import (
    ETAG_MARK,
    REQUEST_ID_MARK,
    HeaderGetter,
    find_storage_marks,
    has_known_end,
    is_unexpected_html,
    matches_range,
    parse_blob_headers,
    parse_stated_md5,
)
from tilesync.model import UNKNOWN_SIZE, Blob

ONE, TWO = "AAAAAAAAAAAAAAAAAAAAAA==", "AQAAAAAAAAAAAAAAAAAAAA=="


def headers(**fields: str) -> HeaderGetter:
    """Build a header getter as a response has it, by names in lower case."""
    return {name.replace("_", "-"): value for name, value in fields.items()}.get


def test_a_whole_response_describes_its_blob() -> None:
    """Size, ETag, MD5 and type come from the headers; a weak ETag counts as none, a missing length is unknown."""
    blob = parse_blob_headers("a", headers(content_length="3", etag='"0x8"', content_md5=ONE, content_type="image/png"))
    assert blob == Blob("a", 3, "0x8", bytes(16), "image/png")
    assert parse_blob_headers("a", headers(etag='W/"0x8"')) == Blob("a", UNKNOWN_SIZE)


def test_the_md5_of_a_part_is_not_that_of_the_blob() -> None:
    """Content-MD5 of a range is not the MD5 of the blob; x-ms-blob-content-md5 is."""
    assert parse_stated_md5(headers(content_md5=ONE), is_whole=True) == bytes(16)
    assert parse_stated_md5(headers(content_md5=ONE), is_whole=False) is None
    assert parse_stated_md5(headers(content_md5=TWO, x_ms_blob_content_md5=ONE), is_whole=False) == bytes(16)
    assert parse_stated_md5(headers(content_md5="no base64"), is_whole=True) is None


def test_storage_marks() -> None:
    """An ETag is one sign of the storage, and each header that only the storage sends is the other."""
    assert find_storage_marks(headers()) == set()
    assert find_storage_marks(headers(etag="x")) == {ETAG_MARK}
    assert find_storage_marks(headers(x_ms_error_code="BlobNotFound")) == {REQUEST_ID_MARK}
    assert find_storage_marks(headers(etag="x", x_ms_version="2024-05-04")) == {ETAG_MARK, REQUEST_ID_MARK}


@pytest.mark.parametrize(
    ("blob", "content_type", "foreign"),
    [
        (Blob("a.glb", 3), "text/html", True),
        (Blob("a.glb", 3), "Text/HTML; charset=utf-8", True),
        (Blob("a.glb", 3), "text/plain", False),
        (Blob("a.glb", 3), None, False),
        (Blob("a.HTML", 3), "text/html", False),
        (Blob("a", 3, content_type="text/html"), "text/html", False),
    ],
)
def test_unexpected_html(blob: Blob, content_type: str | None, foreign: bool) -> None:
    """A web page is unexpected where the blob is not listed or named as one."""
    assert is_unexpected_html(blob, content_type) is foreign


@pytest.mark.parametrize(
    ("header", "version", "known"),
    [
        (headers(content_length="3"), "HTTP/1.1", True),
        (headers(transfer_encoding="chunked"), "HTTP/1.1", True),
        (headers(transfer_encoding="gzip, Chunked"), "HTTP/1.1", True),
        (headers(transfer_encoding="chunked, gzip"), "HTTP/1.1", False),
        (headers(), "HTTP/1.1", False),
        (headers(), "HTTP/1.0", False),
        (headers(), "HTTP/2.0", True),
    ],
)
def test_the_end_of_a_body(header: HeaderGetter, version: str, known: bool) -> None:
    """Content-Length, chunks and HTTP/2 show the end of a body; a closed connection does not."""
    assert has_known_end(header, version) is known


@pytest.mark.parametrize(
    ("content_range", "fits"),
    [
        ("bytes 5-9/10", True),
        ("bytes 5-7/10", True),
        ("bytes 5-9/*", True),
        ("bytes 4-9/10", False),
        ("bytes 50-99/100", False),
        ("bytes 5-9/11", False),
        ("bytes */10", False),
        ("items 5-9/10", False),
        ("", False),
    ],
)
def test_ranges(content_range: str, fits: bool) -> None:
    """A range matches that begins at the requested offset, of a blob of the listed size."""
    assert matches_range(headers(content_range=content_range), Blob("a", 10), 5) is fits


def test_the_length_of_a_part_is_that_of_its_range() -> None:
    """A response whose Content-Length differs from its range does not match."""
    assert matches_range(headers(content_range="bytes 5-9/10", content_length="5"), Blob("a", UNKNOWN_SIZE), 5)
    assert not matches_range(headers(content_range="bytes 5-9/10", content_length="4"), Blob("a", UNKNOWN_SIZE), 5)
