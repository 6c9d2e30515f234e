"""Assembly: the only module that puts adapters together. Request in, job run, outcome out."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from time import monotonic
from typing import TYPE_CHECKING

from tilesync.app.destinations import audited, looked_at, many_threads, no_bodies, opened, shelf_of
from tilesync.app.requests import Place, Reach, Where, url_of
from tilesync.app.service import Service, exports_of, wired
from tilesync.azure.sas import parse_link
from tilesync.core.guards import Most
from tilesync.core.ownership import Asked
from tilesync.core.retention import KEEP_ALL, Keep
from tilesync.core.urls import travels_in_clear
from tilesync.errors import NotAuthorised, TilesyncError, UsageError
from tilesync.events import Warned
from tilesync.model import EVERYTHING, Content, Export, Globs, Inventory, Layout, SasUrl, Selector, Version
from tilesync.model.storage import AzurePlace
from tilesync.protocols import Destination, Observer, Origin
from tilesync.runtime.clock import WallClock

if TYPE_CHECKING:
    from tilesync.jobs.mirror.job import Wishes
    from tilesync.jobs.mirror.publish_hook import Announce
    from tilesync.jobs.run.context import Run
    from tilesync.jobs.run.stats import Tally
    from tilesync.jobs.versions.listing import Holding
    from tilesync.jobs.versions.ownership import Ownership, Standing
    from tilesync.protocols import Helpers
    from tilesync.runtime.process_pool import Crew
    from tilesync.sources.mirror_resolver import HeldOrigin
    from tilesync.sources.resolvers import ServiceOrigin, Wires
    from tilesync.stores.object_store.files import Pace

CREW = 4
"""Processes that help at most: behind them stand the catalog, and the disk."""


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


@dataclass(frozen=True)
class MirrorRequest:
    """What `tilesync mirror` is asked to do. `link` is set when SOURCE is a container link instead of an iModel, `held`
    when it is a place that tilesync filled.
    """

    service: Service
    selector: Selector
    destination: Place
    link: SasUrl | None = None
    link_command: str | None = None
    cdn: bool = False
    wait: timedelta = timedelta(minutes=10)
    poll: timedelta = timedelta(seconds=15)
    transfers: int | None = None
    bwlimit: float | None = None
    state_dir: Path | None = None
    reach: Reach = field(default_factory=Reach)
    every_file: bool = False
    allow_shrink: bool = False
    allow_missing: bool = False
    inventory: Inventory | None = None
    globs: Globs = EVERYTHING
    all_exports: bool = False
    publish: bool = True
    keep: Keep = KEEP_ALL
    layout: Layout = Layout.VERSIONED
    delete: Most | None = None
    server_copy: bool = False
    held: Place | None = None
    content: Content = Content.STORED
    adopt: bool = False
    source_reach: Reach = field(default_factory=Reach)

    @property
    def where(self) -> Where:
        """The destination."""
        return Where(self.destination, self.reach, self.state_dir)

    def ownership(self, observe: Observer) -> Ownership:
        """Whose exports are asked for, as far as nobody needs to be asked, and whether DEST is to become theirs."""
        from tilesync.jobs.versions.ownership import Ownership

        asked = Asked("" if self.held is not None else self.selector.imodel or "")
        if self.link is not None:
            asked = Asked(self.link.base, self.link.container)
        return Ownership(asked, str(self.destination), observe, self.adopt)


def _origin(request: MirrorRequest, wires: Wires) -> Origin:
    from tilesync.sources.resolvers import LinkOrigin

    if request.link is None:
        return _origins(request, wires)
    refresh = partial(_link_from, request.link_command) if request.link_command else None
    return LinkOrigin(request.link, wires, refresh=refresh)


def _origins(request: MirrorRequest, wires: Wires) -> ServiceOrigin | HeldOrigin:
    """What can tell one export and all of them."""
    return _service_origin(request, wires) if request.held is None else _held_origin(request.held, request, wires)


def _held_origin(source: Place, request: MirrorRequest, wires: Wires) -> HeldOrigin:
    from tilesync.app.destinations import read
    from tilesync.sources.mirror_resolver import HeldOrigin

    sight = wires.closing.enter_context(read(Where(source, request.source_reach), wires.observe))
    pace = wires.bandwidth.take if wires.bandwidth is not None else None
    return HeldOrigin(sight.publication, sight.files, request.selector, str(source), wires.observe, pace=pace)


def _refuse_overlap(request: MirrorRequest) -> None:
    """Raise UsageError where a place is to be mirrored to itself."""
    from tilesync.stores.local.destination import refuse_overlap

    source, destination = request.held, request.destination
    if isinstance(source, Path) and isinstance(destination, Path):
        refuse_overlap(source, destination, request.state_dir)
    elif source is not None and not isinstance(source, Path) and not isinstance(destination, Path):
        one, other = Where(source, request.source_reach).identity, request.where.identity
        if one == other:
            raise UsageError(f"SOURCE and DEST are one place: {source}")
        if one.startswith(other) or other.startswith(one):
            raise UsageError("one of SOURCE and DEST lies in the other", hint="choose a DEST beside it")


def _refuse_signatures_in_clear(request: MirrorRequest) -> None:
    """Raise UsageError where the store would be told the link of the export, to copy from it, over plain http."""
    place = request.destination
    if request.server_copy and isinstance(place, AzurePlace) and travels_in_clear(url_of(place, request.reach)):
        raise UsageError(
            "--server-copy would send the signed link of the export over plain http",
            hint="leave it away, or reach DEST over https://",
        )


def _service_origin(request: MirrorRequest, wires: Wires) -> ServiceOrigin:
    from tilesync.sources.resolvers import ServiceOrigin

    exports = exports_of(request.service, wires)
    return ServiceOrigin(exports, request.selector, wires, wait=request.wait, poll=request.poll, cdn=request.cdn)


async def _link_from(command: str) -> SasUrl:
    """The container link that a command prints."""
    from tilesync.itwin.auth import output_of

    printed = await output_of(command, "--link-command")
    try:
        return parse_link(printed, fetched=monotonic())
    except UsageError as error:
        raise NotAuthorised(
            f"the output of --link-command cannot be used: {error}",
            hint="it must print https://ACCOUNT.blob.core.windows.net/CONTAINER?SAS and nothing else",
        ) from None


def _pace(request: MirrorRequest, wires: Wires) -> Pace | None:
    """How fast bytes may leave: as fast as they may come, each way by itself."""
    from tilesync.transport.rate_limit import Bandwidth

    return Bandwidth(request.bwlimit, wires.clock).take if request.bwlimit else None


async def mirror(request: MirrorRequest, observe: Observer, tally: Tally, *, announce: Announce | None = None) -> None:
    """Run the main job; `announce` is told when the pointer has moved. Raises the RunErrors."""
    from tilesync.jobs.mirror.job import Mirror
    from tilesync.jobs.mirror.publish_hook import announced

    _refuse_overlap(request)
    _refuse_signatures_in_clear(request)
    async with (
        wired(request.service, observe, bwlimit=request.bwlimit) as wires,
        opened(
            request.where, request.layout, wires.sends, observe, request.ownership(observe), pace=_pace(request, wires)
        ) as destination,
    ):
        run = _run(request, wires, tally, _helpers(request, wires, destination))
        wishes = _wishes(request, observe)
        try:
            if request.all_exports:
                from tilesync.jobs.mirror.all_exports import History

                await History(_origins(request, wires), destination, run, wishes).run()
            else:
                await Mirror(_origin(request, wires), destination, run, wishes).run()
        except TilesyncError as error:
            try:
                await announced(destination, announce, error=error)
            except TilesyncError as unheard:
                observe(Warned(str(unheard)))
            raise
        await announced(destination, announce)


async def preview(request: MirrorRequest, observe: Observer, tally: Tally) -> None:
    """Say what the main job would do, and write nothing. Raises the RunErrors."""
    from tilesync.jobs.mirror.dry_run import Preview, View
    from tilesync.jobs.mirror.dry_run_walk import Desk
    from tilesync.stores.local.destination import scratch

    _refuse_overlap(request)
    _refuse_signatures_in_clear(request)
    with looked_at(request.where, request.layout, observe, request.ownership(observe)) as there, scratch() as desk:
        assert there.catalog is not None
        async with wired(request.service, observe, bwlimit=request.bwlimit) as wires:
            view = View(there.catalog, there.files, there.publication, there.judge, Desk(*desk), there.layout)
            plan = Preview(view, _run(request, wires, tally), _wishes(request, observe))
            if request.all_exports:
                await plan.run_all(_origins(request, wires))
            else:
                await plan.run(_origin(request, wires))


def _wishes(request: MirrorRequest, observe: Observer) -> Wishes:
    from tilesync.jobs.mirror.job import Wishes

    return Wishes(
        request.inventory,
        request.globs,
        allow_missing=request.allow_missing,
        allow_shrink=request.allow_shrink,
        point=request.publish,
        keep=request.keep,
        delete=request.delete,
        content=request.content,
        ownership=request.ownership(observe),
    )


def _crew(closing: AsyncExitStack) -> Crew | None:
    """A process a core, where there is more than one. Not on Windows, whose pipes asyncio cannot read."""
    from tilesync.runtime.process_pool import Crew

    size = min(cores(), CREW)
    if size < 2 or not sys.executable or os.name == "nt":
        return None
    crew = Crew(size)
    closing.push_async_callback(crew.aclose)
    return crew


def _helpers(request: MirrorRequest, wires: Wires, destination: Destination) -> Helpers | None:
    """A limited bandwidth is kept by this process alone, and helpers know no proxies; nor what a store does itself."""
    from tilesync.app.workers import Helpers
    from tilesync.stores.local.writer import LocalFiles
    from tilesync.transport.tls import proxies

    alone = request.bwlimit or request.server_copy or proxies()
    shelf = None if alone else shelf_of(destination.files, request.reach.serving)
    crew = _crew(wires.closing) if shelf is not None else None
    if crew is None:
        return None
    files = destination.files
    return Helpers(crew, files.held() if isinstance(files, LocalFiles) else None, shelf)


def _run(
    request: MirrorRequest,
    wires: Wires,
    tally: Tally,
    helpers: Helpers | None = None,
) -> Run:
    from tilesync.jobs.run.concurrency import Gate
    from tilesync.jobs.run.context import Run

    gate = Gate(wires.clock, fixed=request.transfers)
    return Run(
        wires.clock,
        wires.observe,
        tally,
        gate,
        budget=request.service.retry_for,
        every_file=request.every_file,
        helpers=helpers,
        server_copy=request.server_copy,
    )


async def list_exports(service: Service, imodel: str | None, observe: Observer, tell: Callable[[Export], None]) -> None:
    """Tell every export that the identity can see, newest changeset first."""
    async with wired(service, observe) as wires:
        async for page in exports_of(service, wires).pages(Selector(imodel=imodel)):
            for export in page.rows:
                tell(export)


async def viewer_link(request: MirrorRequest, observe: Observer) -> str:
    """The URL that a viewer starts from: a secret."""
    async with wired(request.service, observe) as wires:
        exports = exports_of(request.service, wires)
        resolution = await exports.latest(request.selector, wait=request.wait, poll=request.poll)
        link, _ = await exports.fresh_link(resolution.export, cdn=request.cdn)
        return link.viewer()


async def rollback(
    destination: Place,
    observe: Observer,
    name: str | None,
    *,
    latest: bool,
    state_dir: Path | None,
    reach: Reach | None = None,
    announce: Announce | None = None,
) -> Version:
    """Point back at an older version and pin it, or with `latest` at the newest again. Raises the RunErrors."""
    from tilesync.jobs.mirror.publish_hook import announced
    from tilesync.jobs.run.concurrency import Gate
    from tilesync.jobs.run.context import Run
    from tilesync.jobs.run.stats import Tally
    from tilesync.jobs.versions.rollback import rollback as run

    clock, where = WallClock(), Where(destination, reach or Reach(), state_dir)
    async with opened(where, None, no_bodies, observe) as there:
        about = Run(clock, observe, Tally(), Gate(clock, fixed=1), budget=timedelta())
        version = await run(there, about, name, latest=latest)
        await announced(there, announce)
        return version


def holdings(
    destination: Place,
    observe: Observer,
    *,
    state_dir: Path | None,
    retired: bool = False,
    reach: Reach | None = None,
    tell: Callable[[Standing], None] | None = None,
) -> list[Holding]:
    """What a destination holds, and held where `retired` is asked for: nothing where there is none. `tell` gets to know
    whose it is.
    """
    from tilesync.jobs.versions.listing import holdings as told
    from tilesync.jobs.versions.ownership import standing

    with audited(Where(destination, reach or Reach(), state_dir), observe) as there:
        if tell is not None:
            tell(standing(there.publication))
        return told(there.publication, there.catalog, observe, retired=retired)


def sha256sums(
    destination: Place, version: str, observe: Observer, *, state_dir: Path | None, reach: Reach | None = None
) -> Iterator[str]:
    """The lines of `sha256sum -c` for the folder of a version. Raises UsageError, DestinationError."""
    from tilesync.core.safe_names import the_one
    from tilesync.jobs.versions.listing import sha256sums as lines

    with audited(Where(destination, reach or Reach(), state_dir), observe) as there:
        yield from lines(there.publication, the_one(version, there.publication.manifest_names()))


async def verify(
    destination: Place,
    observe: Observer,
    tally: Tally,
    *,
    state_dir: Path | None,
    quick: bool,
    every: bool = False,
    reach: Reach | None = None,
) -> None:
    """Audit what a destination holds: the current version, or `every` one. Raises VerifyFailed for findings."""
    from tilesync.jobs.verify import Audited, Verify
    from tilesync.stores.local.destination import scratch
    from tilesync.stores.local.reader import HeldFiles

    if not isinstance(destination, Path):
        many_threads()
    with audited(Where(destination, reach or Reach(), state_dir), observe) as there, scratch() as desk:
        async with AsyncExitStack() as closing:
            from tilesync.app.workers import Helpers

            files = there.files
            crew = _crew(closing) if isinstance(files, HeldFiles) else None
            helpers = Helpers(crew, files) if crew and isinstance(files, HeldFiles) else None
            found = Audited(files, there.publication, there.catalog, desk[0], helpers)
            await Verify(found, observe, tally, quick=quick).run(every=every)
