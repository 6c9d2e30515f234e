"""A source in memory, and a transfer from it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from datetime import timedelta
from typing import Any, cast

from tests.support.builders import md5_base64
from tests.support.simulator import JobOutcome
from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.transfer import Transfer
from tilesync.model import Blob, Page, Version
from tilesync.protocols import Body, Source
from tilesync.runtime.clock import WallClock
from tilesync.stores.local.destination import LocalDestination

MAX_CONCURRENT = 4


class MemoryBody:
    """A body from memory."""

    md5: bytes | None = None

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self.start = start

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), 1000):
            yield self._data[at : at + 1000]

    async def read(self, max_bytes: int) -> bytes:
        return self._data[: max_bytes + 1]

    async def aclose(self) -> None:
        pass


class MemorySource:
    """A source in memory; `on_open` may raise before a blob is opened."""

    has_worker_source = has_link = True

    def __init__(self, files: dict[str, bytes], on_open: Callable[[Blob], None] = lambda _: None) -> None:
        self.files = files
        self.on_open = on_open
        self.opened: list[str] = []
        self.inside = self.max_concurrent = 0

    def blobs(self) -> list[Blob]:
        import base64

        return [Blob(name, len(data), "e", base64.b64decode(md5_base64(data))) for name, data in self.files.items()]

    async def pages(self, marker: str | None) -> AsyncGenerator[Page, None]:
        yield Page.of(self.blobs(), None)

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1, until: int | None = None) -> Body:
        self.opened.append(blob.name)
        self.inside += 1
        self.max_concurrent = max(self.max_concurrent, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        self.on_open(blob)
        return MemoryBody(self.files[blob.name][offset:], offset)


def transfer(
    destination: LocalDestination, source: MemorySource, run: JobOutcome, **changes: Any
) -> tuple[Transfer, Version]:
    version = destination.catalog.add_version(Version(0, "v", "v"))
    destination.catalog.add_page(version, [(blob, None) for blob in source.blobs()], ())
    destination.catalog.finish_listing(version)
    clock = changes.pop("clock", WallClock())
    limiter = changes.pop("limiter", ConcurrencyLimiter(clock, fixed_limit=MAX_CONCURRENT))
    shared = RunContext(clock, run, run.stats, limiter, timedelta(seconds=5), workers=changes.pop("workers", None))
    return Transfer(version, cast(Source, source), destination, shared, **changes), version
