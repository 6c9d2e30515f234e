"""Commands: for each, build its adapters from a request and run its job."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, nullcontext
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from tilesync.app.destinations import (
    STORE_THREADS,
    open_destination,
    open_destination_for_audit,
    open_destination_for_plan,
    put_target_finder,
    refuse_client,
)
from tilesync.app.requests import MirrorRequest, Target, container_url
from tilesync.app.service import Service, make_mesh_exports, open_clients
from tilesync.app.sources import make_exports_resolver, make_resolver
from tilesync.core.urls import is_cleartext
from tilesync.errors import TilesyncError, UsageError
from tilesync.events import Warned
from tilesync.model import Export, Selector, Version
from tilesync.model.storage import AzureLocation
from tilesync.protocols import Destination, Observer
from tilesync.runtime.clock import WallClock
from tilesync.runtime.threads import own_thread_pool

if TYPE_CHECKING:
    from tilesync.jobs.mirror.job import MirrorOptions
    from tilesync.jobs.mirror.publish_hook import PublishHook
    from tilesync.jobs.run.context import RunContext
    from tilesync.jobs.run.stats import RunStats
    from tilesync.jobs.versions.listing import ListedVersion
    from tilesync.jobs.versions.ownership import OwnershipStatus
    from tilesync.protocols import Workers
    from tilesync.runtime.process_pool import ProcessPool
    from tilesync.sources.resolvers import SourceClients
    from tilesync.stores.object_store.files import WaitForBandwidth

MAX_WORKERS = 4
"""Largest number of worker processes: with more, the catalog and the disk are the bottleneck."""


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _refuse_overlap(request: MirrorRequest) -> None:
    """Raise UsageError if SOURCE and DEST are the same, or one contains the other."""
    from tilesync.stores.local.destination import refuse_overlap

    source, destination = request.source_mirror, request.destination
    if isinstance(source, Path) and isinstance(destination, Path):
        refuse_overlap(source, destination, request.state_dir)
    elif source is not None and not isinstance(source, Path) and not isinstance(destination, Path):
        source_id, destination_id = Target(source, request.source_store_options).identity, request.target.identity
        if source_id == destination_id:
            raise UsageError(f"SOURCE and DEST are the same: {source}", hint="choose another DEST")
        if source_id.startswith(destination_id) or destination_id.startswith(source_id):
            raise UsageError("one of SOURCE and DEST is inside the other", hint="choose a DEST beside SOURCE")


def _refuse_plain_http_copy(request: MirrorRequest) -> None:
    """Raise UsageError if a server-side copy would send the link of the export to the store over plain http."""
    location, options = request.destination, request.store_options
    if request.server_copy and isinstance(location, AzureLocation) and is_cleartext(container_url(location, options)):
        raise UsageError(
            "--server-copy would send the signed link of the export over plain http",
            hint="omit --server-copy, or use https:// for DEST",
        )


def _make_upload_limit(request: MirrorRequest, clients: SourceClients) -> WaitForBandwidth | None:
    """Create the limit for uploads: the same rate as for downloads, but counted separately."""
    from tilesync.transport.rate_limit import RateLimiter

    return RateLimiter(request.bwlimit, clients.clock).wait_for_bandwidth if request.bwlimit else None


async def mirror(
    request: MirrorRequest, observe: Observer, stats: RunStats, *, hook: PublishHook | None = None
) -> None:
    """Mirror SOURCE to DEST; run `hook` if the pointer has moved, also after an error. Raises the RunErrors."""
    from tilesync.jobs.mirror.job import MirrorJob
    from tilesync.jobs.mirror.publish_hook import run_publish_hook

    _refuse_overlap(request)
    _refuse_plain_http_copy(request)
    async with (
        open_clients(request.service, observe, bwlimit=request.bwlimit) as clients,
        open_destination(
            request.target,
            request.layout,
            clients.open_upload_client,
            observe,
            request.ownership(observe),
            wait_for_bandwidth=_make_upload_limit(request, clients),
        ) as destination,
    ):
        run = _make_run_context(request, clients, stats, _make_workers(request, clients, destination))
        options = _make_mirror_options(request, observe)
        try:
            if request.all_exports:
                from tilesync.jobs.mirror.all_exports import AllExportsMirror

                await AllExportsMirror(make_exports_resolver(request, clients), destination, run, options).run()
            else:
                await MirrorJob(make_resolver(request, clients), destination, run, options).run()
        except TilesyncError as error:
            try:
                await run_publish_hook(destination, hook, error=error)
            except TilesyncError as hook_error:
                observe(Warned(str(hook_error)))
            raise
        await run_publish_hook(destination, hook)


async def mirror_dry_run(request: MirrorRequest, observe: Observer, stats: RunStats) -> None:
    """Report what `mirror` would do, without writing to DEST. Raises the RunErrors."""
    from tilesync.jobs.mirror.dry_run import DryRun, PlanInputs
    from tilesync.jobs.mirror.dry_run_walk import ScratchSpace
    from tilesync.stores.local.destination import open_scratch_files

    _refuse_overlap(request)
    _refuse_plain_http_copy(request)
    with (
        open_destination_for_plan(request.target, request.layout, observe, request.ownership(observe)) as dest,
        open_scratch_files() as scratch,
    ):
        assert dest.catalog is not None
        async with open_clients(request.service, observe, bwlimit=request.bwlimit) as clients:
            inputs = PlanInputs(
                dest.catalog, dest.files, dest.publication, dest.check_names, ScratchSpace(*scratch), dest.layout
            )
            dry_run = DryRun(inputs, _make_run_context(request, clients, stats), _make_mirror_options(request, observe))
            if request.all_exports:
                await dry_run.run_all(make_exports_resolver(request, clients))
            else:
                await dry_run.run(make_resolver(request, clients))


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
    """Create a pool with a process per core; None on one core, and on Windows, whose pipes asyncio cannot read."""
    from tilesync.runtime.process_pool import ProcessPool

    size = min(count_cores(), MAX_WORKERS)
    if size < 2 or not sys.executable or os.name == "nt":
        return None
    pool = ProcessPool(size)
    closing.push_async_callback(pool.aclose)
    return pool


def _make_workers(request: MirrorRequest, clients: SourceClients, destination: Destination) -> Workers | None:
    """Create the workers; None with a bandwidth limit, a proxy or server-side copy, which workers do not support."""
    from tilesync.app.workers import ProcessWorkers
    from tilesync.stores.local.writer import LocalFiles
    from tilesync.transport.tls import load_proxies

    main_process_only = request.bwlimit or request.server_copy or load_proxies()
    find_put_target = None if main_process_only else put_target_finder(destination.files, request.store_options.serving)
    pool = _make_process_pool(clients.exit_stack) if find_put_target is not None else None
    if pool is None:
        return None
    files = destination.files
    return ProcessWorkers(pool, files.reader() if isinstance(files, LocalFiles) else None, find_put_target)


def _make_run_context(
    request: MirrorRequest, clients: SourceClients, stats: RunStats, workers: Workers | None = None
) -> RunContext:
    from tilesync.jobs.run.concurrency import ConcurrencyLimiter
    from tilesync.jobs.run.context import RunContext

    limiter = ConcurrencyLimiter(clients.clock, fixed_limit=request.transfers)
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
    async with open_destination(target, None, refuse_client, observe) as destination:
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

    with open_destination_for_audit(target, observe) as destination:
        status = read_ownership_status(destination.publication)
        versions = list_stored_versions(destination.publication, destination.catalog, observe, include_retired=retired)
        return versions, status


def sha256sums(target: Target, version: str, observe: Observer) -> Iterator[str]:
    """Yield the lines of `sha256sum -c` for the folder of a version. Raises UsageError, DestinationError."""
    from tilesync.core.safe_names import resolve_version_name
    from tilesync.jobs.versions.listing import list_sha256sums

    with open_destination_for_audit(target, observe) as destination:
        name = resolve_version_name(version, destination.publication.manifest_names())
        yield from list_sha256sums(destination.publication, name)


async def verify(
    target: Target, observe: Observer, stats: RunStats, *, quick: bool, all_versions: bool = False
) -> None:
    """Verify the files of the current version, or of all versions. Raises VerifyFailed for findings."""
    from tilesync.jobs.verify import AuditInputs, VerifyJob
    from tilesync.stores.local.destination import open_scratch_files
    from tilesync.stores.local.reader import LocalStoredFiles

    with (
        nullcontext() if isinstance(target.location, Path) else own_thread_pool(STORE_THREADS),
        open_destination_for_audit(target, observe) as destination,
        open_scratch_files() as scratch,
    ):
        async with AsyncExitStack() as closing:
            from tilesync.app.workers import ProcessWorkers

            files = destination.files
            pool = _make_process_pool(closing) if isinstance(files, LocalStoredFiles) else None
            workers = ProcessWorkers(pool, files) if pool and isinstance(files, LocalStoredFiles) else None
            inputs = AuditInputs(files, destination.publication, destination.catalog, scratch[0], workers)
            await VerifyJob(inputs, observe, stats, quick=quick).run(all_versions=all_versions)
