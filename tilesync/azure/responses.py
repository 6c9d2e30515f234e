"""What the Mesh Export API and Azure Blob Storage say, in our terms: the only file that knows their JSON and XML."""

from __future__ import annotations

import base64
import binascii
import calendar
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum, auto
from functools import lru_cache
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tilesync.azure.sas import parse_link
from tilesync.core.export_record import record_of
from tilesync.core.foreign_json import DATES, count, lenient, loads, mapping, number, text
from tilesync.core.masking import masked
from tilesync.errors import Transient, UsageError
from tilesync.model import Export, SasUrl


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


YEAR = 365 * 86_400.0
"""Seconds: whoever asks to wait longer has made a mistake."""


def retry_after(text: str, now: datetime) -> float | None:
    """Seconds that a Retry-After header asks for, as a number or as a date (RFC 9110, section 10.2.3); none before 0,
    None where it is neither, or asks for more than YEAR.
    """
    if text.strip().isdecimal():
        asked = float(text)
    elif (until := header_date(text)) is not None:
        asked = max(0.0, (until - now).total_seconds())
    else:
        return None
    return asked if asked <= YEAR else None


def header_date(text: str | None) -> datetime | None:
    """A header's date in any of its three forms (RFC 9110, section 5.6.7); None where it is none."""
    try:
        found = parsedate_to_datetime(text or "")
    except (ValueError, OverflowError):
        return None
    return found.replace(tzinfo=found.tzinfo or UTC)


LONGEST_ETAG = 256
"""Letters of an entity tag; storage services use some forty. A longer one may not fit into the headers of a request."""


def plain_etag(text: str | None) -> str:
    """An entity tag without its quotes; empty when there is none, or none that a header could carry back."""
    plain = (text or "").removeprefix("W/").strip('"')
    return plain if len(plain) <= LONGEST_ETAG and plain.isascii() and plain.isprintable() else ""


def weak_etag(text: str | None) -> bool:
    """Whether the tag is a weak validator, which If-Match never matches (RFC 9110, section 13.1.1)."""
    return (text or "").startswith("W/")


@lru_cache(1024)
def plain_value(text: str | None) -> str | None:
    """The value of a header that is handed on with a file; None when there is none, or none that a header can carry."""
    return text if text and len(text) <= LONGEST_ETAG and text.isascii() and text.isprintable() else None


# --- Mesh Export API ---------------------------------------------------------------------------------------------


_WEB_PAGE = (
    "is --api-url (TILESYNC_API_URL) the service's address? A proxy or a login of this network may answer in its place"
)


def parse_exports(
    body: bytes, *, fetched: float = 0.0, secrets: Iterable[str] = ()
) -> tuple[list[Export], dict[str, str] | None]:
    """The rows of one page of exports in the service's order, and the query of the next page (None: this was the last).

    Read leniently: fields may be missing or more, and one of another type counts as missing; no text of it has any of
    the `secrets`. Raises Transient when the body is not an export list at all.
    """
    try:
        reply = mapping(loads(body))
        if not isinstance(reply["exports"], list):
            raise ValueError("its `exports` are no list")
        rows = [_export(mapping(row), fetched, tuple(secrets)) for row in reply["exports"]]
        following = lenient(_mapping(_mapping(reply.get("_links")).get("next")).get("href"), text, "")
        return rows, dict(parse_qsl(urlsplit(following).query)) if following else None
    except (ValueError, KeyError) as error:
        if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise Transient("the service's answer is no export list but a web page", hint=_WEB_PAGE) from error
        raise Transient(f"the service's answer is no export list ({error or type(error).__name__})") from error


def _export(row: Mapping[str, Any], fetched: float, secrets: tuple[str, ...]) -> Export:
    """An export; without an id and a status, both texts, it is none. Raises KeyError."""
    record = record_of(row, secrets)
    request, stats, error = _mapping(record.get("request")), _mapping(record.get("stats")), record.get("error", "")
    href = _mapping(_mapping(row.get("_links")).get("mesh")).get("href")
    return Export(
        id=record["id"],
        status=record["status"],
        name=record.get("displayName", ""),
        imodel=request.get("iModelId"),
        changeset=request.get("changesetId"),
        type=request.get("exportType", ""),
        modified=record.get("lastModified") or request.get("lastModified") or "",
        size=lenient(stats.get("compressedSize"), _rounded, None),
        error=error if isinstance(error, str) else error.get("message", ""),
        record=record,
        link=_link(href, fetched),
    )


def _rounded(said: Any) -> int | None:
    """A size that may have been told as a fraction."""
    return count(int(number(said)))


def _link(href: object, fetched: float) -> SasUrl | None:
    try:
        return parse_link(href, fetched=fetched) if isinstance(href, str) else None
    except UsageError:
        return None


def _mapping(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def api_message(body: bytes, secrets: Iterable[str] = ()) -> str:
    """What an error of the API says, with all its details, in so many letters and without any of these `secrets`; the
    answer may be anything, or nothing.
    """
    try:
        error = _mapping(_mapping(loads(body)).get("error"))
    except ValueError:
        return ""
    listed = error.get("details")
    details = [d for d in listed if isinstance(d, dict)] if isinstance(listed, list) else []
    lines = [_word(error, "message", "code")]
    lines += [f"{_word(d, 'target', 'code')}: {_word(d, 'message')}" for d in details[:DETAILS]]
    return masked("; ".join(line for line in lines if line), secrets)[:LONGEST]


DETAILS = 20
LONGEST = 2000
"""Details, and letters, of an error of the API that are told."""


def _word(said: Mapping[str, Any], *names: str) -> str:
    """The first of some fields that is a text with anything in it, without the dot at its end."""
    return next((word.rstrip(".") for name in names if (word := lenient(said.get(name), text, ""))), "")


HOUR = 3600.0
LONGEST_LIFE = float(1 << 31)
"""Seconds that a token is taken to live where its answer says nothing, or no time that a token can have. Source: RFC
6749, section 5.1, leaves that to the documentation; IMS gives an hour.
"""


def parse_token(body: bytes) -> tuple[str, float]:
    """Access token and lifetime in seconds (RFC 6749, section 5.1). Raises Transient for anything else."""
    try:
        reply = mapping(loads(body))
        token, said = text(reply["access_token"]), reply.get("expires_in") or 0
        life = float(min(said, LONGEST_LIFE) if isinstance(said, int) else said)
    except (ValueError, KeyError, TypeError) as error:
        raise Transient("the token endpoint's answer holds no access_token") from error
    if not token:
        raise Transient("the token endpoint's answer holds no access_token")
    return token, life if 0 < life < LONGEST_LIFE else HOUR


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
    """Seconds since the epoch of an HTTP date (RFC 9110, section 5.6.7); None when it cannot be read, or lies outside
    of what a file can have.
    """
    seconds = _seconds(text) if text else None
    return seconds if seconds is not None and seconds in DATES else None


def _seconds(text: str) -> int | None:
    try:
        _, day, month, year, time, _ = text.split(" ")
        hour, minute, second = time.split(":")
        fields = (int(year), _MONTHS.index(month) + 1, int(day), int(hour), int(minute), int(second))
        if 1 <= fields[0] <= 9999 and 1 <= fields[2] <= 31 and fields[3] < 24 and fields[4] < 60 and fields[5] <= 60:
            return calendar.timegm(fields)
    except ValueError:
        pass
    try:
        moment = parsedate_to_datetime(text)
        return int((moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp())
    except (ValueError, OverflowError, TypeError, IndexError):
        return None
