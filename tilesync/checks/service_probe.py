"""Service probe: requests to the API and to containers, one for each question of the checks."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple, TypeVar
from urllib.parse import urlsplit

from tilesync.azure.error_hints import READ_PERMISSION_HINT, storage_hint
from tilesync.azure.responses import classify_storage_response, parse_storage_error_code
from tilesync.azure.sas import guess_folder_depths
from tilesync.core.http_status import Verdict, format_status, raise_for_status
from tilesync.core.urls import check_scheme
from tilesync.errors import ExportReplaced, Incomplete, NotAuthorised, Transient, Unavailable
from tilesync.itwin.auth import BearerTokenProvider, ShareKeyProvider
from tilesync.itwin.mesh_export import LATEST_PAGE_ROWS, MeshExports
from tilesync.model import ROOT, Export, SasUrl, Secret, Selector
from tilesync.sources.resolvers import SourceClients
from tilesync.transport.api_client import ApiRequest, ApiResponse, ResponseReader
from tilesync.transport.retry import retry_after_seconds

T = TypeVar("T")


class Credential(NamedTuple):
    """Credential of an identity. `lifetime_s`: its lifetime in seconds when it was issued, if stated."""

    text: Secret
    lifetime_s: float | None


class ServiceProbe:
    """Requests to the API with an identity that is created on first use, and to containers by their links.

    Each method sends one request. Raises RunErrors.
    """

    def __init__(
        self, api_url: str, make_identity: Callable[[], BearerTokenProvider | ShareKeyProvider], clients: SourceClients
    ) -> None:
        check_scheme(api_url)
        self.api_url = api_url
        self._make_identity = make_identity
        self._identity: BearerTokenProvider | ShareKeyProvider | None = None
        self._clients = clients

    def _get_identity(self) -> BearerTokenProvider | ShareKeyProvider:
        self._identity = self._identity or self._make_identity()
        return self._identity

    def _make_exports(self) -> MeshExports:
        clients = self._clients
        return MeshExports(self.api_url, self._get_identity(), clients.api_client, clients.clock, clients.observe)

    async def ping(self, url: str) -> tuple[int, datetime | None]:
        """Request an address without identity; return the status, and the server's time if stated."""

        async def accept(response: ApiResponse) -> tuple[int, datetime | None]:
            if response.status >= 500:
                raise Transient(f"it answered {response.status}")
            return response.status, response.server_time()

        return await self._request(urlsplit(url).netloc.rpartition("@")[2], url, accept)

    async def fetch_credential(self) -> Credential:
        """Fetch the credential of the identity."""
        identity = self._get_identity()
        header = await identity.header()
        return Credential(Secret(header.partition(" ")[2]), identity.lifetime_s)

    async def count_exports(self, selector: Selector) -> int:
        """Count the exports on the first page."""
        async for page in self._make_exports().pages(selector, top=LATEST_PAGE_ROWS):
            return len(page.rows)
        return 0

    async def fetch_latest(self, selector: Selector) -> Export:
        """Return the latest finished export. Raises NoExport at once if there is none."""
        resolution = await self._make_exports().find_latest(selector, wait=timedelta(), poll=timedelta())
        return resolution.export

    async def can_list(self, link: SasUrl) -> bool:
        """Return whether the link can list: requests a page of one blob.

        Raises ExportReplaced if the container is gone.
        """

        async def accept(response: ApiResponse) -> bool:
            verdict, _ = await _classify_response(response, "the container's listing", {Verdict.DENIED})
            return verdict is Verdict.DONE

        return await self._request(
            "the container's listing", link.listing_url(None, page_size=1, depth=guess_folder_depths(link)[0]), accept
        )

    async def fetch_root_size(self, link: SasUrl) -> int | None:
        """Return the size of the root tileset in bytes, None if not stated; reads one byte."""

        async def accept(response: ApiResponse) -> int | None:
            verdict, code = await _classify_response(response, ROOT, {Verdict.DENIED, Verdict.MISSING})
            if verdict is Verdict.DENIED:
                raise NotAuthorised(
                    f"the link cannot read {ROOT} {format_status(response.status, code)}",
                    hint=storage_hint(code) or READ_PERMISSION_HINT,
                )
            if verdict is Verdict.MISSING:
                raise Incomplete(
                    f"the container has no {ROOT}", hint="check that the link is the one of a complete 3D Tiles export"
                )
            size = (
                (response.header("content-range") or "").rpartition("/")[2] or response.header("content-length") or ""
            )
            return int(size) if size.isdecimal() else None

        return await self._request(ROOT, link.viewer_url(), accept, Range="bytes=0-0")

    async def _request(self, what: str, url: str, accept: ResponseReader[T], **headers: str) -> T:
        async def make_request() -> ApiRequest:
            return ApiRequest(url, headers)

        return await self._clients.api_client.request(what, make_request, accept)


async def _classify_response(response: ApiResponse, what: str, accepted: set[Verdict]) -> tuple[Verdict, str]:
    """Return verdict and error code of a storage response; raises if it is neither a success nor `accepted`."""
    if response.status in {200, 206}:
        return Verdict.DONE, ""
    code = parse_storage_error_code(response.header("x-ms-error-code"), await response.read())
    verdict = classify_storage_response(response.status, code)
    if verdict is Verdict.GONE:
        raise ExportReplaced(f"the container is gone {format_status(response.status, code)}")
    if verdict in accepted:
        return verdict, code
    raise_for_status(
        verdict,
        response.status,
        retry_after_seconds(response.header),
        f"{what} ({code or 'no code'})",
        storage_hint(code),
    )
    raise Unavailable(f"{what} answered {response.status}")
