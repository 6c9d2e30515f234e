"""Read, write, list, copy and delete block blobs of an Azure container, through SAS links that renew themselves.

Source: Azure Blob Storage REST: "Put Blob", "Put Block", "Put Block List", "Put Blob From URL", "List Blobs", "Lease
Blob".
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import Final

from tilesync.azure.list_blobs import PageGuard
from tilesync.core.http_headers import CachePolicy
from tilesync.errors import ConditionFailed, DestinationError, NotAuthorised, Unavailable
from tilesync.model import SasUrl
from tilesync.model.storage import CopySource, ObjectHeaders, ObjectInfo
from tilesync.protocols import ObjectStream, Observer
from tilesync.runtime.threads import map_in_threads
from tilesync.stores.azure.block_upload import (
    BLOCK_BYTES,
    BlockUpload,
    block_headers,
    block_list_body,
    block_query,
    condition_headers,
    content_headers,
    put_blob_headers,
)
from tilesync.stores.azure.copy_from_url import copy_blob_from_url
from tilesync.stores.azure.copy_internal import ContainerCopier
from tilesync.stores.azure.direct_put import AzurePutTarget, AzureWorkerStore
from tilesync.stores.azure.errors import parse_object_info
from tilesync.stores.azure.lease import BlobLease
from tilesync.stores.azure.requests import AzureClients, BlobRequests, is_missing
from tilesync.stores.object_store.resumable_read import read_resuming
from tilesync.transport.blob_client_sync import SyncBlobResponse

LEASE_TERM: Final = timedelta(seconds=60)
"""The longest lease with an end. Source: "Lease Blob"."""

MAX_SINGLE_DELETES: Final = 8
BLOBS_PER_DELETE_BATCH: Final = 256
"""Maximum number of blobs deleted one by one, and in one batch request. Source: "Blob Batch" (REST)."""

PARALLEL_DELETES: Final = 16


class AzureObjects:
    """The blobs of one container below a prefix, which is empty or ends with a slash.

    `can_create_container`: an option of the command would create the container, and hints name it.
    """

    part_bytes = BLOCK_BYTES
    suspect_characters = ""
    rejects_empty_segments = False

    def __init__(
        self,
        clients: AzureClients,
        prefix: str,
        observe: Observer,
        *,
        display_name: str,
        canonical_url: str,
        term: timedelta = LEASE_TERM,
        can_create_container: bool = False,
    ) -> None:
        self.guard: Callable[[], None] = lambda: None
        self._prefix = prefix
        self._link = clients.link
        self._requests = BlobRequests(
            clients,
            prefix,
            observe,
            lambda: self.guard(),
            display_name=display_name,
            term=term,
            can_create_container=can_create_container,
        )
        self._copier = ContainerCopier(
            clients.link,
            clients.read_only_link,
            prefix,
            self._requests.send,
            self._requests.raise_for_status,
            clients.batches,
        )
        self._delete_batch = clients.delete_batch
        self._supports_batch_delete = True
        self.display_name = display_name
        self.canonical_url = canonical_url
        self.term = term

    def find_misread_characters(self) -> list[str]:
        """Return no characters: Azure reads names as they are written."""
        return []

    # --- read and change blobs, blocking ---

    def find(self, name: str) -> ObjectInfo | None:
        """Return size, ETag and MD5 of a blob, or None if it is missing."""

        def accept(response: SyncBlobResponse) -> ObjectInfo | None:
            if is_missing(response):
                return None
            self._requests.raise_for_status(response, name, operation="read")
            return parse_object_info(name, response.header)

        return self._requests.send(name, "HEAD", {}, accept)

    def list_pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        """List the blobs whose names begin with `prefix`, page by page."""
        return (page for page, _ in self.list_pages_from(prefix, ""))

    def list_pages_from(self, prefix: str, cursor: str) -> Iterator[tuple[list[ObjectInfo], str]]:
        """List blobs from the marker `cursor` on, each page with the marker of the next one."""
        marker = cursor or None
        guard = PageGuard(marker)
        while True:
            page = self._requests.fetch_page(prefix, marker)
            marker = page.marker
            blobs = [ObjectInfo(b.name[len(self._prefix) :], b.size, b.etag, b.md5) for b in page.blobs]
            yield blobs, marker or ""
            if marker is None:
                return
            guard.check_page(blobs[-1].name if blobs else "", marker)

    def read(self, name: str, *, offset: int = 0) -> ObjectStream | None:
        """Open a blob from `offset` on; None if it is missing."""
        opened = self._requests.open_read(name, offset)
        if opened is None:
            return None
        info = parse_object_info(name, opened[0].header)

        def reopen(offset: int) -> Iterator[bytes] | None:
            reopened = self._requests.open_read(name, offset, info.etag)
            return _iter_body(*reopened) if reopened is not None else None

        return ObjectStream(info, read_resuming(info, offset, _iter_body(*opened), reopen, self.display_name))

    def write(
        self, name: str, data: Iterable[bytes], object_headers: ObjectHeaders, *, expected_etag: str | None = None
    ) -> ObjectInfo:
        """Write a blob of any size: in one request up to a block, in blocks beyond."""
        condition = condition_headers(expected_etag)
        md5, number, buffer = hashlib.md5(usedforsecurity=False), 0, b""
        for piece in data:
            md5.update(piece)
            buffer += piece
            while len(buffer) > BLOCK_BYTES:
                block, buffer = buffer[:BLOCK_BYTES], buffer[BLOCK_BYTES:]
                self._requests.put_body_sync(name, block_headers(block), block, query=block_query(number))
                number += 1
        try:
            if not number:
                headers = {**put_blob_headers(object_headers, md5.digest()), **condition}
                return self._requests.put_body_sync(name, headers, buffer)
            self._requests.put_body_sync(name, block_headers(buffer), buffer, query=block_query(number))
            headers = {**content_headers(object_headers, md5.digest()), **condition}
            return self._requests.put_body_sync(name, headers, block_list_body(number + 1), query="comp=blocklist")
        except ConditionFailed:
            # An earlier attempt whose response was lost may have written this very blob.
            found = self.find(name)
            if found is not None and found.md5 == md5.digest():
                return found
            raise

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Copy a blob by the service alone; None if it cannot, or if the original was changed or deleted."""
        return self._copier.copy(original, name)

    def copy_batch(self, copies: Sequence[tuple[ObjectInfo, str]]) -> list[ObjectInfo | None]:
        """Copy small blobs at once, one attempt each; None for each that `copy` has to try."""
        self._requests.require_writable()
        return self._copier.copy_batch(copies)

    def delete(self, names: Sequence[str]) -> None:
        """Delete blobs; missing is no error. Many are deleted in batches of 256, if the link and server allow it."""
        for start in range(0, len(names), BLOBS_PER_DELETE_BATCH):
            batch = names[start : start + BLOBS_PER_DELETE_BATCH]
            if len(batch) <= MAX_SINGLE_DELETES or not self._try_batch_delete(batch):
                map_in_threads(self._delete_blob, batch, max_threads=PARALLEL_DELETES)

    def _delete_blob(self, name: str) -> None:
        def accept(response: SyncBlobResponse) -> None:
            if not is_missing(response):
                self._requests.raise_for_status(response, name, operation="delete")

        self._requests.send(name, "DELETE", {"x-ms-delete-snapshots": "include"}, accept)

    def _try_batch_delete(self, names: Sequence[str]) -> bool:
        """Delete blobs in one request, and return whether that worked. Not every link allows it, nor every server."""
        if not self._supports_batch_delete:
            return False

        def attempt(sas: SasUrl) -> list[tuple[str, int]]:
            self.guard()
            return self._delete_batch(sas, [self._prefix + name for name in names])

        try:
            results = self._requests.retry(attempt)
        except (NotAuthorised, DestinationError, Unavailable):
            self._supports_batch_delete = False
            return False
        return len(results) == len(names) and all(status in {202, 404} for _, status in results)

    def lease(self) -> BlobLease:
        """Return the lock of the destination: a lease on the blob `.tilesync/lock`."""
        return BlobLease(self._requests.send_lease_request, self.term, self.display_name, self.read)

    # --- upload and copy, asynchronous ---

    async def put(self, name: str, data: bytes, md5: bytes | None, object_headers: ObjectHeaders) -> ObjectInfo:
        """Upload a small blob in one attempt; the service checks its MD5."""
        return await self._requests.put_body(name, put_blob_headers(object_headers, md5), data)

    async def copy_from_url(self, source: CopySource, name: str, object_headers: ObjectHeaders) -> ObjectInfo | str:
        """Copy a blob from another account by the service alone, or return the reason why it refused."""
        return await copy_blob_from_url(self._requests.put_body_tolerating, source, name, object_headers)

    async def make_put_target(self, cache_policy: CachePolicy) -> AzurePutTarget:
        """Return the target to which worker processes upload small blobs with the current link."""
        return AzurePutTarget(await self._link.current_async(), self._prefix, cache_policy)

    async def make_worker_store(self) -> AzureWorkerStore:
        """Return the store from which worker processes read small blobs with the current link."""
        return AzureWorkerStore(await self._link.current_async(), self._prefix)

    def begin_upload(self, name: str, size: int, object_headers: ObjectHeaders) -> BlockUpload:
        """Begin the upload of a large blob."""
        return BlockUpload(self._requests.put_body, name, size, object_headers)


def _iter_body(response: SyncBlobResponse, closing: ExitStack) -> Iterator[bytes]:
    with closing:
        yield from response.chunks()
