"""Small blobs by the hundred: brought in by other processes, at the first attempt of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tilesync.errors import Transient
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.download import FAST_BODY_S, MAX_SINGLE_READ_BYTES
from tilesync.model import BatchResult, Blob, FileResult, Version
from tilesync.protocols import Source, Workers

BLOBS_PER_BATCH = 16
"""Blobs that are asked for together."""

BATCHES_PER_SLOT = 2
"""Blobs that are with the helpers for each that is asked for: so they never run dry."""

COOLDOWN_S = 1.0
"""Seconds without this way after a blob that did not come by it: what is wrong is found out by the usual one."""


class WorkerLane:
    """Sends small blobs by way of the helpers. `take` hears what came, `hand_back` gets what did not; `ready` is told
    when the helpers are.
    """

    def __init__(
        self,
        version: Version,
        source: Source,
        run: RunContext,
        *,
        on_fetched: Callable[[FileResult], None],
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
        self._batch_slots = run.limiter.max_limit * BATCHES_PER_SLOT // BLOBS_PER_BATCH
        self._batches: asyncio.Queue[list[tuple[int, Blob]] | None] = asyncio.Queue(maxsize=self._batch_slots)

    @property
    def is_starting(self) -> bool:
        """Whether it will suit soon."""
        possible = self._workers is not None and self._batch_slots > 0
        return possible and self._start_requested.is_set() and not self._is_ready and not self._is_finished

    def can_carry(self, blob: Blob) -> bool:
        """Whether a blob could go this way."""
        return 0 < blob.size <= MAX_SINGLE_READ_BYTES

    def should_carry(self, blob: Blob) -> bool:
        """Whether a blob should go this way now."""
        if not self._is_ready or not self.can_carry(blob):
            return False
        return self._run.limiter.has_fast_bodies and self._run.clock.monotonic() >= self._paused_until

    async def put(self, item: tuple[int, Blob]) -> None:
        """Send one; it leaves with others."""
        self._pending.append(item)
        if len(self._pending) >= BLOBS_PER_BATCH:
            await self.flush()

    async def flush(self) -> None:
        """Send what waits for others."""
        group, self._pending = self._pending, []
        if group:
            await self._batches.put(group)

    async def run(self) -> None:
        """Return when everything that was sent came, or was handed back, and `finish` was called."""
        helpers = self._workers
        if helpers is None or not self._batch_slots:
            return
        await self._start_requested.wait()
        if not self._is_finished:
            await self._wait_until_started(helpers)
        if self._is_finished:
            return
        self._is_ready = True
        self._on_ready()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._batch_slots):
                group.create_task(self._run_batches(helpers))

    async def _wait_until_started(self, workers: Workers) -> None:
        """Return when helpers can be asked, or nothing more is sent: who is done waits for none that are stuck."""
        waits = [asyncio.create_task(workers.start()), asyncio.create_task(self._finish_event.wait())]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            _ = [task.result() for task in done]
        finally:
            for task in waits:
                task.cancel()

    def request_start(self) -> None:
        """There is so much to do that helpers are worth their start; until they are there nothing suits."""
        self._start_requested.set()

    async def finish(self) -> None:
        """Nothing more is sent."""
        self._is_finished = True
        self._start_requested.set()
        self._finish_event.set()
        await self.flush()
        for _ in range(self._batch_slots if self._is_ready else 0):
            await self._batches.put(None)

    async def _run_batches(self, workers: Workers) -> None:
        while (group := await self._batches.get()) is not None:
            places = len(group) if self._run.limiter.is_fixed else len(group) // BATCHES_PER_SLOT
            async with self._run.limiter.slot(places):
                way, limit = await self._source.worker_source(), self._run.limiter.limit
                try:
                    brought = await workers.fetch_batch(self._version, way, group, max_concurrent=limit)
                except Transient:  # what is wrong is found out by the usual way
                    brought = BatchResult((), tuple(group), 0.0)
            for arrival in brought.results:
                self._run.stats.transferred_bytes += arrival.stored.blob.size
                self._run.limiter.record_bytes(arrival.stored.blob.size)
                self._on_fetched(arrival)
            if brought.results:
                self._run.limiter.record_latency(brought.first_byte_s)
                self._run.limiter.has_fast_bodies = brought.response_s < FAST_BODY_S
            if brought.remaining:
                self._paused_until = self._run.clock.monotonic() + COOLDOWN_S
                for item in brought.remaining:
                    await self._on_returned(item)
