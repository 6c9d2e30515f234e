"""Transfer: everything of a version that is wanted, fetched, checked and placed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field
from typing import NoReturn

from tilesync.errors import (
    BlobDamaged,
    BlobError,
    BlobUnreachable,
    DestinationError,
    RangeRefused,
    RunError,
    Transient,
    Unavailable,
)
from tilesync.events import Failed, Retried, Stored
from tilesync.jobs.run import Run
from tilesync.model import Blob, Held, Version
from tilesync.protocols import Destination, Draft, Source
from tilesync.rules.content import ContentCheck
from tilesync.rules.retries import Patience
from tilesync.threads import in_thread

JOURNAL = 0.25
"""Seconds between two entries in the catalog: what a kill can lose."""

BATCH = 512
DAMAGED_FETCHES = 4
"""How often bytes that do not check are fetched anew, when they differ each time."""


@dataclass
class Supply:
    """What tells the transfer that the catalog has more for it: set by the listing."""

    more: asyncio.Event = field(default_factory=asyncio.Event)
    complete: bool = False

    def add(self, *, complete: bool = False) -> None:
        """There is more in the catalog; `complete`: and that was all."""
        self.complete = self.complete or complete
        self.more.set()


class Transfer:
    """Workers over a source, into the files of one version.

    A `BlobError` fails one file; a `RunError` ends the transfer. What is in place is in the catalog within a quarter
    second; what is under way when a run ends may be fetched again. `salvage`: the catalog was lost, so a file that lies
    there already is kept when its MD5 is the listed one.
    """

    def __init__(
        self, version: Version, source: Source, destination: Destination, run: Run, *, salvage: bool = False
    ) -> None:
        self._version = version
        self._source = source
        self._files = destination.files
        self._catalog = destination.catalog
        self._run = run
        self._budget = run.budget.total_seconds()
        self._salvage = salvage
        self._queue: asyncio.Queue[tuple[int, Blob] | None] = asyncio.Queue(maxsize=2 * run.gate.most)
        self._done: list[tuple[int, Held]] = []
        self._failing: set[str] = set()
        self._last_success: float | None = None
        self._gave_up = False

    async def run(self, supply: Supply, listing: Awaitable[None] | None) -> None:
        """Return when everything that the catalog wants is held, or has failed. `listing` runs beside it."""
        try:
            async with asyncio.TaskGroup() as group:
                if listing is not None:
                    group.create_task(_awaited(listing))
                journal = group.create_task(self._journal())
                async with asyncio.TaskGroup() as movers:
                    movers.create_task(self._feed(supply))
                    for _ in range(self._run.gate.most):
                        movers.create_task(self._work())
                journal.cancel()
        except BaseExceptionGroup as group_error:
            raise _first(group_error) from None
        finally:
            await self._flush()

    async def _feed(self, supply: Supply) -> None:
        """Hand out what the catalog wants; blobs without bytes last, when it is known that they are no folders."""
        for empty in (False, True):
            after = 0
            while True:
                complete = supply.complete
                supply.more.clear()
                batch = await in_thread(self._catalog.wanted, self._version, after, limit=BATCH, empty=empty)
                for item in batch:
                    await self._queue.put(item)
                    after = item[0]
                if not batch and complete:
                    break
                if not batch:
                    await supply.more.wait()
        for _ in range(self._run.gate.most):
            await self._queue.put(None)

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            number, blob = item
            async with self._run.gate:
                try:
                    if self._salvage and (found := await in_thread(self._found, blob)):
                        self._done.append((number, found))
                        self._run.tally.verified += 1
                        continue
                    held = await self._move(blob)
                except BlobError as error:
                    self._run.tally.failed += 1
                    self._run.observe(Failed(blob.name, type(error).__name__, str(error)))
                    continue
                finally:
                    self._failing.discard(blob.name)
            self._count(number, held)

    def _found(self, blob: Blob) -> Held | None:
        """The file that lies there already, when it is the listed one by size and MD5."""
        if blob.md5 is None or self._files.size(self._version, blob.name) != blob.size:
            return None
        digest = self._files.digest(self._version, blob.name)
        return Held(blob, digest[0], digest[2]) if digest is not None and digest[1] == blob.md5 else None

    def _count(self, number: int, held: Held) -> None:
        self._done.append((number, held))
        self._run.gate.succeeded()
        self._last_success, self._gave_up = self._run.clock.monotonic(), False
        self._run.tally.fetched += 1
        self._run.tally.verified += 1
        if self._run.every_file:
            self._run.observe(Stored(held.blob.name, held.blob.size))

    async def _journal(self) -> None:
        while True:
            await self._run.clock.sleep(JOURNAL)
            await self._flush()

    async def _flush(self) -> None:
        done, self._done = self._done, []
        if done:
            await in_thread(self._catalog.hold, done)

    # --- one blob ---

    async def _move(self, blob: Blob) -> Held:
        draft = self._files.draft(self._version, blob)
        try:
            return await self._fill(blob, draft)
        except BaseException:
            with contextlib.suppress(DestinationError):
                await draft.suspend()
            raise

    async def _fill(self, blob: Blob, draft: Draft) -> Held:
        """Fetch until the bytes check: a body that breaks is continued, one that does not check is fetched anew."""
        check, patience = ContentCheck(blob), Patience(self._budget)
        if draft.held:
            async for chunk in draft.prefix():
                check.feed(chunk)
        best, wrong = check.size, list[bytes]()
        while True:
            began = self._run.clock.monotonic()
            try:
                if check.size != blob.size or blob.size == 0:
                    await self._receive(blob, draft, check)
                return await draft.commit(check.finish())
            except BlobDamaged as error:
                _judge_damage(error, check.sha256, wrong)
                await self._start_over(draft, check)
                self._run.observe(Retried(blob.name, str(error), 0))
            except Transient as error:
                if isinstance(error, RangeRefused):
                    await self._start_over(draft, check)
                if check.size > best:
                    best = check.size
                    patience.progress()
                await self._pause(blob, error, patience, began)

    async def _receive(self, blob: Blob, draft: Draft, check: ContentCheck) -> None:
        """Add the bytes that are missing. A body that ends early without a break is short for good."""
        body = await self._source.open(blob, check.size)
        try:
            if body.start != check.size:
                await self._start_over(draft, check)
            async for chunk in body.chunks():
                check.feed(chunk)
                self._run.tally.bytes += len(chunk)
                if check.size > blob.size:
                    return
                await draft.append(chunk)
        finally:
            await body.aclose()

    async def _start_over(self, draft: Draft, check: ContentCheck) -> None:
        check.restart()
        await draft.restart()

    async def _pause(self, blob: Blob, error: Transient, patience: Patience, began: float) -> None:
        """Wait before the next attempt, or give the blob or the storage up."""
        self._failing.add(blob.name)
        if error.pressure:
            self._run.gate.ease()
        wait = patience.next_wait(self._run.clock.monotonic(), error.retry_after, began=began)
        if wait is None:
            self._give_up(blob, error, patience.since or began)
        self._run.observe(Retried(blob.name, str(error), wait))
        await self._run.clock.sleep(wait)

    def _give_up(self, blob: Blob, error: Transient, since: float) -> NoReturn:
        """One blob that keeps failing while others arrive is that blob's failure; otherwise it is the storage's.

        Where nothing else is under way it is the blob's too, but not for two in a row.
        """
        others_arrive = self._last_success is not None and self._last_success >= since
        alone = self._last_success is not None and self._failing == {blob.name} and not self._gave_up
        if others_arrive or alone:
            self._gave_up = True
            raise BlobUnreachable(f"{blob.name} kept failing: {error}") from error
        raise Unavailable(f"the storage kept failing: {error}") from error


def _judge_damage(error: BlobDamaged, sha256: bytes, wrong: list[bytes]) -> None:
    """Raise when fetching anew cannot help: the same wrong bytes came twice, or each time others."""
    if sha256 in wrong:
        raise BlobDamaged(f"{error} (the same bytes came twice: the container holds them so)") from error
    wrong.append(sha256)
    if len(wrong) >= DAMAGED_FETCHES:
        raise BlobDamaged(f"{error} (fetched {len(wrong)} times, other bytes each time)") from error


async def _awaited(work: Awaitable[None]) -> None:
    await work


def _first(group: BaseExceptionGroup[BaseException]) -> BaseException:
    """The error that a group is about: TaskGroup wraps, the jobs' callers want the one that ended the run."""
    leaves = list(_leaves(group))
    return next((error for error in leaves if isinstance(error, RunError)), leaves[0])


def _leaves(group: BaseExceptionGroup[BaseException]) -> list[BaseException]:
    return [
        leaf
        for error in group.exceptions
        for leaf in (_leaves(error) if isinstance(error, BaseExceptionGroup) else [error])
    ]
