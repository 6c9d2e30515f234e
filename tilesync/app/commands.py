"""Assembly: the only module that puts adapters together. Request in, job run, outcome out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from tilesync.app.destinations import (
    open_destination,
    open_destination_for_audit,
    open_destination_for_plan,
    put_target_finder,
    refuse_client,
)
from tilesync.app.requests import Location, StoreOptions, Target, container_url
from tilesync.app.service import Service, make_mesh_exports, open_clients
from tilesync.azure.sas import parse_sas_link
from tilesync.core.guards import DeleteLimit
from tilesync.core.ownership import RequestedOwner
from tilesync.core.retention import KEEP_ALL_VERSIONS, RetentionPolicy
from tilesync.core.urls import is_cleartext
from tilesync.errors import NotAuthorised, TilesyncError, UsageError
from tilesync.events import Warned
from tilesync.model import EVERYTHING, Content, Export, Globs, Inventory, Layout, SasUrl, Selector, Version
from tilesync.model.storage import AzureLocation
from tilesync.protocols import Destination, Observer, SourceResolver
from tilesync.runtime.clock import WallClock

if TYPE_CHECKING:
    from tilesync.jobs.mirror.job import MirrorOptions
    from tilesync.jobs.mirror.publish_hook import PublishHook
    from tilesync.jobs.run.context import RunContext
    from tilesync.jobs.run.stats import RunStats
    from tilesync.jobs.versions.listing import ListedVersion
    from tilesync.jobs.versions.ownership import OwnershipRequest, OwnershipStatus
    from tilesync.protocols import Workers
    from tilesync.runtime.process_pool import ProcessPool
    from tilesync.sources.mirror_resolver import MirrorResolver
    from tilesync.sources.resolvers import ServiceResolver, SourceClients
    from tilesync.stores.object_store.files import WaitForBandwidth

MAX_WORKERS = 4
"""Processes that help at most: behind them stand the catalog, and the disk."""


def count_cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class MirrorRequest:
    """What `tilesync mirror` is asked to do. `link` is set when SOURCE is a container link instead of an iModel, `held`
    when it is a place that tilesync filled.
    """

    service: Service
    selector: Selector
    destination: Location
    link: SasUrl | None = None
    link_command: str | None = None
    cdn: bool = False
    wait: timedelta = timedelta(minutes=10)
    poll: timedelta = timedelta(seconds=15)
    transfers: int | None = None
    bwlimit: float | None = None
    state_dir: Path | None = None
    reach: StoreOptions = field(default_factory=StoreOptions)
    every_file: bool = False
    allow_shrink: bool = False
    allow_missing: bool = False
    inventory: Inventory | None = None
    globs: Globs = EVERYTHING
    all_exports: bool = False
    publish: bool = True
    keep: RetentionPolicy = KEEP_ALL_VERSIONS
    layout: Layout = Layout.VERSIONED
    delete: DeleteLimit | None = None
    server_copy: bool = False
    held: Location | None = None
    content: Content = Content.STORED
    adopt: bool = False
    source_reach: StoreOptions = field(default_factory=StoreOptions)

    @property
    def where(self) -> Target:
        """The destination."""
        return Target(self.destination, self.reach, self.state_dir)

    def ownership(self, observe: Observer) -> OwnershipRequest:
        """Whose exports are asked for, as far as nobody needs to be asked, and whether DEST is to become theirs."""
        from tilesync.jobs.versions.ownership import OwnershipRequest

        asked = RequestedOwner("" if self.held is not None else self.selector.imodel or "")
        if self.link is not None:
            asked = RequestedOwner(self.link.base, self.link.container_name)
        return OwnershipRequest(asked, str(self.destination), observe, self.adopt)


def _make_origin(request: MirrorRequest, clients: SourceClients) -> SourceResolver:
    from tilesync.sources.resolvers import LinkResolver

    if request.link is None:
        return _make_exports(request, clients)
    refresh = partial(_run_link_command, request.link_command) if request.link_command else None
    return LinkResolver(request.link, clients, fetch_link=refresh)


def _make_exports(request: MirrorRequest, clients: SourceClients) -> ServiceResolver | MirrorResolver:
    """What can tell one export and all of them."""
    return (
        _make_service_origin(request, clients)
        if request.held is None
        else _make_mirror_origin(request.held, request, clients)
    )


def _make_mirror_origin(source: Location, request: MirrorRequest, clients: SourceClients) -> MirrorResolver:
    from tilesync.app.destinations import open_destination_for_reading
    from tilesync.sources.mirror_resolver import MirrorResolver

    sight = clients.exit_stack.enter_context(
        open_destination_for_reading(Target(source, request.source_reach), clients.observe)
    )
    pace = clients.bandwidth.wait_for_bandwidth if clients.bandwidth is not None else None
    return MirrorResolver(sight.publication, sight.files, request.selector, str(source), clients.observe, throttle=pace)


def _refuse_overlap(request: MirrorRequest) -> None:
    """Raise UsageError where a place is to be mirrored to itself."""
    from tilesync.stores.local.destination import refuse_overlap

    source, destination = request.held, request.destination
    if isinstance(source, Path) and isinstance(destination, Path):
        refuse_overlap(source, destination, request.state_dir)
    elif source is not None and not isinstance(source, Path) and not isinstance(destination, Path):
        one, other = Target(source, request.source_reach).identity, request.where.identity
        if one == other:
            raise UsageError(f"SOURCE and DEST are one place: {source}")
        if one.startswith(other) or other.startswith(one):
            raise UsageError("one of SOURCE and DEST lies in the other", hint="choose a DEST beside it")


def _refuse_plain_http_copy(request: MirrorRequest) -> None:
    """Raise UsageError where the store would be told the link of the export, to copy from it, over plain http."""
    place = request.destination
    if request.server_copy and isinstance(place, AzureLocation) and is_cleartext(container_url(place, request.reach)):
        raise UsageError(
            "--server-copy would send the signed link of the export over plain http",
            hint="leave it away, or reach DEST over https://",
        )


def _make_service_origin(request: MirrorRequest, clients: SourceClients) -> ServiceResolver:
    from tilesync.sources.resolvers import ServiceResolver

    exports = make_mesh_exports(request.service, clients)
    return ServiceResolver(exports, request.selector, clients, wait=request.wait, poll=request.poll, cdn=request.cdn)


async def _run_link_command(command: str) -> SasUrl:
    """The container link that a command prints."""
    from tilesync.itwin.auth import run_command

    printed = await run_command(command, "--link-command")
    try:
        return parse_sas_link(printed, fetched=monotonic())
    except UsageError as error:
        raise NotAuthorised(
            f"the output of --link-command cannot be used: {error}",
            hint="it must print https://ACCOUNT.blob.core.windows.net/CONTAINER?SAS and nothing else",
        ) from None


def _make_upload_limit(request: MirrorRequest, clients: SourceClients) -> WaitForBandwidth | None:
    """How fast bytes may leave: as fast as they may come, each way by itself."""
    from tilesync.transport.rate_limit import RateLimiter

    return RateLimiter(request.bwlimit, clients.clock).wait_for_bandwidth if request.bwlimit else None


async def mirror(
    request: MirrorRequest, observe: Observer, stats: RunStats, *, hook: PublishHook | None = None
) -> None:
    """Run the main job; `announce` is told when the pointer has moved. Raises the RunErrors."""
    from tilesync.jobs.mirror.job import MirrorJob
    from tilesync.jobs.mirror.publish_hook import run_publish_hook

    _refuse_overlap(request)
    _refuse_plain_http_copy(request)
    async with (
        open_clients(request.service, observe, bwlimit=request.bwlimit) as wires,
        open_destination(
            request.where,
            request.layout,
            wires.open_upload_client,
            observe,
            request.ownership(observe),
            wait_for_bandwidth=_make_upload_limit(request, wires),
        ) as destination,
    ):
        run = _make_run_context(request, wires, stats, _make_workers(request, wires, destination))
        wishes = _make_mirror_options(request, observe)
        try:
            if request.all_exports:
                from tilesync.jobs.mirror.all_exports import AllExportsMirror

                await AllExportsMirror(_make_exports(request, wires), destination, run, wishes).run()
            else:
                await MirrorJob(_make_origin(request, wires), destination, run, wishes).run()
        except TilesyncError as error:
            try:
                await run_publish_hook(destination, hook, error=error)
            except TilesyncError as unheard:
                observe(Warned(str(unheard)))
            raise
        await run_publish_hook(destination, hook)


async def mirror_dry_run(request: MirrorRequest, observe: Observer, stats: RunStats) -> None:
    """Say what the main job would do, and write nothing. Raises the RunErrors."""
    from tilesync.jobs.mirror.dry_run import DryRun, PlanInputs
    from tilesync.jobs.mirror.dry_run_walk import ScratchSpace
    from tilesync.stores.local.destination import open_scratch_files

    _refuse_overlap(request)
    _refuse_plain_http_copy(request)
    with (
        open_destination_for_plan(request.where, request.layout, observe, request.ownership(observe)) as there,
        open_scratch_files() as desk,
    ):
        assert there.catalog is not None
        async with open_clients(request.service, observe, bwlimit=request.bwlimit) as wires:
            view = PlanInputs(
                there.catalog, there.files, there.publication, there.check_names, ScratchSpace(*desk), there.layout
            )
            plan = DryRun(view, _make_run_context(request, wires, stats), _make_mirror_options(request, observe))
            if request.all_exports:
                await plan.run_all(_make_exports(request, wires))
            else:
                await plan.run(_make_origin(request, wires))


def _make_mirror_options(request: MirrorRequest, observe: Observer) -> MirrorOptions:
    from tilesync.jobs.mirror.job import MirrorOptions

    return MirrorOptions(
        request.inventory,
        request.globs,
        allow_missing=request.allow_missing,
        allow_shrink=request.allow_shrink,
        move_pointer=request.publish,
        retention=request.keep,
        delete_limit=request.delete,
        content=request.content,
        ownership=request.ownership(observe),
    )


def _make_process_pool(closing: AsyncExitStack) -> ProcessPool | None:
    """A process a core, where there is more than one. Not on Windows, whose pipes asyncio cannot read."""
    from tilesync.runtime.process_pool import ProcessPool

    size = min(count_cores(), MAX_WORKERS)
    if size < 2 or not sys.executable or os.name == "nt":
        return None
    crew = ProcessPool(size)
    closing.push_async_callback(crew.aclose)
    return crew


def _make_workers(request: MirrorRequest, clients: SourceClients, destination: Destination) -> Workers | None:
    """A limited bandwidth is kept by this process alone, and helpers know no proxies; nor what a store does itself."""
    from tilesync.app.workers import ProcessWorkers
    from tilesync.stores.local.writer import LocalFiles
    from tilesync.transport.tls import load_proxies

    alone = request.bwlimit or request.server_copy or load_proxies()
    shelf = None if alone else put_target_finder(destination.files, request.reach.serving)
    crew = _make_process_pool(clients.exit_stack) if shelf is not None else None
    if crew is None:
        return None
    files = destination.files
    return ProcessWorkers(crew, files.reader() if isinstance(files, LocalFiles) else None, shelf)


def _make_run_context(
    request: MirrorRequest,
    clients: SourceClients,
    stats: RunStats,
    workers: Workers | None = None,
) -> RunContext:
    from tilesync.jobs.run.concurrency import ConcurrencyLimiter
    from tilesync.jobs.run.context import RunContext

    gate = ConcurrencyLimiter(clients.clock, fixed_limit=request.transfers)
    return RunContext(
        clients.clock,
        clients.observe,
        stats,
        gate,
        retry_for=request.service.retry_for,
        reports_every_file=request.every_file,
        workers=workers,
        allows_server_copy=request.server_copy,
    )


async def list_exports(
    service: Service, imodel: str | None, observe: Observer, on_export: Callable[[Export], None]
) -> None:
    """Tell every export that the identity can see, newest changeset first."""
    async with open_clients(service, observe) as wires:
        async for page in make_mesh_exports(service, wires).pages(Selector(imodel=imodel)):
            for export in page.rows:
                on_export(export)


async def viewer_link(
    service: Service, selector: Selector, observe: Observer, *, cdn: bool, wait: timedelta, poll: timedelta
) -> tuple[str, datetime | None]:
    """The URL that a viewer starts from, a secret; and when it ends."""
    async with open_clients(service, observe) as clients:
        exports = make_mesh_exports(service, clients)
        resolution = await exports.find_latest(selector, wait=wait, poll=poll)
        link, _ = await exports.fetch_link(resolution.export, cdn=cdn)
        return link.viewer_url(), link.expires


async def rollback(
    target: Target, observe: Observer, name: str | None, *, latest: bool, hook: PublishHook | None = None
) -> Version:
    """Point back at an older version and pin it, or with `latest` at the newest again. Raises the RunErrors."""
    from tilesync.jobs.mirror.publish_hook import run_publish_hook
    from tilesync.jobs.run.concurrency import ConcurrencyLimiter
    from tilesync.jobs.run.context import RunContext
    from tilesync.jobs.run.stats import RunStats
    from tilesync.jobs.versions.rollback import rollback as run

    clock = WallClock()
    async with open_destination(target, None, refuse_client, observe) as there:
        about = RunContext(clock, observe, RunStats(), ConcurrencyLimiter(clock, fixed_limit=1), retry_for=timedelta())
        version = await run(there, about, name, latest=latest)
        await run_publish_hook(there, hook)
        return version


def list_versions(
    target: Target, observe: Observer, *, retired: bool = False
) -> tuple[list[ListedVersion], OwnershipStatus]:
    """The versions of a destination, and where `retired` is asked for those that it had; and who owns it."""
    from tilesync.jobs.versions.listing import list_versions as list_them
    from tilesync.jobs.versions.ownership import read_ownership_status

    with open_destination_for_audit(target, observe) as there:
        status = read_ownership_status(there.publication)
        return list_them(there.publication, there.catalog, observe, include_retired=retired), status


def sha256sums(target: Target, version: str, observe: Observer) -> Iterator[str]:
    """The lines of `sha256sum -c` for the folder of a version. Raises UsageError, DestinationError."""
    from tilesync.core.safe_names import resolve_version_name
    from tilesync.jobs.versions.listing import list_sha256sums

    with open_destination_for_audit(target, observe) as there:
        name = resolve_version_name(version, there.publication.manifest_names())
        yield from list_sha256sums(there.publication, name)


async def verify(
    target: Target, observe: Observer, stats: RunStats, *, quick: bool, all_versions: bool = False
) -> None:
    """Audit what a destination holds: the current version, or `every` one. Raises VerifyFailed for findings."""
    from tilesync.jobs.verify import AuditInputs, VerifyJob
    from tilesync.stores.local.destination import open_scratch_files
    from tilesync.stores.local.reader import LocalStoredFiles

    with (
        open_destination_for_audit(target, observe) as there,
        open_scratch_files() as desk,
    ):
        async with AsyncExitStack() as closing:
            from tilesync.app.workers import ProcessWorkers

            files = there.files
            crew = _make_process_pool(closing) if isinstance(files, LocalStoredFiles) else None
            helpers = ProcessWorkers(crew, files) if crew and isinstance(files, LocalStoredFiles) else None
            found = AuditInputs(files, there.publication, there.catalog, desk[0], helpers)
            await VerifyJob(found, observe, stats, quick=quick).run(all_versions=all_versions)
