"""The lock of a destination in Azure: a lease of one blob. Source: Azure Blob Storage REST, "Lease Blob"."""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from typing import Final, Protocol

from tilesync.azure.error_hints import storage_hint
from tilesync.errors import DestinationError
from tilesync.protocols import Stored
from tilesync.stores.local.lock_file import this_process
from tilesync.stores.status_files import document, read_document

LOCK: Final = ".tilesync/lock"
_OTHERS: Final = {
    "LeaseAlreadyPresent",
    "LeaseIdMissing",
    "LeaseIsBreakingAndCannotBeAcquired",
    "LeaseIsBrokenAndCannotBeRenewed",
    "LeaseNotPresentWithLeaseOperation",
}
"""Source: "Blob service error codes"."""


class Request(Protocol):
    """Sends one request about a lease, and gives status and code of the answer. `beats`: there is no time to lose."""

    def __call__(
        self, name: str, headers: dict[str, str], *, query: str = "", beats: bool = False, body: bytes = b""
    ) -> tuple[int, str]:
        """Send it."""


class BlobLease:
    """The lease. Its id is the owner's, so whoever had it takes it up again at once, after whatever end."""

    def __init__(
        self, request: Request, term: timedelta, shown: str, read: Callable[[str], Stored | None] = lambda name: None
    ) -> None:
        self._request = request
        self._read = read
        self._shown = shown
        self.term = term

    def take(self, owner: str) -> bool:
        """Acquire it; the blob is made where it is missing."""
        seconds = f"{self.term.total_seconds():.0f}"
        headers = {"x-ms-lease-duration": seconds, "x-ms-proposed-lease-id": owner}
        status, code = self._act("acquire", headers)
        if status == 404:
            made = {"x-ms-blob-type": "BlockBlob", "If-None-Match": "*"}
            self._request(LOCK, made)  # 409 or 412: someone else made it meanwhile
            status, code = self._act("acquire", headers)
        return self._granted(status, code)

    def announce(self, owner: str) -> None:
        """Write it into the blob: to take the lease says nothing of who takes it."""
        headers = {"x-ms-blob-type": "BlockBlob", "x-ms-lease-id": owner}
        self._request(LOCK, headers, beats=True, body=document(this_process().record()))

    def holder(self) -> object:
        """What stands in the blob."""
        stored = self._read(LOCK)
        return read_document(b"".join(stored.chunks)) if stored is not None else None

    def keep(self, owner: str) -> bool:
        """Renew it; one that has ended, and that nobody has taken since, comes to life again."""
        return self._granted(*self._act("renew", {"x-ms-lease-id": owner}, beats=True))

    def leave(self, owner: str) -> None:
        """Release it. One that others have by now stays theirs."""
        self._act("release", {"x-ms-lease-id": owner}, beats=True)

    def _act(self, action: str, headers: dict[str, str], *, beats: bool = False) -> tuple[int, str]:
        return self._request(LOCK, {"x-ms-lease-action": action, **headers}, query="comp=lease", beats=beats)

    def _granted(self, status: int, code: str) -> bool:
        if status < 300:
            return True
        if code in _OTHERS or code.startswith("LeaseIdMismatch"):
            return False
        said = f"({status} {code})".replace(" )", ")")
        raise DestinationError(f"{self._shown} cannot be locked {said}", hint=storage_hint(code) or None)
