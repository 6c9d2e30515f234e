"""Worker lane: small blobs in batches, each fetched once by a worker process."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import nullcontext

from tilesync.errors import Transient
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.download import FAST_BODY_S, MAX_SINGLE_READ_BYTES
from tilesync.model import BatchResult, Blob, FileResult, Version
from tilesync.protocols import Source, Workers

SMALL = range(1, MAX_SINGLE_READ_BYTES + 1)
"""Sizes of blobs, in bytes, that the workers can fetch."""

QUEUED_BLOBS_PER_SLOT = 2
"""Blobs sent to the workers for each transfer slot: with a second one waiting, a worker never runs out of work."""

MAX_CLUSTER_BATCHES = 128
"""Maximum batches that wait for the workers of a cluster, or are done by them; their threads are the limit."""

COOLDOWN_S = 1.0
"""Seconds without worker batches after a blob failed there: the default path finds out the reason."""


class WorkerLane:
    """Fetch small blobs with the worker processes.

    `on_fetched` gets the files that arrived, `on_returned` each blob that did not; `on_ready` is called when the
    workers have started.
    """

    def __init__(
        self,
        version: Version,
        source: Source,
        run: RunContext,
        *,
        on_fetched: Callable[[Sequence[FileResult]], None],
        on_returned: Callable[[tuple[int, Blob]], Awaitable[None]],
        on_ready: Callable[[], None],
    ) -> None:
        self._version = version
        self._source = source
        self._run = run
        self._workers = run.workers if run.workers is not None and source.has_worker_source else None
        self._on_fetched = on_fetched
        self._on_returned = on_returned
        self._on_ready = on_ready
        self._pending: list[tuple[int, Blob]] = []
        self._paused_until = 0.0
        self._start_requested, self._finish_event = asyncio.Event(), asyncio.Event()
        if self._workers is not None and self._workers.start_requested:
            self._start_requested.set()
        self._is_ready = self._is_finished = False
        max_limit, full_batch = run.limiter.max_limit, 2 if self._workers is None else self._workers.blobs_per_batch
        self._has_own_limits = self._workers is not None and self._workers.has_own_limits
        is_limited = max_limit < 2 * full_batch and not self._has_own_limits
        self._batch_size = full_batch // 2 if is_limited else full_batch
        self._max_batches = max_limit * QUEUED_BLOBS_PER_SLOT // self._batch_size
        if self._has_own_limits:
            self._max_batches = MAX_CLUSTER_BATCHES
        self._batches: asyncio.Queue[list[tuple[int, Blob]] | None] = asyncio.Queue(maxsize=self._max_batches)

    @property
    def is_starting(self) -> bool:
        """Return whether the workers are starting."""
        is_possible = self._workers is not None and self._max_batches > 0
        return is_possible and self._start_requested.is_set() and not self._is_ready and not self._is_finished

    def can_carry(self, blob: Blob) -> bool:
        """Return whether workers can fetch this blob at all."""
        return blob.size in SMALL

    def should_carry(self, blob: Blob) -> bool:
        """Return whether workers should fetch this blob now."""
        if not self._is_ready or not self.can_carry(blob):
            return False
        return self._run.limiter.has_fast_bodies and self._run.clock.monotonic() >= self._paused_until

    async def put(self, item: tuple[int, Blob]) -> None:
        """Queue one blob; a full batch is sent."""
        self._pending.append(item)
        if len(self._pending) >= self._batch_size:
            await self.flush()

    async def flush(self) -> None:
        """Send the blobs that wait for a full batch."""
        batch, self._pending = self._pending, []
        if batch:
            await self._batches.put(batch)

    async def run(self) -> None:
        """Return when every queued blob was fetched or returned, and `finish` was called."""
        workers = self._workers
        if workers is None or not self._max_batches:
            return
        await self._start_requested.wait()
        if not self._is_finished:
            await self._wait_until_started(workers)
        if self._is_finished:
            return
        self._is_ready = True
        self._on_ready()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._max_batches):
                group.create_task(self._run_batches(workers))

    async def _wait_until_started(self, workers: Workers) -> None:
        """Wait until the workers are ready, or the queue has ended: a start that hangs must not delay the end."""
        waits = [asyncio.create_task(workers.start()), asyncio.create_task(self._finish_event.wait())]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            _ = [task.result() for task in done]
        finally:
            for task in waits:
                task.cancel()

    def request_start(self) -> None:
        """Start the workers; until they are ready, all blobs take the default path."""
        self._start_requested.set()

    async def finish(self) -> None:
        """End the queue: nothing more is put."""
        self._is_finished = True
        self._start_requested.set()
        self._finish_event.set()
        await self.flush()
        for _ in range(self._max_batches if self._is_ready else 0):
            await self._batches.put(None)

    async def _run_batches(self, workers: Workers) -> None:
        while (batch := await self._batches.get()) is not None:
            slots = len(batch) if self._run.limiter.is_fixed else len(batch) // QUEUED_BLOBS_PER_SLOT
            async with nullcontext() if self._has_own_limits else self._run.limiter.slot(slots):
                worker_source, limit = await self._source.worker_source(), self._run.limiter.limit
                try:
                    answer = await workers.fetch_batch(self._version, worker_source, batch, max_concurrent=limit)
                except Transient:  # the default path finds out the reason
                    answer = BatchResult((), tuple(batch), 0.0)
            if answer.results:
                received_bytes = sum(result.stored.blob.size for result in answer.results)
                self._run.stats.transferred_bytes += received_bytes
                self._run.limiter.record_bytes(received_bytes)
                self._on_fetched(answer.results)
                self._run.limiter.record_latency(answer.first_byte_s)
                self._run.limiter.has_fast_bodies = answer.response_s < FAST_BODY_S
            if answer.remaining:
                self._paused_until = self._run.clock.monotonic() + COOLDOWN_S
                for item in answer.remaining:
                    await self._on_returned(item)
