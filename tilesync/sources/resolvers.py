"""Resolvers of SOURCE: the exports of an iModel, or the container of a link."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tilesync.azure.link_state import LinkTexts
from tilesync.errors import ExportReplaced, NoExport, TilesyncError
from tilesync.itwin.mesh_export import MeshExports, find_endangered
from tilesync.model import Export, Resolution, SasUrl, Selector, Status
from tilesync.protocols import Clock, Observer
from tilesync.transport.api_client import ApiClient
from tilesync.transport.renewing_link import LinkFetcher, RenewingLink
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.sources.container import Container
    from tilesync.transport.api_pace import ApiPace
    from tilesync.transport.blob_client import BlobClient
    from tilesync.transport.rate_limit import RateLimiter

MAX_LIST_AGE_S = 60.0
"""Age in seconds up to which a list of exports need not be requested again."""

SOURCE_LINK_TEXTS = LinkTexts(
    bad_signature_hint="new links are refused: a proxy on the way may rewrite their URLs, or they are signed with a"
    " wrong key",
    other_container_hint="a run mirrors one export only; start a new run for the other",
)


@dataclass(frozen=True, slots=True)
class SourceClients:
    """HTTP clients for the sources of one run, and the exit stack that closes them.

    `api_client` is for the service. `pace`: rate of API calls that several runs share; None for no limit.
    """

    api_client: ApiClient
    open_blob_client: Callable[[], Awaitable[BlobClient]]
    open_upload_client: Callable[[], Awaitable[BlobClient]]
    clock: Clock
    observe: Observer
    exit_stack: AsyncExitStack
    bandwidth: RateLimiter | None = None
    pace: ApiPace | None = None

    def make_link(self, fetch: LinkFetcher | None) -> RenewingLink:
        """Create a link that renews itself by `fetch` until the run ends."""
        link = RenewingLink(fetch, self.clock, self.observe, budget=self.api_client.budget, texts=SOURCE_LINK_TEXTS)
        self.exit_stack.push_async_callback(link.aclose)
        return link

    async def open_container(self, listing: RenewingLink, content: RenewingLink) -> Container:
        """Open the container of the links."""
        from tilesync.sources.container import Container  # late: a run without changes opens no container
        from tilesync.transport.retry import AsyncRetrier

        return Container(
            listing=listing,
            content=content,
            blob_client=await self.open_blob_client(),
            retrier=AsyncRetrier(self.clock, self.observe, budget=self.api_client.budget),
        )


class ServiceResolver:
    """Resolver of an iModel: its latest finished export that matches the selector, or all of these.

    `cdn`: the listing uses the direct link, and the bytes come through the CDN's link. `resolved`: the result of the
    first search, or its error, if the caller has done it already.
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
        resolved: Resolution | TilesyncError | None = None,
    ) -> None:
        self._exports = exports
        self._selector = selector
        self._clients = clients
        self._wait = wait
        self._poll = poll
        self._cdn = cdn
        self._resolved = resolved
        self._listed: tuple[Export, ...] = ()
        self._listed_at_s = -MAX_LIST_AGE_S
        self._listed_server_time: datetime | None = None

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """Resolve the export to mirror. Raises NoExport; with `is_replacement` ExportReplaced if none is left."""
        resolved, self._resolved = self._resolved, None
        if resolved is not None and not is_replacement:
            if isinstance(resolved, TilesyncError):
                raise resolved
            return resolved
        try:
            wait = timedelta() if is_replacement else self._wait
            return await self._exports.find_latest(self._selector, wait=wait, poll=self._poll)
        except NoExport as error:
            if is_replacement:
                raise ExportReplaced(f"the export is gone, and there is no other: {error}") from error
            raise

    async def open_source(self, resolution: Resolution) -> Container:
        """Open the container of the export; its links stay pinned to this export id."""
        export = resolution.export
        direct = self._clients.make_link(lambda: self._exports.fetch_link(export))
        if export.link is not None:
            direct.set_current(export.link, self._server_time_now(export.link, resolution.server_time))
        content = self._clients.make_link(lambda: self._exports.fetch_link(export, cdn=True)) if self._cdn else direct
        return await self._clients.open_container(direct, content)

    def _server_time_now(self, link: SasUrl, server_time: datetime | None) -> datetime | None:
        """Return the time of the server now; `server_time` is that of the response with the link."""
        if server_time is None:
            return None
        return server_time + timedelta(seconds=self._clients.clock.monotonic() - link.fetched_at_s)

    async def list_finished(self) -> list[Export]:
        """List the Complete exports, oldest first; wait while there is none. Raises NoExport."""
        if not (rows := await self._list_complete()):
            await self._exports.find_latest(self._selector, wait=self._wait, poll=self._poll)
            rows = await self._list_complete()
        return rows[::-1]

    async def _list_complete(self) -> list[Export]:
        pages = [page async for page in self._exports.pages(self._selector)]
        self._listed = tuple(row for page in pages for row in page.rows)
        self._listed_at_s = self._clients.clock.monotonic()
        self._listed_server_time = pages[-1].server_time if pages else None
        return [row for row in self._listed if row.is_complete]

    def resolver_for(self, export: Export) -> ServiceResolver:
        """Return a resolver for one export. If the list is fresh, the export need not be searched again."""
        resolved: Resolution | None = None
        if self._clients.clock.monotonic() - self._listed_at_s < MAX_LIST_AGE_S:
            newest = self._listed[0]
            resolved = Resolution(
                export,
                newest.id,
                newest.status,
                self._listed_server_time,
                newest_modified=newest.modified,
                next_deleted=find_endangered(self._listed),
            )
        return ServiceResolver(
            self._exports,
            replace(self._selector, export_id=export.id),
            self._clients,
            wait=timedelta(),
            poll=self._poll,
            cdn=self._cdn,
            resolved=resolved,
        )


class LinkResolver:
    """Resolver of a container link: its container is the export. Without `fetch_link` the link cannot be renewed."""

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
        """Return an export named after the container. Raises ExportReplaced with `is_replacement`."""
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
        """Open the container of the link."""
        link = self._clients.make_link(self._fetch_with_time if self._fetch_link else None)
        link.set_current(self._link, None)
        return await self._clients.open_container(link, link)

    async def _fetch_with_time(self) -> tuple[SasUrl, datetime | None]:
        assert self._fetch_link is not None
        return await self._fetch_link(), None
