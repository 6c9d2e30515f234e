"""Assembly of a comparison: open the destination, and list a source that a version is compared with."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tilesync.app.destinations import open_destination
from tilesync.app.locations import refuse_missing_folder
from tilesync.app.requests import MirrorRequest, Target
from tilesync.app.service import open_clients
from tilesync.app.sources import make_resolver
from tilesync.model import EVERYTHING, Globs
from tilesync.protocols import Observer, ReadOnlyPublication
from tilesync.runtime.threads import run_in_thread
from tilesync.stores.opening import Mode

if TYPE_CHECKING:
    from tilesync.jobs.diff.job import Diff
    from tilesync.jobs.diff.sides import Side

DiffSide = str | MirrorRequest
"""A version of the destination (a name, a unique prefix, or `current`), or the source whose latest export is meant."""


async def diff(target: Target, a: DiffSide, b: DiffSide, observe: Observer) -> Diff:
    """Compare two sides of which at least one is a version of the destination. Raises the RunErrors."""
    from tilesync.jobs.diff.job import compare_sides, has_stable_urls

    refuse_missing_folder(target.location)
    async with open_destination(target, Mode.AUDIT, observe) as destination:
        publication = destination.publication
        versions = [await _find_version(publication, side) for side in (a, b)]
        globs = next((each.version.globs for each in versions if each is not None and each.version is not None), None)
        sides = [
            version if version is not None else await _list_source(side, observe, globs or EVERYTHING)
            for side, version in zip((a, b), versions, strict=True)
        ]
        keeps_urls = await run_in_thread(has_stable_urls, publication, *sides)
        return await run_in_thread(compare_sides, *sides, keeps_urls=keeps_urls)


async def _find_version(publication: ReadOnlyPublication, side: DiffSide) -> Side | None:
    """Return the side of a version; None for a source."""
    from tilesync.jobs.diff.sides import make_version_side
    from tilesync.jobs.versions.resolve import resolve_version

    if not isinstance(side, str):
        return None
    name = await run_in_thread(resolve_version, publication, side)
    return await run_in_thread(make_version_side, publication, name)


async def _list_source(request: DiffSide, observe: Observer, globs: Globs) -> Side:
    """List the latest finished export of a source."""
    from tilesync.jobs.diff.sides import list_source

    assert isinstance(request, MirrorRequest), "a text is a version"
    async with open_clients(request.service, observe) as clients:
        return await list_source(await make_resolver(request, clients), globs=globs)
