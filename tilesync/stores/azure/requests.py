"""Send requests to an Azure container through SAS links that renew themselves, with retries.

Source: Azure Blob Storage REST: "Put Blob", "Get Blob", "List Blobs", "Lease Blob".
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import ExitStack
from datetime import timedelta
from typing import TYPE_CHECKING, Final, TypeVar

from tilesync.azure.list_blobs import MAX_LISTING_PAGE_BYTES, parse_page
from tilesync.azure.responses import parse_storage_error_code
from tilesync.errors import Transient
from tilesync.model import Page, SasUrl
from tilesync.model.storage import ObjectInfo
from tilesync.protocols import Observer
from tilesync.stores.azure.block_upload import condition_headers
from tilesync.stores.azure.errors import API_VERSION, BlobOperation, parse_object_info, raise_for_status
from tilesync.stores.object_store.lock import lease_request_timeout
from tilesync.transport.blob_client_sync import SyncBlobClient, SyncBlobRequest, SyncBlobResponse
from tilesync.transport.renewing_link_sync import SyncRenewingLink
from tilesync.transport.request_batches import RequestBatches
from tilesync.transport.retry import SyncRetrier
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.transport.blob_client import BlobClient, PutResponse

T = TypeVar("T")

RESPONSE_TIMEOUT: Final = timedelta(seconds=60)
COPY_TIMEOUT: Final = timedelta(minutes=10)
"""Time limits for a response, on top of the time for the bytes sent; the second one for requests that copy."""

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
    batches: RequestBatches


class BlobRequests:
    """Requests about the blobs of one container below a prefix, which is empty or ends with a slash.

    Each is retried within the budget, with the current link, or a fresh one after a 403. `guard` is called before each
    attempt to write. `can_create_container`: an option of the command would create the container, and hints name it.
    """

    def __init__(
        self,
        clients: AzureClients,
        prefix: str,
        observe: Observer,
        guard: Callable[[], None],
        *,
        display_name: str,
        term: timedelta,
        can_create_container: bool,
    ) -> None:
        self._link = clients.link
        self._sync_client = clients.sync_client
        self._open_blob_client = clients.open_blob_client
        self._prefix = prefix
        self._guard = guard
        self._lease_retrying = SyncRetrier(observe, budget=lease_request_timeout(term))
        self._can_create_container = can_create_container
        self._term = term
        self.display_name = display_name

    # --- blocking ---

    def put_body_sync(self, name: str, headers: Mapping[str, str], body: bytes, *, query: str = "") -> ObjectInfo:
        """Send a body with one PUT, and return the blob."""

        def accept(response: SyncBlobResponse) -> ObjectInfo:
            self.raise_for_status(response, name)
            return parse_object_info(name, response.header)._replace(size=len(body))

        return self.send(name, "PUT", headers, accept, body=body, query=query)

    def send(
        self,
        name: str,
        method: str,
        headers: Mapping[str, str] | Callable[[SasUrl], Mapping[str, str]],
        accept: Callable[[SyncBlobResponse], T],
        *,
        body: bytes | None = None,
        query: str = "",
    ) -> T:
        """Send a request, and return the result of `accept` for its response."""

        def attempt(sas: SasUrl) -> T:
            if method in {"PUT", "DELETE"}:
                self._guard()
            all_headers = {"x-ms-version": API_VERSION, **(headers(sas) if callable(headers) else headers)}
            request = SyncBlobRequest(method, _blob_url(sas, self._prefix + name, query), all_headers, body)
            with self._sync_client.send_once(request) as response:
                return accept(response)

        return self.retry(attempt)

    def retry(self, attempt: Callable[[SasUrl], T]) -> T:
        """Retry an attempt within the budget, each time with the current link, or a fresh one after a 403."""
        return self._sync_client.retry(self.display_name, lambda: self._link.use(attempt))

    def require_writable(self) -> None:
        """Raise if the store must not be changed any more."""
        self.retry(lambda _: self._guard())

    def raise_for_status(self, response: SyncBlobResponse, name: str, *, operation: BlobOperation = "put") -> None:
        """Raise the error for a failed response about the blob `name`; return where it succeeded."""
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

    def fetch_page(self, prefix: str, marker: str | None) -> Page:
        """Fetch one page of the listing; `prefix` is below that of the objects."""

        def attempt(sas: SasUrl) -> Page:
            request = SyncBlobRequest(
                "GET", sas.listing_url(marker, prefix=self._prefix + prefix), {"x-ms-version": API_VERSION}
            )
            with self._sync_client.send_once(request) as response:
                self.raise_for_status(response, "the listing", operation="read")
                return parse_page(response.read(MAX_LISTING_PAGE_BYTES))

        return self.retry(attempt)

    def open_read(self, name: str, offset: int, etag: str = "") -> tuple[SyncBlobResponse, ExitStack] | None:
        """Open a blob from `offset` on; None where it is missing. With an ETag it must be that very blob."""
        return self.retry(lambda sas: self._open_read(sas, name, offset, etag))

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
            if is_missing(response):
                return None
            self.raise_for_status(response, name, operation="read")
            if offset and response.status != 206:
                raise Transient("the destination did not send the requested byte range")
            return response, closing.pop_all()

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
            timeout = lease_request_timeout(self._term) if urgent else None
            url, all_headers = _blob_url(sas, self._prefix + name, query), {"x-ms-version": API_VERSION, **headers}
            request = SyncBlobRequest("PUT", url, all_headers, body, timeout=timeout)
            with self._sync_client.send_once(request) as response:
                return accept(response)

        if not urgent:
            return self.retry(attempt)
        return self._lease_retrying.retry(f"the lock of {self.display_name}", lambda: self._link.use(attempt))

    # --- asynchronous ---

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


def is_missing(response: SyncBlobResponse) -> bool:
    """Return whether the blob is missing. A missing container is an error instead."""
    return response.status == 404 and response.header("x-ms-error-code") != "ContainerNotFound"


def _blob_url(sas: SasUrl, name: str, query: str) -> str:
    url = sas.blob_url(name)
    return f"{url}&{query}" if query else url
