"""Resolver of a command that prints container links: the export is the container of the link that it prints now."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from datetime import datetime
from typing import TYPE_CHECKING

from tilesync.errors import ExportReplaced
from tilesync.model import Export, Resolution, SasUrl, Status

if TYPE_CHECKING:
    from tilesync.sources.container import Container
    from tilesync.sources.resolvers import SourceClients


class FollowedLinkResolver:
    """Resolver whose newest export is the container of the newest link. `link`: the first one, not yet used.

    A link that is opened stays bound to its container: once the command prints links to another one, it can no longer
    be renewed.
    """

    def __init__(self, link: SasUrl, clients: SourceClients, *, fetch_link: Callable[[], Awaitable[SasUrl]]) -> None:
        self._link: SasUrl | None = link
        self._clients = clients
        self._fetch_link = fetch_link

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """Return an export named after the container of a fresh link; of the first link without `is_replacement`."""
        link, self._link = self._link, None
        if link is None or is_replacement:
            link = await self._fetch_link()
        name = link.container_name
        record = {"id": name, "status": Status.COMPLETE.value}
        export = Export(id=name, status=Status.COMPLETE, record=record, link=link)
        return Resolution(export, export.id)

    async def open_source(self, resolution: Resolution) -> Container:
        """Open the container of the export's link."""
        first = resolution.export.link
        assert first is not None

        async def fetch() -> tuple[SasUrl, datetime | None]:
            fresh = await self._fetch_link()
            if fresh.base != first.base:
                raise ExportReplaced(
                    f"--link-command prints links to another container than {first.container_name} now"
                )
            return fresh, None

        link = self._clients.make_link(fetch)
        link.set_current(first, None)
        return await self._clients.open_container(link, link)
