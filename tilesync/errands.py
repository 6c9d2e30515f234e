"""What the crew does for a run: small blobs brought in, held files examined; a batch an errand."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass

from tilesync.crew import Tools
from tilesync.errors import TilesyncError
from tilesync.events import Finding
from tilesync.jobs.inspect import inspect
from tilesync.jobs.pressure import Gate
from tilesync.model import Blob, Held, Proof, Reading, SasUrl, Trace, Version
from tilesync.rules.content import ContentCheck
from tilesync.rules.replies import plain_etag
from tilesync.stores.files import Shelf
from tilesync.stores.held import HeldFiles
from tilesync.wire.bulk import Bulk, engine
from tilesync.wiring import WallClock

LONGEST = 2.0
"""Seconds after which one blob does not keep the others of its batch waiting any more: it is left to others."""


@dataclass(frozen=True, slots=True)
class Bring:
    """Bring some small blobs in, all at once, each at its first attempt: what does not come so is left to others.

    The bytes are checked and written by the loop itself, which has nothing else to do.
    """

    link: SasUrl
    shelf: Shelf
    version: str
    home: str
    blobs: tuple[Blob, ...]
    at_once: int

    async def __call__(self, tools: Tools) -> tuple[list[tuple[bytes, Trace, Reading] | None], float]:
        """For each blob what it is and where it lies, None where it did not come; and the median answer in seconds."""
        bulk, gate, times = await tools.keep(engine), await tools.keep(_gate), list[float]()
        gate.limit = self.at_once
        tasks = [asyncio.create_task(self._bring(blob, bulk, gate, times)) for blob in self.blobs]
        _, late = await asyncio.wait(tasks, timeout=LONGEST)
        for task in late:
            task.cancel()
        await asyncio.wait(tasks)
        found = [None if task.cancelled() else task.result() for task in tasks]
        return found, statistics.median(times) if times else LONGEST

    async def _bring(
        self, blob: Blob, bulk: Bulk, gate: Gate, times: list[float]
    ) -> tuple[bytes, Trace, Reading] | None:
        try:
            async with gate.turn():
                began = time.monotonic()
                try:
                    data = await self._get(blob, bulk)
                finally:
                    times.append(time.monotonic() - began)
            if data is None:
                return None
            check = ContentCheck(blob, self.home)
            held = self.shelf.put(self.version, blob, data, lambda whole: _proof(check, whole))
        except TilesyncError:
            return None
        return held.sha256, Trace(held.mtime_ns, held.inode), check.take()

    async def _get(self, blob: Blob, bulk: Bulk) -> bytes | None:
        headers = {"If-Match": f'"{blob.etag}"'} if blob.etag else {}
        status, etag, data = await bulk.whole(self.link.blob(blob.name), headers, blob.size)
        changed = blob.etag and etag and plain_etag(etag) != blob.etag
        return data if status == 200 and not changed else None


@asynccontextmanager
async def _gate() -> AsyncIterator[Gate]:
    yield Gate(WallClock(), fixed=1)


@dataclass(frozen=True, slots=True)
class Prepare:
    """Have at hand what the other errands need."""

    async def __call__(self, tools: Tools) -> None:
        """Make it."""
        await tools.keep(engine)


@dataclass(frozen=True, slots=True)
class Inspect:
    """Judge held files by every byte."""

    files: HeldFiles
    version: Version
    held: tuple[Held, ...]

    async def __call__(self, tools: Tools) -> list[Finding | tuple[Trace, Reading]]:
        """For each what is wrong with it, or its trace and what it says."""
        return [self._judge(each) for each in self.held]

    def _judge(self, held: Held) -> Finding | tuple[Trace, Reading]:
        found = inspect(self.files, None, self.version, held)
        return found if isinstance(found, Finding) else (Trace(*found.held[2:]), found.reading)


def _proof(check: ContentCheck, data: bytes) -> Proof:
    check.feed(data)
    return check.finish()
