"""Responses of Azure Blob Storage: verdicts by status and error code, and parsed header values."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Mapping
from functools import lru_cache

from tilesync.core.foreign_json import VALID_EPOCH_SECONDS
from tilesync.core.http_status import Verdict, parse_http_seconds

VERDICT_BY_STATUS: Mapping[tuple[int, str], Verdict] = {
    (200, ""): Verdict.DONE,
    (206, ""): Verdict.DONE,
    (401, ""): Verdict.DENIED,
    (403, ""): Verdict.DENIED,
    (404, ""): Verdict.MISSING,
    (404, "ContainerNotFound"): Verdict.GONE,
    (404, "FilesystemNotFound"): Verdict.GONE,
    (408, ""): Verdict.RETRY,
    (409, "ContainerBeingDeleted"): Verdict.GONE,
    (409, "PublicAccessNotPermitted"): Verdict.DENIED,
    (412, ""): Verdict.CHANGED,
    (416, ""): Verdict.RANGE_REFUSED,
    (429, ""): Verdict.THROTTLED,
    (503, ""): Verdict.THROTTLED,
}
"""Verdicts on responses of Azure Blob Storage and a CDN in front of it, by status and error code ("": any other).

Source: "Blob service error codes", "Common REST API error codes". 5xx is RETRY, the rest REFUSED.
"""


def classify_storage_response(status: int, code: str) -> Verdict:
    """Return the verdict on one response of the storage."""
    default = Verdict.RETRY if status >= 500 else Verdict.REFUSED
    return VERDICT_BY_STATUS.get((status, code)) or VERDICT_BY_STATUS.get((status, "")) or default


def parse_storage_error_code(header: str | None, body: bytes) -> str:
    """Parse the error code of a storage response: `x-ms-error-code`, else the XML body; empty if there is none."""
    if header:
        return header
    match = re.search(rb"<Code>([A-Za-z0-9]+)</Code>", body)
    return match[1].decode() if match else ""


MAX_ETAG_CHARS = 256
"""Maximum characters of an entity tag; storage services use about 40. A longer one may not fit into a request header.
"""


def parse_etag(text: str | None) -> str:
    """Parse an entity tag, without its quotes; empty if there is none, or if no header could carry it back."""
    plain = (text or "").removeprefix("W/").strip('"')
    return plain if len(plain) <= MAX_ETAG_CHARS and plain.isascii() and plain.isprintable() else ""


def is_weak_etag(text: str | None) -> bool:
    """Return whether the tag is a weak validator, which If-Match never matches (RFC 9110, section 13.1.1)."""
    return (text or "").startswith("W/")


@lru_cache(1024)
def sanitize_header_value(text: str | None) -> str | None:
    """Return a header value that is stored with a file; None if there is none, or if no header can carry it."""
    return text if text and len(text) <= MAX_ETAG_CHARS and text.isascii() and text.isprintable() else None


# --- headers ---------------------------------------------------------------------------------------------------------


def parse_md5(text: str | None) -> bytes | None:
    """Parse a Content-MD5 value; None if there is none, or if it is not the base64 of 16 bytes."""
    try:
        digest = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == 16 else None


@lru_cache(1024)
def parse_http_date(text: str | None) -> int | None:
    """Parse an HTTP date (RFC 9110, section 5.6.7) into seconds since the epoch.

    None if it cannot be read, or if no file can have that time.
    """
    seconds = parse_http_seconds(text) if text else None
    return seconds if seconds is not None and seconds in VALID_EPOCH_SECONDS else None
