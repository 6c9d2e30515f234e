"""Transfer: everything of a version that is wanted, fetched, checked and placed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field

from tilesync.core.safe_names import raise_file_folder_clash
from tilesync.errors import BlobDamaged, BlobError, BlobMissing, DestinationError, TilesyncError
from tilesync.events import FileFailed, FileReused, FileStored
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.jobs.transfer.download import Download, TransferContext
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.jobs.transfer.server_copy import ServerSideCopy
from tilesync.jobs.transfer.worker_batches import WorkerLane
from tilesync.jobs.versions.completeness import missing_root_error
from tilesync.jobs.versions.file_check import check_file
from tilesync.jobs.versions.subtree_walk import SubtreeWalk
from tilesync.model import ROOT, UNKNOWN_SIZE, Blob, FileResult, Inventory, Kind, Version
from tilesync.protocols import Body, Destination, Source
from tilesync.runtime.task_groups import first_error
from tilesync.runtime.threads import run_in_thread

FLUSH_INTERVAL_S = 0.25
"""Seconds between two entries in the catalog: what a kill can lose."""

BLOBS_PER_QUERY = 512

MIN_BLOBS_FOR_WORKERS = 256
"""Blobs to be fetched for which helpers are worth their start."""

MAX_BUFFERED_TRANSFERS = 32
"""Blobs that take room in memory, at most, of a fixed number of transfers."""

MAX_QUEUED_WHILE_STARTING = 64
"""Blobs that are on the usual way while helpers start: what waits there longer would be with them sooner."""


@dataclass
class WorkSignal:
    """What tells the transfer that the catalog has more for it: set by the listing."""

    available: asyncio.Event = field(default_factory=asyncio.Event)
    complete: bool = False

    def notify(self, *, complete: bool = False) -> None:
        """There is more in the catalog; `complete`: and that was all."""
        self.complete = self.complete or complete
        self.available.set()


class Transfer:
    """Workers over a source, into the files of one version.

    A `BlobError` fails one file; a `RunError` ends the transfer. What is in place is in the catalog within a quarter
    second, with what it asks for; what is under way when a run ends may be fetched again. `salvage`: files may lie
    there of which nothing was noted; each is kept when it is the listed one by its bytes.

    A version that is walked finds its own supply: what arrives says what else is wanted, until nothing is under way.
    A blob that is asked for and that the container does not have is then missing, which fails no file.
    """

    def __init__(
        self, version: Version, source: Source, destination: Destination, run: RunContext, *, salvage: bool = False
    ) -> None:
        self._version = version
        self._source = source
        self._files = destination.files
        self._catalog = destination.catalog
        self._run = run
        self._salvage = salvage
        self._retrying = Retrying(run)
        self._context = TransferContext(
            version, source, self._files, destination.catalog.references, run, self._retrying
        )
        self._server_copy = ServerSideCopy(version, source, self._files, run)
        self._expansion = SubtreeWalk(version, destination.catalog, destination.files)
        self._reuse = Reuse(version, destination)
        self._queue: asyncio.Queue[tuple[int, Blob] | None] = asyncio.Queue(maxsize=2 * run.limiter.max_limit)
        self._in_flight = 0  # handed out, and how it ended is not in the catalog yet
        self._progressed = asyncio.Event()
        self._arrivals: list[FileResult] = []
        self._missing: list[int] = []
        self._on_disk: set[int] = set()
        self._small_dispatched = 0
        self._on_default_path = 0  # on the usual way, or waiting for it
        self._worker_lane = WorkerLane(
            version,
            source,
            run,
            on_fetched=self._record_fetched,
            on_returned=self._return_to_default_path,
            on_ready=self._progressed.set,
        )
        self._can_expand = True

    async def run(self, work_signal: WorkSignal, listing: Awaitable[None] | None) -> None:
        """Return when everything that the catalog wants is held, or has failed. `listing` runs beside it."""
        walks = self._version.inventory == Inventory.WALK and not work_signal.complete
        try:
            async with asyncio.TaskGroup() as group:
                if listing is not None:
                    group.create_task(_run_awaitable(listing))
                journal = group.create_task(self._flush_periodically())
                async with asyncio.TaskGroup() as movers:
                    express = movers.create_task(self._worker_lane.run())
                    movers.create_task(self._feed_walked(express) if walks else self._feed_listed(work_signal, express))
                    for _ in range(self._run.limiter.max_limit):
                        movers.create_task(self._run_worker())
                journal.cancel()
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None
        finally:
            await self._flush()

    # --- what is to be done ---

    async def _feed_listed(self, work_signal: WorkSignal, worker_lane: asyncio.Task[None]) -> None:
        """Hand out what the catalog wants; blobs without bytes last, when it is known that they are no folders."""
        for empty in (False, True):
            after = 0
            while True:
                complete = work_signal.complete
                work_signal.available.clear()
                batch = await run_in_thread(
                    self._catalog.list_wanted, self._version, after, limit=BLOBS_PER_QUERY, empty=empty
                )
                after = await self._dispatch(batch, after)
                if not batch and complete:
                    break
                if not batch:
                    await work_signal.available.wait()
        await self._finish_workers(worker_lane)

    async def _feed_walked(self, worker_lane: asyncio.Task[None]) -> None:
        """Hand out what the catalog wants, and what that turns out to ask for, until nothing asks for more."""
        after = 0
        while True:
            self._progressed.clear()
            if batch := await run_in_thread(self._catalog.list_wanted, self._version, after, limit=BLOBS_PER_QUERY):
                after = await self._dispatch(batch, after)
            elif self._arrivals or self._missing:
                await self._flush()
            elif self._can_expand or not self._in_flight:
                if not await self._expand(last=not self._in_flight) and not self._in_flight:
                    break
            else:
                await self._progressed.wait()
        await self._finish_workers(worker_lane)

    async def _dispatch(self, batch: list[tuple[int, Blob]], after: int) -> int:
        """Give the workers a batch, but for what other versions hold; the number behind which the next one begins."""
        taken, refused, there = await run_in_thread(self._find_existing, batch)
        self._run.stats.planned_bytes += refused
        self._on_disk |= there
        reused = {arrival.file_id: arrival for arrival in taken}
        for item in batch:
            after = item[0]
            self._in_flight += 1
            if arrival := reused.get(after):
                self._record_reused(arrival)
            elif after not in self._on_disk and self._worker_lane.should_carry(item[1]):
                await self._worker_lane.put(item)
            else:
                if self._worker_lane.can_carry(item[1]):
                    await self._throttle_default_path()
                self._on_default_path += 1
                await self._queue.put(item)
        await self._worker_lane.flush()
        return after

    async def _throttle_default_path(self) -> None:
        """One more small blob for the usual way: many of them call the helpers, and wait while these start."""
        self._small_dispatched += 1
        if self._small_dispatched == MIN_BLOBS_FOR_WORKERS:
            self._worker_lane.request_start()
        while self._worker_lane.is_starting and self._on_default_path >= MAX_QUEUED_WHILE_STARTING:
            self._progressed.clear()
            await self._progressed.wait()

    async def _return_to_default_path(self, item: tuple[int, Blob]) -> None:
        """What did not come by way of the helpers goes the usual one."""
        self._on_default_path += 1
        await self._queue.put(item)

    def _find_existing(self, batch: list[tuple[int, Blob]]) -> tuple[list[FileResult], int, set[int]]:
        """What other versions hold of a batch, and the numbers of those that seem to lie here already."""
        lying = self._files.find_present(self._version, [blob for _, blob in batch]) if self._salvage else set()
        there = {number for number, blob in batch if blob.name in lying}
        return (*self._reuse.share_duplicates(batch), there)

    def _record_reused(self, arrival: FileResult) -> None:
        """A file of another version is in place."""
        blob, tally = arrival.stored.blob, self._run.stats
        self._arrivals.append(arrival)
        tally.reused += 1
        tally.reused_bytes += blob.size
        tally.verified += 1
        if self._run.reports_every_file:
            self._run.observe(FileReused(blob.name, blob.size))

    async def _finish_workers(self, worker_lane: asyncio.Task[None]) -> None:
        await self._worker_lane.finish()
        await worker_lane  # it hands back what did not come
        for _ in range(self._run.limiter.max_limit):
            await self._queue.put(None)

    async def _expand(self, *, last: bool) -> bool:
        """Let the subtrees that have arrived say what else is wanted; whether that is more than before."""
        self._can_expand = False
        grown = await run_in_thread(self._expansion.advance, is_final=last)
        new = 0
        for name in sorted(grown):
            new += await run_in_thread(self._want_references, name)
        self._run.stats.listed += new
        return bool(new)

    def _want_references(self, source: str) -> int:
        return self._catalog.add_wanted_references(self._version, source)

    async def _run_worker(self) -> None:
        while (item := await self._queue.get()) is not None:
            number, blob = item
            async with self._run.limiter.slot(self._count_slots(blob)):
                try:
                    await self._process_blob(number, blob)
                except BlobError as error:
                    self._run.stats.failed += 1
                    self._run.observe(FileFailed(blob.name, type(error).__name__, str(error), error.hint))
                    self._in_flight -= 1
                except DestinationError:
                    if clash := await run_in_thread(self._catalog.find_clash, self._version, blob.name):
                        raise_file_folder_clash(*clash)
                    raise
                finally:
                    self._retrying.record_finished(blob.name)
                    self._on_default_path -= 1
                    self._progressed.set()

    def _count_slots(self, blob: Blob) -> int:
        """As how many transfers a blob counts: of those that take room in memory few are under way at once, also where
        someone fixed how many there may be of all.
        """
        places = self._files.transfer_slots(blob)
        return (
            max(1, self._run.limiter.max_limit // MAX_BUFFERED_TRANSFERS)
            if places > 1 and self._run.limiter.is_fixed
            else places
        )

    async def _process_blob(self, number: int, blob: Blob) -> None:
        """See to it that one wanted blob is held, or known to be missing."""
        if number in self._on_disk:
            self._on_disk.discard(number)
            if found := await run_in_thread(self._check_existing, number, blob):
                self._record_existing(found)
                return
        try:
            arrival = await self._fetch_blob(number, blob)
        except BlobMissing as error:
            if blob.size != UNKNOWN_SIZE:
                raise
            if blob.name == ROOT:
                raise missing_root_error() from error
            self._missing.append(number)
            self._run.stats.listed -= 1
            return
        if arrival is None:
            return
        self._record_fetched(arrival)

    def _record_fetched(self, arrival: FileResult) -> None:
        """A blob was fetched, and is in place."""
        self._arrivals.append(arrival)
        self._retrying.record_success()
        self._run.stats.fetched += 1
        self._run.stats.verified += 1
        if self._run.reports_every_file:
            self._run.observe(FileStored(arrival.stored.blob.name, arrival.stored.blob.size))

    def _record_existing(self, arrival: FileResult) -> None:
        self._arrivals.append(arrival)
        self._run.stats.verified += 1

    def _check_existing(self, number: int, blob: Blob) -> FileResult | None:
        """The file that lies there already, when it is the listed one by size and MD5."""
        if not self._files.find_present(self._version, [blob]):
            return None
        try:
            found = check_file(self._files, self._catalog.references, self._version, blob)
        except BlobDamaged:
            return None
        return (
            FileResult(number, found.stored, found.content, has_more_references=found.has_more_references)
            if found
            else None
        )

    async def _flush_periodically(self) -> None:
        while True:
            await self._run.clock.sleep(FLUSH_INTERVAL_S)
            await self._flush()

    async def _flush(self) -> None:
        """Record what has arrived, and want what a walk learns by it: in one hop, which a cancellation waits for."""
        (done, self._arrivals), (missed, self._missing) = (self._arrivals, []), (self._missing, [])
        if done or missed:
            new = await run_in_thread(self._record, done, missed)  # `+= await` would take the count from before it
            self._run.stats.listed += new
            self._can_expand = self._can_expand or any(_may_expand(arrival) for arrival in done)
        self._in_flight -= len(done) + len(missed)
        self._progressed.set()

    def _record(self, done: list[FileResult], missed: list[int]) -> int:
        """Enter them in the catalog; how many names a walk learns by that."""
        new = self._catalog.mark_stored(self._version, self._reuse.deduplicate(done)) if done else 0
        if missed:
            self._catalog.mark_missing(self._version, missed)
        return new

    # --- one blob ---

    async def _fetch_blob(self, number: int, blob: Blob) -> FileResult | None:
        """Fetch one blob; where a walk knows its name alone, the first answer describes it. None: it was salvaged,
        or another version holds it.
        """
        body: Body | None = None
        if blob.size == UNKNOWN_SIZE:
            blob, coming = await self._retrying.retry(blob.name, lambda: self._source.open_by_name(blob.name))
            body = coming
            await run_in_thread(self._files.check_names, [blob.name])
            self._run.windows_names.check([blob.name])
            self._run.stats.listed_bytes += max(blob.size, 0)
            if self._salvage and (kept := await run_in_thread(self._check_existing, number, blob)):
                await coming.aclose()
                self._record_existing(kept)
                return None
            taken, _ = await run_in_thread(self._reuse.share_duplicates, [(number, blob)])
            if taken:
                await coming.aclose()
                self._record_reused(taken[0])
                return None
            self._run.stats.planned_bytes += max(blob.size, 0)
        if body is None and self._server_copy.is_suitable(blob):
            described = blob
            handed = await self._retrying.retry(blob.name, lambda: self._server_copy.copy(number, described))
            if handed is not None:
                return handed
        fetch = Download(self._context, blob, body)
        try:
            found = await fetch.run()
        except BaseException:
            with contextlib.suppress(TilesyncError):
                await fetch.suspend()
            raise
        return FileResult(number, found.stored, found.content, has_more_references=found.has_more_references)


def _may_expand(arrival: FileResult) -> bool:
    """Whether a subtree may be followed now: it has arrived, or what it needs may have."""
    reading = arrival.content
    return reading.has_implicit_tiling or reading.kind in {Kind.SUBTREE, Kind.SCHEMA, Kind.NONE}


async def _run_awaitable(work: Awaitable[None]) -> None:
    await work
