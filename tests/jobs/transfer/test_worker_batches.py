"""Worker lane: which blobs go to the workers."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import cast

import pytest

from tests.support.builders import export, read_tree
from tests.support.memory_source import MemorySource, transfer
from tests.support.simulator import JobOutcome
from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.transfer.transfer import FLUSH_INTERVAL_S, MAX_QUEUED_WHILE_STARTING, WorkSignal
from tilesync.model import BatchResult, Blob, Digests, FileResult, SasUrl, Version
from tilesync.protocols import Body, Source
from tilesync.runtime.clock import WallClock
from tilesync.stores.local.destination import LocalDestination, open_local
from tilesync.tiles.validator import ContentCheck


class FakeWorkers:
    """A source that waits for `released`, and workers that are ready from then on: they store files from memory."""

    def __init__(self, source: MemorySource, destination: LocalDestination) -> None:
        self.released = asyncio.Event()
        self.start_requested = True
        self.blobs_per_batch, self.has_own_limits = 32, False
        self.fetched = 0
        self._source = source
        self._files = destination.files

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1, until: int | None = None) -> Body:
        body = await self._source.open(blob, offset, prefetch_bytes=prefetch_bytes)
        await self.released.wait()
        return body

    async def worker_source(self) -> SasUrl:
        return await self.link()

    async def link(self) -> SasUrl:
        return SasUrl("https://a/c", "sig=x", None)

    async def start(self) -> None:
        await self.released.wait()

    async def fetch_batch(
        self,
        version: Version,
        worker_source: SasUrl,
        blobs_by_number: Sequence[tuple[int, Blob]],
        *,
        max_concurrent: int,
    ) -> BatchResult:
        results = []
        for number, item in blobs_by_number:
            check = ContentCheck(item)

            def prove(data: bytes, check: ContentCheck = check) -> Digests:
                check.feed(data)
                return check.finish()

            stored = await self._files.put(version, item, self._source.files[item.name], prove)
            results.append(FileResult(number, stored, check.drain()))
        self.fetched += len(blobs_by_number)
        return BatchResult(tuple(results), (), 0.01)


@pytest.mark.parametrize("is_requested", [True, False], ids=["requested before", "requested by the transfer"])
def test_few_blobs_take_the_default_path_while_workers_start(tmp_path: Path, is_requested: bool) -> None:
    """Only a few blobs wait on the default path until the workers are ready; the workers fetch all others."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            memory = MemorySource(export(900))
            workers = FakeWorkers(memory, destination)
            workers.start_requested = is_requested
            job, _ = transfer(
                destination,
                memory,
                JobOutcome(),
                limiter=ConcurrencyLimiter(WallClock(), fixed_limit=300),
                workers=workers,
            )
            job._context = replace(job._context, source=cast(Source, workers))
            job._worker_lane._source = cast(Source, workers)
            running = asyncio.create_task(job.run(WorkSignal(complete=True), None))
            async with asyncio.timeout(20):
                while len(memory.opened) < MAX_QUEUED_WHILE_STARTING:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(2 * FLUSH_INTERVAL_S)  # long enough to wake waiting tasks
                assert len(memory.opened) == MAX_QUEUED_WHILE_STARTING
                workers.released.set()
                await running
            assert len(memory.opened) + workers.fetched == len(memory.files)
            assert [
                name for name in memory.opened[MAX_QUEUED_WHILE_STARTING + 1 :] if memory.files[name]
            ] == []  # no helper carries nothing
            assert read_tree(tmp_path / "versions" / "v") == memory.files

    asyncio.run(work())
