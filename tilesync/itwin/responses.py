"""What the Mesh Export API and the token endpoint answer, in our terms: the only file that knows their JSON."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tilesync.azure.sas import parse_sas_link
from tilesync.core.export_record import sanitize_record
from tilesync.core.foreign_json import parse_json, read_count, read_mapping, read_number, read_or_default, read_text
from tilesync.core.http_status import Verdict
from tilesync.core.masking import mask_secrets
from tilesync.errors import Transient, UsageError
from tilesync.model import Export, SasUrl

API_STATUS_VERDICTS: Mapping[int, Verdict] = {
    200: Verdict.DONE,
    400: Verdict.INVALID,
    401: Verdict.DENIED,
    403: Verdict.FORBIDDEN,
    404: Verdict.MISSING,
    408: Verdict.RETRY,
    422: Verdict.INVALID,
    429: Verdict.THROTTLED,
}
"""Verdicts on answers of the Mesh Export API (get-exports, "Response …"); 5xx is RETRY, the rest REFUSED."""


def classify_api_status(status: int) -> Verdict:
    """The verdict on one answer of the API."""
    return API_STATUS_VERDICTS.get(status, Verdict.RETRY if status >= 500 else Verdict.REFUSED)


_WEB_PAGE_HINT = (
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
        reply = read_mapping(parse_json(body))
        if not isinstance(reply["exports"], list):
            raise ValueError("its `exports` are no list")
        rows = [_parse_export(read_mapping(row), fetched, tuple(secrets)) for row in reply["exports"]]
        following = read_or_default(
            _mapping_or_empty(_mapping_or_empty(reply.get("_links")).get("next")).get("href"), read_text, ""
        )
        return rows, dict(parse_qsl(urlsplit(following).query)) if following else None
    except (ValueError, KeyError) as error:
        if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise Transient("the service's answer is no export list but a web page", hint=_WEB_PAGE_HINT) from error
        raise Transient(f"the service's answer is no export list ({error or type(error).__name__})") from error


def _parse_export(row: Mapping[str, Any], fetched: float, secrets: tuple[str, ...]) -> Export:
    """An export; without an id and a status, both texts, it is none. Raises KeyError."""
    record = sanitize_record(row, secrets)
    request, stats, error = (
        _mapping_or_empty(record.get("request")),
        _mapping_or_empty(record.get("stats")),
        record.get("error", ""),
    )
    href = _mapping_or_empty(_mapping_or_empty(row.get("_links")).get("mesh")).get("href")
    return Export(
        id=record["id"],
        status=record["status"],
        name=record.get("displayName", ""),
        imodel=request.get("iModelId"),
        changeset=request.get("changesetId"),
        type=request.get("exportType", ""),
        modified=record.get("lastModified") or request.get("lastModified") or "",
        size=read_or_default(stats.get("compressedSize"), _round_size, None),
        error=error if isinstance(error, str) else error.get("message", ""),
        record=record,
        link=_parse_optional_link(href, fetched),
    )


def _round_size(value: Any) -> int | None:
    """A size that may have been told as a fraction."""
    return read_count(int(read_number(value)))


def _parse_optional_link(href: object, fetched: float) -> SasUrl | None:
    try:
        return parse_sas_link(href, fetched=fetched) if isinstance(href, str) else None
    except UsageError:
        return None


def _mapping_or_empty(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def api_message(body: bytes, secrets: Iterable[str] = ()) -> str:
    """What an error of the API says, with all its details, in so many letters and without any of these `secrets`; the
    answer may be anything, or nothing.
    """
    try:
        error = _mapping_or_empty(_mapping_or_empty(parse_json(body)).get("error"))
    except ValueError:
        return ""
    listed = error.get("details")
    details = [d for d in listed if isinstance(d, dict)] if isinstance(listed, list) else []
    lines = [_first_text(error, "message", "code")]
    lines += [f"{_first_text(d, 'target', 'code')}: {_first_text(d, 'message')}" for d in details[:MAX_ERROR_DETAILS]]
    return mask_secrets("; ".join(line for line in lines if line), secrets)[:MAX_API_MESSAGE_CHARS]


MAX_ERROR_DETAILS = 20


MAX_API_MESSAGE_CHARS = 2000
"""Details, and letters, of an error of the API that are told."""


def _first_text(fields: Mapping[str, Any], *names: str) -> str:
    """The first of some fields that is a text with anything in it, without the dot at its end."""
    return next((word.rstrip(".") for name in names if (word := read_or_default(fields.get(name), read_text, ""))), "")


DEFAULT_TOKEN_LIFETIME_S = 3600.0


MAX_TOKEN_LIFETIME_S = float(1 << 31)
"""Seconds that a token is taken to live where its answer says nothing, or no time that a token can have. Source: RFC
6749, section 5.1, leaves that to the documentation; IMS gives an hour.
"""


def parse_token(body: bytes) -> tuple[str, float]:
    """Access token and lifetime in seconds (RFC 6749, section 5.1). Raises Transient for anything else."""
    try:
        reply = read_mapping(parse_json(body))
        token, said = read_text(reply["access_token"]), reply.get("expires_in") or 0
        life = float(min(said, MAX_TOKEN_LIFETIME_S) if isinstance(said, int) else said)
    except (ValueError, KeyError, TypeError) as error:
        raise Transient("the token endpoint's answer holds no access_token") from error
    if not token:
        raise Transient("the token endpoint's answer holds no access_token")
    return token, life if 0 < life < MAX_TOKEN_LIFETIME_S else DEFAULT_TOKEN_LIFETIME_S
