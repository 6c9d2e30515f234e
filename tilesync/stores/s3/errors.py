"""What S3, and what speaks like it, answers, in our terms.

Source: Amazon S3 API Reference, "Error responses", "List of error codes"; User Guide, "Conditional requests".
"""

from __future__ import annotations

import re
from typing import Final, Literal, NoReturn

from tilesync.azure.responses import plain_etag
from tilesync.errors import ConditionFailed, DestinationError, DiskFull, NotAuthorised, TilesyncError, Transient
from tilesync.model.storage import Found

_RIGHTS: Final = (
    "the identity needs s3:ListBucket on the bucket, and s3:GetObject, s3:PutObject, s3:DeleteObject and"
    " s3:AbortMultipartUpload on what lies in it"
)
_READS: Final = "the identity needs s3:ListBucket on the bucket, and s3:GetObject on what lies in it"
_WHO: Final = "check AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY and AWS_SESSION_TOKEN, or AWS_PROFILE and its login"
_WHERE: Final = "set AWS_REGION to the region of the bucket"
_CONDITIONS: Final = "the server must know conditional writes (If-None-Match, If-Match), which keep two runs apart"
_KMS: Final = "the key that encrypts the bucket is disabled or not for this identity: its owner must change that"
ENDPOINT: Final = "check --endpoint-url (AWS_ENDPOINT_URL) and AWS_REGION"
_PROOF: Final = "where this server knows no SHA-256 checksums, set AWS_REQUEST_CHECKSUM_CALCULATION=when_required"

_HINTS: Final = {
    "ExpiredToken": _WHO,
    "ExpiredTokenException": _WHO,
    "InvalidAccessKeyId": _WHO,
    "InvalidClientTokenId": _WHO,
    "InvalidToken": _WHO,
    "TokenRefreshRequired": _WHO,
    "SignatureDoesNotMatch": _WHO,
    "RequestTimeTooSkewed": "set this machine's clock",
    "AllAccessDisabled": "the bucket or its account is disabled: only its owner can change that",
    "AccountProblem": "something is wrong with the AWS account: only its owner, or AWS, can change that",
    "NotSignedUp": "the AWS account is not signed up for S3: only its owner can change that",
}
"""Codes that speak of who asks, whatever their status, and what helps."""

_ELSEWHERE: Final = {
    "AuthorizationHeaderMalformed",
    "IllegalLocationConstraintException",
    "IncorrectEndpoint",
    "PermanentRedirect",
    "TemporaryRedirect",
}
"""The bucket is of another region."""

_SPOILT: Final = {
    "BadDigest",
    "IncompleteBody",
    "RequestTimeout",
    "XAmzContentChecksumMismatch",
    "XAmzContentSHA256Mismatch",
}
"""The bytes were spoilt on their way: another attempt may cure it."""

_PRESSURE: Final = {"RequestLimitExceeded", "SlowDown", "Throttling", "ThrottlingException", "TooManyRequests"}
_FULL: Final = {"EntityTooLarge", "InsufficientCapacity", "QuotaExceeded", "XMinioStorageFull"}
_PERMANENT: Final = {501, 505}
"""Of those above 500 the ones that no other attempt cures."""

Act = Literal["read", "write", "replace"]
"""What a request was to do; `replace` writes only over what was seen."""

_ARCHIVED: Final = {"InvalidObjectState", "ObjectNotInActiveTierError"}
"""The storage class of the object must be left first. Source: "GetObject", "CopyObject"."""

_MD5: Final = re.compile(r"[0-9a-f]{32}")


class Archived(DestinationError):
    """The object is in an archive (a storage class of Glacier): it is listed, and cannot be read or copied."""

    hint_text = "restore it first (`aws s3api restore-object`, or the console of the bucket), then run again"


class NotThere(DestinationError):
    """There is no such object, or no such upload."""


def refuse(status: int, code: str, name: str, shown: str, *, wait: float | None = None, act: Act = "write") -> NoReturn:
    """Raise what follows from an answer that grants nothing to a request about `name`. `wait`: the seconds that it asks
    for.
    """
    raise _refusal(status, code, name, shown, wait, act) from None


def _refusal(status: int, code: str, name: str, shown: str, wait: float | None, act: Act) -> TilesyncError:
    said = f"({status or ''} {code})".replace("( ", "(").replace(" )", ")")
    if code in _SPOILT:
        return Transient(f"{name} did not arrive whole {said}")
    if code in _PRESSURE or status in {429, 503}:
        return Transient(f"{shown} answered {said}", retry_after=wait, pressure=True)
    if status in {408, 409} or (status >= 500 and status not in _PERMANENT and code not in _FULL):
        return Transient(f"{shown} answered {said}", retry_after=wait)
    if code in _ARCHIVED:
        return Archived(f"{name} in {shown} is archived, and cannot be read before it is restored {said}")
    if code in _HINTS:
        return NotAuthorised(f"{shown} refuses who asks {said}", hint=_HINTS[code])
    if status in {401, 403} or code == "AccessDenied":
        hint = _READS if act == "read" else _RIGHTS
        return NotAuthorised(f"{shown} refuses {name} {said}", hint=hint)
    if status in {301, 307} or code in _ELSEWHERE:
        return DestinationError(f"{shown} lies in another region {said}", hint=_WHERE)
    if code == "NoSuchBucket":
        hint = "check the name, and --endpoint-url" if act == "read" else "check the name, or make the bucket"
        return DestinationError(f"there is no bucket at {shown} {said}", hint=hint)
    if status == 404:
        return NotThere(f"{name} is not in {shown} {said}")
    if status == 412:
        return ConditionFailed(f"{name} is another one by now {said}")
    if code in _FULL:
        return DiskFull(f"{shown} has no room for {name} {said}")
    return DestinationError(f"{shown} cannot do what was asked about {name} {said}", hint=_hint(status, code, act))


def _hint(status: int, code: str, act: Act) -> str | None:
    if status == 501:
        return f"{_CONDITIONS}; {_PROOF}" if act == "replace" else _PROOF
    if code.startswith("KMS."):
        return _KMS
    if status == 405:
        return "is --endpoint-url (AWS_ENDPOINT_URL) that of an S3 server? Else a rule of the bucket forbids it"
    return f"{_WHO}; {_WHERE}; {_PROOF}" if status == 400 else None


def found(name: str, size: int, etag: str | None) -> Found:
    """An object as S3 describes it. An ETag of 32 hexadecimal digits is the MD5, but for what KMS or a customer's key
    encrypts: there it is that of no bytes that anybody compares it with. Source: API Reference, "Object".
    """
    plain = plain_etag(etag)
    return Found(name, size, plain, bytes.fromhex(plain) if _MD5.fullmatch(plain) else None)
