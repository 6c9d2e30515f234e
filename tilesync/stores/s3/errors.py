"""Translate responses of S3 and S3-compatible stores to destination errors.

Source: Amazon S3 API Reference, "Error responses", "List of error codes"; User Guide, "Conditional requests".
"""

from __future__ import annotations

import re
from typing import Final, Literal, NoReturn

from tilesync.azure.responses import parse_etag
from tilesync.core.http_status import format_status
from tilesync.errors import ConditionFailed, DestinationError, DiskFull, NotAuthorised, TilesyncError, Transient
from tilesync.model.storage import ObjectInfo

_WRITE_PERMISSIONS_HINT: Final = (
    "the identity needs s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and"
    " s3:AbortMultipartUpload on its objects"
)
_READ_PERMISSIONS_HINT: Final = "the identity needs s3:ListBucket on the bucket, and s3:GetObject on its objects"
_CREDENTIALS_HINT: Final = (
    "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE and its login"
)
_REGION_HINT: Final = "set AWS_REGION to the region of the bucket"
_CONDITIONAL_WRITES_HINT: Final = (
    "the server must support conditional writes (If-None-Match, If-Match), which keep two runs apart"
)
_KMS_HINT: Final = (
    "the key that encrypts the bucket is disabled, or this identity may not use it: its owner must change that"
)
ENDPOINT_HINT: Final = "check --endpoint-url (AWS_ENDPOINT_URL) and AWS_REGION"
_CHECKSUM_HINT: Final = (
    "if this server does not support SHA-256 checksums, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"
)

_CREDENTIAL_ERROR_HINTS: Final = {
    "ExpiredToken": _CREDENTIALS_HINT,
    "ExpiredTokenException": _CREDENTIALS_HINT,
    "InvalidAccessKeyId": _CREDENTIALS_HINT,
    "InvalidClientTokenId": _CREDENTIALS_HINT,
    "InvalidToken": _CREDENTIALS_HINT,
    "TokenRefreshRequired": _CREDENTIALS_HINT,
    "SignatureDoesNotMatch": _CREDENTIALS_HINT,
    "RequestTimeTooSkewed": "correct this machine's clock",
    "AllAccessDisabled": "the bucket or its account is disabled: only its owner can change that",
    "AccountProblem": "AWS reports a problem with the account: only its owner, or AWS, can change that",
    "NotSignedUp": "the AWS account is not signed up for S3: only its owner can change that",
}
"""Error codes about the credentials or the account, whatever the status, and their hints."""

_WRONG_REGION_CODES: Final = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "PermanentRedirect",
    "TemporaryRedirect",
}
"""Error codes for a bucket in another region."""

_CORRUPTED_IN_TRANSIT_CODES: Final = {
    "BadDigest",
    "IncompleteBody",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
"""The bytes were corrupted in transit: another attempt may succeed."""

_THROTTLING_CODES: Final = {"RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}
_STORAGE_FULL_CODES: Final = {"EntityTooLarge", "InsufficientCapacity", "QuotaExceeded", "XMinioStorageFull"}
_PERMANENT_STATUSES: Final = {501, 505}
"""Statuses above 500 that another attempt cannot change."""

ObjectOperation = Literal["read", "write", "replace"]
"""Purpose of a request; `replace` is a write with a condition."""

_ARCHIVED_CODES: Final = {"InvalidObjectState", "ObjectNotInActiveTierError"}
"""Error codes for an object in an archive class. Source: "GetObject", "CopyObject"."""

_MD5_PATTERN: Final = re.compile(r"[0-9a-f]{32}")


class Archived(DestinationError):
    """The object is in an archive (a Glacier storage class): it is listed, but cannot be read or copied."""

    default_hint = "restore it first (`aws s3api restore-object`, or the console of the bucket), then run again"


class NotThere(DestinationError):
    """There is no such object, or no such upload."""


def raise_for_response(
    status: int,
    code: str,
    name: str,
    display_name: str,
    *,
    retry_after_s: float | None = None,
    operation: ObjectOperation = "write",
) -> NoReturn:
    """Raise the error for a failed response about the object `name`. `retry_after_s`: the wait it asks for."""
    raise _classify_response(status, code, name, display_name, retry_after_s, operation) from None


def _classify_response(
    status: int, code: str, name: str, display_name: str, retry_after_s: float | None, operation: ObjectOperation
) -> TilesyncError:
    detail = format_status(status, code)
    if code in _CORRUPTED_IN_TRANSIT_CODES:
        return Transient(f"{name} did not arrive whole {detail}")
    if code in _THROTTLING_CODES or status in {429, 503}:
        return Transient(f"{display_name} answered {detail}", retry_after=retry_after_s, is_throttled=True)
    if status in {408, 409} or (
        status >= 500 and status not in _PERMANENT_STATUSES and code not in _STORAGE_FULL_CODES
    ):
        return Transient(f"{display_name} answered {detail}", retry_after=retry_after_s)
    if code in _ARCHIVED_CODES:
        return Archived(f"{name} in {display_name} is archived, and cannot be read before it is restored {detail}")
    if code in _CREDENTIAL_ERROR_HINTS:
        return NotAuthorised(f"{display_name} refuses the credentials {detail}", hint=_CREDENTIAL_ERROR_HINTS[code])
    if status in {401, 403} or code == "AccessDenied":
        hint = _READ_PERMISSIONS_HINT if operation == "read" else _WRITE_PERMISSIONS_HINT
        return NotAuthorised(f"{display_name} refuses {name} {detail}", hint=hint)
    if status in {301, 307} or code in _WRONG_REGION_CODES:
        return DestinationError(f"{display_name} is in another region {detail}", hint=_REGION_HINT)
    if code == "NoSuchBucket":
        hint = "check the name, and --endpoint-url" if operation == "read" else "check the name, or make the bucket"
        return DestinationError(f"there is no bucket at {display_name} {detail}", hint=hint)
    if status == 404:
        return NotThere(f"{name} does not exist in {display_name} {detail}")
    if status == 412:
        return ConditionFailed(f"{name} was changed meanwhile {detail}")
    if code in _STORAGE_FULL_CODES:
        return DiskFull(f"{display_name} has no room for {name} {detail}")
    return DestinationError(
        f"{display_name} rejects a request about {name} {detail}", hint=_hint_for(status, code, operation)
    )


def _hint_for(status: int, code: str, operation: ObjectOperation) -> str | None:
    if status == 501:
        return f"{_CONDITIONAL_WRITES_HINT}; {_CHECKSUM_HINT}" if operation == "replace" else _CHECKSUM_HINT
    if code.startswith("KMS."):
        return _KMS_HINT
    if status == 405:
        return "check that --endpoint-url (AWS_ENDPOINT_URL) is an S3 server; if it is, a rule of the bucket forbids it"
    return f"{_CREDENTIALS_HINT}; {_REGION_HINT}; {_CHECKSUM_HINT}" if status == 400 else None


def make_object_info(name: str, size: int, etag: str | None) -> ObjectInfo:
    """Return an object as S3 describes it. An ETag of 32 hexadecimal digits is taken for the MD5.

    That is wrong for objects encrypted with KMS or customer keys: their MD5 then matches no file, which costs a
    comparison and no more. Source: API Reference, "Object".
    """
    plain = parse_etag(etag)
    return ObjectInfo(name, size, plain, bytes.fromhex(plain) if _MD5_PATTERN.fullmatch(plain) else None)
