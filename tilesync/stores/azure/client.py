"""Objects in an Azure blob container: block blobs, through signed links that stay alive.

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
from tilesync.errors import ConditionFailed, DestinationError, LinkRefused, NotAuthorised, Transient, Unavailable
from tilesync.model import Page, SasUrl
from tilesync.model.storage import CopySource, ObjectHeaders, ObjectInfo
from tilesync.protocols import ObjectStream, Observer
from tilesync.runtime.threads import map_in_threads, run_in_thread
from tilesync.stores.azure.block_upload import (
    BLOCK_BYTES,
    BlockUpload,
    block_headers,
    block_list_body,
    block_query,
    content_headers,
    put_blob_headers,
)
from tilesync.stores.azure.copy_from_url import copy_blob_from_url
from tilesync.stores.azure.copy_internal import ContainerCopier
from tilesync.stores.azure.direct_put import AzurePutTarget
from tilesync.stores.azure.errors import API_VERSION, BlobOperation, parse_object_info, raise_for_status
from tilesync.stores.azure.lease import BlobLease
from tilesync.stores.azure.sas_link import RenewableSasLink
from tilesync.stores.object_store.lock import lease_request_timeout
from tilesync.stores.object_store.resumable_read import read_resuming
from tilesync.transport.api_client import MAX_LISTING_PAGE_BYTES
from tilesync.transport.blob_client_sync import SyncBlobClient, SyncBlobRequest, SyncBlobResponse
from tilesync.transport.retry import SyncRetrier

if TYPE_CHECKING:
    from tilesync.transport.blob_client import BlobClient, PutResponse

T = TypeVar("T")

RESPONSE_TIMEOUT: Final = timedelta(seconds=60)
COPY_TIMEOUT: Final = timedelta(minutes=10)
"""How long an answer may take, beside the time for the bytes that are sent; one that comes after a copy."""

MAX_REFUSED_LINKS: Final = 4
"""403s in a row that one request survives, while each fresh link has ended on arrival."""

LEASE_TERM: Final = timedelta(seconds=60)
"""The longest lease that ends by itself. Source: "Lease Blob"."""

MAX_SINGLE_DELETES: Final = 8
BLOBS_PER_DELETE_BATCH: Final = 256
"""Blobs that are deleted one by one, and in one request, at most. Source: "Blob Batch" (REST)."""

PARALLEL_DELETES: Final = 16

DeleteBatch = Callable[[SasUrl, Sequence[str]], list[tuple[str, int]]]
"""Deletes many blobs in one request; the status for each."""


@dataclass(frozen=True)
class AzureClients:
    """What a container is spoken to by. `copying`: a link that only reads, for what it copies within itself."""

    link: RenewableSasLink
    read_only_link: RenewableSasLink | None
    sync_client: SyncBlobClient
    open_blob_client: Callable[[], Awaitable[BlobClient]]
    delete_batch: DeleteBatch


class AzureObjects:
    """The blobs of one container below a prefix, which is empty or ends with a slash. `creatable`: an option of the
    command that is run would make the container.
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
        """None: a name is read as it is written."""
        return []

    # --- conversations ---

    def find(self, name: str) -> ObjectInfo | None:
        """What is said of a blob; None when there is none."""

        def accept(reply: SyncBlobResponse) -> ObjectInfo | None:
            if reply.status == 404 and reply.header("x-ms-error-code") != "ContainerNotFound":
                return None
            self._raise_for_status(reply, name, operation="read")
            return parse_object_info(name, reply.header)

        return self._request(name, "HEAD", {}, accept)

    def list_pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        """The blobs whose names begin so, page by page."""
        return (page for page, _ in self.list_pages_from(prefix, ""))

    def list_pages_from(self, prefix: str, cursor: str) -> Iterator[tuple[list[ObjectInfo], str]]:
        """Likewise, from a marker on, each page with the marker of the next one."""
        lead, marker = self._prefix + prefix, cursor or None
        guard = PageGuard(marker)
        while True:
            page = self._fetch_page(lead, marker)
            marker = page.marker
            blobs = [ObjectInfo(b.name[len(self._prefix) :], b.size, b.etag, b.md5) for b in page.blobs]
            yield blobs, marker or ""
            if marker is None:
                return
            guard.check_page(blobs[-1].name if blobs else "", marker)

    def _fetch_page(self, prefix: str, marker: str | None) -> Page:
        def attempt(sas: SasUrl) -> Page:
            send = SyncBlobRequest("GET", sas.listing_url(marker, prefix=prefix), {"x-ms-version": API_VERSION})
            with self._sync_client.send_once(send) as reply:
                self._raise_for_status(reply, "the listing", operation="read")
                return parse_page(reply.read(MAX_LISTING_PAGE_BYTES))

        return self._retry(attempt)

    def read(self, name: str, *, offset: int = 0) -> ObjectStream | None:
        """A blob and its bytes from `offset` on; None when there is none."""
        opened = self._retry(lambda sas: self._open_read(sas, name, offset))
        if opened is None:
            return None
        found = parse_object_info(name, opened[0].header)

        def again(at: int) -> Iterator[bytes] | None:
            opened = self._retry(lambda sas: self._open_read(sas, name, at, found.etag))
            return _iter_body(*opened) if opened is not None else None

        return ObjectStream(found, read_resuming(found, offset, _iter_body(*opened), again, self.display_name))

    def _open_read(
        self, sas: SasUrl, name: str, offset: int, etag: str = ""
    ) -> tuple[SyncBlobResponse, ExitStack] | None:
        headers = {
            "x-ms-version": API_VERSION,
            **({"Range": f"bytes={offset}-"} if offset else {}),
            **_condition_headers(etag or None),
        }
        with ExitStack() as closing:
            reply = closing.enter_context(
                self._sync_client.send_once(SyncBlobRequest("GET", sas.blob_url(self._prefix + name), headers))
            )
            if reply.status == 404 and reply.header("x-ms-error-code") != "ContainerNotFound":
                return None
            self._raise_for_status(reply, name, operation="read")
            if offset and reply.status != 206:
                raise Transient("the destination did not give the range that it was asked for")
            return reply, closing.pop_all()

    def write(
        self, name: str, data: Iterable[bytes], label: ObjectHeaders, *, expected_etag: str | None = None
    ) -> ObjectInfo:
        """Put a blob in place, of whatever size."""
        condition = _condition_headers(expected_etag)
        md5, number, buffer = hashlib.md5(usedforsecurity=False), 0, b""
        for piece in data:
            md5.update(piece)
            buffer += piece
            while len(buffer) > BLOCK_BYTES:
                self._put_body_sync(
                    name, block_headers(buffer[:BLOCK_BYTES]), buffer[:BLOCK_BYTES], query=block_query(number)
                )
                buffer, number = buffer[BLOCK_BYTES:], number + 1
        try:
            if not number:
                return self._put_body_sync(name, {**put_blob_headers(label, md5.digest()), **condition}, buffer)
            self._put_body_sync(name, block_headers(buffer), buffer, query=block_query(number))
            headers = {**content_headers(label, md5.digest()), **condition}
            return self._put_body_sync(name, headers, block_list_body(number + 1), query="comp=blocklist")
        except ConditionFailed:
            found = self.find(name)  # of an attempt whose answer was lost it is what this one put there
            if found is not None and found.md5 == md5.digest():
                return found
            raise

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Put a copy of a blob in place, by the service alone; None where it does not make it, or the blob is not there
        as it was found.
        """
        return self._copier.copy(original, name)

    def delete(self, names: Sequence[str]) -> None:
        """Delete blobs; missing is no error. Many of them with one request for 256, where that is allowed."""
        for start in range(0, len(names), BLOBS_PER_DELETE_BATCH):
            some = names[start : start + BLOBS_PER_DELETE_BATCH]
            if len(some) <= MAX_SINGLE_DELETES or not self._try_batch_delete(some):
                map_in_threads(self._delete_blob, some, max_threads=PARALLEL_DELETES)

    def _delete_blob(self, name: str) -> None:
        def accept(reply: SyncBlobResponse) -> None:
            if reply.status != 404 or reply.header("x-ms-error-code") == "ContainerNotFound":
                self._raise_for_status(reply, name, operation="delete")

        self._request(name, "DELETE", {"x-ms-delete-snapshots": "include"}, accept)

    def _try_batch_delete(self, names: Sequence[str]) -> bool:
        """Whether they could be deleted in one request, which not every link allows, nor every server knows."""
        if not self._supports_batch_delete:
            return False

        def attempt(sas: SasUrl) -> list[tuple[str, int]]:
            self.guard()
            return self._delete_batch(sas, [self._prefix + name for name in names])

        try:
            told = self._retry(attempt)
        except (NotAuthorised, DestinationError, Unavailable):
            self._supports_batch_delete = False
            return False
        return len(told) == len(names) and all(status in {202, 404} for _, status in told)

    # --- bodies ---

    async def put(self, name: str, data: bytes, md5: bytes | None, label: ObjectHeaders) -> ObjectInfo:
        """Put a small blob in place, at one attempt; the service checks its MD5."""
        return await self.put_body(name, put_blob_headers(label, md5), data)

    async def copy_from_url(self, source: CopySource, name: str, label: ObjectHeaders) -> ObjectInfo | str:
        """Put a copy of what lies elsewhere in place, by the service alone; why it does not, where it does not."""
        return await copy_blob_from_url(self.put_body_tolerating, source, name, label)

    async def make_put_target(self, serving: CachePolicy) -> AzurePutTarget:
        """Where other processes put small blobs now."""
        sas = await run_in_thread(self._link.current) if self._link.is_due else self._link.current()
        return AzurePutTarget(sas, self._prefix, serving)

    def begin_upload(self, name: str, size: int, label: ObjectHeaders) -> BlockUpload:
        """Begin a large blob."""
        return BlockUpload(self, name, size, label)

    async def put_body(self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> ObjectInfo:
        """One attempt to PUT a body, through a fresh link where one is refused."""
        told = await self.put_body_tolerating(name, headers, body, query=query)
        return parse_object_info(name, told.headers.get)._replace(size=len(body))

    async def put_body_tolerating(
        self,
        name: str,
        headers: Mapping[str, str],
        body: bytes,
        *,
        query: str = "",
        tolerates: Callable[[PutResponse], bool] = lambda told: False,
    ) -> PutResponse:
        """The same; an answer that the caller `bears` with is given whatever it is."""
        bulk = await self._open_blob_client()
        for attempt in range(MAX_REFUSED_LINKS):
            sas = await run_in_thread(self._link.current) if self._link.is_due else self._link.current()
            try:
                url = _blob_url(sas, self._prefix + name, query)
                within = COPY_TIMEOUT if "x-ms-copy-source" in headers else RESPONSE_TIMEOUT
                told = await bulk.put(url, {"x-ms-version": API_VERSION, **headers}, body, time_limit=within)
                if not tolerates(told):
                    raise_for_status(told.status, told.headers.get, told.body, name, self.display_name)
                return told
            except LinkRefused as refusal:
                await run_in_thread(self._link.handle_refusal, sas, refusal, was_fresh=attempt > 0)
        raise _stale_links_error()

    # --- how requests are made ---

    def _put_body_sync(self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> ObjectInfo:
        def accept(reply: SyncBlobResponse) -> ObjectInfo:
            self._raise_for_status(reply, name)
            return parse_object_info(name, reply.header)._replace(size=len(body))

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
            more = headers(sas) if callable(headers) else headers
            send = SyncBlobRequest(
                method, _blob_url(sas, self._prefix + name, query), {"x-ms-version": API_VERSION, **more}, body
            )
            with self._sync_client.send_once(send) as reply:
                return accept(reply)

        return self._retry(attempt)

    def _retry(self, attempt: Callable[[SasUrl], T]) -> T:
        """Attempt with the link of that moment, as long as patience lasts; with a fresh one where it is refused."""
        return self._sync_client.retry(self.display_name, lambda: self._with_fresh_link(attempt))

    def _with_fresh_link(self, attempt: Callable[[SasUrl], T]) -> T:
        for number in range(MAX_REFUSED_LINKS):
            sas = self._link.current()
            try:
                return attempt(sas)
            except LinkRefused as refusal:
                self._link.handle_refusal(sas, refusal, was_fresh=number > 0)
        raise _stale_links_error()

    def _raise_for_status(self, reply: SyncBlobResponse, name: str, *, operation: BlobOperation = "put") -> None:
        body = b"" if reply.status < 300 else reply.read()
        raise_for_status(
            reply.status,
            reply.header,
            body,
            name,
            self.display_name,
            operation=operation,
            can_create_container=self._can_create_container,
        )

    def lease(self) -> BlobLease:
        """The right to write here: a lease of the blob `.tilesync/lock`."""
        return BlobLease(self.send_lease_request, self.term, self.display_name, self.read)

    def send_lease_request(
        self, name: str, headers: Mapping[str, str], *, query: str = "", urgent: bool = False, body: bytes = b""
    ) -> tuple[int, str]:
        """The answer to one request about a lease, which may be no: its status and code. One that `beats` is not borne
        with for long: the next beat asks again.
        """

        def accept(reply: SyncBlobResponse) -> tuple[int, str]:
            code = parse_storage_error_code(
                reply.header("x-ms-error-code"), b"" if reply.status < 300 else reply.read()
            )
            if reply.status not in {404, 409, 412} or code == "ContainerNotFound":
                raise_for_status(reply.status, reply.header, b"", name, self.display_name)
            return reply.status, code

        def attempt(sas: SasUrl) -> tuple[int, str]:
            url, within = (
                _blob_url(sas, self._prefix + name, query),
                lease_request_timeout(self.term) if urgent else None,
            )
            send = SyncBlobRequest("PUT", url, {"x-ms-version": API_VERSION, **headers}, body, timeout=within)
            with self._sync_client.send_once(send) as reply:
                return accept(reply)

        if not urgent:
            return self._retry(attempt)
        return self._lease_retrying.retry(f"the lock of {self.display_name}", lambda: self._with_fresh_link(attempt))


def _iter_body(reply: SyncBlobResponse, closing: ExitStack) -> Iterator[bytes]:
    with closing:
        yield from reply.chunks()


def _blob_url(sas: SasUrl, name: str, query: str) -> str:
    url = sas.blob_url(name)
    return f"{url}&{query}" if query else url


def _condition_headers(expected_etag: str | None) -> dict[str, str]:
    if expected_etag is None:
        return {}
    return {"If-Match": f'"{expected_etag}"'} if expected_etag else {"If-None-Match": "*"}


def _stale_links_error() -> NotAuthorised:
    return NotAuthorised(
        "each fresh link to the store is refused on arrival", hint="compare this machine's clock with the world's"
    )
