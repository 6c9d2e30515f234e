"""What the checks of `doctor` need."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import NamedTuple, Protocol

from tilesync.model import Export, SasUrl, Secret, Selector
from tilesync.model.storage import HttpResponse


class Credential(NamedTuple):
    """What an identity came to: `life` is how many seconds it was to live when it came, where that was said."""

    text: Secret
    lifetime_s: float | None


class ServiceProber(Protocol):
    """The service, looked at piece by piece. Raises the RunErrors."""

    @property
    def api_url(self) -> str:
        """The address of the API."""

    async def ping(self, url: str) -> tuple[int, datetime | None]:
        """Ask for an address without any identity: the status, and the server's time where it says one."""

    async def fetch_credential(self) -> Credential:
        """Get the credential of the identity."""

    async def count_exports(self, selector: Selector) -> int:
        """How many exports the first page shows."""

    async def fetch_latest(self, selector: Selector) -> Export:
        """The latest finished export. Raises NoExport at once where there is none."""

    async def can_list(self, link: SasUrl) -> bool:
        """Whether the link may list: a page of one blob is asked for. Raises ExportReplaced where all is gone."""

    async def fetch_root_size(self, link: SasUrl) -> int | None:
        """The size of the root tileset in bytes, of which only the first is read; None where nobody says it."""


class BrowserClient(Protocol):
    """Someone without any identity, who asks as a browser does: each answer is that of one request, not redirected."""

    async def send_request(self, method: str, url: str, headers: Mapping[str, str]) -> HttpResponse:
        """An answer. Raises Unavailable when none comes."""
