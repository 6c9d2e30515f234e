"""Whether the container still has what is held: one question a file, conditional on its ETag."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import islice

from tilesync.errors import BlobError, BlobMissing, Unavailable
from tilesync.jobs.run.context import Run
from tilesync.jobs.run.retry import Persistence
from tilesync.model import Held
from tilesync.protocols import Source
from tilesync.runtime.task_groups import gathered
from tilesync.runtime.threads import in_thread

BATCH = 500


async def first_appeared(source: Source, names: Iterable[str], run: Run) -> str | None:
    """The first of some names that the container has after all; None when it still has none of them.

    Raises the RunErrors of the source.
    """
    persistence = Persistence(run)

    async def ask(name: str) -> bool:
        async with run.gate.turn():
            try:
                _, body = await persistence.insist(name, lambda: source.first(name))
            except BlobMissing:
                return False
            except BlobError as error:
                raise Unavailable(str(error), hint=error.hint or None) from error
            await body.aclose()
            return True

    rest = iter(names)
    while batch := list(islice(rest, BATCH)):
        there = await gathered(ask(name) for name in batch)
        if True in there:
            return batch[there.index(True)]
    return None


Batches = Callable[[str], list[tuple[str, Held]]]
"""What is held behind a key, by key; empty behind the last."""


async def first_changed(source: Source, batches: Batches, run: Run) -> str | None:
    """The name of a held file that the container no longer has as it is held; None when all are unchanged.

    Raises the RunErrors of the source.
    """
    persistence = Persistence(run)

    async def ask(held: Held) -> bool:
        async with run.gate.turn():
            try:
                unchanged = await persistence.insist(held.blob.name, lambda: source.unchanged(held))
            except BlobError as error:
                raise Unavailable(str(error), hint=error.hint or None) from error
        persistence.succeeded()
        return unchanged

    after = ""
    while batch := await in_thread(batches, after):
        after = batch[-1][0]
        answers = await gathered(ask(held) for _, held in batch)
        for (_, held), unchanged in zip(batch, answers, strict=True):
            if not unchanged:
                return held.blob.name
    return None
