"""Headers of a storage response: the blob they describe, its range, and signs that a storage service answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from tilesync.azure.responses import is_weak_etag, parse_etag, parse_http_date, parse_md5
from tilesync.model import UNKNOWN_SIZE, Blob

HeaderGetter = Callable[[str], str | None]

ETAG_MARK: Final = "an ETag"
REQUEST_ID_MARK: Final = "an x-ms-request-id"
"""Signs of the storage. Source: "Get Blob", response headers: every response has both, errors only the second."""

_STORAGE_HEADERS: Final = ("x-ms-request-id", "x-ms-version", "x-ms-error-code")
_HTML_TYPES: Final = ("text/html", "application/xhtml+xml")
_HTML_SUFFIXES: Final = (".html", ".htm", ".xhtml")


def parse_blob_headers(name: str, header: HeaderGetter) -> Blob:
    """Parse the blob that the headers of a whole response describe.

    A weak ETag counts as none: blobs with different bytes may share it.
    """
    length, etag = header("content-length") or "", header("etag")
    return Blob(
        name,
        int(length) if length.isdecimal() else UNKNOWN_SIZE,
        "" if is_weak_etag(etag) else parse_etag(etag),
        parse_stated_md5(header, is_whole=True),
        header("content-type"),
        header("content-encoding"),
        parse_http_date(header("last-modified")),
    )


def parse_stated_md5(header: HeaderGetter, *, is_whole: bool) -> bytes | None:
    """Parse the MD5 of the whole blob that a response states; None if it states none.

    Source: "Get Blob": `Content-MD5` is the MD5 of the requested range, `x-ms-blob-content-md5` always of the whole
    blob.
    """
    return parse_md5(header("x-ms-blob-content-md5")) or (parse_md5(header("content-md5")) if is_whole else None)


def has_impossible_date(header: HeaderGetter) -> bool:
    """Return whether a response states a modification time that no file can have."""
    return bool(header("last-modified")) and parse_http_date(header("last-modified")) is None


def parse_server_time(header: HeaderGetter) -> datetime | None:
    """Parse the clock of the server, in whole seconds."""
    seconds = parse_http_date(header("date"))
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def is_permanent_denial(code: str, body: bytes) -> bool:
    """Return whether a refusal (403) cannot be cured by waiting. Source: "Common REST API error codes"."""
    return code.startswith(("Authorization", "Account", "KeyVault")) or b"did not match" in body


def find_storage_marks(header: HeaderGetter) -> set[str]:
    """Find the signs of the storage in a response."""
    found = {ETAG_MARK} if header("etag") else set[str]()
    return found | {REQUEST_ID_MARK} if any(header(name) for name in _STORAGE_HEADERS) else found


def is_unexpected_html(blob: Blob, content_type: str | None) -> bool:
    """Return whether a response is a web page and the blob is not: gateways and logins send one in place of a file."""
    return _is_html(content_type) and not _is_html(blob.content_type) and not blob.name.lower().endswith(_HTML_SUFFIXES)


def _is_html(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() in _HTML_TYPES


def has_known_end(header: HeaderGetter, version: str) -> bool:
    """Return whether a truncated body would be noticed: Content-Length or chunks state its end, as does HTTP/2.

    Source: RFC 9112, section 6.3: any other body ends where the connection ends.
    """
    if not version.startswith("HTTP/1") or header("content-length") is not None:
        return True
    return (header("transfer-encoding") or "").lower().rpartition(",")[2].strip() == "chunked"


def matches_range(header: HeaderGetter, blob: Blob, offset: int) -> bool:
    """Return whether the Content-Range of a response is a part of the blob from `offset` on.

    Source: RFC 9110, section 14.4.
    """
    unit, _, span_and_total = (header("content-range") or "").partition(" ")
    span, _, total = span_and_total.partition("/")
    first, _, last = span.partition("-")
    length = header("content-length")
    return (
        unit.lower() == "bytes"
        and first == str(offset)
        and last.isdecimal()
        and (not total.isdecimal() or blob.size in {UNKNOWN_SIZE, int(total)})
        and (length is None or length == str(int(last) - offset + 1))
    )
