"""What the headers of a storage answer state: about the blob, about its bytes, and about who answered."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from tilesync.azure.responses import http_date, parse_md5, plain_etag, weak_etag
from tilesync.model import UNKNOWN, Blob

Header = Callable[[str], str | None]

ETAG: Final = "an ETag"
MARK: Final = "an x-ms-request-id"
"""Marks of the storage. Source: "Get Blob", response headers: every answer of it has both, errors the second one."""

_MARKS: Final = ("x-ms-request-id", "x-ms-version", "x-ms-error-code")
_PAGES: Final = ("text/html", "application/xhtml+xml")
_PAGE_NAMES: Final = (".html", ".htm", ".xhtml")


def describe(name: str, header: Header) -> Blob:
    """The blob that the headers of a whole answer describe; a weak ETag counts as none, it tells no bytes apart."""
    length, etag = header("content-length") or "", header("etag")
    return Blob(
        name,
        int(length) if length.isdecimal() else UNKNOWN,
        "" if weak_etag(etag) else plain_etag(etag),
        stated_md5(header, whole=True),
        header("content-type"),
        header("content-encoding"),
        http_date(header("last-modified")),
    )


def stated_md5(header: Header, *, whole: bool) -> bytes | None:
    """The MD5 of the whole blob that an answer states; None where it states none.

    Source: "Get Blob": `Content-MD5` is that of what was asked for, `x-ms-blob-content-md5` always of the whole blob.
    """
    return parse_md5(header("x-ms-blob-content-md5")) or (parse_md5(header("content-md5")) if whole else None)


def is_undated(header: Header) -> bool:
    """Whether an answer says that the blob was modified at a time that no file can have."""
    return bool(header("last-modified")) and http_date(header("last-modified")) is None


def server_time(header: Header) -> datetime | None:
    """The clock of the server, in whole seconds."""
    seconds = http_date(header("date"))
    try:
        return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None


def is_certain(code: str, body: bytes) -> bool:
    """Whether a refusal (403) is one that time does not cure. Source: "Common REST API error codes"."""
    return code.startswith(("Authorization", "Account", "KeyVault")) or b"did not match" in body


def marks_of(header: Header) -> set[str]:
    """The marks of the storage that an answer has."""
    found = {ETAG} if header("etag") else set[str]()
    return found | {MARK} if any(header(name) for name in _MARKS) else found


def is_foreign_page(blob: Blob, content_type: str | None) -> bool:
    """Whether an answer is a web page where the blob is none: what gateways and logins send in place of a file."""
    return _is_page(content_type) and not _is_page(blob.content_type) and not blob.name.lower().endswith(_PAGE_NAMES)


def _is_page(content_type: str | None) -> bool:
    return (content_type or "").partition(";")[0].strip().lower() in _PAGES


def tells_its_end(header: Header, version: str) -> bool:
    """Whether a body cannot break off unnoticed: its length or its chunks tell the end, and HTTP/2 always does.

    Source: RFC 9112, section 6.3: any other body ends where the connection does.
    """
    if not version.startswith("HTTP/1") or header("content-length") is not None:
        return True
    return (header("transfer-encoding") or "").lower().rpartition(",")[2].strip() == "chunked"


def range_fits(header: Header, blob: Blob, offset: int) -> bool:
    """Whether the Content-Range of an answer is a part of the blob from `offset` on. Source: RFC 9110, section 14.4."""
    unit, _, rest = (header("content-range") or "").partition(" ")
    span, _, total = rest.partition("/")
    first, _, last = span.partition("-")
    length = header("content-length")
    return (
        unit.lower() == "bytes"
        and first == str(offset)
        and last.isdecimal()
        and (not total.isdecimal() or blob.size in {UNKNOWN, int(total)})
        and (length is None or length == str(int(last) - offset + 1))
    )
