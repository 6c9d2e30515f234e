"""Responses of S3 as destination errors."""

from __future__ import annotations

import pytest

from tilesync.errors import ConditionFailed, DestinationError, DiskFull, NotAuthorised, TilesyncError, Transient
from tilesync.stores.s3.errors import Archived, NotThere, make_object_info, raise_for_response


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "BadDigest", Transient),
        (400, "RequestTimeout", Transient),
        (400, "ExpiredToken", NotAuthorised),
        (400, "AuthorizationHeaderMalformed", DestinationError),
        (400, "", DestinationError),
        (401, "", NotAuthorised),
        (403, "AccessDenied", NotAuthorised),
        (403, "InvalidObjectState", Archived),
        (403, "ObjectNotInActiveTierError", Archived),
        (403, "", NotAuthorised),
        (0, "AccessDenied", NotAuthorised),
        (404, "NoSuchBucket", DestinationError),
        (404, "NoSuchKey", NotThere),
        (404, "NoSuchUpload", NotThere),
        (404, "", NotThere),
        (408, "", Transient),
        (409, "ConditionalRequestConflict", Transient),
        (409, "OperationAborted", Transient),
        (412, "PreconditionFailed", ConditionFailed),
        (429, "", Transient),
        (500, "InternalError", Transient),
        (501, "NotImplemented", DestinationError),
        (503, "SlowDown", Transient),
        (507, "XMinioStorageFull", DiskFull),
    ],
)
def test_status_and_code_choose_the_error(status: int, code: str, kind: type[TilesyncError]) -> None:
    """The error class follows from status and code, and the message holds both."""
    with pytest.raises(kind) as raised:
        raise_for_response(status, code, "a/b", "s3://bucket/")
    assert type(raised.value) is kind
    assert code in str(raised.value)
    assert str(status or "") in str(raised.value)
    assert "( " not in str(raised.value)


@pytest.mark.parametrize(
    ("status", "code", "is_throttled"), [(503, "", True), (429, "", True), (400, "SlowDown", True)]
)
def test_throttling_is_marked(status: int, code: str, is_throttled: bool) -> None:
    """A throttled request is marked so, with the wait that the server asks for."""
    with pytest.raises(Transient) as raised:
        raise_for_response(status, code, "a", "s3://bucket/", retry_after_s=7.0)
    assert (raised.value.is_throttled, raised.value.retry_after) == (is_throttled, 7.0)


@pytest.mark.parametrize(
    ("etag", "plain", "md5"),
    [
        ('"900150983cd24fb0d6963f7d28e17f72"', "900150983cd24fb0d6963f7d28e17f72", True),
        ("900150983cd24fb0d6963f7d28e17f72", "900150983cd24fb0d6963f7d28e17f72", True),
        ('"900150983cd24fb0d6963f7d28e17f72-3"', "900150983cd24fb0d6963f7d28e17f72-3", False),
        ('"0x8D"', "0x8D", False),
        (None, "", False),
    ],
)
def test_etags_are_read_as_md5(etag: str | None, plain: str, md5: bool) -> None:
    """An ETag has no quotes, and is the MD5 if it looks like one."""
    info = make_object_info("a", 3, etag)
    assert info.etag == plain
    assert info.md5 == (bytes.fromhex(plain) if md5 else None)
