"""Protocols that the doctor checks use."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from tilesync.model import Export, SasUrl, Secret, Selector
from tilesync.model.storage import HttpResponse


class Credential(NamedTuple):
    """Credential of an identity. `lifetime_s`: its lifetime in seconds when it was issued, if stated."""

    text: Secret
    lifetime_s: float | None


class ServiceProber(Protocol):
    """Requests to the service and to containers, one for each question. Raises the RunErrors."""

    @property
    def api_url(self) -> str:
        """Address of the API."""

    async def ping(self, url: str) -> tuple[int, datetime | None]:
        """Request an address without identity; return the status, and the server's time if stated."""

    async def fetch_credential(self) -> Credential:
        """Fetch the credential of the identity."""

    async def count_exports(self, selector: Selector) -> int:
        """Count the exports on the first page."""

    async def fetch_latest(self, selector: Selector) -> Export:
        """Return the latest finished export. Raises NoExport at once if there is none."""

    async def can_list(self, link: SasUrl) -> bool:
        """Return whether the link can list: requests a page of one blob. Raises ExportReplaced if the container is
        gone.
        """

    async def fetch_root_size(self, link: SasUrl) -> int | None:
        """Return the size of the root tileset in bytes, None if not stated; reads one byte."""


class BrowserClient(Protocol):
    """HTTP client without identity, like a browser. Sends one request each, and follows no redirect."""

    async def send_request(self, method: str, url: str, headers: Mapping[str, str]) -> HttpResponse:
        """Send a request and return the response. Raises Unavailable if there is none."""
