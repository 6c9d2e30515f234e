"""Read, write, list, copy and delete block blobs of an Azure container, through SAS links that renew themselves.

Source: Azure Blob Storage REST: "Put Blob", "Put Block", "Put Block List", "Put Blob From URL", "List Blobs", "Lease
Blob".
"""

from __future__ import annotations

import hashlib
from collections.abc import Awaitable, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from tilesync.azure.list_blobs import PageGuard, parse_page
from tilesync.azure.responses import parse_storage_error_code
from tilesync.core.http_headers import CachePolicy
from tilesync.errors import ConditionFailed, DestinationError, NotAuthorised, Transient, Unavailable
from tilesync.model import Page, SasUrl
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
from tilesync.stores.azure.direct_put import AzurePutTarget
from tilesync.stores.azure.errors import API_VERSION, BlobOperation, parse_object_info, raise_for_status
from tilesync.stores.azure.lease import BlobLease
from tilesync.stores.object_store.lock import lease_request_timeout
from tilesync.stores.object_store.resumable_read import read_resuming
from tilesync.transport.api_client import MAX_LISTING_PAGE_BYTES
from tilesync.transport.blob_client_sync import SyncBlobClient, SyncBlobRequest, SyncBlobResponse
from tilesync.transport.renewing_link_sync import SyncRenewingLink
from tilesync.transport.retry import SyncRetrier

if TYPE_CHECKING:
    from tilesync.transport.blob_client import BlobClient, PutResponse

T = TypeVar("T")

RESPONSE_TIMEOUT: Final = timedelta(seconds=60)
COPY_TIMEOUT: Final = timedelta(minutes=10)
"""Time limits for a response, on top of the time for the bytes sent; the second one for requests that copy."""

LEASE_TERM: Final = timedelta(seconds=60)
"""The longest lease with an end. Source: "Lease Blob"."""

MAX_SINGLE_DELETES: Final = 8
BLOBS_PER_DELETE_BATCH: Final = 256
"""Maximum number of blobs deleted one by one, and in one batch request. Source: "Blob Batch" (REST)."""

PARALLEL_DELETES: Final = 16

DeleteBatch = Callable[[SasUrl, Sequence[str]], list[tuple[str, int]]]
"""Delete many blobs in one request, and return name and status of each."""


@dataclass(frozen=True)
class AzureClients:
    """Links and clients for one container. `read_only_link`: the source link of copies within the container."""

    link: SyncRenewingLink
    read_only_link: SyncRenewingLink | None
    sync_client: SyncBlobClient
    open_blob_client: Callable[[], Awaitable[BlobClient]]
    delete_batch: DeleteBatch


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
        self._link = clients.link
        self._prefix = prefix
        self._sync_client = clients.sync_client
        self._open_blob_client = clients.open_blob_client
        self._delete_batch = clients.delete_batch
        self._supports_batch_delete = True
        self._copier = ContainerCopier(
            clients.link, clients.read_only_link, prefix, self._request, self._raise_for_status
        )
        self._lease_retrying = SyncRetrier(observe, budget=lease_request_timeout(term))
        self._can_create_container = can_create_container
        self.guard: Callable[[], None] = lambda: None
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
            if _is_missing(response):
                return None
            self._raise_for_status(response, name, operation="read")
            return parse_object_info(name, response.header)

        return self._request(name, "HEAD", {}, accept)

    def list_pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        """List the blobs whose names begin with `prefix`, page by page."""
        return (page for page, _ in self.list_pages_from(prefix, ""))

    def list_pages_from(self, prefix: str, cursor: str) -> Iterator[tuple[list[ObjectInfo], str]]:
        """List blobs from the marker `cursor` on, each page with the marker of the next one."""
        full_prefix, marker = self._prefix + prefix, cursor or None
        guard = PageGuard(marker)
        while True:
            page = self._fetch_page(full_prefix, marker)
            marker = page.marker
            blobs = [ObjectInfo(b.name[len(self._prefix) :], b.size, b.etag, b.md5) for b in page.blobs]
            yield blobs, marker or ""
            if marker is None:
                return
            guard.check_page(blobs[-1].name if blobs else "", marker)

    def _fetch_page(self, prefix: str, marker: str | None) -> Page:
        def attempt(sas: SasUrl) -> Page:
            request = SyncBlobRequest("GET", sas.listing_url(marker, prefix=prefix), {"x-ms-version": API_VERSION})
            with self._sync_client.send_once(request) as response:
                self._raise_for_status(response, "the listing", operation="read")
                return parse_page(response.read(MAX_LISTING_PAGE_BYTES))

        return self._retry(attempt)

    def read(self, name: str, *, offset: int = 0) -> ObjectStream | None:
        """Open a blob from `offset` on; None if it is missing."""
        opened = self._retry(lambda sas: self._open_read(sas, name, offset))
        if opened is None:
            return None
        info = parse_object_info(name, opened[0].header)

        def reopen(offset: int) -> Iterator[bytes] | None:
            reopened = self._retry(lambda sas: self._open_read(sas, name, offset, info.etag))
            return _iter_body(*reopened) if reopened is not None else None

        return ObjectStream(info, read_resuming(info, offset, _iter_body(*opened), reopen, self.display_name))

    def _open_read(
        self, sas: SasUrl, name: str, offset: int, etag: str = ""
    ) -> tuple[SyncBlobResponse, ExitStack] | None:
        headers = {
            "x-ms-version": API_VERSION,
            **({"Range": f"bytes={offset}-"} if offset else {}),
            **condition_headers(etag or None),
        }
        with ExitStack() as closing:
            response = closing.enter_context(
                self._sync_client.send_once(SyncBlobRequest("GET", sas.blob_url(self._prefix + name), headers))
            )
            if _is_missing(response):
                return None
            self._raise_for_status(response, name, operation="read")
            if offset and response.status != 206:
                raise Transient("the destination did not send the requested byte range")
            return response, closing.pop_all()

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
                self._put_body_sync(name, block_headers(block), block, query=block_query(number))
                number += 1
        try:
            if not number:
                headers = {**put_blob_headers(object_headers, md5.digest()), **condition}
                return self._put_body_sync(name, headers, buffer)
            self._put_body_sync(name, block_headers(buffer), buffer, query=block_query(number))
            headers = {**content_headers(object_headers, md5.digest()), **condition}
            return self._put_body_sync(name, headers, block_list_body(number + 1), query="comp=blocklist")
        except ConditionFailed:
            # An earlier attempt whose response was lost may have written this very blob.
            found = self.find(name)
            if found is not None and found.md5 == md5.digest():
                return found
            raise

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Copy a blob by the service alone; None if it cannot, or if the original was changed or deleted."""
        return self._copier.copy(original, name)

    def delete(self, names: Sequence[str]) -> None:
        """Delete blobs; missing is no error. Many are deleted in batches of 256, if the link and server allow it."""
        for start in range(0, len(names), BLOBS_PER_DELETE_BATCH):
            batch = names[start : start + BLOBS_PER_DELETE_BATCH]
            if len(batch) <= MAX_SINGLE_DELETES or not self._try_batch_delete(batch):
                map_in_threads(self._delete_blob, batch, max_threads=PARALLEL_DELETES)

    def _delete_blob(self, name: str) -> None:
        def accept(response: SyncBlobResponse) -> None:
            if not _is_missing(response):
                self._raise_for_status(response, name, operation="delete")

        self._request(name, "DELETE", {"x-ms-delete-snapshots": "include"}, accept)

    def _try_batch_delete(self, names: Sequence[str]) -> bool:
        """Delete blobs in one request, and return whether that worked. Not every link allows it, nor every server."""
        if not self._supports_batch_delete:
            return False

        def attempt(sas: SasUrl) -> list[tuple[str, int]]:
            self.guard()
            return self._delete_batch(sas, [self._prefix + name for name in names])

        try:
            results = self._retry(attempt)
        except (NotAuthorised, DestinationError, Unavailable):
            self._supports_batch_delete = False
            return False
        return len(results) == len(names) and all(status in {202, 404} for _, status in results)

    # --- upload and copy, asynchronous ---

    async def put(self, name: str, data: bytes, md5: bytes | None, object_headers: ObjectHeaders) -> ObjectInfo:
        """Upload a small blob in one attempt; the service checks its MD5."""
        return await self.put_body(name, put_blob_headers(object_headers, md5), data)

    async def copy_from_url(self, source: CopySource, name: str, object_headers: ObjectHeaders) -> ObjectInfo | str:
        """Copy a blob from another account by the service alone, or return the reason why it refused."""
        return await copy_blob_from_url(self.put_body_tolerating, source, name, object_headers)

    async def make_put_target(self, cache_policy: CachePolicy) -> AzurePutTarget:
        """Return the target to which worker processes upload small blobs with the current link."""
        return AzurePutTarget(await self._link.current_async(), self._prefix, cache_policy)

    def begin_upload(self, name: str, size: int, object_headers: ObjectHeaders) -> BlockUpload:
        """Begin the upload of a large blob."""
        return BlockUpload(self.put_body, name, size, object_headers)

    async def put_body(self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> ObjectInfo:
        """Send a body with one PUT, through a fresh link where the current one is refused."""
        response = await self.put_body_tolerating(name, headers, body, query=query)
        return parse_object_info(name, response.headers.get)._replace(size=len(body))

    async def put_body_tolerating(
        self,
        name: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        query: str = "",
        tolerates: Callable[[PutResponse], bool] = lambda response: False,
    ) -> PutResponse:
        """Send a body with one PUT. A response that `tolerates` accepts is returned whatever its status."""
        client = await self._open_blob_client()
        timeout = COPY_TIMEOUT if "x-ms-copy-source" in headers else RESPONSE_TIMEOUT

        async def attempt(sas: SasUrl) -> PutResponse:
            url = _blob_url(sas, self._prefix + name, query)
            response = await client.put(url, {"x-ms-version": API_VERSION, **headers}, body, time_limit=timeout)
            if not tolerates(response):
                raise_for_status(response.status, response.headers.get, response.body, name, self.display_name)
            return response

        return await self._link.use_async(attempt)

    # --- send requests ---

    def _put_body_sync(self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> ObjectInfo:
        def accept(response: SyncBlobResponse) -> ObjectInfo:
            self._raise_for_status(response, name)
            return parse_object_info(name, response.header)._replace(size=len(body))

        return self._request(name, "PUT", headers, accept, body=body, query=query)

    def _request(
        self,
        name: str,
        method: str,
        headers: Mapping[str, str] | Callable[[SasUrl], Mapping[str, str]],
        accept: Callable[[SyncBlobResponse], T],
        *,
        body: bytes | None = None,
        query: str = "",
    ) -> T:
        def attempt(sas: SasUrl) -> T:
            if method in {"PUT", "DELETE"}:
                self.guard()
            all_headers = {"x-ms-version": API_VERSION, **(headers(sas) if callable(headers) else headers)}
            request = SyncBlobRequest(method, _blob_url(sas, self._prefix + name, query), all_headers, body)
            with self._sync_client.send_once(request) as response:
                return accept(response)

        return self._retry(attempt)

    def _retry(self, attempt: Callable[[SasUrl], T]) -> T:
        """Retry an attempt within the budget, each time with the current link, or a fresh one after a 403."""
        return self._sync_client.retry(self.display_name, lambda: self._link.use(attempt))

    def _raise_for_status(self, response: SyncBlobResponse, name: str, *, operation: BlobOperation = "put") -> None:
        body = b"" if response.status < 300 else response.read()
        raise_for_status(
            response.status,
            response.header,
            body,
            name,
            self.display_name,
            operation=operation,
            can_create_container=self._can_create_container,
        )

    def lease(self) -> BlobLease:
        """Return the lock of the destination: a lease on the blob `.tilesync/lock`."""
        return BlobLease(self.send_lease_request, self.term, self.display_name, self.read)

    def send_lease_request(
        self, name: str, headers: Mapping[str, str], *, query: str = "", urgent: bool = False, body: bytes = b""
    ) -> tuple[int, str]:
        """Send a lease request, and return status and error code; a refusal is no error.

        An `urgent` request is retried for a sixth of the term only: the next renewal tries again.
        """

        def accept(response: SyncBlobResponse) -> tuple[int, str]:
            error_body = b"" if response.status < 300 else response.read()
            code = parse_storage_error_code(response.header("x-ms-error-code"), error_body)
            if response.status not in {404, 409, 412} or code == "ContainerNotFound":
                raise_for_status(response.status, response.header, b"", name, self.display_name)
            return response.status, code

        def attempt(sas: SasUrl) -> tuple[int, str]:
            timeout = lease_request_timeout(self.term) if urgent else None
            url, all_headers = _blob_url(sas, self._prefix + name, query), {"x-ms-version": API_VERSION, **headers}
            request = SyncBlobRequest("PUT", url, all_headers, body, timeout=timeout)
            with self._sync_client.send_once(request) as response:
                return accept(response)

        if not urgent:
            return self._retry(attempt)
        return self._lease_retrying.retry(f"the lock of {self.display_name}", lambda: self._link.use(attempt))


def _is_missing(response: SyncBlobResponse) -> bool:
    """Return whether the blob is missing. A missing container is an error instead."""
    return response.status == 404 and response.header("x-ms-error-code") != "ContainerNotFound"


def _iter_body(response: SyncBlobResponse, closing: ExitStack) -> Iterator[bytes]:
    with closing:
        yield from response.chunks()


def _blob_url(sas: SasUrl, name: str, query: str) -> str:
    url = sas.blob_url(name)
    return f"{url}&{query}" if query else url
