"""Transfer: fetch, check and place all wanted files of a version."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Sequence
from dataclasses import field

from tilesync.catalog.schema import EMPTY, NOT_EMPTY
from tilesync.core.safe_names import raise_file_folder_clash
from tilesync.errors import BlobDamaged, BlobError, BlobMissing, DestinationError, TilesyncError
from tilesync.events import FileFailed
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.jobs.transfer.carry_over import CarryOver
from tilesync.jobs.transfer.download import Download, TransferContext
from tilesync.jobs.transfer.result_buffer import ResultBuffer
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.jobs.transfer.server_copy import ServerSideCopy
from tilesync.jobs.transfer.worker_batches import SMALL, WorkerLane
from tilesync.jobs.versions.completeness import missing_root_error
from tilesync.jobs.versions.file_check import check_file
from tilesync.model import ROOT, UNKNOWN_SIZE, Blob, FileResult, Inventory, Version
from tilesync.protocols import Body, Destination, Source
from tilesync.runtime.task_groups import first_error, gather_or_cancel
from tilesync.runtime.threads import run_in_thread
from tilesync.values import dataclass

FLUSH_INTERVAL_S = 0.25
"""Seconds between two writes to the catalog: a crash loses at most so much."""

EARLY_SYNC_BYTES = 128 << 20
"""Bytes still to arrive when the files that have arrived are made durable: publishing then waits for few more."""

LARGE = range(SMALL.stop, NOT_EMPTY.stop)
"""Sizes of blobs, in bytes, that are too large for the workers."""

BLOBS_PER_QUERY = 512

MIN_BLOBS_FOR_WORKERS = 256
"""Minimum small blobs to fetch for which the worker processes are started."""

MAX_BUFFERED_TRANSFERS = 32
"""Maximum concurrent downloads that are buffered in memory, if the number of transfers is fixed."""

MAX_QUEUED_WHILE_STARTING = 64
"""Maximum small blobs on the default path while the workers start. More are left for the workers, which are faster."""


@dataclass
class WorkSignal:
    """Signal of the listing that the catalog has more wanted files.

    Take `available` before a query, and wait for it after that: it is set when there may be more than the query found.
    """

    available: asyncio.Event = field(default_factory=asyncio.Event)
    complete: bool = False

    def notify(self, *, complete: bool = False) -> None:
        """Signal more wanted files; `complete`: the listing has ended."""
        self.complete = self.complete or complete
        self.available.set()
        self.available = asyncio.Event()


class Transfer:
    """Fetch the wanted files of one version with concurrent tasks and worker processes.

    A `BlobError` fails one file; a `RunError` ends the transfer. A placed file is in the catalog within a quarter of a
    second, with its references; a file in progress when a run ends may be fetched again. `salvage`: the destination may
    have files that the catalog does not know; each is kept if its bytes are those of the listed blob.

    A walk finds its work itself: fetched files name more files, until nothing is in flight. A referenced blob that the
    container does not have is then missing, which fails no file.
    """

    def __init__(
        self, version: Version, source: Source, destination: Destination, run: RunContext, *, salvage: bool = False
    ) -> None:
        from tilesync.jobs.versions.subtree_walk import SubtreeWalk  # late: a run without changes follows no subtree

        self._version = version
        self._source = source
        self._files = destination.files
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._run = run
        self._salvage = salvage
        self._retrying = Retrying(run)
        self._context = TransferContext(
            version, source, self._files, destination.catalog.references, run, self._retrying
        )
        self._server_copy = ServerSideCopy(version, source, self._files, run)
        self._subtree_walk = SubtreeWalk(version, destination.catalog, destination.files)
        self._reuse = Reuse(version, destination)
        self._carry_over = CarryOver(version, destination, run)
        self._queue: asyncio.Queue[tuple[int, Blob] | None] = asyncio.Queue(maxsize=2 * run.limiter.max_limit)
        self._in_flight = 0  # dispatched, and the result is not in the catalog yet
        self._progressed = asyncio.Event()
        self._results = ResultBuffer(version, destination.catalog, run, self._reuse)
        self._on_disk: set[int] = set()
        self._small_dispatched = 0
        self._on_default_path = 0  # queued for the default path, or in progress there
        self._worker_lane = WorkerLane(
            version,
            source,
            run,
            on_fetched=self._add_fetched,
            on_returned=self._return_to_default_path,
            on_ready=self._progressed.set,
        )
        self._can_expand = True

    async def run(self, work_signal: WorkSignal, listing: Awaitable[None] | None) -> None:
        """Return when every wanted file is stored or has failed. `listing` runs concurrently."""
        is_walk = self._version.inventory == Inventory.WALK and not work_signal.complete
        try:
            async with asyncio.TaskGroup() as group:
                if listing is not None:
                    group.create_task(_run_awaitable(listing))
                journal = group.create_task(self._flush_periodically())
                early_sync = group.create_task(self._sync_nearly_done())
                async with asyncio.TaskGroup() as tasks:
                    worker_lane = tasks.create_task(self._worker_lane.run())
                    tasks.create_task(
                        self._feed_walked(worker_lane) if is_walk else self._feed_listed(work_signal, worker_lane)
                    )
                    for _ in range(self._run.limiter.max_limit):
                        tasks.create_task(self._run_worker())
                journal.cancel()
                early_sync.cancel()
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None
        finally:
            await self._flush()

    # --- dispatch ---

    async def _feed_listed(self, work_signal: WorkSignal, worker_lane: asyncio.Task[None]) -> None:
        """Queue the wanted files: large ones beside the small ones, so that none of them is left for the end.

        Empty blobs come last, when the listing shows that they are not folder placeholders.
        """
        await gather_or_cancel([self._feed_sizes(work_signal, sizes) for sizes in (LARGE, SMALL)])
        await self._feed_sizes(work_signal, EMPTY)
        await self._finish_workers(worker_lane)

    async def _feed_sizes(self, work_signal: WorkSignal, sizes: range) -> None:
        """Queue the wanted files of these sizes while they are listed."""
        after = 0
        while True:
            # read before the query, which may miss files that are listed after it
            complete, available = work_signal.complete, work_signal.available
            last = await self._carry_over.advance()
            if last is None:
                last = await run_in_thread(self._catalog.unchanged.last_wanted, self._version)
            batch = await run_in_thread(
                self._catalog.list_wanted, self._version, after, last, limit=BLOBS_PER_QUERY, sizes=sizes
            )
            after = await self._dispatch(batch, after)
            if len(batch) == BLOBS_PER_QUERY:
                continue
            after = max(after, last)  # all that was listed by now has been looked at
            if complete:
                break
            await available.wait()

    async def _feed_walked(self, worker_lane: asyncio.Task[None]) -> None:
        """Queue the wanted files and the files that they reference, until nothing references more."""
        # The order matters: unrecorded results may reference more files, and subtrees are followed only when nothing
        # else can be queued. The walk ends when nothing is in flight and the final pass over the subtrees adds nothing.
        after = 0
        while True:
            self._progressed.clear()
            if batch := await run_in_thread(self._catalog.list_wanted, self._version, after, limit=BLOBS_PER_QUERY):
                after = await self._dispatch(batch, after)
            elif self._results:
                await self._flush()
            elif self._can_expand or not self._in_flight:
                if not await self._follow_subtrees(is_final=not self._in_flight) and not self._in_flight:
                    break
            else:
                await self._progressed.wait()
        await self._finish_workers(worker_lane)

    async def _dispatch(self, batch: list[tuple[int, Blob]], after: int) -> int:
        """Queue a batch, except for files that other versions store; return the number of its last file."""
        shared, refused_bytes, existing = await run_in_thread(self._find_existing, batch)
        self._run.stats.planned_bytes += refused_bytes
        self._on_disk |= existing
        reused = {result.file_id: result for result in shared}
        self._small_dispatched += sum(
            self._worker_lane.can_carry(blob) for number, blob in batch if number not in reused
        )
        if self._small_dispatched >= MIN_BLOBS_FOR_WORKERS:
            self._worker_lane.request_start()
        for item in batch:
            after = item[0]
            self._in_flight += 1
            if result := reused.get(after):
                self._results.add_reused(result)
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
        """Wait while the workers start and enough small blobs take the default path."""
        while self._worker_lane.is_starting and self._on_default_path >= MAX_QUEUED_WHILE_STARTING:
            self._progressed.clear()
            await self._progressed.wait()

    async def _return_to_default_path(self, item: tuple[int, Blob]) -> None:
        """Queue a blob that the workers did not fetch."""
        self._on_default_path += 1
        await self._queue.put(item)

    def _find_existing(self, batch: list[tuple[int, Blob]]) -> tuple[list[FileResult], int, set[int]]:
        """Share files of a batch with other versions, and find numbers of files that seem to exist here already."""
        present = self._files.find_present(self._version, [blob for _, blob in batch]) if self._salvage else set()
        existing = {number for number, blob in batch if blob.name in present}
        return (*self._reuse.share_duplicates(batch), existing)

    async def _finish_workers(self, worker_lane: asyncio.Task[None]) -> None:
        await self._worker_lane.finish()
        await worker_lane  # it puts blobs that failed there back into the queue
        for _ in range(self._run.limiter.max_limit):
            await self._queue.put(None)

    async def _follow_subtrees(self, *, is_final: bool) -> bool:
        """Follow the subtrees that have arrived; return whether they reference new files."""
        self._can_expand = False
        changed = await run_in_thread(self._subtree_walk.advance, is_final=is_final)
        new = 0
        for name in sorted(changed):
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
        """Return how many transfer slots a blob takes.

        Downloads that are buffered in memory take more, so that few of them run at once, even if the user fixed the
        number of transfers.
        """
        slots = self._files.transfer_slots(blob)
        return (
            max(1, self._run.limiter.max_limit // MAX_BUFFERED_TRANSFERS)
            if slots > 1 and self._run.limiter.is_fixed
            else slots
        )

    async def _process_blob(self, number: int, blob: Blob) -> None:
        """Fetch one wanted blob, or find that it exists already or is missing."""
        if number in self._on_disk:
            self._on_disk.discard(number)
            if existing := await run_in_thread(self._check_existing, number, blob):
                self._results.add_existing(existing)
                return
        try:
            result = await self._fetch_blob(number, blob)
        except BlobMissing as error:
            if blob.size != UNKNOWN_SIZE:
                raise
            if blob.name == ROOT:
                raise missing_root_error() from error
            self._results.add_missing(number)
            return
        if result is None:
            return
        self._add_fetched([result])

    def _add_fetched(self, results: Sequence[FileResult]) -> None:
        """Add blobs that were fetched and placed."""
        self._results.add_fetched(results)
        self._retrying.record_success(len(results))

    def _check_existing(self, number: int, blob: Blob) -> FileResult | None:
        """Return the file that exists already, if it is the listed one by size and MD5."""
        if not self._files.find_present(self._version, [blob]):
            return None
        try:
            checked = check_file(self._files, self._catalog.references, self._version, blob)
        except BlobDamaged:
            return None
        return (
            FileResult(number, checked.stored, checked.content, has_more_references=checked.has_more_references)
            if checked
            else None
        )

    async def _flush_periodically(self) -> None:
        while True:
            await self._run.clock.sleep(FLUSH_INTERVAL_S)
            await self._flush()

    async def _sync_nearly_done(self) -> None:
        """Make the files durable, once, when most have arrived."""
        stats = self._run.stats
        while not (
            stats.inventory_complete
            and stats.transferred_bytes >= EARLY_SYNC_BYTES >= stats.planned_bytes - stats.transferred_bytes
        ):
            await self._run.clock.sleep(FLUSH_INTERVAL_S)
        await run_in_thread(self._publication.sync_files)

    async def _flush(self) -> None:
        """Record finished files, and in a walk also the files that they reference as wanted."""
        recorded = await self._results.flush()
        self._can_expand = self._can_expand or recorded.may_expand
        self._in_flight -= recorded.written
        self._progressed.set()

    # --- one blob ---

    async def _fetch_blob(self, number: int, blob: Blob) -> FileResult | None:
        """Fetch one blob; None if an existing file was salvaged, or another version has it.

        A walk knows only the name: the first response describes the blob.
        """
        body: Body | None = None
        if blob.size == UNKNOWN_SIZE:
            blob, open_body = await self._retrying.retry(blob.name, lambda: self._source.open_by_name(blob.name))
            body = open_body
            await run_in_thread(self._files.check_names, [blob.name])
            self._run.windows_names.check([blob.name])
            self._run.stats.listed_bytes += max(blob.size, 0)
            if self._salvage and (existing := await run_in_thread(self._check_existing, number, blob)):
                await open_body.aclose()
                self._results.add_existing(existing)
                return None
            shared, _ = await run_in_thread(self._reuse.share_duplicates, [(number, blob)])
            if shared:
                await open_body.aclose()
                self._results.add_reused(shared[0])
                return None
            self._run.stats.planned_bytes += max(blob.size, 0)
        if body is None and self._server_copy.is_suitable(blob):
            described = blob
            copied = await self._retrying.retry(blob.name, lambda: self._server_copy.copy(number, described))
            if copied is not None:
                return copied
        download = Download(self._context, blob, body)
        try:
            checked = await download.run()
        except BaseException:
            with contextlib.suppress(TilesyncError):
                await download.suspend()
            raise
        return FileResult(number, checked.stored, checked.content, has_more_references=checked.has_more_references)


async def _run_awaitable(work: Awaitable[None]) -> None:
    await work
