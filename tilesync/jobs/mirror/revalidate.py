"""Whether the container still has what is held: one question a file, conditional on its ETag."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from tilesync.errors import BlobError, BlobMissing, Unavailable
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.model import StoredFile
from tilesync.protocols import Source
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.threads import run_in_thread

FILES_PER_BATCH = 500


async def find_first_appeared(source: Source, names: Iterable[str], run: RunContext) -> str | None:
    """The first of some names that the container has after all; None when it still has none of them.

    Raises the RunErrors of the source.
    """
    persistence = Retrying(run)

    async def ask(name: str) -> bool:
        async with run.limiter.slot():
            try:
                _, body = await persistence.retry(name, lambda: source.open_by_name(name))
            except BlobMissing:
                return False
            except BlobError as error:
                raise Unavailable(str(error), hint=error.hint or None) from error
            await body.aclose()
            return True

    rest = iter(names)
    while batch := list(islice(rest, FILES_PER_BATCH)):
        there = await gather_or_cancel(ask(name) for name in batch)
        if True in there:
            return batch[there.index(True)]
    return None


ReadStoredBatch = Callable[[str], list[tuple[str, StoredFile]]]
"""What is held behind a key, by key; empty behind the last."""


async def find_first_changed(source: Source, read_batch: ReadStoredBatch, run: RunContext) -> str | None:
    """The name of a held file that the container no longer has as it is held; None when all are unchanged.

    Raises the RunErrors of the source.
    """
    persistence = Retrying(run)

    async def ask(held: StoredFile) -> bool:
        async with run.limiter.slot():
            try:
                unchanged = await persistence.retry(held.blob.name, lambda: source.is_unchanged(held))
            except BlobError as error:
                raise Unavailable(str(error), hint=error.hint or None) from error
        persistence.record_success()
        return unchanged

    after = ""
    while batch := await run_in_thread(read_batch, after):
        after = batch[-1][0]
        answers = await gather_or_cancel(ask(held) for _, held in batch)
        for (_, held), unchanged in zip(batch, answers, strict=True):
            if not unchanged:
                return held.blob.name
    return None
