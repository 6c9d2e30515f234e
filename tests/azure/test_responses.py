"""Responses of the Mesh Export API and of the storage."""

import json
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilesync.azure.responses import (
    VERDICT_BY_STATUS,
    classify_storage_response,
    is_weak_etag,
    parse_etag,
    parse_http_date,
    parse_storage_error_code,
)
from tilesync.core.http_status import Verdict, parse_retry_after, raise_for_status
from tilesync.errors import Transient, Unavailable
from tilesync.itwin.responses import API_STATUS_VERDICTS, api_message, classify_api_status, parse_exports, parse_token

# --- verdicts ---


@pytest.mark.parametrize(
    ("status", "verdict"),
    [
        (200, Verdict.DONE),
        (302, Verdict.REFUSED),
        (400, Verdict.INVALID),
        (401, Verdict.DENIED),
        (403, Verdict.FORBIDDEN),
        (404, Verdict.MISSING),
        (405, Verdict.REFUSED),
        (408, Verdict.RETRY),
        (422, Verdict.INVALID),
        (429, Verdict.THROTTLED),
        (500, Verdict.RETRY),
        (502, Verdict.RETRY),
        (503, Verdict.RETRY),
        (504, Verdict.RETRY),
    ],
)
def test_verdicts_of_the_api(status: int, verdict: Verdict) -> None:
    """Each status of the API has the verdict of its documentation page."""
    assert classify_api_status(status) is verdict


@pytest.mark.parametrize(
    ("status", "code", "verdict"),
    [
        (200, "", Verdict.DONE),
        (206, "", Verdict.DONE),
        (302, "", Verdict.REFUSED),
        (304, "ConditionNotMet", Verdict.REFUSED),
        (400, "InvalidQueryParameterValue", Verdict.REFUSED),
        (401, "NoAuthenticationInformation", Verdict.DENIED),
        (403, "AuthenticationFailed", Verdict.DENIED),
        (403, "AuthorizationPermissionMismatch", Verdict.DENIED),
        (403, "", Verdict.DENIED),
        (404, "BlobNotFound", Verdict.MISSING),
        (404, "", Verdict.MISSING),
        (404, "ContainerNotFound", Verdict.GONE),
        (404, "FilesystemNotFound", Verdict.GONE),
        (408, "", Verdict.RETRY),
        (409, "ContainerBeingDeleted", Verdict.GONE),
        (409, "PublicAccessNotPermitted", Verdict.DENIED),
        (409, "BlobArchived", Verdict.REFUSED),
        (412, "ConditionNotMet", Verdict.CHANGED),
        (416, "InvalidRange", Verdict.RANGE_REFUSED),
        (429, "", Verdict.THROTTLED),
        (500, "InternalError", Verdict.RETRY),
        (500, "OperationTimedOut", Verdict.RETRY),
        (502, "", Verdict.RETRY),
        (503, "ServerBusy", Verdict.THROTTLED),
        (504, "", Verdict.RETRY),
    ],
)
def test_verdicts_of_the_storage(status: int, code: str, verdict: Verdict) -> None:
    """Each status and error code of the storage has the verdict of its documentation page."""
    assert classify_storage_response(status, code) is verdict


def test_every_row_of_the_tables_is_used() -> None:
    """Each row of a verdict table decides exactly the response that it names."""
    assert {status: classify_api_status(status) for status in API_STATUS_VERDICTS} == dict(API_STATUS_VERDICTS)
    assert {key: classify_storage_response(*key) for key in VERDICT_BY_STATUS} == dict(VERDICT_BY_STATUS)


def test_raise_for_status() -> None:
    """Success passes; retry and throttling raise Transient with the requested wait; all others end the run."""
    raise_for_status(Verdict.DONE, 200, None, "it")
    with pytest.raises(Transient) as busy:
        raise_for_status(Verdict.THROTTLED, 503, 7.0, "it")
    assert (busy.value.retry_after, busy.value.is_throttled, str(busy.value)) == (7.0, True, "it answered 503")
    with pytest.raises(Transient) as failing:
        raise_for_status(Verdict.RETRY, 500, None, "it")
    assert (failing.value.retry_after, failing.value.is_throttled) == (None, False)
    with pytest.raises(Unavailable, match="it answered 302"):
        raise_for_status(Verdict.REFUSED, 302, None, "it")


def test_storage_code() -> None:
    """The error code comes from the header, else from the body, else there is none."""
    body = b'<?xml version="1.0"?><Error><Code>BlobNotFound</Code><Message>No.</Message></Error>'
    assert parse_storage_error_code("ContainerNotFound", body) == "ContainerNotFound"
    assert parse_storage_error_code(None, body) == "BlobNotFound"
    assert parse_storage_error_code("", body[:40]) == ""
    assert parse_storage_error_code(None, b"\xff<html>") == ""


@pytest.mark.parametrize(
    ("text", "seconds"),
    [("0", 0.0), ("1", 1.0), (" 30 ", 30.0), ("", None), ("-1", None), ("1.5", None), ("soon", None), ("²", None),
     ("Sun, 01 Mar 2026 08:30:00 GMT", 90.0), ("Sunday, 01-Mar-26 08:30:00 GMT", 90.0),
     ("Sun Mar  1 08:30:00 2026", 90.0), ("Sun, 01 Mar 2026 09:30:00 +0100", 90.0),
     ("9" * 400, None), ("Sun, 01 Mar 9999 08:00:00 GMT", None), ("31536000", 31536000.0), ("31536001", None),
     ("Sun, 01 Mar 2026 08:00:00 GMT", 0.0), ("Sun, 41 Mar 2026 08:30:00 GMT", None)],
)  # fmt: skip
def test_retry_after(text: str, seconds: float | None) -> None:
    """Retry-After is parsed as seconds and as a date in each HTTP form, and ignored otherwise."""
    assert parse_retry_after(text, datetime(2026, 3, 1, 8, 28, 30, tzinfo=UTC)) == seconds


@pytest.mark.parametrize(
    ("text", "plain", "weak"),
    [
        ('"0x8D"', "0x8D", False),
        ("0x8D", "0x8D", False),
        ('W/"0x8D"', "0x8D", True),
        ("", "", False),
        (None, "", False),
    ],
)
def test_etags(text: str | None, plain: str, weak: bool) -> None:
    """An ETag loses its quotes and its weak prefix; weakness is reported."""
    assert (parse_etag(text), is_weak_etag(text)) == (plain, weak)


# --- dates ---


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("Sun, 06 Nov 1994 08:49:37 GMT", 784111777),
        ("Sunday, 06-Nov-94 08:49:37 GMT", 784111777),
        ("Sun Nov  6 08:49:37 1994", 784111777),
        ("Thu, 01 Jan 1970 00:00:00 GMT", 0),
        (None, None),
        ("", None),
        ("yesterday", None),
        ("Sun, 06 Smarch 1994 08:49:37 GMT", None),
        ("Sun, 06 Nov 99999 08:49:37 GMT", None),
    ],
)
def test_http_date(text: str | None, seconds: int | None, monkeypatch: pytest.MonkeyPatch) -> None:
    """The three forms of RFC 9110 give the same time in every time zone; anything else gives None."""
    monkeypatch.setenv("TZ", "Asia/Tokyo")
    time.tzset()
    try:
        assert parse_http_date(text) == seconds
    finally:
        monkeypatch.undo()
        time.tzset()


@given(st.text(max_size=40) | st.from_regex(r"\A[A-Z][a-z]{2}, \d{2} Mar \d{1,6} \d\d:\d\d:\d\d [A-Z+0-9-]{3,9}\Z"))
def test_http_date_never_fails(text: str) -> None:
    """Any text gives a number of seconds or None."""
    assert parse_http_date(text) is None or isinstance(parse_http_date(text), int)


# --- exports ---


def exports(*rows: dict[str, Any], following: object = None) -> bytes:
    links = {} if following is None else {"_links": {"next": {"href": following}}}
    return json.dumps({"exports": rows, **links}).encode()


FULL = {
    "id": "e1",
    "displayName": "City",
    "status": "Complete",
    "lastModified": "2026-03-01T08:30:00Z",
    "request": {"iModelId": "i", "changesetId": "c", "exportType": "3DTiles", "extra": [1]},
    "stats": {"compressedSize": 42},
    "_links": {"mesh": {"href": "https://acc.blob.core.windows.net/e1?sig=S&se=2026-03-01T09:30:00Z"}},
}


def test_an_export() -> None:
    """A full row gives every field; its record has the known fields and nothing else."""
    (export,), following = parse_exports(exports(FULL), fetched=5.0)
    assert (export.id, export.name, export.imodel, export.changeset, export.type) == ("e1", "City", "i", "c", "3DTiles")
    assert (export.modified, export.size, export.is_complete, following) == ("2026-03-01T08:30:00Z", 42, True, None)
    assert export.link is not None
    assert (export.link.base, export.link.fetched_at_s) == ("https://acc.blob.core.windows.net/e1", 5.0)
    known = {key: value for key, value in FULL.items() if key != "_links"}
    known["request"] = {"iModelId": "i", "changesetId": "c", "exportType": "3DTiles"}
    assert export.record == known
    assert "sig" not in repr(export)


@pytest.mark.parametrize(
    "row",
    [
        {"id": "e", "status": "NotStarted"},
        {"id": "e", "status": "NotStarted", "request": None, "stats": None, "_links": None, "displayName": None},
        {"id": "e", "status": "NotStarted", "request": [], "stats": "none", "_links": {"mesh": None}, "error": None},
        {"id": "e", "status": "NotStarted", "_links": {"mesh": {"href": None}}},
        {"id": "e", "status": "NotStarted", "_links": {"mesh": {"href": "ftp://somewhere"}}},
        {"id": "e", "status": "NotStarted", "_links": {"mesh": {"href": "https://[broken/c?s"}}},
        {"id": "e", "status": "NotStarted", "stats": {"compressedSize": "big"}},
    ],
)
def test_exports_are_read_leniently(row: dict[str, Any]) -> None:
    """Missing, null and invalid fields of one row do not spoil the list."""
    (export,), _ = parse_exports(exports(row))
    assert (export.id, export.link, export.size, export.imodel, export.is_complete) == ("e", None, None, None, False)


def test_a_link_alone_is_not_complete() -> None:
    """A row that is not Complete stays so although it has a link."""
    (export,), _ = parse_exports(exports({**FULL, "status": "InProgress"}))
    assert export.link is not None
    assert not export.is_complete


@pytest.mark.parametrize(
    "href",
    [
        "https://api.bentley.com/mesh-export/?$top=10&$skip=10&exportType=3DTiles",
        "https://elsewhere.invalid/other?$top=10&$skip=10&exportType=3DTiles",
        "/mesh-export/?$top=10&$skip=10&exportType=3DTiles",
        "?%24top=10&%24skip=10&exportType=3DTiles",
    ],
)
def test_the_next_page(href: str) -> None:
    """Only the query of the next link counts, wherever the service says that the page is."""
    assert parse_exports(exports(following=href))[1] == {"$top": "10", "$skip": "10", "exportType": "3DTiles"}


@pytest.mark.parametrize(
    "links", [None, {}, {"next": None}, {"next": {}}, {"next": {"href": None}}, {"next": {"href": ""}}]
)
def test_the_last_page(links: object) -> None:
    """A list without a next link, in any form, is the last page."""
    assert parse_exports(json.dumps({"exports": [], "_links": links}).encode()) == ([], None)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"null", b"{}", b"<html>", b'{"exports": null}', b'{"exports": [1]}', b'{"exports": [{"id": "e"}]}',
     b"\xff", b'{"exports":' + b"[" * 100_000, exports(following=5), exports(following="http://[broken"),
     b'{"exports": [{"id": "e", "status": "Complete", "stats": {"compressedSize": 1e999}}]}'],
    ids=range(13),
)  # fmt: skip
def test_no_export_list(body: bytes) -> None:
    """A response that is not an export list is retried, or read as far as possible; it never crashes."""
    try:
        rows, following = parse_exports(body)
    except Transient:
        return
    assert following is None
    assert all(row.size is None for row in rows)


# --- errors and tokens ---


def test_api_message_has_all_details() -> None:
    """An error message has every detail that the service gives, each with its target."""
    body = {
        "error": {
            "code": "InvalidMeshExportRequest",
            "message": "Cannot create export.",
            "details": [
                {"code": "MissingRequiredProperty", "message": "Required.", "target": "iModelId"},
                {"code": "InvalidValue", "message": "No such type."},
                "odd",
            ],
        }
    }
    assert (
        api_message(json.dumps(body).encode()) == "Cannot create export; iModelId: Required; InvalidValue: No such type"
    )


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b'{"error": {"code": "TooManyRequests"}}', "TooManyRequests"),
        (b"", ""),
        (b"<html>", ""),
        (b"\xff\xfe", ""),
        (b"[]", ""),
        (b'{"error": "invalid_client"}', ""),
        (b'{"error": {"details": null}}', ""),
        (b'{"error": {"details": 5}}', ""),
        (b'{"error": {"message": "No", "details": {"a": 1}}}', "No"),
    ],
)
def test_api_message_of_anything(body: bytes, message: str) -> None:
    """A response that is no API error has no message and raises nothing."""
    assert api_message(body) == message


def test_token() -> None:
    """A token has its stated lifetime, or one hour."""
    assert parse_token(b'{"access_token": "t", "expires_in": 600, "token_type": "Bearer"}') == ("t", 600.0)
    assert parse_token(b'{"access_token": "t", "expires_in": "600"}') == ("t", 600.0)
    assert parse_token(b'{"access_token": "t"}') == ("t", 3600.0)


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b"<html>", b"null", b'{"access_token": null}', b'{"access_token": "t", "expires_in": "soon"}'],
)
def test_no_token(body: bytes) -> None:
    """A response without a token is a transient error."""
    with pytest.raises(Transient):
        parse_token(body)
