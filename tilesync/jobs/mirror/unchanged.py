"""Whether a container has what a version of the same export holds already, though the service calls it modified."""

from __future__ import annotations

from functools import partial

from tilesync.jobs.mirror.inventory import is_changed
from tilesync.jobs.mirror.revalidate import find_first_appeared, find_first_changed
from tilesync.jobs.run.context import RunContext
from tilesync.model import Content, Version
from tilesync.protocols import Catalog, Source
from tilesync.runtime.threads import run_in_thread

ROWS_PER_QUERY = 2000


def has_same_listing(version: Version, existing: Version, catalog: Catalog) -> bool:
    """Whether the listing just made of `version` describes exactly what `held` holds."""
    totals = catalog.compute_totals(version)
    if totals.files != existing.files or (existing.content is Content.STORED and totals.bytes != existing.bytes):
        return False
    for empty in (False, True):
        after = 0
        while batch := catalog.list_wanted(version, after, limit=ROWS_PER_QUERY, empty=empty):
            after = batch[-1][0]
            known = catalog.find_stored(existing, [blob.name for _, blob in batch])
            if any(is_changed(blob, known.get(blob.name)) for _, blob in batch):
                return False
    return True


async def has_same_files(
    existing: Version, missing: list[str], source: Source, catalog: Catalog, run: RunContext
) -> bool:
    """Whether each file of `held` is unchanged in the container, and what it was `missing` is missing still."""
    if existing.damaged:
        return False
    if await find_first_changed(source, partial(catalog.list_stored, existing, limit=ROWS_PER_QUERY), run) is not None:
        return False
    return await find_first_appeared(source, await run_in_thread(list, missing), run) is None
