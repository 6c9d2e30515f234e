"""The plan of the main job, told instead of done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass

from tilesync.errors import ListingDenied
from tilesync.events import Notice, Planned, Resolved, VersionChosen
from tilesync.jobs.run import Run
from tilesync.jobs.survey import Desk, Survey
from tilesync.jobs.tally import Tally
from tilesync.model import ROOT, Blob, Globs, Inventory, Version
from tilesync.protocols import Catalog, Observer, Origin, Source
from tilesync.rules.filters import keeper
from tilesync.rules.names import next_version
from tilesync.rules.plan import Action, Decision, choose, decide

LEFT_OUT = Decision(Action.EXCLUDE, "left out by --include or --exclude")


@dataclass(frozen=True)
class View:
    """What a preview looks at: the state of the destination, how it judges names, and a desk for a walk.

    `inventory`: None lists where that is allowed, and else walks. `globs`: what is wanted.
    """

    catalog: Catalog
    judge: Callable[[Iterable[str]], None]
    desk: Desk
    inventory: Inventory | None
    globs: Globs


async def preview(origin: Origin, view: View, run: Run) -> None:
    """Tell what would happen with each file, and why. Writes nothing; counts as if it had been done.

    Raises the RunErrors of the service and the container, and UnsafeName.
    """
    catalog, observe, tally = view.catalog, run.observe, run.tally
    resolution = await origin.resolve()
    export = resolution.export
    observe(Resolved(export.id, export.imodel, export.changeset, export.modified, resolution.newest, resolution.behind))
    choice = choose(catalog.versions(export=export.id), export, view.globs)
    if choice.unchanged and choice.held is not None and not choice.held.damaged:
        observe(VersionChosen(choice.held.name, "held"))
        _unchanged(choice.held, catalog, run)
        return
    source = await origin.source(resolution)
    against = choice.begun or choice.held
    if choice.held is not None and choice.begun is None and not choice.unchanged:
        decisions = decided(source, view, choice.held, run)
        if all([decision.action is not Action.FETCH async for _, decision in decisions]):
            observe(VersionChosen(choice.held.name, "held"))
            _unchanged(choice.held, catalog, run)
            return
        against = None
    taken = {version.name for version in catalog.versions()}
    name, state = (against.name, "continued") if against else (next_version(export.id, taken), "begun")
    observe(VersionChosen(name, state))
    async for blob, decision in decided(source, view, against, run):
        _tell(blob, decision, observe, tally)


async def decided(
    source: Source, view: View, version: Version | None, run: Run
) -> AsyncIterator[tuple[Blob, Decision]]:
    """Every blob of the container with what would be done with it, against what a version holds."""
    keeps = keeper(view.globs)
    async for blobs in _pages(source, view, run):
        names = [blob.name for blob in blobs if keeps(blob.name)]
        view.judge(names)
        held = view.catalog.held_among(version, names) if version is not None else {}
        for blob in blobs:
            yield blob, decide(blob, held.get(blob.name)) if keeps(blob.name) else LEFT_OUT


async def _pages(source: Source, view: View, run: Run) -> AsyncIterator[Sequence[Blob]]:
    """The blobs of the container by its listing, or where that is denied, or not wished for, by a walk."""
    if view.inventory is Inventory.LIST or (view.inventory is None and await source.listable()):
        try:
            async for page in source.pages(None):
                yield page.blobs
            return
        except ListingDenied as denied:
            if view.inventory is not None:
                raise
            run.observe(Notice(f"{denied}; walking from {ROOT} instead"))
    run.observe(Notice("a walk: what the contents name themselves (textures, buffers) is found when they are fetched"))
    async for blob in Survey(source, view.desk, run, view.globs).blobs():
        yield [blob]


def _tell(blob: Blob, decision: Decision, observe: Observer, tally: Tally) -> None:
    tally.listed += 1
    tally.listed_bytes += blob.size
    if decision.action is Action.KEEP:
        tally.kept += 1
    elif decision.action is Action.EXCLUDE:
        tally.excluded += 1
    else:
        tally.fetched += 1
        tally.planned_bytes += blob.size
    observe(Planned(decision.action.value, blob.name, blob.size, decision.reason))


def _unchanged(version: Version, catalog: Catalog, run: Run) -> None:
    run.tally.kept, run.tally.excluded = version.files, catalog.totals(version).excluded
    run.tally.listed = run.tally.kept + run.tally.excluded
    run.observe(
        Planned(Action.KEEP.value, version.name, version.bytes, f"unchanged: all {version.files} files are held")
    )
