"""Responses of Azure Blob Storage as errors of a destination."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tilesync.errors import ConditionFailed, DestinationError, LinkRefused, TilesyncError, Transient
from tilesync.model.storage import ObjectInfo
from tilesync.stores.azure.errors import BlobOperation, is_copy_source_error, parse_object_info, raise_for_status

PLACE = "az://account/tiles"


def lookup(headers: Mapping[str, str]) -> Callable[[str], str | None]:
    """Return a function that looks a header up."""
    return lambda name: headers.get(name)


def raised(
    status: int, code: str, *, operation: BlobOperation = "put", headers: Mapping[str, str] | None = None
) -> TilesyncError:
    """Return the error for a response about the blob `a/b`."""
    fields = {"x-ms-error-code": code, **(headers or {})}
    with pytest.raises(TilesyncError) as error:
        raise_for_status(status, lookup(fields), b"", "a/b", PLACE, operation=operation)
    return error.value


@pytest.mark.parametrize("status", [200, 201, 206])
def test_success_raises_nothing(status: int) -> None:
    """A response below 300 is a success."""
    raise_for_status(status, lookup({}), b"", "a/b", PLACE)


@pytest.mark.parametrize(
    ("status", "code", "kind"),
    [
        (400, "Md5Mismatch", Transient),
        (500, "InternalError", Transient),
        (503, "ServerBusy", Transient),
        (403, "AuthorizationPermissionMismatch", LinkRefused),
        (404, "ContainerNotFound", DestinationError),
        (412, "ConditionNotMet", ConditionFailed),
        (409, "BlobAlreadyExists", ConditionFailed),
        (412, "LeaseLost", DestinationError),
        (409, "SnapshotsPresent", DestinationError),
    ],
)
def test_each_response_has_its_error(status: int, code: str, kind: type[TilesyncError]) -> None:
    """Corruption and overload can be retried, a refusal is one of the link, a lost condition says so."""
    assert type(raised(status, code)) is kind


def test_throttling_passes_the_wait_on() -> None:
    """A busy storage is throttled for the time that it asks for."""
    error = raised(503, "ServerBusy", headers={"retry-after": "7"})
    assert isinstance(error, Transient)
    assert (error.is_throttled, error.retry_after) == (True, 7.0)


@pytest.mark.parametrize(
    ("operation", "permissions"), [("read", "sp=rl"), ("put", "sp=racwdl"), ("delete", "sp=racwdl")]
)
def test_a_refusal_names_the_permissions(operation: BlobOperation, permissions: str) -> None:
    """The hint of a refusal without a known code names the permissions that the operation needs."""
    assert permissions in raised(403, "AuthorizationPermissionMismatch", operation=operation).hint


@pytest.mark.parametrize(("operation", "has_option"), [("read", False), ("put", True), ("delete", True)])
def test_a_missing_container_has_a_hint(operation: BlobOperation, *, has_option: bool) -> None:
    """Only a command that writes can create the container, and its hint says so."""
    error = raised(404, "ContainerNotFound", operation=operation)
    assert PLACE in str(error)
    assert ("--create-container" in error.hint) == has_option


def test_a_refused_copy_source_is_recognised() -> None:
    """The code, or the status of the source, shows that a copy failed because of its source."""
    assert is_copy_source_error("CannotVerifyCopySource", lookup({}))
    assert is_copy_source_error("", lookup({"x-ms-copy-source-status-code": "404"}))
    assert not is_copy_source_error("ServerBusy", lookup({}))


def test_headers_describe_a_blob() -> None:
    """The size is that of the whole blob, also in a response to a range; the ETag comes without quotes."""
    md5 = {"x-ms-blob-content-md5": "AAAAAAAAAAAAAAAAAAAAAA=="}
    part = {"content-range": "bytes 0-4/900", "content-length": "5", "etag": '"0x8D"', **md5}
    assert parse_object_info("a", lookup(part)) == ObjectInfo("a", 900, "0x8D", bytes(16))
    assert parse_object_info("a", lookup({"content-length": "5", "etag": '"x"'})) == ObjectInfo("a", 5, "x", None)
    assert parse_object_info("a", lookup({})).size == 0
