"""Whether a container has what a version of the same export holds already, though the service calls it modified."""

from __future__ import annotations

from functools import partial

from tilesync.jobs.mirror.inventory import changed
from tilesync.jobs.mirror.revalidate import first_appeared, first_changed
from tilesync.jobs.run.context import Run
from tilesync.model import Content, Version
from tilesync.protocols import Catalog, Source
from tilesync.runtime.threads import in_thread

BATCH = 2000


def same_listing(version: Version, held: Version, catalog: Catalog) -> bool:
    """Whether the listing just made of `version` describes exactly what `held` holds."""
    totals = catalog.totals(version)
    if totals.files != held.files or (held.content is Content.STORED and totals.bytes != held.bytes):
        return False
    for empty in (False, True):
        after = 0
        while batch := catalog.wanted(version, after, limit=BATCH, empty=empty):
            after = batch[-1][0]
            known = catalog.held_among(held, [blob.name for _, blob in batch])
            if any(changed(blob, known.get(blob.name)) for _, blob in batch):
                return False
    return True


async def same_files(held: Version, missing: list[str], source: Source, catalog: Catalog, run: Run) -> bool:
    """Whether each file of `held` is unchanged in the container, and what it was `missing` is missing still."""
    if held.damaged:
        return False
    if await first_changed(source, partial(catalog.held, held, limit=BATCH), run) is not None:
        return False
    return await first_appeared(source, await in_thread(list, missing), run) is None
