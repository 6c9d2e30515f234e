"""One run of `mirror` or `plan`, as the API and the fleet call it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilesync.api.call import Call, OnEvent, OnPublish, make_hook
from tilesync.api.inputs import create_mirror_request, display_source
from tilesync.api.locations import Dest, Source
from tilesync.api.monitor import RunMonitor
from tilesync.api.options import MirrorArguments
from tilesync.api.results import MirrorResult, PlanResult
from tilesync.errors import TilesyncError
from tilesync.events import Planned
from tilesync.model import Resolution

if TYPE_CHECKING:
    from datetime import timedelta

    from tilesync.app.shared import SharedResources


async def mirror_once(
    source: Source,
    dest: Dest,
    options: MirrorArguments,
    *,
    on_publish: OnPublish | None = None,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    shared: SharedResources | None = None,
    resolved: Resolution | TilesyncError | None = None,
    presence_time: timedelta | None = None,
) -> MirrorResult:
    """Mirror one export. Raises TilesyncError.

    `shared`: resources that other runs use too. `resolved`: the export of the iModel, or the error of its search, if
    the caller has done that. `presence_time`: time to look whether the files of an unchanged version are still there.
    """
    from dataclasses import replace

    from tilesync.app import commands

    call = Call(monitor, on_event, source, dest)
    with call.run(MirrorResult, call.monitor.mirror_fields):
        request = create_mirror_request(source, dest, options)
        if presence_time is not None:
            request = replace(request, presence_time=presence_time)
        call.monitor.source = display_source(request, call.monitor.source)
        hook = make_hook(call.monitor, on_publish) if on_publish is not None else None
        recording = call.monitor.make_recording()
        await commands.mirror(
            request,
            call.observe,
            call.monitor.stats,
            hook=hook,
            recording=recording,
            shared=shared,
            resolved=resolved,
        )
    return call.monitor.result(MirrorResult, **call.monitor.mirror_fields())


async def plan_once(
    source: Source,
    dest: Dest,
    options: MirrorArguments,
    *,
    keep_actions: bool = True,
    on_event: OnEvent | None = None,
    monitor: RunMonitor | None = None,
    shared: SharedResources | None = None,
    resolved: Resolution | TilesyncError | None = None,
) -> PlanResult:
    """Plan a mirror, and write nothing. Raises TilesyncError. The arguments are those of `mirror_once`."""
    from tilesync.app import commands

    call = Call(monitor, on_event, source, dest)
    call.monitor.dry_run = True
    actions: list[Planned] = []
    if keep_actions:
        call.listen(lambda event: actions.append(event) if isinstance(event, Planned) else None)
        options = {**options, "every_file": True}
    with call.run(PlanResult, call.monitor.mirror_fields):
        request = create_mirror_request(source, dest, options)
        call.monitor.source = display_source(request, call.monitor.source)
        await commands.mirror_dry_run(request, call.observe, call.monitor.stats, shared=shared, resolved=resolved)
    return call.monitor.result(PlanResult, actions=tuple(actions), **call.monitor.mirror_fields())
