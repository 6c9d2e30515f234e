"""Responses of the Mesh Export API and of the token endpoint."""

import json
from collections.abc import Callable
from typing import Any

import pytest

from tests.support.builders import IMODEL
from tilesync.core.http_status import Verdict
from tilesync.errors import Transient
from tilesync.itwin.responses import (
    api_message,
    classify_api_status,
    parse_exports,
    parse_imodels,
    parse_itwins,
    parse_token,
)


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
    ("parse", "member"), [(parse_imodels, "iModels"), (parse_itwins, "iTwins")], ids=["imodels", "itwins"]
)
def test_half_of_a_surrogate_pair_in_a_display_name(parse: Callable[[bytes], Any], member: str) -> None:
    """The half is replaced, and the list can be read."""
    body = json.dumps({member: [{"id": IMODEL, "displayName": "Quay \ud800"}]}).encode()
    assert b"\\ud800" in body
    ((row,), _) = parse(body)
    assert row.name == "Quay \ufffd"


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
