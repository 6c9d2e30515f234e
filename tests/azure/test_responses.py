"""Responses of the Mesh Export API and of the storage."""

import pytest

from tilesync.azure.responses import (
    VERDICT_BY_STATUS,
    classify_storage_response,
    is_weak_etag,
    parse_etag,
    parse_storage_error_code,
)
from tilesync.core.http_status import Verdict
from tilesync.itwin.responses import API_STATUS_VERDICTS, classify_api_status


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


def test_storage_code() -> None:
    """The error code comes from the header, else from the body, else there is none."""
    body = b'<?xml version="1.0"?><Error><Code>BlobNotFound</Code><Message>No.</Message></Error>'
    assert parse_storage_error_code("ContainerNotFound", body) == "ContainerNotFound"
    assert parse_storage_error_code(None, body) == "BlobNotFound"
    assert parse_storage_error_code("", body[:40]) == ""
    assert parse_storage_error_code(None, b"\xff<html>") == ""


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
