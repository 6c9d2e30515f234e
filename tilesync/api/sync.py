"""The Python API for blocking code and notebooks; `tilesync.api.aio` describes each function in full."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from typing import Any, Unpack

from tilesync.api import aio
from tilesync.api.aio import OnEvent, OnPublish
from tilesync.api.auth import Auth
from tilesync.api.blocking import run_blocking
from tilesync.api.inputs import DEFAULT_RETRY_FOR, Dest, Source, create_target
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import MirrorOptions, SelectionOptions, ServiceOptions, StoreAccessOptions
from tilesync.api.results import (
    AuditResult,
    DoctorResult,
    ExportsResult,
    MirrorResult,
    PlanResult,
    RollbackResult,
    RunResult,
    VersionsResult,
    ViewerLinkResult,
)


def mirror(
    source: Source,
    dest: Dest,
    *,
    on_publish: OnPublish | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[MirrorOptions],
) -> MirrorResult:
    """Mirror the latest finished export of `source` into `dest`, and publish it. Raises TilesyncError."""
    return run_blocking(
        lambda: aio.mirror(source, dest, on_publish=on_publish, on_event=on_event, monitor=monitor, **options)
    )


def plan(
    source: Source,
    dest: Dest,
    *,
    keep_actions: bool = True,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[MirrorOptions],
) -> PlanResult:
    """Plan a mirror, and write nothing. Raises TilesyncError."""
    return run_blocking(
        lambda: aio.plan(source, dest, keep_actions=keep_actions, on_event=on_event, monitor=monitor, **options)
    )


def verify(
    dest: Dest,
    *,
    quick: bool = False,
    all_versions: bool = False,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> AuditResult:
    """Audit the current version of a destination, or all of them, against its manifests."""
    arguments: dict[str, Any] = {"quick": quick, "all_versions": all_versions, "retry_for": retry_for}
    return run_blocking(lambda: aio.verify(dest, **arguments, on_event=on_event, monitor=monitor, **options))


def rollback(
    dest: Dest,
    version: str | None = None,
    *,
    latest: bool = False,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    cache_control: str | None = None,
    pointer_cache_control: str | None = None,
    on_publish: OnPublish | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> RollbackResult:
    """Move the pointer to `version`, or the one before the current, and pin it; `latest` unpins it at the newest."""
    arguments: dict[str, Any] = {
        "latest": latest,
        "retry_for": retry_for,
        "cache_control": cache_control,
        "pointer_cache_control": pointer_cache_control,
        "on_publish": on_publish,
    }
    return run_blocking(lambda: aio.rollback(dest, version, **arguments, on_event=on_event, monitor=monitor, **options))


def versions(
    dest: Dest,
    *,
    retired: bool = False,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> VersionsResult:
    """List the versions of a destination, the newest first."""
    return run_blocking(
        lambda: aio.versions(dest, retired=retired, retry_for=retry_for, on_event=on_event, monitor=monitor, **options)
    )


def exports(
    imodel: str | None = None,
    *,
    held_in: Dest | None = None,
    store: StoreAccessOptions | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[ServiceOptions],
) -> ExportsResult:
    """List the exports of an iModel, newest first; without an id those of all iModels that the identity can see."""
    return run_blocking(
        lambda: aio.exports(imodel, held_in=held_in, store=store, on_event=on_event, monitor=monitor, **options)
    )


def viewer_link(
    what: Source,
    *,
    life: timedelta = timedelta(hours=1),
    store: StoreAccessOptions | None = None,
    selection: SelectionOptions | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[ServiceOptions],
) -> ViewerLinkResult:
    """Create the URL that a viewer loads: a secret."""
    return run_blocking(
        lambda: aio.viewer_link(
            what, life=life, store=store, selection=selection, on_event=on_event, monitor=monitor, **options
        )
    )


def doctor(
    dest: Dest | None = None,
    *,
    source: Source | None = None,
    public_url: str | None = None,
    origin: str | None = None,
    auth: Auth | None = None,
    api_url: str | None = None,
    retry_for: timedelta = timedelta(seconds=10),
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> DoctorResult:
    """Check identity and service; or, with `dest`, whether viewers can load it. Nothing is written."""
    arguments: dict[str, Any] = {
        "source": source,
        "public_url": public_url,
        "origin": origin,
        "auth": auth,
        "api_url": api_url,
        "retry_for": retry_for,
    }
    return run_blocking(lambda: aio.doctor(dest, **arguments, on_event=on_event, monitor=monitor, **options))


def iter_sha256sums(
    dest: Dest,
    version: str,
    *,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> Iterator[str]:
    """Yield the checksum lines of a version, for `sha256sum -c` in its folder. Raises TilesyncError."""
    from tilesync.app import commands

    call = aio.Call(monitor, on_event, None, dest)
    with call.attach_result(RunResult):
        yield from commands.sha256sums(create_target(dest, options, retry_for=retry_for), version, call.observe)
