"""A container in memory for live exports, a resolver that tests point to exports, and functions to read files."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from typing import cast

from tests.support.clock import FakeClock
from tests.support.simulator import JobOutcome
from tilesync.errors import BlobMissing, ExportReplaced
from tilesync.model import Blob, Export, Resolution, StoredFile
from tilesync.protocols import Source
from tilesync.serving.live.cache import MemoryCache
from tilesync.serving.live.container_files import ContainerFiles
from tilesync.serving.live.context import Announcer, LiveContext
from tilesync.serving.tilesets import ServedFile

CONTAINER_URL = "https://account.blob.core.windows.net/e1"


class ManualClock(FakeClock):
    """Clock whose sleepers wait until a test advances it."""

    def __init__(self) -> None:
        super().__init__()
        self._sleepers: list[tuple[float, asyncio.Future[None]]] = []

    def advance(self, seconds: float) -> None:
        """Advance the time, and wake those whose time has come."""
        super().advance(seconds)
        due = [sleeper for until, sleeper in self._sleepers if until <= self.monotonic()]
        self._sleepers = [each for each in self._sleepers if each[0] > self.monotonic()]
        for sleeper in due:
            if not sleeper.done():
                sleeper.set_result(None)

    async def sleep(self, seconds: float) -> None:
        """Wait until the clock was advanced by `seconds`."""
        if seconds <= 0:
            await asyncio.sleep(0)
            return
        sleeper = asyncio.get_running_loop().create_future()
        self._sleepers.append((self.monotonic() + seconds, sleeper))
        await sleeper


class FakeBody:
    """Body of a blob in memory. `break_after`: bytes after which it breaks off."""

    md5: bytes | None = None

    def __init__(self, container: FakeContainer, data: bytes, start: int) -> None:
        self.start = start
        self._container = container
        self._data = data[start:]
        self._is_open = True
        container.open_bodies += 1

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), 1000):
            await asyncio.sleep(0)
            self._container.before_chunk(self.start + at)
            yield self._data[at : at + 1000]

    async def read(self, max_bytes: int) -> bytes:
        return b"".join([chunk async for chunk in self.chunks()])[: max_bytes + 1]

    async def aclose(self) -> None:
        self._container.open_bodies -= self._is_open
        self._is_open = False


class FakeContainer:
    """Container in memory. `before_open` and `before_chunk` may raise; requests wait for `gate`.

    `knows_ranges`: False for one that always sends whole files.
    """

    knows_ranges = True

    def __init__(self, files: dict[str, bytes]) -> None:
        self.files = files
        self.opened: list[tuple[str, int]] = []
        self.ends: list[int | None] = []
        self.open_bodies = 0
        self.gate = asyncio.Event()
        self.gate.set()
        self.before_open: Callable[[str], None] = lambda _: None
        self.before_chunk: Callable[[int], None] = lambda _: None
        self.waiting = self.max_waiting = 0

    def blob(self, name: str) -> Blob:
        data = self.files[name]
        md5 = hashlib.md5(data, usedforsecurity=False).digest()
        return Blob(name, len(data), hashlib.sha256(data).hexdigest()[:16], md5, "text/plain", None, 1_772_353_800)

    async def open_by_name(self, name: str) -> tuple[Blob, FakeBody]:
        await self._admit(name, 0)
        return self.blob(name), FakeBody(self, self.files[name], 0)

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1, until: int | None = None) -> FakeBody:
        self.ends.append(until)
        await self._admit(blob.name, offset)
        if self.blob(blob.name).etag != blob.etag:
            raise ExportReplaced(f"{blob.name} changed during the run")
        return FakeBody(self, self.files[blob.name], offset if self.knows_ranges else 0)

    async def is_unchanged(self, stored: StoredFile) -> bool:
        self.before_open(stored.blob.name)
        return stored.blob.name in self.files and self.blob(stored.blob.name).etag == stored.blob.etag

    async def container_url(self) -> str:
        return CONTAINER_URL

    async def _admit(self, name: str, offset: int) -> None:
        self.opened.append((name, offset))
        self.waiting += 1
        self.max_waiting = max(self.max_waiting, self.waiting)
        await self.gate.wait()
        self.waiting -= 1
        self.before_open(name)
        if name not in self.files:
            raise BlobMissing(f"{name} (404 BlobNotFound)")


class FakeResolver:
    """Resolver that returns `resolution`, or raises it; `containers` by export id."""

    def __init__(self, resolution: Resolution, containers: dict[str, FakeContainer]) -> None:
        self.resolution: Resolution | Exception = resolution
        self.containers = containers
        self.resolve_count = 0

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        self.resolve_count += 1
        if isinstance(self.resolution, Exception):
            raise self.resolution
        return self.resolution

    async def open_source(self, resolution: Resolution) -> Source:
        return cast(Source, self.containers[resolution.export.id])


def make_resolution(
    export_id: str, *, modified: str = "", newest: str = "", newest_status: str = "Complete"
) -> Resolution:
    """Return the resolution to a Complete export."""
    export = Export(id=export_id, status="Complete", name=f"City {export_id}", imodel="i", modified=modified)
    return Resolution(export, newest or export_id, newest_status)


def make_context(
    *, cache_bytes: int = 1 << 20, clock: FakeClock | None = None, outcome: JobOutcome | None = None, retry_s: float = 5
) -> LiveContext:
    """Return the shared resources of a test, on a fake clock."""
    clock = clock or FakeClock()
    announcer = Announcer(outcome or JobOutcome(), clock)
    return LiveContext(clock, announcer, MemoryCache(cache_bytes), retry_for=timedelta(seconds=retry_s))


def make_files(container: FakeContainer, context: LiveContext, *, version: str = "e1") -> ContainerFiles:
    """Return the files of a container."""
    return ContainerFiles(version, cast(Source, container), context, gone_hint="load it again")


async def read(opened: ServedFile | None, start: int = 0, stop: int | None = None) -> bytes:
    """Return the bytes of a file from `start` to before `stop`, and close it."""
    assert opened is not None
    try:
        end = opened.facts.size if stop is None else stop
        return b"".join([chunk async for chunk in opened.chunks(start, end)])
    finally:
        await opened.aclose()


def run(work: Callable[[], Awaitable[None]]) -> None:
    """Run a test in an event loop, for 30 s at most."""

    async def limited() -> None:
        async with asyncio.timeout(30):
            await work()

    asyncio.run(limited())
