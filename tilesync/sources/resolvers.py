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
from tilesync.sources.sas_link import LinkFetcher, RenewingLink
from tilesync.transport.api_client import ApiClient

if TYPE_CHECKING:
    from tilesync.transport.blob_client import BlobClient
    from tilesync.transport.rate_limit import RateLimiter


@dataclass(frozen=True, slots=True)
class SourceClients:
    """The engines that a container is read through, and what closes with them; `sends` makes one that puts bodies."""

    api_client: ApiClient
    open_blob_client: Callable[[], Awaitable[BlobClient]]
    open_upload_client: Callable[[], Awaitable[BlobClient]]
    clock: Clock
    observe: Observer
    exit_stack: AsyncExitStack
    bandwidth: RateLimiter | None = None

    def make_link(self, fetch: LinkFetcher | None) -> RenewingLink:
        """A link that renews itself by `fetch`, and stops doing so when the run ends."""
        link = RenewingLink(fetch, self.clock, self.observe, budget=self.api_client.budget)
        self.exit_stack.push_async_callback(link.aclose)
        return link

    async def open_container(self, listing: RenewingLink, content: RenewingLink) -> Container:
        """The container behind the links."""
        return Container(
            listing=listing,
            content=content,
            api_client=self.api_client,
            blob_client=await self.open_blob_client(),
            clock=self.clock,
        )


class ServiceResolver:
    """An iModel: the latest finished export that matches, and links to it from the service; or all of them.

    `cdn`: the listing goes through the direct link, the bytes through the CDN's.
    """

    def __init__(
        self,
        exports: MeshExports,
        selector: Selector,
        clients: SourceClients,
        *,
        wait: timedelta,
        poll: timedelta,
        cdn: bool,
    ) -> None:
        self._exports = exports
        self._selector = selector
        self._clients = clients
        self._wait = wait
        self._poll = poll
        self._cdn = cdn

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """The export to mirror. Raises NoExport; `again`: ExportReplaced when nothing took the lost one's place."""
        try:
            wait = timedelta() if is_replacement else self._wait
            return await self._exports.find_latest(self._selector, wait=wait, poll=self._poll)
        except NoExport as error:
            if is_replacement:
                raise ExportReplaced(f"the export is gone, and no other has taken its place: {error}") from error
            raise

    async def open_source(self, resolution: Resolution) -> Container:
        """The container of the export, pinned by export id and container."""
        export = resolution.export
        direct = self._clients.make_link(lambda: self._exports.fetch_link(export))
        if export.link is not None:
            direct.set_current(export.link, resolution.server_time)
        content = self._clients.make_link(lambda: self._exports.fetch_link(export, cdn=True)) if self._cdn else direct
        return await self._clients.open_container(direct, content)

    async def list_finished(self) -> list[Export]:
        """The Complete ones, oldest first; waited for while there is none. Raises NoExport."""
        await self._exports.find_latest(self._selector, wait=self._wait, poll=self._poll)
        rows = [row async for page in self._exports.pages(self._selector) for row in page.rows if row.is_complete]
        return rows[::-1]

    def resolver_for(self, export: Export) -> ServiceResolver:
        """One of them by itself."""
        selector = replace(self._selector, export_id=export.id)
        return ServiceResolver(self._exports, selector, self._clients, wait=timedelta(), poll=self._poll, cdn=self._cdn)


class LinkResolver:
    """A container link: its container is the export. `refresh` prints a fresh link; without one its end is the end."""

    def __init__(
        self,
        link: SasUrl,
        clients: SourceClients,
        *,
        fetch_link: Callable[[], Awaitable[SasUrl]] | None,
    ) -> None:
        self._link = link
        self._clients = clients
        self._fetch_link = fetch_link

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """The export that the container's name says. Raises ExportReplaced when it is asked for `again`."""
        if is_replacement:
            raise ExportReplaced(
                "the container behind the link was replaced or deleted",
                hint="get the link of the newest export, and run again with it",
            )
        export = Export(
            id=self._link.container_name,
            status=Status.COMPLETE,
            record={"id": self._link.container_name, "status": Status.COMPLETE.value},
            link=self._link,
        )
        return Resolution(export, export.id)

    async def open_source(self, resolution: Resolution) -> Container:
        """The container behind the link."""
        link = self._clients.make_link(self._fetch_with_time if self._fetch_link else None)
        link.set_current(self._link, None)
        return await self._clients.open_container(link, link)

    async def _fetch_with_time(self) -> tuple[SasUrl, datetime | None]:
        assert self._fetch_link is not None
        return await self._fetch_link(), None
