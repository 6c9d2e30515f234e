"""What S3 answers, in our terms."""

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
def test_verdicts(status: int, code: str, kind: type[TilesyncError]) -> None:
    """Status and code decide, and both are said, with what helps."""
    with pytest.raises(kind) as raised:
        raise_for_response(status, code, "a/b", "s3://bucket/")
    assert type(raised.value) is kind
    assert code in str(raised.value)
    assert str(status or "") in str(raised.value)
    assert "( " not in str(raised.value)


@pytest.mark.parametrize(("status", "code", "pressure"), [(503, "", True), (429, "", True), (400, "SlowDown", True)])
def test_pressure(status: int, code: str, pressure: bool) -> None:
    """A server that has too much to do says so, and when to come again."""
    with pytest.raises(Transient) as raised:
        raise_for_response(status, code, "a", "s3://bucket/", retry_after_s=7.0)
    assert (raised.value.is_throttled, raised.value.retry_after) == (pressure, 7.0)


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
def test_etags(etag: str | None, plain: str, md5: bool) -> None:
    """An ETag has no quotes, and is the MD5 where it looks like one."""
    said = make_object_info("a", 3, etag)
    assert said.etag == plain
    assert said.md5 == (bytes.fromhex(plain) if md5 else None)
