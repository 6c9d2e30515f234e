"""The plan of the main job, told instead of done."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable

from tilesync.events import Planned, Resolved, VersionChosen
from tilesync.jobs.tally import Tally
from tilesync.model import Blob, Version
from tilesync.protocols import Catalog, Observer, Origin, Source
from tilesync.rules.names import next_version
from tilesync.rules.plan import Action, Decision, choose, decide


async def preview(
    origin: Origin, catalog: Catalog, *, judge: Callable[[Iterable[str]], None], observe: Observer, tally: Tally
) -> None:
    """Tell what would happen with each file, and why. Writes nothing; counts as if it had been done.

    Raises the RunErrors of the service and the container, and UnsafeName.
    """
    resolution = await origin.resolve()
    export = resolution.export
    observe(Resolved(export.id, export.imodel, export.changeset, export.modified, resolution.newest, resolution.behind))
    choice = choose(catalog.versions(export=export.id), export)
    if choice.unchanged and choice.held is not None and not choice.held.damaged:
        observe(VersionChosen(choice.held.name, "held"))
        _unchanged(choice.held, observe, tally)
        return
    source = await origin.source(resolution)
    against = choice.begun or choice.held
    if choice.held is not None and choice.begun is None and not choice.unchanged:
        decisions = decided(source, catalog, choice.held, judge)
        if all([decision.action is Action.KEEP async for _, decision in decisions]):
            observe(VersionChosen(choice.held.name, "held"))
            _unchanged(choice.held, observe, tally)
            return
        against = None
    taken = {version.name for version in catalog.versions()}
    name, state = (against.name, "continued") if against else (next_version(export.id, taken), "begun")
    observe(VersionChosen(name, state))
    async for blob, decision in decided(source, catalog, against, judge):
        _tell(blob, decision, observe, tally)


async def decided(
    source: Source, catalog: Catalog, version: Version | None, judge: Callable[[Iterable[str]], None]
) -> AsyncIterator[tuple[Blob, Decision]]:
    """Every blob of the container with what would be done with it, against what a version holds."""
    async for page in source.pages(None):
        names = [blob.name for blob in page.blobs]
        judge(names)
        held = catalog.held_among(version, names) if version is not None else {}
        for blob in page.blobs:
            yield blob, decide(blob, held.get(blob.name))


def _tell(blob: Blob, decision: Decision, observe: Observer, tally: Tally) -> None:
    tally.listed += 1
    tally.listed_bytes += blob.size
    if decision.action is Action.KEEP:
        tally.kept += 1
    else:
        tally.fetched += 1
        tally.planned_bytes += blob.size
    observe(Planned(decision.action.value, blob.name, blob.size, decision.reason))


def _unchanged(version: Version, observe: Observer, tally: Tally) -> None:
    tally.listed = tally.kept = version.files
    observe(Planned(Action.KEEP.value, version.name, version.bytes, f"unchanged: all {version.files} files are held"))
