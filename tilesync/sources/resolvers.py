"""What SOURCE may be: an iModel known to the service, or a container link by itself."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tilesync.errors import ExportReplaced, NoExport
from tilesync.itwin.mesh_export import MeshExports
from tilesync.model import Export, Resolution, SasUrl, Selector, Status
from tilesync.protocols import Clock, Observer
from tilesync.sources.container import Container
from tilesync.sources.sas_link import Fetch, RenewingLink
from tilesync.transport.api_client import Conversation

if TYPE_CHECKING:
    from tilesync.transport.blob_client import Bulk
    from tilesync.transport.rate_limit import Bandwidth


@dataclass(frozen=True, slots=True)
class Wires:
    """The engines that a container is read through, and what closes with them; `sends` makes one that puts bodies."""

    talk: Conversation
    bulk: Callable[[], Awaitable[Bulk]]
    sends: Callable[[], Awaitable[Bulk]]
    clock: Clock
    observe: Observer
    closing: AsyncExitStack
    bandwidth: Bandwidth | None = None

    def link(self, fetch: Fetch | None) -> RenewingLink:
        """A link that renews itself by `fetch`, and stops doing so when the run ends."""
        link = RenewingLink(fetch, self.clock, self.observe, budget=self.talk.budget)
        self.closing.push_async_callback(link.aclose)
        return link

    async def container(self, listing: RenewingLink, content: RenewingLink) -> Container:
        """The container behind the links."""
        return Container(listing=listing, content=content, talk=self.talk, bulk=await self.bulk(), clock=self.clock)


class ServiceOrigin:
    """An iModel: the latest finished export that matches, and links to it from the service; or all of them.

    `cdn`: the listing goes through the direct link, the bytes through the CDN's.
    """

    def __init__(
        self, exports: MeshExports, selector: Selector, wires: Wires, *, wait: timedelta, poll: timedelta, cdn: bool
    ) -> None:
        self._exports = exports
        self._selector = selector
        self._wires = wires
        self._wait = wait
        self._poll = poll
        self._cdn = cdn

    async def resolve(self, *, again: bool = False) -> Resolution:
        """The export to mirror. Raises NoExport; `again`: ExportReplaced when nothing took the lost one's place."""
        try:
            wait = timedelta() if again else self._wait
            return await self._exports.latest(self._selector, wait=wait, poll=self._poll)
        except NoExport as error:
            if again:
                raise ExportReplaced(f"the export is gone, and no other has taken its place: {error}") from error
            raise

    async def source(self, resolution: Resolution) -> Container:
        """The container of the export, pinned by export id and container."""
        export = resolution.export
        direct = self._wires.link(lambda: self._exports.fresh_link(export))
        if export.link is not None:
            direct.adopt(export.link, resolution.server_time)
        content = self._wires.link(lambda: self._exports.fresh_link(export, cdn=True)) if self._cdn else direct
        return await self._wires.container(direct, content)

    async def finished(self) -> list[Export]:
        """The Complete ones, oldest first; waited for while there is none. Raises NoExport."""
        await self._exports.latest(self._selector, wait=self._wait, poll=self._poll)
        rows = [row async for page in self._exports.pages(self._selector) for row in page.rows if row.complete]
        return rows[::-1]

    def origin(self, export: Export) -> ServiceOrigin:
        """One of them by itself."""
        selector = replace(self._selector, export_id=export.id)
        return ServiceOrigin(self._exports, selector, self._wires, wait=timedelta(), poll=self._poll, cdn=self._cdn)


class LinkOrigin:
    """A container link: its container is the export. `refresh` prints a fresh link; without one its end is the end."""

    def __init__(
        self,
        link: SasUrl,
        wires: Wires,
        *,
        refresh: Callable[[], Awaitable[SasUrl]] | None,
    ) -> None:
        self._link = link
        self._wires = wires
        self._refresh = refresh

    async def resolve(self, *, again: bool = False) -> Resolution:
        """The export that the container's name says. Raises ExportReplaced when it is asked for `again`."""
        if again:
            raise ExportReplaced(
                "the container behind the link was replaced or deleted",
                hint="get the link of the newest export, and run again with it",
            )
        export = Export(
            id=self._link.container,
            status=Status.COMPLETE,
            record={"id": self._link.container, "status": Status.COMPLETE.value},
            link=self._link,
        )
        return Resolution(export, export.id)

    async def source(self, resolution: Resolution) -> Container:
        """The container behind the link."""
        link = self._wires.link(self._fetch if self._refresh else None)
        link.adopt(self._link, None)
        return await self._wires.container(link, link)

    async def _fetch(self) -> tuple[SasUrl, datetime | None]:
        assert self._refresh is not None
        return await self._refresh(), None
