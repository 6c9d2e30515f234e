"""Live exports: assemble a tileset that is served from the container of an export."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from functools import partial
from typing import TYPE_CHECKING

from tilesync.app.locations import find_last_part
from tilesync.app.service import Service, make_mesh_exports, open_clients
from tilesync.app.sources import run_link_command
from tilesync.errors import UsageError
from tilesync.model import SasUrl, Selector
from tilesync.protocols import Observer, SourceResolver
from tilesync.runtime.clock import WallClock
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.serving.live.tileset import LiveTileset
    from tilesync.sources.resolvers import SourceClients
    from tilesync.transport.blob_client import BlobClient

MIN_CACHE_BYTES = 16_000_000
"""Smallest cache in bytes: an eighth of it is the largest file that it keeps."""


@dataclass(frozen=True)
class LiveRequest:
    """Options of a live export: the iModel of `selector`, or a container link.

    `follow`: take up newer exports, looked for every `poll`. `wait`: how long to wait for a first finished export.
    `cache_bytes`: size of the cache in memory. `title`: name for people, if the export has none.
    """

    service: Service
    selector: Selector
    wait: timedelta
    poll: timedelta
    cache_bytes: int
    link: SasUrl | None = None
    link_command: str | None = None
    cdn: bool = False
    follow: bool = False
    title: str = ""

    def check(self) -> None:
        """Raise UsageError for options that contradict each other."""
        refused = (
            (
                self.follow and self.link is not None and not self.link_command,
                "--follow needs an iModel id, or --link-command: a link is for one export",
            ),
            (
                self.follow and self.selector.export_id,
                "--follow and --export-id contradict each other: a newer export has another id",
            ),
            (self.cdn and self.link is not None, "--cdn needs an iModel id: a container link is used as it is"),
            (self.cache_bytes < MIN_CACHE_BYTES, f"--cache-size must be at least {MIN_CACHE_BYTES // 1_000_000} MB"),
            (self.poll <= timedelta(), "--poll must be longer than 0 s"),
        )
        for is_refused, message in refused:
            if is_refused:
                raise UsageError(message)


@asynccontextmanager
async def open_live_tileset(request: LiveRequest, observe: Observer) -> AsyncIterator[LiveTileset]:
    """Open the newest finished export, and watch over it as long as the context lasts.

    Raises UsageError, and the RunErrors of a search for an export.
    """
    from tilesync.serving.live.cache import MemoryCache
    from tilesync.serving.live.context import Announcer, LiveContext
    from tilesync.serving.live.tileset import LiveOptions, LiveTileset

    request.check()
    announcer = Announcer(observe, WallClock())
    async with open_clients(request.service, announcer) as clients:
        context = LiveContext(
            clients.clock,
            announcer,
            MemoryCache(request.cache_bytes),
            retry_for=request.service.retry_for,
        )
        options = LiveOptions(request.follow, request.poll, find_last_part(request.title))
        tileset = LiveTileset(_make_resolver(request, _share_blob_client(clients)), context, options)
        async with tileset.running():
            yield tileset


def _share_blob_client(clients: SourceClients) -> SourceClients:
    """Return the clients with one connection pool for all containers that are opened one after the other."""
    opening: list[Awaitable[BlobClient]] = []

    async def open_once() -> BlobClient:
        if not opening:
            opening.append(asyncio.ensure_future(clients.open_blob_client()))
        return await opening[0]

    return replace(clients, open_blob_client=open_once)


def _make_resolver(request: LiveRequest, clients: SourceClients) -> SourceResolver:
    from tilesync.sources.followed_link import FollowedLinkResolver
    from tilesync.sources.resolvers import LinkResolver, ServiceResolver

    if request.link is None:
        return ServiceResolver(
            make_mesh_exports(request.service, clients),
            request.selector,
            clients,
            wait=request.wait,
            poll=min(request.poll, timedelta(seconds=15)),
            cdn=request.cdn,
        )
    fetch = partial(run_link_command, request.link_command) if request.link_command else None
    if fetch is not None and request.follow:
        return FollowedLinkResolver(request.link, clients, fetch_link=fetch)
    return LinkResolver(request.link, clients, fetch_link=fetch)
