"""Translate responses of Azure Blob Storage to destination errors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Literal

from tilesync.azure.blob_headers import is_permanent_denial, parse_server_time
from tilesync.azure.error_hints import storage_hint
from tilesync.azure.responses import classify_storage_response, parse_etag, parse_md5, parse_storage_error_code
from tilesync.core.http_status import Verdict, format_status
from tilesync.errors import ConditionFailed, DestinationError, LinkRefused, Transient
from tilesync.model.storage import ObjectInfo
from tilesync.transport.retry import retry_after_seconds

API_VERSION: Final = "2023-11-03"
"""Version of the REST interface."""

_CORRUPTED_IN_TRANSIT_CODES: Final = {"Md5Mismatch", "InvalidMd5", "Crc64Mismatch"}
"""The bytes were corrupted in transit: another attempt may succeed."""

_ALREADY_EXISTS_CODE: Final = "BlobAlreadyExists"
"""Error code for `If-None-Match: *` where the blob exists. Source: "Blob service error codes"."""

BlobOperation = Literal["read", "put", "delete"]
_OPERATION_PHRASES: Final[Mapping[BlobOperation, str]] = {
    "read": "read from",
    "put": "put into",
    "delete": "deleted from",
}
_WRITE_PERMISSIONS_HINT: Final = (
    "check that this identity, or the link, may read, list, create, write and delete there (`sp=racwdl`)"
)
_PERMISSION_HINTS: Final[Mapping[BlobOperation, str]] = {
    "read": "check that this identity, or the link, may read and list there (`sp=rl`)",
    "put": _WRITE_PERMISSIONS_HINT,
    "delete": _WRITE_PERMISSIONS_HINT,
}

HeaderLookup = Callable[[str], str | None]


def raise_for_status(
    status: int,
    header: HeaderLookup,
    body: bytes,
    name: str,
    display_name: str,
    *,
    operation: BlobOperation = "put",
    can_create_container: bool | None = None,
) -> None:
    """Raise the error for a failed response about the blob `name`; return if it succeeded.

    `can_create_container`: an option of the command creates a missing container, and the hint names it. By default that
    holds for all operations but reads.
    """
    if status < 300:
        return
    can_create_container = operation != "read" if can_create_container is None else can_create_container
    code = parse_storage_error_code(header("x-ms-error-code"), body)
    detail = format_status(status, code)
    if code in _CORRUPTED_IN_TRANSIT_CODES:
        raise Transient(f"{name} did not arrive whole {detail}")
    match classify_storage_response(status, code):
        case Verdict.RETRY | Verdict.THROTTLED as verdict:
            is_throttled = verdict is Verdict.THROTTLED
            raise Transient(
                f"{display_name} answered {status}", retry_after=retry_after_seconds(header), is_throttled=is_throttled
            )
        case Verdict.DENIED:
            raise LinkRefused(
                f"{display_name} refuses {name} {detail}",
                hint=storage_hint(code) or _PERMISSION_HINTS[operation],
                server_time=parse_server_time(header),
                is_permanent=is_permanent_denial(code, body),
            )
        case Verdict.GONE:
            raise DestinationError(
                f"there is no container at {display_name} {detail}",
                hint="check the name" + ("; `mirror --create-container` creates it" if can_create_container else ""),
            )
        case Verdict.CHANGED | Verdict.REFUSED if (
            status == 412 and not code.startswith("Lease")
        ) or code == _ALREADY_EXISTS_CODE:
            raise ConditionFailed(f"{name} was changed meanwhile {detail}")
    raise DestinationError(
        f"{name} cannot be {_OPERATION_PHRASES[operation]} {display_name} {detail}", hint=storage_hint(code)
    )


def is_copy_source_error(code: str, header: HeaderLookup) -> bool:
    """Return whether a copy failed because its source refused the service. Source: "Put Blob From URL", "Error and
    status codes".
    """
    return code == "CannotVerifyCopySource" or header("x-ms-copy-source-status-code") is not None


def parse_object_info(name: str, header: HeaderLookup) -> ObjectInfo:
    """Return the blob that the headers of a response describe. Source: "Get Blob Properties", "Put Blob"."""
    length = (header("content-range") or "").rpartition("/")[2] or header("content-length") or ""
    md5 = parse_md5(header("x-ms-blob-content-md5") or header("content-md5"))
    return ObjectInfo(name, int(length) if length.isdecimal() else 0, parse_etag(header("etag")), md5)
