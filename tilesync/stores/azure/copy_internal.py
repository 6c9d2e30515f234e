"""Copies within one container, made by the service alone.

Source: Azure Blob Storage REST: "Put Blob From URL", "Copy Blob From URL", "Common REST API error codes".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from tilesync.azure.responses import parse_md5
from tilesync.core.manifest import MAX_SINGLE_COPY_BYTES as PUT_AT_ONCE
from tilesync.errors import DestinationError
from tilesync.model import SasUrl
from tilesync.model.storage import ObjectInfo
from tilesync.stores.azure.block_upload import encode_base64
from tilesync.stores.azure.errors import is_copy_source_error, parse_object_info
from tilesync.stores.azure.sas_link import RenewableSasLink
from tilesync.transport.blob_client_sync import SyncBlobResponse

MAX_COPY_FROM_URL_BYTES: Final = 256 << 20
"""Bytes of a blob that Copy Blob From URL copies at most."""

UNSUPPORTED_COPY: Final = ObjectInfo("", -1, "")
"""Of a copy that the server does not know how to make."""

_UNSUPPORTED_COPY_CODES: Final = {"UnsupportedHeader", "InvalidHeaderValue", "MissingRequiredHeader"}


class BlobRequest(Protocol):
    """Asks with the link of that moment, as long as patience lasts."""

    def __call__(
        self,
        name: str,
        method: str,
        headers: Callable[[SasUrl], Mapping[str, str]],
        accept: Callable[[SyncBlobResponse], ObjectInfo | None],
        *,
        body: bytes | None = None,
    ) -> ObjectInfo | None:
        """What `accept` makes of the answer."""


class ContainerCopier:
    """The ways to copy a blob, and which of them this service has turned out to know. Safe from any thread.

    `link` may read and write; `copying`, where there is one, only reads. `demand` raises what an answer that is no
    grant means.
    """

    def __init__(
        self,
        link: RenewableSasLink,
        read_only_link: RenewableSasLink | None,
        prefix: str,
        send_request: BlobRequest,
        raise_for_status: Callable[[SyncBlobResponse, str], None],
    ) -> None:
        self._link = link
        self._read_only_link = read_only_link
        self._prefix = prefix
        self._send_request = send_request
        self._raise_for_status = raise_for_status
        self._supports_put_from_url = True
        self._can_read_source = True

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Put a copy of a blob in place; None where the service does not, or where it is not there as it was found.

        By Put Blob From URL; where that is not known (an emulator) by Copy Blob From URL, whose source everyone who may
        read the copy is told: through a link that only reads, or not at all.
        """
        if self._can_read_source and self._supports_put_from_url and original.size <= PUT_AT_ONCE:
            found = self._try_copy(original, name, self._read_only_link or self._link, {"x-ms-blob-type": "BlockBlob"})
            if found is not UNSUPPORTED_COPY:
                return found
            self._supports_put_from_url = False
        if self._read_only_link is None or not self._can_read_source or original.size > MAX_COPY_FROM_URL_BYTES:
            return None
        found = self._try_copy(original, name, self._read_only_link, {"x-ms-requires-sync": "true"})
        return None if found is UNSUPPORTED_COPY else found

    def _try_copy(
        self, original: ObjectInfo, name: str, link: RenewableSasLink, method_headers: Mapping[str, str]
    ) -> ObjectInfo | None:
        """The copy; UNKNOWN where the server does not know how to make it."""

        def accept(reply: SyncBlobResponse) -> ObjectInfo | None:
            code = reply.header("x-ms-error-code") or ""
            if is_copy_source_error(code, reply.header) and reply.status in {401, 403}:
                self._can_read_source = (
                    False  # an account may keep its own service from reading it; asked again it says the same
                )
                return None
            if reply.status in {404, 409, 412} and code not in {"ContainerNotFound", "LeaseIdMissing"}:
                return None
            if reply.status == 501 or (reply.status == 500 and not code) or code in _UNSUPPORTED_COPY_CODES:
                return UNSUPPORTED_COPY  # Azure's own 500 has a code
            if reply.status == 400:
                return None
            self._raise_for_status(reply, name)
            if reply.status == 202 and reply.header("x-ms-copy-status") != "success":
                raise DestinationError(f"the storage copies {original.name} at its leisure")
            if parse_md5(reply.header("content-md5")) not in {None, original.md5}:
                return None
            return parse_object_info(name, reply.header)._replace(size=original.size, md5=original.md5)

        def headers(_: SasUrl) -> Mapping[str, str]:
            source = {"x-ms-copy-source": link.current().blob_url(self._prefix + original.name)}
            condition = {"x-ms-source-if-match": f'"{original.etag}"'}
            proof = {"x-ms-source-content-md5": encode_base64(original.md5)} if original.md5 is not None else {}
            return {**method_headers, **source, **condition, **proof}

        return self._send_request(name, "PUT", headers, accept, body=b"")
