"""Copies within one container, made by the service alone.

Source: Azure Blob Storage REST: "Put Blob From URL", "Copy Blob From URL", "Common REST API error codes".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from tilesync.azure.responses import parse_md5
from tilesync.core.manifest import COPIED_AT_ONCE as PUT_AT_ONCE
from tilesync.errors import DestinationError
from tilesync.model import SasUrl
from tilesync.model.storage import Found
from tilesync.stores.azure.block_upload import in_base64
from tilesync.stores.azure.errors import about_source, found_in
from tilesync.stores.azure.sas_link import SignedLink
from tilesync.transport.blob_client_sync import Reply

COPIED_AT_ONCE: Final = 256 << 20
"""Bytes of a blob that Copy Blob From URL copies at most."""

UNKNOWN: Final = Found("", -1, "")
"""Of a copy that the server does not know how to make."""

_NOT_KNOWN: Final = {"UnsupportedHeader", "InvalidHeaderValue", "MissingRequiredHeader"}


class Ask(Protocol):
    """Asks with the link of that moment, as long as patience lasts."""

    def __call__(
        self,
        name: str,
        method: str,
        headers: Callable[[SasUrl], Mapping[str, str]],
        accept: Callable[[Reply], Found | None],
        *,
        body: bytes | None = None,
    ) -> Found | None:
        """What `accept` makes of the answer."""


class Copies:
    """The ways to copy a blob, and which of them this service has turned out to know. Safe from any thread.

    `link` may read and write; `copying`, where there is one, only reads. `demand` raises what an answer that is no
    grant means.
    """

    def __init__(
        self, link: SignedLink, copying: SignedLink | None, prefix: str, ask: Ask, demand: Callable[[Reply, str], None]
    ) -> None:
        self._link = link
        self._copying = copying
        self._prefix = prefix
        self._ask = ask
        self._demand = demand
        self._puts = True
        self._reads = True

    def copy(self, of: Found, name: str) -> Found | None:
        """Put a copy of a blob in place; None where the service does not, or where it is not there as it was found.

        By Put Blob From URL; where that is not known (an emulator) by Copy Blob From URL, whose source everyone who may
        read the copy is told: through a link that only reads, or not at all.
        """
        if self._reads and self._puts and of.size <= PUT_AT_ONCE:
            found = self._copied(of, name, self._copying or self._link, {"x-ms-blob-type": "BlockBlob"})
            if found is not UNKNOWN:
                return found
            self._puts = False
        if self._copying is None or not self._reads or of.size > COPIED_AT_ONCE:
            return None
        found = self._copied(of, name, self._copying, {"x-ms-requires-sync": "true"})
        return None if found is UNKNOWN else found

    def _copied(self, of: Found, name: str, link: SignedLink, how: Mapping[str, str]) -> Found | None:
        """The copy; UNKNOWN where the server does not know how to make it."""

        def accept(reply: Reply) -> Found | None:
            code = reply.header("x-ms-error-code") or ""
            if about_source(code, reply.header) and reply.status in {401, 403}:
                self._reads = False  # an account may keep its own service from reading it; asked again it says the same
                return None
            if reply.status in {404, 409, 412} and code not in {"ContainerNotFound", "LeaseIdMissing"}:
                return None
            if reply.status == 501 or (reply.status == 500 and not code) or code in _NOT_KNOWN:
                return UNKNOWN  # Azure's own 500 has a code
            if reply.status == 400:
                return None
            self._demand(reply, name)
            if reply.status == 202 and reply.header("x-ms-copy-status") != "success":
                raise DestinationError(f"the storage copies {of.name} at its leisure")
            if parse_md5(reply.header("content-md5")) not in {None, of.md5}:
                return None
            return found_in(name, reply.header)._replace(size=of.size, md5=of.md5)

        def headers(_: SasUrl) -> Mapping[str, str]:
            source = {"x-ms-copy-source": link.current().blob(self._prefix + of.name)}
            condition = {"x-ms-source-if-match": f'"{of.etag}"'}
            proof = {"x-ms-source-content-md5": in_base64(of.md5)} if of.md5 is not None else {}
            return {**how, **source, **condition, **proof}

        return self._ask(name, "PUT", headers, accept, body=b"")
