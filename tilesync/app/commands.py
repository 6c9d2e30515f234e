"""Commands: for each, build its adapters from a request and run its job."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace
from datetime import datetime, timedelta
from typing import TYPE_CHECKING

from tilesync.app.backends import make_backend
from tilesync.app.destinations import open_destination, open_destination_blocking
from tilesync.app.locations import is_folder, refuse_missing_folder
from tilesync.app.requests import MirrorRequest, Target
from tilesync.app.service import Service, make_mesh_exports, make_rate_limiter, open_clients
from tilesync.app.shared import create_process_pool
from tilesync.app.sources import make_exports_resolver, make_resolver
from tilesync.core.urls import is_cleartext
from tilesync.errors import DamagedPackage, TilesyncError, UsageError, VerifyFailed
from tilesync.events import Warned
from tilesync.model import Export, Resolution, Selector, Version
from tilesync.protocols import Observer
from tilesync.runtime.clock import WallClock
from tilesync.runtime.threads import run_in_thread
from tilesync.stores.opening import Mode

if TYPE_CHECKING:
    from tilesync.app.shared import SharedResources
    from tilesync.jobs.mirror.options import MirrorOptions
    from tilesync.jobs.mirror.publish_hook import PublishHook
    from tilesync.jobs.run.context import RunContext
    from tilesync.jobs.run.stats import RunStats
    from tilesync.jobs.versions.listing import ListedVersion
    from tilesync.jobs.versions.ownership import OwnershipStatus
    from tilesync.jobs.versions.run_history import RunRecording
    from tilesync.protocols import Workers
    from tilesync.sources.resolvers import SourceClients
    from tilesync.stores.local.destination import LocalDestination
    from tilesync.stores.object_store.destination import ObjectDestination
    from tilesync.stores.object_store.draft import WaitForBandwidth
    from tilesync.stores.opening import ReadOnlyDestination


def _refuse_overlap(request: MirrorRequest) -> None:
    """Raise UsageError if SOURCE and DEST are the same, or one contains the other."""
    source = request.source_mirror
    if source is not None and is_folder(source) is is_folder(request.destination):
        identity = make_backend(Target(source, request.source_store_options)).identity
        make_backend(request.target).refuse_source(source, identity)


def _refuse_plain_http_copy(request: MirrorRequest) -> None:
    """Raise UsageError if a server-side copy would send the link of the export to the store over plain http."""
    if request.server_copy and is_cleartext(make_backend(request.target).identity):
        raise UsageError(
            "--server-copy would send the signed link of the export over plain http",
            hint="omit --server-copy, or use https:// for DEST",
        )


def _make_upload_limit(
    request: MirrorRequest, clients: SourceClients, shared: SharedResources | None
) -> WaitForBandwidth | None:
    """Create the limit for uploads: the same rate as for downloads, but counted separately."""
    shared_limit = shared.upload_bandwidth if shared is not None else None
    limiter = make_rate_limiter(request.bwlimit, clients.clock, shared_limit)
    return limiter.wait_for_bandwidth if limiter is not None else None


async def resolve_export(request: MirrorRequest, observe: Observer, shared: SharedResources) -> Resolution:
    """Find the latest finished export of the iModel, and wait for a first one. Raises NoExport and other RunErrors."""
    async with open_clients(request.service, observe, shared=shared) as clients:
        exports = make_mesh_exports(request.service, clients, shared)
        return await exports.find_latest(request.selector, wait=request.wait, poll=request.poll)


async def mirror(
    request: MirrorRequest,
    observe: Observer,
    stats: RunStats,
    *,
    hook: PublishHook | None = None,
    recording: RunRecording | None = None,
    shared: SharedResources | None = None,
    resolved: Resolution | TilesyncError | None = None,
) -> None:
    """Mirror SOURCE to DEST; run `hook` if the pointer has moved, also after an error. Raises the RunErrors.

    `recording`: the record of the run for the history of DEST; None to record nothing. `shared`: resources that other
    runs use too. `resolved`: the export of the iModel, or the error of its search, if the caller has done the search.
    """
    from tilesync.jobs.mirror.job import MirrorJob
    from tilesync.jobs.mirror.publish_hook import run_publish_hook
    from tilesync.jobs.versions.run_history import recorded_run

    _refuse_overlap(request)
    _refuse_plain_http_copy(request)
    if request.cluster is not None:
        from tilesync.app.cluster import make_absolute

        request = replace(request, destination=make_absolute(request.target).location)
    async with (
        open_clients(request.service, observe, bwlimit=request.bwlimit, shared=shared) as clients,
        open_destination(
            request.target,
            Mode.WRITE,
            observe,
            layout=request.layout,
            admission=request.ownership(observe),
            open_client=clients.open_upload_client,
            wait_for_bandwidth=_make_upload_limit(request, clients, shared),
        ) as destination,
        recorded_run(destination, recording, observe),
    ):
        workers = _make_workers(request, clients, destination, shared)
        run = _make_run_context(request, clients, stats, workers=workers, shared=shared)
        options = _make_mirror_options(request, observe)
        try:
            if request.all_exports:
                from tilesync.jobs.mirror.all_exports import AllExportsMirror

                exports = await make_exports_resolver(request, clients, shared)
                await AllExportsMirror(exports, destination, run, options).run()
            else:
                resolver = await make_resolver(request, clients, shared, resolved=resolved)
                await MirrorJob(resolver, destination, run, options).run()
        except TilesyncError as error:
            try:
                await run_publish_hook(destination, hook, error=error)
            except TilesyncError as hook_error:
                observe(Warned(str(hook_error)))
            raise
        await run_publish_hook(destination, hook)


async def mirror_dry_run(
    request: MirrorRequest,
    observe: Observer,
    stats: RunStats,
    *,
    shared: SharedResources | None = None,
    resolved: Resolution | TilesyncError | None = None,
) -> None:
    """Report what `mirror` would do, without writing to DEST. Raises the RunErrors."""
    from tilesync.jobs.mirror.dry_run import DryRun
    from tilesync.jobs.mirror.dry_run_consequences import PlanInputs
    from tilesync.jobs.mirror.dry_run_walk import ScratchSpace
    from tilesync.stores.local.scratch_files import open_scratch_files

    _refuse_overlap(request)
    _refuse_plain_http_copy(request)
    with open_scratch_files() as scratch:
        async with (
            open_destination(
                request.target, Mode.PLAN, observe, layout=request.layout, admission=request.ownership(observe)
            ) as dest,
            open_clients(request.service, observe, bwlimit=request.bwlimit, shared=shared) as clients,
        ):
            assert dest.catalog is not None
            inputs = PlanInputs(
                dest.catalog, dest.files, dest.publication, dest.check_names, ScratchSpace(*scratch), dest.layout
            )
            run = _make_run_context(request, clients, stats, shared=shared)
            dry_run = DryRun(inputs, run, _make_mirror_options(request, observe))
            if request.all_exports:
                await dry_run.run_all(await make_exports_resolver(request, clients, shared))
            else:
                await dry_run.run(await make_resolver(request, clients, shared, resolved=resolved))


def _make_mirror_options(request: MirrorRequest, observe: Observer) -> MirrorOptions:
    from tilesync.jobs.mirror.options import MirrorOptions

    return MirrorOptions(
        request.inventory,
        request.globs,
        allow_missing=request.allow_missing,
        allow_shrink=request.allow_shrink,
        move_pointer=request.publish,
        retention=request.retention,
        delete_limit=request.delete_limit,
        content=request.content,
        ownership=request.ownership(observe),
        presence_time=request.presence_time,
    )


def _make_workers(
    request: MirrorRequest,
    clients: SourceClients,
    destination: LocalDestination | ObjectDestination,
    shared: SharedResources | None,
) -> Workers | None:
    """Create the workers; None with a bandwidth limit, a proxy or server-side copy, which workers do not support.

    Raises UsageError if workers of a cluster are asked for, and cannot be used.
    """
    from tilesync.app.workers import PoolWorkers
    from tilesync.transport.tls import load_proxies

    main_process_only = clients.bandwidth is not None or request.server_copy or load_proxies()
    find_target = None if main_process_only else destination.files.worker_target_finder()
    if request.cluster is not None:
        from tilesync.app.cluster import make_cluster_workers

        if find_target is None:
            raise UsageError(
                "the workers of a cluster cannot write to this destination as these options ask",
                hint="run without --bwlimit, --server-copy and proxies, or without --cluster",
            )
        return make_cluster_workers(
            request.cluster, request.target, clients.observe, clients.exit_stack, find_target=find_target
        )
    if find_target is None:
        return None
    pool = create_process_pool(clients.exit_stack) if shared is None else shared.process_pool()
    return PoolWorkers(pool, destination.files.worker_reader(), find_target) if pool is not None else None


def _make_run_context(
    request: MirrorRequest,
    clients: SourceClients,
    stats: RunStats,
    *,
    workers: Workers | None = None,
    shared: SharedResources | None = None,
) -> RunContext:
    from tilesync.jobs.run.concurrency import ConcurrencyLimiter
    from tilesync.jobs.run.context import RunContext

    shared_limit = shared.transfers if shared is not None else None
    limiter = ConcurrencyLimiter(clients.clock, fixed_limit=request.transfers, shared=shared_limit)
    return RunContext(
        clients.clock,
        clients.observe,
        stats,
        limiter,
        retry_for=request.service.retry_for,
        reports_every_file=request.every_file,
        workers=workers,
        allows_server_copy=request.server_copy,
    )


async def list_exports(
    service: Service, imodel: str | None, observe: Observer, on_export: Callable[[Export], None]
) -> None:
    """Call `on_export` for each export that the identity can see, newest changeset first. Raises the RunErrors."""
    async with open_clients(service, observe) as clients:
        async for page in make_mesh_exports(service, clients).pages(Selector(imodel=imodel)):
            for export in page.rows:
                on_export(export)


async def viewer_link(
    service: Service, selector: Selector, observe: Observer, *, cdn: bool, wait: timedelta, poll: timedelta
) -> tuple[str, datetime | None]:
    """Return the URL of the root tileset for viewers, a secret, and when it expires (None: unknown)."""
    async with open_clients(service, observe) as clients:
        exports = make_mesh_exports(service, clients)
        resolution = await exports.find_latest(selector, wait=wait, poll=poll)
        link, _ = await exports.fetch_link(resolution.export, cdn=cdn)
        return link.viewer_url(), link.expires


async def rollback(
    target: Target, observe: Observer, name: str | None, *, latest: bool, hook: PublishHook | None = None
) -> Version:
    """Publish an older version and pin it, or with `latest` the newest again. Raises the RunErrors."""
    from tilesync.jobs.mirror.publish_hook import run_publish_hook
    from tilesync.jobs.run.concurrency import ConcurrencyLimiter
    from tilesync.jobs.run.context import RunContext
    from tilesync.jobs.run.stats import RunStats
    from tilesync.jobs.versions.rollback import rollback as run

    clock = WallClock()
    async with open_destination(target, Mode.WRITE, observe) as destination:
        context = RunContext(
            clock, observe, RunStats(), ConcurrencyLimiter(clock, fixed_limit=1), retry_for=timedelta()
        )
        version = await run(destination, context, name, latest=latest)
        await run_publish_hook(destination, hook)
        return version


def list_versions(
    target: Target, observe: Observer, *, retired: bool = False
) -> tuple[list[ListedVersion], OwnershipStatus]:
    """Return the versions of a destination, with `retired` the deleted ones too, and its owner."""
    from tilesync.jobs.versions.listing import list_versions as list_stored_versions
    from tilesync.jobs.versions.ownership import read_ownership_status

    with open_destination_blocking(target, observe) as destination:
        status = read_ownership_status(destination.publication)
        versions = list_stored_versions(destination.publication, destination.catalog, observe, include_retired=retired)
        return versions, status


def sha256sums(target: Target, version: str, observe: Observer) -> Iterator[str]:
    """Yield the lines of `sha256sum -c` for the folder of a version. Raises UsageError, DestinationError."""
    from tilesync.jobs.versions.listing import list_sha256sums
    from tilesync.jobs.versions.resolve import resolve_version

    with open_destination_blocking(target, observe) as destination:
        name = resolve_version(destination.publication, version)
        yield from list_sha256sums(destination.publication, name)


async def verify(
    target: Target,
    observe: Observer,
    stats: RunStats,
    *,
    quick: bool,
    all_versions: bool = False,
    cluster: str | None = None,
) -> None:
    """Verify the files of the current version, or of all versions. `cluster`: address of one whose workers read them.

    Raises VerifyFailed for findings, and for a package that is too damaged to be opened.
    """
    from tilesync.jobs.verify import AuditInputs, VerifyJob
    from tilesync.stores.local.scratch_files import open_scratch_files

    refuse_missing_folder(target.location)
    if cluster is not None:
        from tilesync.app.cluster import make_absolute

        target = make_absolute(target)
    try:
        with open_scratch_files() as scratch:
            async with open_destination(target, Mode.AUDIT, observe) as destination, AsyncExitStack() as closing:
                workers = await _make_verify_workers(destination, target, observe, closing, cluster)
                inputs = AuditInputs(
                    destination.files,
                    destination.publication,
                    destination.catalog,
                    scratch[0],
                    workers,
                    destination.structure_checks,
                )
                await VerifyJob(inputs, observe, stats, quick=quick).run(all_versions=all_versions)
    except DamagedPackage as error:
        raise VerifyFailed(str(error), hint=error.hint) from error


async def _make_verify_workers(
    destination: ReadOnlyDestination,
    target: Target,
    observe: Observer,
    exit_stack: AsyncExitStack,
    cluster: str | None,
) -> Workers | None:
    """Create workers that verify; None where they cannot: they use no proxies. Raises UsageError for a cluster then."""
    from tilesync.app.workers import PoolWorkers
    from tilesync.transport.tls import load_proxies

    reader = await run_in_thread(destination.files.worker_reader)
    make_store = None if load_proxies() else destination.make_worker_store
    can_use_workers = reader is not None or make_store is not None
    if cluster is not None:
        from tilesync.app.cluster import make_cluster_workers

        if not can_use_workers:
            raise UsageError("the workers of a cluster cannot read this destination: they use no proxies")
        return make_cluster_workers(cluster, target, observe, exit_stack, files=reader, make_store=make_store)
    pool = create_process_pool(exit_stack) if can_use_workers else None
    return PoolWorkers(pool, reader, make_store=make_store) if pool is not None else None
