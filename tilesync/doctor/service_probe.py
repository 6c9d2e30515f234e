"""The service looked at piece by piece: what `doctor` asks of it, each question by itself."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeVar
from urllib.parse import urlsplit

from tilesync.azure.error_hints import READABLE, storage_hint
from tilesync.azure.responses import judge_storage, storage_code
from tilesync.azure.sas import folder_depths
from tilesync.core.http_status import Verdict, demand
from tilesync.core.urls import check_scheme
from tilesync.doctor.protocols import Credential
from tilesync.errors import ExportReplaced, Incomplete, NotAuthorised, Transient, Unavailable
from tilesync.itwin.auth import ShareKey, Token
from tilesync.itwin.mesh_export import LATEST_PAGE, MeshExports
from tilesync.model import ROOT, Export, SasUrl, Secret, Selector
from tilesync.sources.resolvers import Wires
from tilesync.transport.api_client import Accept, Ask, Reply
from tilesync.transport.retry_after import asked_wait

T = TypeVar("T")


class RemoteSight:
    """The API at its address, an identity that is got when it is asked for, and containers by their links."""

    def __init__(self, api_url: str, identify: Callable[[], Token | ShareKey], wires: Wires) -> None:
        check_scheme(api_url)
        self.api = api_url
        self._identify = identify
        self._identity: Token | ShareKey | None = None
        self._wires = wires

    def _known(self) -> Token | ShareKey:
        self._identity = self._identity or self._identify()
        return self._identity

    def _exports(self) -> MeshExports:
        wires = self._wires
        return MeshExports(self.api, self._known(), wires.talk, wires.clock, wires.observe)

    async def knock(self, url: str) -> tuple[int, datetime | None]:
        """Ask for an address without any identity: the status, and the server's time where it says one."""

        async def accept(reply: Reply) -> tuple[int, datetime | None]:
            if reply.status >= 500:
                raise Transient(f"it answered {reply.status}")
            return reply.status, reply.server_time()

        return await self._ask(urlsplit(url).netloc.rpartition("@")[2], url, accept)

    async def identify(self) -> Credential:
        """Get the credential of the identity."""
        identity = self._known()
        header = await identity.header()
        return Credential(Secret(header.partition(" ")[2]), identity.life)

    async def visible(self, selector: Selector) -> int:
        """How many exports the first page shows."""
        async for page in self._exports().pages(selector, top=LATEST_PAGE):
            return len(page.rows)
        return 0

    async def latest(self, selector: Selector) -> Export:
        """The latest finished export. Raises NoExport at once where there is none."""
        resolution = await self._exports().latest(selector, wait=timedelta(), poll=timedelta())
        return resolution.export

    async def listable(self, link: SasUrl) -> bool:
        """Whether the link may list: a page of one blob is asked for."""

        async def accept(reply: Reply) -> bool:
            verdict, _ = await _judged(reply, "the container's listing", {Verdict.DENIED})
            return verdict is Verdict.DONE

        return await self._ask(
            "the container's listing", link.listing(None, page_size=1, depth=folder_depths(link)[0]), accept
        )

    async def root_size(self, link: SasUrl) -> int | None:
        """The size of the root tileset in bytes, of which only the first is read; None where nobody says it."""

        async def accept(reply: Reply) -> int | None:
            verdict, code = await _judged(reply, ROOT, {Verdict.DENIED, Verdict.MISSING})
            if verdict is Verdict.DENIED:
                raise NotAuthorised(
                    f"the link may not read {ROOT} ({reply.status} {code})".replace(" )", ")"),
                    hint=storage_hint(code) or READABLE,
                )
            if verdict is Verdict.MISSING:
                raise Incomplete(
                    f"the container has no {ROOT}", hint="is this the container of a 3D Tiles export, and a whole one?"
                )
            size = (reply.header("content-range") or "").rpartition("/")[2] or reply.header("content-length") or ""
            return int(size) if size.isdecimal() else None

        return await self._ask(ROOT, link.viewer(), accept, Range="bytes=0-0")

    async def _ask(self, what: str, url: str, accept: Accept[T], **headers: str) -> T:
        async def make() -> Ask:
            return Ask(url, headers)

        return await self._wires.talk.ask(what, make, accept)


async def _judged(reply: Reply, what: str, known: set[Verdict]) -> tuple[Verdict, str]:
    """The verdict on an answer of the storage, if it is done or `known`, and the error code; any other raises."""
    if reply.status in {200, 206}:
        return Verdict.DONE, ""
    code = storage_code(reply.header("x-ms-error-code"), await reply.read())
    verdict = judge_storage(reply.status, code)
    if verdict is Verdict.GONE:
        raise ExportReplaced(f"the container is gone ({reply.status} {code})")
    if verdict in known:
        return verdict, code
    demand(verdict, reply.status, asked_wait(reply.header), f"{what} ({code or 'no code'})", storage_hint(code))
    raise Unavailable(f"{what} answered {reply.status}")
