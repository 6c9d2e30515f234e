"""Sources: create the resolver that SOURCE needs: an iModel, a container link, or a mirror of tilesync."""

from __future__ import annotations

from functools import partial
from time import monotonic
from typing import TYPE_CHECKING

from tilesync.app.locations import Location
from tilesync.app.requests import MirrorRequest, Target
from tilesync.app.service import make_mesh_exports
from tilesync.azure.sas import parse_sas_link
from tilesync.errors import NotAuthorised, TilesyncError, UsageError
from tilesync.model import Resolution, SasUrl
from tilesync.protocols import SourceResolver
from tilesync.stores.opening import Mode

if TYPE_CHECKING:
    from tilesync.app.shared import SharedResources
    from tilesync.sources.mirror_resolver import MirrorResolver
    from tilesync.sources.resolvers import ServiceResolver, SourceClients


async def make_resolver(
    request: MirrorRequest,
    clients: SourceClients,
    shared: SharedResources | None = None,
    *,
    resolved: Resolution | TilesyncError | None = None,
) -> SourceResolver:
    """Create the resolver of SOURCE to one export. `resolved`: that of an iModel, or the error of its search."""
    from tilesync.sources.resolvers import LinkResolver

    if request.link is None:
        return await make_exports_resolver(request, clients, shared, resolved=resolved)
    refresh = partial(run_link_command, request.link_command) if request.link_command else None
    return LinkResolver(request.link, clients, fetch_link=refresh)


async def make_exports_resolver(
    request: MirrorRequest,
    clients: SourceClients,
    shared: SharedResources | None = None,
    *,
    resolved: Resolution | TilesyncError | None = None,
) -> ServiceResolver | MirrorResolver:
    """Create the resolver of SOURCE to one export or to all; only an iModel and a mirror have several."""
    return (
        _make_service_resolver(request, clients, shared, resolved)
        if request.source_mirror is None
        else await _make_mirror_resolver(request.source_mirror, request, clients)
    )


async def _make_mirror_resolver(source: Location, request: MirrorRequest, clients: SourceClients) -> MirrorResolver:
    from tilesync.app.destinations import open_destination
    from tilesync.sources.mirror_resolver import MirrorResolver

    stored = await clients.exit_stack.enter_async_context(
        open_destination(Target(source, request.source_store_options), Mode.READ, clients.observe)
    )
    throttle = clients.bandwidth.wait_for_bandwidth if clients.bandwidth is not None else None
    return MirrorResolver(
        stored.publication, stored.files, request.selector, str(source), clients.observe, throttle=throttle
    )


def _make_service_resolver(
    request: MirrorRequest,
    clients: SourceClients,
    shared: SharedResources | None,
    resolved: Resolution | TilesyncError | None,
) -> ServiceResolver:
    from tilesync.sources.resolvers import ServiceResolver

    return ServiceResolver(
        make_mesh_exports(request.service, clients, shared),
        request.selector,
        clients,
        wait=request.wait,
        poll=request.poll,
        cdn=request.cdn,
        resolved=resolved,
    )


async def run_link_command(command: str) -> SasUrl:
    """Run the link command and return the container link that it prints. Raises NotAuthorised."""
    from tilesync.itwin.auth import run_command

    printed = await run_command(command, "--link-command")
    try:
        return parse_sas_link(printed, fetched=monotonic())
    except UsageError as error:
        raise NotAuthorised(
            f"the output of --link-command cannot be used: {error}",
            hint="the command must print https://ACCOUNT.blob.core.windows.net/CONTAINER?SAS and nothing else",
        ) from None
