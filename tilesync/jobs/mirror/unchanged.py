"""Unchanged check: compare a container with a stored version, by its listing or with one request per file."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice

from tilesync.catalog.catalog import Catalog
from tilesync.catalog.schema import EMPTY, NOT_EMPTY
from tilesync.errors import BlobError, BlobMissing, Unavailable
from tilesync.jobs.mirror.inventory import is_changed
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.model import Content, StoredFile, Version
from tilesync.protocols import Source
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.threads import run_in_thread

ROWS_PER_QUERY = 2000

NAMES_PER_BATCH = 500
"""Names that are requested together."""

ReadStoredBatch = Callable[[str], list[tuple[str, StoredFile]]]
"""Read the next stored files, with their keys, after a given key; empty after the last one."""


def has_same_listing(version: Version, existing: Version, catalog: Catalog) -> bool:
    """Return whether the listing of `version` describes exactly the files that `existing` stores."""
    totals = catalog.compute_totals(version)
    # A decoded version stores other sizes than its container lists: only the number of files can be compared.
    if totals.files != existing.summary.files or (
        existing.content is Content.STORED and totals.bytes != existing.summary.bytes
    ):
        return False
    for sizes in (NOT_EMPTY, EMPTY):
        after = 0
        while batch := catalog.list_wanted(version, after, limit=ROWS_PER_QUERY, sizes=sizes):
            after = batch[-1][0]
            stored = catalog.find_stored(existing, [blob.name for _, blob in batch])
            if any(is_changed(blob, stored.get(blob.name)) for _, blob in batch):
                return False
    return True


async def has_same_files(
    existing: Version, missing: list[str], source: Source, catalog: Catalog, run: RunContext
) -> bool:
    """Return whether the container still has each file of `existing`, and still lacks the names in `missing`."""
    if existing.damaged:
        return False
    if await find_first_changed(source, partial(catalog.list_stored, existing, limit=ROWS_PER_QUERY), run) is not None:
        return False
    return await find_first_appeared(source, await run_in_thread(list, missing), run) is None


async def find_first_changed(source: Source, read_batch: ReadStoredBatch, run: RunContext) -> str | None:
    """Return the name of the first stored file that changed in the container; None if all are unchanged.

    Sends one request per file, conditional on its ETag. Raises the RunErrors of the source.
    """
    retrying = Retrying(run)

    async def is_unchanged(stored: StoredFile) -> bool:
        async with run.limiter.slot():
            try:
                unchanged = await retrying.retry(stored.blob.name, lambda: source.is_unchanged(stored))
            except BlobError as error:
                raise Unavailable(str(error), hint=error.hint or None) from error
        retrying.record_success()
        return unchanged

    after = ""
    while batch := await run_in_thread(read_batch, after):
        after = batch[-1][0]
        answers = await gather_or_cancel(is_unchanged(stored) for _, stored in batch)
        for (_, stored), unchanged in zip(batch, answers, strict=True):
            if not unchanged:
                return stored.blob.name
    return None


async def find_first_appeared(source: Source, names: Iterable[str], run: RunContext) -> str | None:
    """Return the first of some missing names that the container has now; None if it still has none of them.

    Raises the RunErrors of the source.
    """
    retrying = Retrying(run)

    async def exists(name: str) -> bool:
        async with run.limiter.slot():
            try:
                _, body = await retrying.retry(name, lambda: source.open_by_name(name))
            except BlobMissing:
                return False
            except BlobError as error:
                raise Unavailable(str(error), hint=error.hint or None) from error
            await body.aclose()
            return True

    remaining = iter(names)
    while batch := list(islice(remaining, NAMES_PER_BATCH)):
        answers = await gather_or_cancel(exists(name) for name in batch)
        if True in answers:
            return batch[answers.index(True)]
    return None
