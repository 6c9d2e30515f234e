"""Parser for responses of the service's APIs and the token endpoint: the only module that knows their JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, TypeVar
from urllib.parse import parse_qsl, urlsplit

from tilesync.azure.sas import parse_sas_link
from tilesync.core.export_record import MAX_TEXT_CHARS, sanitize_record
from tilesync.core.foreign_json import parse_json, read_count, read_mapping, read_number, read_or_default, read_text
from tilesync.core.http_status import Verdict
from tilesync.core.masking import mask_secrets
from tilesync.errors import Transient, UsageError
from tilesync.itwin.portal_urls import parse_guid
from tilesync.model import Export, SasUrl
from tilesync.values import dataclass

R = TypeVar("R")

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
"""Verdicts by HTTP status of the service's APIs (get-exports, "Response …"); 5xx is RETRY, any other REFUSED."""


def classify_api_status(status: int) -> Verdict:
    """Classify an HTTP status of the API."""
    return API_STATUS_VERDICTS.get(status, Verdict.RETRY if status >= 500 else Verdict.REFUSED)


_WEB_PAGE_HINT = (
    "is --api-url (TILESYNC_API_URL) the service's address? A proxy or a login of this network may answer in its place"
)


@dataclass(frozen=True, slots=True)
class IModelRow:
    """An iModel: its id, in lower case, and its display name: free text, not unique, and it may change."""

    id: str
    name: str


@dataclass(frozen=True, slots=True)
class ITwinRow:
    """An iTwin: its id, in lower case, and its display name."""

    id: str
    name: str


def parse_exports(
    body: bytes, *, fetched: float = 0.0, secrets: Iterable[str] = ()
) -> tuple[list[Export], dict[str, str] | None]:
    """Parse one page of exports. Return its rows in the service's order, and the query of the next page, None if last.

    The parser is lenient: unknown fields are ignored, and a field of another type counts as missing. `secrets` are
    removed from all texts. Raises Transient when the body is not an export list.
    """
    known = tuple(secrets)
    return _parse_page(body, "exports", "an export list", lambda row: _parse_export(row, fetched, known))


def parse_imodels(body: bytes, secrets: Iterable[str] = ()) -> tuple[list[IModelRow], dict[str, str] | None]:
    """Parse one page of iModels, as `parse_exports` does. A row needs an id, which is returned in lower case."""
    known = tuple(secrets)
    return _parse_page(
        body, "iModels", "a list of iModels", lambda row: IModelRow(_parse_id(row), _parse_name(row, known))
    )


def parse_itwins(body: bytes, secrets: Iterable[str] = ()) -> tuple[list[ITwinRow], dict[str, str] | None]:
    """Parse one page of iTwins, as `parse_exports` does. A row needs an id, which is returned in lower case."""
    known = tuple(secrets)
    return _parse_page(
        body, "iTwins", "a list of iTwins", lambda row: ITwinRow(_parse_id(row), _parse_name(row, known))
    )


def _parse_page(
    body: bytes, member: str, name: str, parse_row: Callable[[Mapping[str, Any]], R]
) -> tuple[list[R], dict[str, str] | None]:
    """Parse one page of a list. Raises Transient when the body is not one, or a row lacks its id.

    Half of a surrogate pair is replaced: people type display names, and one of them must not make a list unreadable.
    """
    try:
        document = read_mapping(parse_json(body, replace_surrogates=True))
        if not isinstance(document[member], list):
            raise ValueError(f"its `{member}` are not a list")
        rows = [parse_row(read_mapping(row)) for row in document[member]]
        next_url = read_or_default(
            _mapping_or_empty(_mapping_or_empty(document.get("_links")).get("next")).get("href"), read_text, ""
        )
        return rows, dict(parse_qsl(urlsplit(next_url).query)) if next_url else None
    except (ValueError, KeyError) as error:
        if body.lstrip(b"\xef\xbb\xbf \t\r\n").startswith(b"<"):
            raise Transient(f"the service's response is a web page, not {name}", hint=_WEB_PAGE_HINT) from error
        raise Transient(f"the service's response is not {name} ({error or type(error).__name__})") from error


def _parse_id(row: Mapping[str, Any]) -> str:
    """Parse the id of a row. Raises ValueError for one that is no GUID: ids become parts of paths and queries."""
    guid = parse_guid(read_text(row["id"]))
    if guid is None:
        raise ValueError("an id is not a GUID")
    return guid.lower()


def _parse_name(row: Mapping[str, Any], secrets: tuple[str, ...]) -> str:
    """Parse a display name, free text; empty if it is missing."""
    return mask_secrets(read_or_default(row.get("displayName"), read_text, ""), secrets)[:MAX_TEXT_CHARS]


def _parse_export(row: Mapping[str, Any], fetched: float, secrets: tuple[str, ...]) -> Export:
    """Parse one row. Raises KeyError unless it has an id and a status, both texts."""
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
    """Read a size, which may be a fraction, as whole bytes."""
    return read_count(int(read_number(value)))


def _parse_optional_link(href: object, fetched: float) -> SasUrl | None:
    try:
        return parse_sas_link(href, fetched=fetched) if isinstance(href, str) else None
    except UsageError:
        return None


def _mapping_or_empty(value: object) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def api_message(body: bytes, secrets: Iterable[str] = ()) -> str:
    """Extract the message of an API error with its details, without `secrets` and cut to MAX_API_MESSAGE_CHARS.

    The body may be anything; the message is empty if it is no API error.
    """
    try:
        error = _mapping_or_empty(_mapping_or_empty(parse_json(body)).get("error"))
    except ValueError:
        return ""
    entries = error.get("details")
    details = [d for d in entries if isinstance(d, dict)] if isinstance(entries, list) else []
    lines = [_first_text(error, "message", "code")]
    lines += [f"{_first_text(d, 'target', 'code')}: {_first_text(d, 'message')}" for d in details[:MAX_ERROR_DETAILS]]
    return mask_secrets("; ".join(line for line in lines if line), secrets)[:MAX_API_MESSAGE_CHARS]


MAX_ERROR_DETAILS = 20
MAX_API_MESSAGE_CHARS = 2000
"""Maximum details and characters of an API error in a message."""


def _first_text(fields: Mapping[str, Any], *names: str) -> str:
    """Return the first field that is a non-empty text, without its final dot."""
    return next((word.rstrip(".") for name in names if (word := read_or_default(fields.get(name), read_text, ""))), "")


DEFAULT_TOKEN_LIFETIME_S = 3600.0
MAX_TOKEN_LIFETIME_S = float(1 << 31)
"""Lifetime of a token whose response states none, or one beyond the maximum. Source: RFC 6749, section 5.1, leaves the
default to the documentation of the service; IMS gives an hour.
"""


def parse_token(body: bytes) -> tuple[str, float]:
    """Parse access token and lifetime in seconds (RFC 6749, section 5.1). Raises Transient for anything else."""
    try:
        document = read_mapping(parse_json(body))
        token, expires_in = read_text(document["access_token"]), document.get("expires_in") or 0
        # a huge integer does not fit into a float
        lifetime_s = float(min(expires_in, MAX_TOKEN_LIFETIME_S) if isinstance(expires_in, int) else expires_in)
    except (ValueError, KeyError, TypeError) as error:
        raise Transient("the response of the token endpoint contains no access_token") from error
    if not token:
        raise Transient("the response of the token endpoint contains no access_token")
    return token, lifetime_s if 0 < lifetime_s < MAX_TOKEN_LIFETIME_S else DEFAULT_TOKEN_LIFETIME_S
