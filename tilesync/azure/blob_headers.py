"""What the headers of a storage answer state: about the blob, about its bytes, and about who answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from tilesync.azure.responses import is_weak_etag, parse_etag, parse_http_date, parse_md5
from tilesync.model import UNKNOWN_SIZE, Blob

HeaderGetter = Callable[[str], str | None]

ETAG_MARK: Final = "an ETag"
REQUEST_ID_MARK: Final = "an x-ms-request-id"
"""Marks of the storage. Source: "Get Blob", response headers: every answer of it has both, errors the second one."""

_STORAGE_HEADERS: Final = ("x-ms-request-id", "x-ms-version", "x-ms-error-code")
_HTML_TYPES: Final = ("text/html", "application/xhtml+xml")
_HTML_SUFFIXES: Final = (".html", ".htm", ".xhtml")


def parse_blob_headers(name: str, header: HeaderGetter) -> Blob:
    """The blob that the headers of a whole answer describe; a weak ETag counts as none, it tells no bytes apart."""
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
    """The MD5 of the whole blob that an answer states; None where it states none.

    Source: "Get Blob": `Content-MD5` is that of what was asked for, `x-ms-blob-content-md5` always of the whole blob.
    """
    return parse_md5(header("x-ms-blob-content-md5")) or (parse_md5(header("content-md5")) if is_whole else None)


def has_impossible_date(header: HeaderGetter) -> bool:
    """Whether an answer says that the blob was modified at a time that no file can have."""
    return bool(header("last-modified")) and parse_http_date(header("last-modified")) is None


def parse_server_time(header: HeaderGetter) -> datetime | None:
    """The clock of the server, in whole seconds."""
    seconds = parse_http_date(header("date"))
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def is_permanent_denial(code: str, body: bytes) -> bool:
    """Whether a refusal (403) is one that time does not cure. Source: "Common REST API error codes"."""
    return code.startswith(("Authorization", "Account", "KeyVault")) or b"did not match" in body


def find_storage_marks(header: HeaderGetter) -> set[str]:
    """The marks of the storage that an answer has."""
    found = {ETAG_MARK} if header("etag") else set[str]()
    return found | {REQUEST_ID_MARK} if any(header(name) for name in _STORAGE_HEADERS) else found


def is_unexpected_html(blob: Blob, content_type: str | None) -> bool:
    """Whether an answer is a web page where the blob is none: what gateways and logins send in place of a file."""
    return _is_html(content_type) and not _is_html(blob.content_type) and not blob.name.lower().endswith(_HTML_SUFFIXES)


def _is_html(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() in _HTML_TYPES


def has_known_end(header: HeaderGetter, version: str) -> bool:
    """Whether a body cannot break off unnoticed: its length or its chunks tell the end, and HTTP/2 always does.

    Source: RFC 9112, section 6.3: any other body ends where the connection does.
    """
    if not version.startswith("HTTP/1") or header("content-length") is not None:
        return True
    return (header("transfer-encoding") or "").lower().rpartition(",")[2].strip() == "chunked"


def matches_range(header: HeaderGetter, blob: Blob, offset: int) -> bool:
    """Whether the Content-Range of an answer is a part of the blob from `offset` on. Source: RFC 9110, section 14.4."""
    unit, _, rest = (header("content-range") or "").partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    length = header("content-length")
    return (
        unit.lower() == "bytes"
        and first == str(offset)
        and last.isdecimal()
        and (not total.isdecimal() or blob.size in {UNKNOWN_SIZE, int(total)})
        and (length is None or length == str(int(last) - offset + 1))
    )
