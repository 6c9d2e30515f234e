"""Assembly of the server: open what it serves, and run it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, closing
from dataclasses import field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from tilesync.app.live import LiveRequest, open_live_tileset
from tilesync.app.locations import find_last_part, is_package, match_location
from tilesync.app.requests import Target
from tilesync.core.urls import is_loopback
from tilesync.errors import DestinationError
from tilesync.events import Serving, Warned
from tilesync.protocols import Observer
from tilesync.stores.opening import Mode, ReadOnlyDestination
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.serving.comparisons import ComparedVersions, SharedComparisons
    from tilesync.serving.mirror import MirrorParts
    from tilesync.serving.tilesets import ServedTileset, TilesetKind


@dataclass(frozen=True)
class TilesetRequest:
    """A tileset to serve: its name in URLs, its title without secrets, and the destination or live export of it."""

    name: str
    title: str
    what: Target | LiveRequest


@dataclass(frozen=True)
class ServeRequest:
    """Options of `tilesync serve`.

    `token`: empty lets everybody in. `entry_code`: a one-time code for a browser, instead of the token. `origins`:
    origins whose pages may read the answers, or `*`. `every_request`: send an event for each.
    """

    tilesets: Sequence[TilesetRequest]
    host: str = "127.0.0.1"
    port: int = 8000
    token: str = field(default="", repr=False)
    entry_code: str = field(default="", repr=False)
    origins: tuple[str, ...] = ("*",)
    every_request: bool = False


async def serve(request: ServeRequest, observe: Observer) -> None:
    """Serve until cancelled. Raises the RunErrors if a tileset cannot be opened, or the port cannot be used."""
    from tilesync.serving.access import CorsPolicy, OneTimeCode, TokenGuard
    from tilesync.serving.application import ServedSite, TilesetApplication
    from tilesync.serving.comparisons import SharedComparisons
    from tilesync.serving.server import (
        bound_sockets,
        find_network_pages,
        find_origin,
        require_server_packages,
        run_server,
    )
    from tilesync.serving.site import create_site

    require_server_packages()
    with bound_sockets(request.host, request.port) as sockets:
        async with AsyncExitStack() as exits:
            comparisons = SharedComparisons()
            tilesets: dict[str, ServedTileset] = {
                each.name: await exits.enter_async_context(open_tileset(each, comparisons, observe))
                for each in request.tilesets
            }
            exits.push_async_callback(comparisons.aclose)  # before what they read is closed
            served, guard = ServedSite(tilesets), TokenGuard(request.token)
            application = TilesetApplication(
                served,
                create_site(served, guard, OneTimeCode(request.entry_code)),
                guard=guard,
                cors=CorsPolicy(request.origins),
                observe=observe,
                every_request=request.every_request,
            )
            origin = find_origin(request.host, sockets)
            urls = tuple(f"{origin}/{served.base(name)}tileset.json" for name in tilesets)
            network = find_network_pages(request.host, sockets)
            _warn_of_readers(request, sockets[0].getsockname()[1], observe)
            await run_server(application, sockets, on_listening=lambda: observe(Serving(f"{origin}/", urls, network)))


def _warn_of_readers(request: ServeRequest, port: int, observe: Observer) -> None:
    """Warn if everybody who reaches this machine may read the tiles."""
    if not request.token and request.host != "localhost" and not is_loopback(request.host):
        observe(
            Warned(
                f"everybody who can reach port {port} of this machine can read these tiles: with --token, only those"
                " who have it"
            )
        )


@asynccontextmanager
async def open_tileset(
    request: TilesetRequest, comparisons: SharedComparisons, observe: Observer
) -> AsyncIterator[ServedTileset]:
    """Open a destination or a live export to serve."""
    if isinstance(request.what, LiveRequest):
        async with open_live_tileset(request.what, observe) as tileset:
            yield tileset
    else:
        async with _open_reopened(request, request.what, comparisons, observe) as tileset:
            yield tileset


@asynccontextmanager
async def _open_reopened(
    request: TilesetRequest, target: Target, comparisons: SharedComparisons, observe: Observer
) -> AsyncIterator[ServedTileset]:
    """Open a destination. One on a disk is opened again when its path leads elsewhere."""
    from tilesync.serving.reopening import ReopenedTileset

    open_once = partial(_open_mirror, request, target, comparisons, observe)
    path = match_location(target.location, folder=Path, azure=lambda _: None, s3=lambda _: None)
    if path is None:
        async with open_once() as tileset:
            yield tileset
        return
    paths = [path] if target.state_dir is None else [path, target.state_dir]
    reopened = ReopenedTileset(request.name, paths, open_once, observe)
    async with reopened.running():
        yield reopened


@asynccontextmanager
async def _open_mirror(
    request: TilesetRequest, target: Target, comparisons: SharedComparisons, observe: Observer
) -> AsyncIterator[ServedTileset]:
    from tilesync.app.destinations import open_destination
    from tilesync.serving.mirror import MirrorTileset

    async with open_destination(target, Mode.READ, observe) as destination, AsyncExitStack() as exits:
        parts = await _make_parts(request, target, destination, exits)
        with closing(MirrorTileset(parts, partial(_compare_versions, destination), comparisons)) as tileset:
            yield tileset


async def _make_parts(
    request: TilesetRequest, target: Target, destination: ReadOnlyDestination, exits: AsyncExitStack
) -> MirrorParts:
    """Return the parts of a destination. Raises DestinationError if it is none."""
    from tilesync.runtime.threads import run_in_thread
    from tilesync.serving.mirror import MirrorParts

    title = find_last_part(request.title)
    publication, policy = destination.publication, target.store_options.serving
    if await run_in_thread(publication.is_vacant):
        raise DestinationError(
            f"no version is stored in {request.title}", hint="give a DEST that `tilesync mirror` has filled"
        )
    files = exits.enter_context(destination.open_public_files())
    return MirrorParts(title, files, publication, destination.layout, _find_kind(target), cache_policy=policy)


def _find_kind(target: Target) -> TilesetKind:
    from tilesync.serving.tilesets import TilesetKind

    return TilesetKind.PACKAGE if is_package(target.location) else TilesetKind.MIRROR


def _compare_versions(destination: ReadOnlyDestination, a: str, b: str) -> ComparedVersions:
    """Compare as `tilesync diff DEST A B --json` does."""
    from tilesync.jobs.diff.job import compare_versions
    from tilesync.serving.comparisons import ComparedVersions

    diff = compare_versions(destination.publication, a, b)
    return ComparedVersions(diff.json_pieces, diff.changes.close)
