"""What the Mesh Export API and Azure Blob Storage say, in our terms: the only file that knows their JSON and XML."""

from __future__ import annotations

import base64
import binascii
import calendar
import json
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tilesync.errors import Transient, UsageError
from tilesync.model import Export, SasUrl
from tilesync.rules.links import parse_link


class Verdict(Enum):
    """What an answer means for the request that it answers."""

    DONE = auto()
    DENIED = auto()
    FORBIDDEN = auto()
    INVALID = auto()
    MISSING = auto()
    GONE = auto()
    CHANGED = auto()
    UNRANGED = auto()
    RETRY = auto()
    PRESSURE = auto()
    REFUSED = auto()


API: Mapping[int, Verdict] = {
    200: Verdict.DONE,
    400: Verdict.INVALID,
    401: Verdict.DENIED,
    403: Verdict.FORBIDDEN,
    404: Verdict.MISSING,
    408: Verdict.RETRY,
    422: Verdict.INVALID,
    429: Verdict.PRESSURE,
}
"""Verdicts on answers of the Mesh Export API (get-exports, "Response …"); 5xx is RETRY, the rest REFUSED."""

STORAGE: Mapping[tuple[int, str], Verdict] = {
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
    (416, ""): Verdict.UNRANGED,
    (429, ""): Verdict.PRESSURE,
    (503, ""): Verdict.PRESSURE,
}
"""Verdicts on answers of Azure Blob Storage and the CDN before it, by status and error code ("": any other code).

Source: "Blob service error codes", "Common REST API error codes". 5xx is RETRY, the rest REFUSED.
"""


def judge_api(status: int) -> Verdict:
    """The verdict on one answer of the API."""
    return API.get(status, Verdict.RETRY if status >= 500 else Verdict.REFUSED)


def judge_storage(status: int, code: str) -> Verdict:
    """The verdict on one answer of the storage."""
    other = Verdict.RETRY if status >= 500 else Verdict.REFUSED
    return STORAGE.get((status, code)) or STORAGE.get((status, "")) or other


def storage_code(header: str | None, body: bytes) -> str:
    """The error code of a storage answer: of `x-ms-error-code`, else of the XML body; empty when there is none."""
    if header:
        return header
    match = re.search(rb"<Code>([A-Za-z0-9]+)</Code>", body)
    return match[1].decode() if match else ""


def retry_after(text: str, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date (RFC 9110, section 10.2.3); none before 0,
    None where it is neither.
    """
    if text.strip().isdecimal():
        return float(text)
    until = header_date(text)
    return None if until is None else max(0.0, (until - now).total_seconds())


def header_date(text: str | None) -> datetime | None:
    """A header's date in any of its three forms (RFC 9110, section 5.6.7); None where it is none."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or UTC)


def plain_etag(text: str | None) -> str:
    """An entity tag without its quotes; empty when there is none."""
    return (text or "").removeprefix("W/").strip('"')


def weak_etag(text: str | None) -> bool:
    """Whether the tag is a weak validator, which If-Match never matches (RFC 9110, section 13.1.1)."""
    return (text or "").startswith("W/")


# --- Mesh Export API ---------------------------------------------------------------------------------------------


def parse_exports(body: bytes, *, fetched: float = 0.0) -> tuple[list[Export], dict[str, str] | None]:
    """The rows of one page of exports in the service's order, and the query of the next page (None: this was the last).

    Read leniently: fields may be missing or more. Raises Transient when the body is not an export list at all.
    """
    try:
        reply = json.loads(body)
        rows = [_export(row, fetched) for row in reply["exports"]]
        following = _mapping(_mapping(reply.get("_links")).get("next")).get("href")
        return rows, dict(parse_qsl(urlsplit(following).query)) if following else None
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
        raise Transient(f"the service's answer is no export list ({type(error).__name__})") from error


def _export(row: Mapping[str, Any], fetched: float) -> Export:
    request, stats = _mapping(row.get("request")), _mapping(row.get("stats"))
    href = _mapping(_mapping(row.get("_links")).get("mesh")).get("href")
    size = stats.get("compressedSize")
    return Export(
        id=str(row["id"]),
        status=str(row["status"]),
        name=str(row.get("displayName") or ""),
        imodel=request.get("iModelId"),
        changeset=request.get("changesetId"),
        type=str(request.get("exportType") or ""),
        modified=str(row.get("lastModified") or request.get("lastModified") or ""),
        size=int(size) if isinstance(size, int | float) else None,
        error=str(_mapping(row.get("error")).get("message") or row.get("error") or ""),
        record={key: value for key, value in row.items() if key != "_links"},
        link=_link(href, fetched),
    )


def _link(href: object, fetched: float) -> SasUrl | None:
    try:
        return parse_link(href, fetched=fetched) if isinstance(href, str) else None
    except UsageError:
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def api_message(body: bytes) -> str:
    """What an error of the API says, with all its details; the answer may be anything, or nothing."""
    try:
        error = _mapping(json.loads(body)).get("error")
    except (ValueError, RecursionError):
        return ""
    error = _mapping(error)
    listed = error.get("details")
    details = [d for d in listed if isinstance(d, dict)] if isinstance(listed, list) else []
    lines = [str(error.get("message") or error.get("code") or "").rstrip(".")]
    lines += [f"{d.get('target') or d.get('code')}: {str(d.get('message') or '').rstrip('.')}" for d in details]
    return "; ".join(line for line in lines if line)


def parse_token(body: bytes) -> tuple[str, float]:
    """Access token and lifetime in seconds (RFC 6749, section 5.1). Raises Transient for anything else."""
    try:
        reply = json.loads(body)
        token, life = reply["access_token"], float(reply.get("expires_in") or 3600)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
        raise Transient("the token endpoint's answer holds no access_token") from error
    if not isinstance(token, str) or not token:
        raise Transient("the token endpoint's answer holds no access_token")
    return token, life


# --- headers ---------------------------------------------------------------------------------------------------------

_MONTHS = ("Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec")


def parse_md5(text: str | None) -> bytes | None:
    """The claimed MD5; None when there is none, or when it is not the base64 of 16 bytes."""
    try:
        digest = base64.b64decode(text or "", validate=True)
    except (binascii.Error, ValueError):
        return None
    return digest if len(digest) == 16 else None


@lru_cache(1024)
def http_date(text: str | None) -> int | None:
    """Seconds since the epoch of an HTTP date (RFC 9110, section 5.6.7); None when it cannot be read."""
    if not text:
        return None
    try:
        _, day, month, year, time, _ = text.split(" ")
        hour, minute, second = time.split(":")
        return calendar.timegm((int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second)))
    except (ValueError, KeyError, OverflowError):
        pass
    try:
        moment = parsedate_to_datetime(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError):
        return None
