"""The lock of a destination in Azure: a lease on one blob. Source: Azure Blob Storage REST, "Lease Blob"."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from tilesync.azure.error_hints import storage_hint
from tilesync.core.http_status import format_status
from tilesync.errors import DestinationError
from tilesync.protocols import ObjectStream
from tilesync.stores.local.lock_file import current_holder
from tilesync.stores.status_files import encode_document, parse_document

LOCK_BLOB_NAME: Final = ".tilesync/lock"
_HELD_BY_OTHER_CODES: Final = {
    "LeaseAlreadyPresent",
    "LeaseIdMissing",
    "LeaseIsBreakingAndCannotBeAcquired",
    "LeaseIsBrokenAndCannotBeRenewed",
    "LeaseNotPresentWithLeaseOperation",
}
"""Error codes that mean that another owner has the lease. Source: "Blob service error codes"."""


class LeaseRequest(Protocol):
    """Send one lease request, and return status and error code. `urgent`: retry within a sixth of the term only."""

    def __call__(
        self, name: str, headers: dict[str, str], *, query: str = "", urgent: bool = False, body: bytes = b""
    ) -> tuple[int, str]:
        """Send the request."""


class BlobLease:
    """A blob lease whose id is the owner id: after a crash its owner acquires it again at once."""

    def __init__(
        self,
        request: LeaseRequest,
        term: timedelta,
        display_name: str,
        read: Callable[[str], ObjectStream | None] = lambda name: None,
    ) -> None:
        self._request = request
        self._read = read
        self._display_name = display_name
        self.term = term

    def acquire(self, owner: str) -> bool:
        """Acquire the lease, and return whether that succeeded. A missing blob is created."""
        seconds = f"{self.term.total_seconds():.0f}"
        headers = {"x-ms-lease-duration": seconds, "x-ms-proposed-lease-id": owner}
        status, code = self._send_action("acquire", headers)
        if status == 404:
            create = {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*"}
            self._request(LOCK_BLOB_NAME, create)  # 409 or 412: another run created it meanwhile
            status, code = self._send_action("acquire", headers)
        return self._is_granted(status, code)

    def record_holder(self, owner: str) -> None:
        """Write this process into the blob: the lease itself does not show its holder."""
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-lease-id": owner}
        self._request(LOCK_BLOB_NAME, headers, urgent=True, body=encode_document(current_holder().to_record()))

    def read_holder(self) -> object:
        """Return the record in the blob, or None."""
        stored = self._read(LOCK_BLOB_NAME)
        return parse_document(b"".join(stored.chunks)) if stored is not None else None

    def renew(self, owner: str) -> bool:
        """Renew the lease, and return whether that succeeded. An expired lease that nobody acquired is revived."""
        return self._is_granted(*self._send_action("renew", {"x-ms-lease-id": owner}, urgent=True))

    def release(self, owner: str) -> None:
        """Release the lease. A lease of another owner is left alone."""
        self._send_action("release", {"x-ms-lease-id": owner}, urgent=True)

    def _send_action(self, action: str, headers: dict[str, str], *, urgent: bool = False) -> tuple[int, str]:
        return self._request(
            LOCK_BLOB_NAME, {"x-ms-lease-action": action, **headers}, query="comp=lease", urgent=urgent
        )

    def _is_granted(self, status: int, code: str) -> bool:
        if status < 300:
            return True
        if code in _HELD_BY_OTHER_CODES or code.startswith("LeaseIdMismatch"):
            return False
        detail = format_status(status, code)
        raise DestinationError(f"{self._display_name} cannot be locked {detail}", hint=storage_hint(code) or None)
