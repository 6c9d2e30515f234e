"""The Python API for a running event loop. Each function can be cancelled, and several can run at once.

Every function takes `on_event`, which is called with each event (see `tilesync.events`): perhaps in another thread, but
never twice at once. It must return quickly. `monitor` is a RunMonitor to watch the counts with. Errors are those of
`tilesync.errors`; the `result` of an error has the counts up to that point. Messages use the option names of the
command line.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any, Unpack

from tilesync.api.call import Call, OnEvent, OnPublish, make_hook
from tilesync.api.inputs import (
    DEFAULT_POLL,
    DEFAULT_RETRY_FOR,
    DOCTOR_RETRY_FOR,
    create_hosting_request,
    create_selector,
    create_service,
    create_target,
    parse_doctor_source,
)
from tilesync.api.locations import Dest, Source, find_viewer_location, parse_imodel_id
from tilesync.api.mirroring import mirror_once, plan_once
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import AccessOptions, MirrorArguments, StoreAccessOptions, ViewerLinkOptions
from tilesync.api.results import (
    AuditResult,
    DoctorResult,
    ExportsResult,
    MirrorResult,
    PlanResult,
    RollbackResult,
    StatusResult,
    VersionsResult,
    ViewerLinkResult,
)
from tilesync.api.rows import make_export_info, make_version_info
from tilesync.errors import TilesyncError, VerifyFailed
from tilesync.events import CheckCompleted, Finding
from tilesync.model import Export
from tilesync.monitoring.status import find_error


async def mirror(
    source: Source,
    dest: Dest,
    *,
    on_publish: OnPublish | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[MirrorArguments],
) -> MirrorResult:
    """Mirror the latest finished export of `source` into `dest`, and publish it. Raises TilesyncError.

    Called again it continues where it stopped, or fetches the next export. Errors with `is_retryable` (Unavailable,
    Incomplete, ExportReplaced, DestinationBusy, NoExport) may pass: call it again later.
    """
    return await mirror_once(source, dest, options, on_publish=on_publish, on_event=on_event, monitor=monitor)


async def plan(
    source: Source,
    dest: Dest,
    *,
    keep_actions: bool = True,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[MirrorArguments],
) -> PlanResult:
    """Plan a mirror, and write nothing. Raises TilesyncError.

    `keep_actions`: the result has an action for each file; if False, actions are sent as events only.
    """
    return await plan_once(source, dest, options, keep_actions=keep_actions, on_event=on_event, monitor=monitor)


async def verify(
    dest: Dest,
    *,
    quick: bool = False,
    all_versions: bool = False,
    cluster: str | None = None,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> AuditResult:
    """Audit the current version of a destination, or all of them, against its manifests.

    `quick` compares names and sizes only. `cluster`: address of a Dask cluster whose workers read the files. Problems
    are findings of the result; raises TilesyncError only if the audit itself is not possible.
    """
    from tilesync.app import commands

    call = Call(monitor, on_event, None, dest)
    found: VerifyFailed | None = None

    def fields() -> dict[str, Any]:
        return {"findings": tuple(each for each in call.monitor.failures if isinstance(each, Finding))}

    with call.run(AuditResult, fields):
        target = create_target(dest, options, retry_for=retry_for)
        try:
            await commands.verify(
                target, call.observe, call.monitor.stats, quick=quick, all_versions=all_versions, cluster=cluster
            )
        except VerifyFailed as error:
            found = error
    return call.monitor.result(AuditResult, found, **fields())


async def rollback(
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
    """Move the pointer to `version`, or to the one before the current, and pin it there. Raises TilesyncError.

    `version`: a name, its first characters, or `current`, to pin the pointer where it is. `latest` moves the pointer to
    the newest version and unpins it.
    """
    from tilesync.app import commands

    call = Call(monitor, on_event, None, dest)
    with call.run(RollbackResult):
        target = create_target(
            dest,
            options,
            retry_for=retry_for,
            cache_control=cache_control,
            pointer_cache_control=pointer_cache_control,
        )
        hook = make_hook(call.monitor, on_publish) if on_publish is not None else None
        found = await commands.rollback(target, call.observe, version, latest=latest, hook=hook)
    return call.monitor.result(RollbackResult, version=found.name)


async def versions(
    dest: Dest,
    *,
    retired: bool = False,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> VersionsResult:
    """List the versions of a destination, the newest first; empty if nothing is stored. Raises TilesyncError."""
    from tilesync.app import commands
    from tilesync.runtime.threads import run_in_thread

    call = Call(monitor, on_event, None, dest)
    with call.run(VersionsResult):
        target = create_target(dest, options, retry_for=retry_for)
        rows, status = await run_in_thread(commands.list_versions, target, call.observe, retired=retired)
    call.monitor.owner = status.owner
    found = tuple(make_version_info(row, status) for row in rows)
    return call.monitor.result(VersionsResult, versions=found, checked=status.last_success)


async def status(
    dest: Dest,
    *,
    max_age: timedelta | None = None,
    retry_for: timedelta = DEFAULT_RETRY_FOR,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[StoreAccessOptions],
) -> StatusResult:
    """Read the status of a destination: what it holds, from when, and its last runs. Raises TilesyncError.

    It is stale if its last success, or its published export while there is a newer one, is older than `max_age`. A
    destination that is stale or failing is no exception: see `ok`, `error` and the reasons in `mirrors`.
    """
    from tilesync.app.status import read_status
    from tilesync.runtime.threads import run_in_thread

    call = Call(monitor, on_event, None, dest)
    with call.run(StatusResult):
        target = create_target(dest, options, retry_for=retry_for)
        found = await run_in_thread(
            partial(read_status, dest=call.monitor.dest or "", now=datetime.now(UTC), max_age=max_age),
            target,
            call.observe,
        )
    return call.monitor.result(StatusResult, find_error([found]), mirrors=(found,))


async def exports(
    imodel: str | None = None,
    *,
    held_in: Dest | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[AccessOptions],
) -> ExportsResult:
    """List the exports of an iModel, newest first; without an id those of all iModels that the identity can see.

    `held_in` is a destination: each export then says how it is stored there, and `endangered` names exports that the
    service deletes next. Raises TilesyncError.
    """
    from tilesync.app import commands
    from tilesync.jobs.versions.listing import ListedVersion, describe_endangered
    from tilesync.runtime.threads import run_in_thread

    call = Call(monitor, on_event, imodel, held_in)
    rows: list[Export] = []
    with call.run(ExportsResult):
        imodel_id = parse_imodel_id(imodel) if imodel else None
        await commands.list_exports(create_service(options), imodel_id, call.observe, rows.append)
        listed: list[ListedVersion] | None = None
        endangered: tuple[str, ...] = ()
        if held_in is not None:
            target = create_target(held_in, options, retry_for=options.get("retry_for", DEFAULT_RETRY_FOR))
            found_versions, _ = await run_in_thread(commands.list_versions, target, call.observe, retired=True)
            listed, endangered = found_versions, tuple(describe_endangered(rows, found_versions))
    found = tuple(make_export_info(row, listed) for row in rows)
    return call.monitor.result(ExportsResult, exports=found, endangered=endangered)


async def viewer_link(
    what: Source,
    *,
    life: timedelta = timedelta(hours=1),
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[ViewerLinkOptions],
) -> ViewerLinkResult:
    """Create the URL that a viewer loads: a secret.

    For an iModel it points to the latest finished export at the service. For a private container it points to the
    mirrored version, and can read that container for `life`. Raises TilesyncError.
    """
    from tilesync.app import commands
    from tilesync.checks.commands import viewer_url as sign_viewer_url
    from tilesync.runtime.threads import run_in_thread

    call = Call(monitor, on_event, what, None)
    with call.run(ViewerLinkResult):
        location = find_viewer_location(what, options.get("azure_endpoint"))
        if location is not None:
            target = create_target(location, options, retry_for=options.get("retry_for", DEFAULT_RETRY_FOR))
            url, expires = await run_in_thread(sign_viewer_url, target, life)
        else:
            selector = create_selector(str(what), options)
            url, expires = await commands.viewer_link(
                create_service(options),
                selector,
                call.observe,
                cdn=options.get("cdn", False),
                wait=options.get("wait", timedelta()),
                poll=options.get("poll", DEFAULT_POLL),
            )
    return call.monitor.result(ViewerLinkResult, url=url, expires=expires)


async def doctor(
    dest: Dest | None = None,
    *,
    source: Source | None = None,
    public_url: str | None = None,
    origin: str | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    **options: Unpack[AccessOptions],
) -> DoctorResult:
    """Check identity and service; or, with `dest`, whether viewers can load it. Nothing is written.

    `source` is an iModel id or a container link. `public_url` is the URL at which viewers load `dest`, `origin`
    the origin of their page. `retry_for` is 10 s by default. The result has every check; raises TilesyncError only for
    invalid arguments.
    """
    from tilesync.checks.commands import check_hosting, check_service

    call = Call(monitor, on_event, source, dest)
    checks: list[CheckCompleted] = []
    call.listen(lambda event: checks.append(event) if isinstance(event, CheckCompleted) else None)
    failed: TilesyncError | None = None
    options = {"retry_for": DOCTOR_RETRY_FOR, **options}
    with call.run(DoctorResult):
        if dest is not None:
            request = create_hosting_request(dest, options, public_url=public_url, origin=origin)
            checks_run = check_hosting(request, call.observe)
        else:
            checks_run = check_service(create_service(options), *parse_doctor_source(source), call.observe)
        try:
            await checks_run
        except TilesyncError as error:
            if not any(check.result == "fail" for check in checks):
                raise
            failed = call.monitor.mask(error)
    return call.monitor.result(DoctorResult, failed, checks=tuple(checks))
