"""Copy blobs within one container, by the service alone.

Source: Azure Blob Storage REST: "Put Blob From URL", "Copy Blob From URL", "Common REST API error codes".
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, Protocol

from tilesync.azure.responses import parse_etag, parse_md5
from tilesync.core.manifest import MAX_SINGLE_COPY_BYTES
from tilesync.errors import DestinationError, Transient
from tilesync.model import SasUrl
from tilesync.model.storage import ObjectInfo
from tilesync.stores.azure.block_upload import encode_base64
from tilesync.stores.azure.errors import API_VERSION, is_copy_source_error, parse_object_info
from tilesync.transport.blob_client_sync import SyncBlobResponse
from tilesync.transport.http1_pool import PoolRequest
from tilesync.transport.renewing_link_sync import SyncRenewingLink
from tilesync.transport.request_batches import RequestBatches
from tilesync.transport.tls import load_proxies

MAX_COPY_FROM_URL_BYTES: Final = 256 << 20
"""Bytes of the largest blob that Copy Blob From URL copies."""

MAX_BATCH_COPY_BYTES: Final = 8 << 20
"""Bytes of the largest blob that is copied in a batch: a larger one takes the service too long."""

_PUT_FROM_URL_HEADERS: Final = {"x-ms-blob-type": "BlockBlob"}

UNSUPPORTED_COPY: Final = ObjectInfo("", -1, "")
"""Marks a kind of copy that the server does not support."""

_UNSUPPORTED_COPY_CODES: Final = {"UnsupportedHeader", "InvalidHeaderValue", "MissingRequiredHeader"}


class BlobRequest(Protocol):
    """Send a request with the current link, and retry it within the budget."""

    def __call__(
        self,
        name: str,
        method: str,
        headers: Callable[[SasUrl], Mapping[str, str]],
        accept: Callable[[SyncBlobResponse], ObjectInfo | None],
        *,
        body: bytes | None = None,
    ) -> ObjectInfo | None:
        """Return the result of `accept` for the response."""


class ContainerCopier:
    """Copier that remembers which kinds of copy requests the service supports. Safe from any thread.

    `link` may read and write; `read_only_link`, if there is one, only reads. `raise_for_status` raises the error for
    a failed response.
    """

    def __init__(
        self,
        link: SyncRenewingLink,
        read_only_link: SyncRenewingLink | None,
        prefix: str,
        send_request: BlobRequest,
        raise_for_status: Callable[[SyncBlobResponse, str], None],
        batches: RequestBatches,
    ) -> None:
        self._link = link
        self._read_only_link = read_only_link
        self._prefix = prefix
        self._send_request = send_request
        self._raise_for_status = raise_for_status
        self._batches = batches
        self._supports_put_from_url = True
        self._can_read_source = True

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Copy a blob; None if the service cannot, or if the original was changed or deleted.

        Put Blob From URL is tried first. If it is not supported (an emulator), Copy Blob From URL is tried. That shows
        the source URL to everyone who may read the copy, so it is used with a read-only link or not at all.
        """
        if self._can_read_source and self._supports_put_from_url and original.size <= MAX_SINGLE_COPY_BYTES:
            copied = self._try_copy(original, name, self._read_only_link or self._link, _PUT_FROM_URL_HEADERS)
            if copied is not UNSUPPORTED_COPY:
                return copied
            self._supports_put_from_url = False
        if self._read_only_link is None or not self._can_read_source or original.size > MAX_COPY_FROM_URL_BYTES:
            return None
        copied = self._try_copy(original, name, self._read_only_link, {"x-ms-requires-sync": "true"})
        return None if copied is UNSUPPORTED_COPY else copied

    def copy_batch(self, copies: Sequence[tuple[ObjectInfo, str]]) -> list[ObjectInfo | None]:
        """Copy small blobs at once with Put Blob From URL, one attempt each; None for each that `copy` has to try."""
        results: list[ObjectInfo | None] = [None] * len(copies)
        if not (self._can_read_source and self._supports_put_from_url):
            return results
        try:
            link, source_link = self._link.current(), (self._read_only_link or self._link).current()
        except Transient:
            return results
        if load_proxies().proxy_for(link.base) is not None:
            return results
        numbers = [number for number, (original, _) in enumerate(copies) if original.size <= MAX_BATCH_COPY_BYTES]
        requests = [self._make_request(link, source_link, *copies[number]) for number in numbers]
        for number, response in zip(numbers, self._batches.send(requests), strict=True):
            original, name = copies[number]
            if response is not None and response.etag and parse_md5(response.md5) in {None, original.md5}:
                results[number] = ObjectInfo(name, original.size, parse_etag(response.etag), original.md5)
        return results

    def _make_request(self, link: SasUrl, source_link: SasUrl, original: ObjectInfo, name: str) -> PoolRequest:
        headers = {"x-ms-version": API_VERSION, **_PUT_FROM_URL_HEADERS, **self._source_headers(source_link, original)}
        return PoolRequest(link.blob_url(self._prefix + name), headers, body=b"")

    def _source_headers(self, source_link: SasUrl, original: ObjectInfo) -> dict[str, str]:
        """Return the headers that name the original, with the conditions that it is unchanged."""
        source = {"x-ms-copy-source": source_link.blob_url(self._prefix + original.name)}
        condition = {"x-ms-source-if-match": f'"{original.etag}"'}
        checksum = {"x-ms-source-content-md5": encode_base64(original.md5)} if original.md5 is not None else {}
        return {**source, **condition, **checksum}

    def _try_copy(
        self, original: ObjectInfo, name: str, link: SyncRenewingLink, method_headers: Mapping[str, str]
    ) -> ObjectInfo | None:
        """Try one kind of copy; UNSUPPORTED_COPY where the server does not support it."""

        def accept(response: SyncBlobResponse) -> ObjectInfo | None:
            code = response.header("x-ms-error-code") or ""
            if is_copy_source_error(code, response.header) and response.status in {401, 403}:
                # An account can forbid its own service to read it: then each copy is refused.
                self._can_read_source = False
                return None
            if response.status in {404, 409, 412} and code not in {"ContainerNotFound", "LeaseIdMissing"}:
                return None
            if response.status == 501 or (response.status == 500 and not code) or code in _UNSUPPORTED_COPY_CODES:
                return UNSUPPORTED_COPY  # Azure's own 500 has a code
            if response.status == 400:
                return None
            self._raise_for_status(response, name)
            if response.status == 202 and response.header("x-ms-copy-status") != "success":
                raise DestinationError(f"the storage offers only an asynchronous copy of {original.name}")
            if parse_md5(response.header("content-md5")) not in {None, original.md5}:
                return None
            return parse_object_info(name, response.header)._replace(size=original.size, md5=original.md5)

        def headers(_: SasUrl) -> Mapping[str, str]:
            return {**method_headers, **self._source_headers(link.current(), original)}

        return self._send_request(name, "PUT", headers, accept, body=b"")
