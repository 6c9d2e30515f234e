"""What the crew does for a run: small blobs brought in, held files examined; a batch an errand."""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace

from tilesync.crew import Crew, Lost, Tools
from tilesync.errors import TilesyncError
from tilesync.events import Finding
from tilesync.jobs.inspect import inspect
from tilesync.jobs.pressure import Gate
from tilesync.model import Arrival, Blob, Brought, Held, Proof, Reading, SasUrl, Trace, Version
from tilesync.rules.content import ContentCheck
from tilesync.rules.replies import plain_etag
from tilesync.stores.files import Shelf
from tilesync.stores.held import HeldFiles
from tilesync.wire.bulk import Bulk, engine
from tilesync.wiring import WallClock


@dataclass(frozen=True, slots=True)
class Bring:
    """Bring some small blobs in, all at once, each at its first attempt: what does not come so is left to others.

    The bytes are checked and written by the loop itself, which has nothing else to do.
    """

    link: SasUrl
    shelf: Shelf
    version: str
    blobs: tuple[Blob, ...]
    at_once: int

    async def __call__(self, tools: Tools) -> tuple[list[tuple[bytes, Trace, Reading] | None], float]:
        """For each blob what it is and where it lies, None where it did not come; and the median answer in seconds."""
        bulk, gate, times = await tools.keep(engine), await tools.keep(_gate), list[float]()
        gate.limit = self.at_once
        found = await asyncio.gather(*(self._bring(blob, bulk, gate, times) for blob in self.blobs))
        return found, statistics.median(times)

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
            check = ContentCheck(blob, self.link.base)
            held = self.shelf.put(self.version, blob, data, lambda whole: _proof(check, whole))
        except TilesyncError:
            return None
        return held.sha256, Trace(held.mtime_ns, held.inode), check.take()

    async def _get(self, blob: Blob, bulk: Bulk) -> bytes | None:
        headers = {"If-Match": f'"{blob.etag}"'} if blob.etag else {}
        answer = await bulk.get(self.link.blob(blob.name), headers, ahead=blob.size + 1)
        try:
            etag = plain_etag(answer.header("etag"))
            if answer.status != 200 or (blob.etag and etag and etag != blob.etag):
                return None
            return await answer.read(blob.size)
        finally:
            await answer.aclose()


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


class Helpers:
    """The crew, for a run into one destination."""

    def __init__(self, crew: Crew, files: HeldFiles, shelf: Shelf | None = None) -> None:
        self._crew = crew
        self._files = files
        self._shelf = shelf

    async def start(self) -> None:
        """Return when they can be asked."""
        await self._crew.start(Prepare())

    async def bring(self, version: Version, link: SasUrl, some: Sequence[tuple[int, Blob]], *, at_once: int) -> Brought:
        """Bring some small blobs in, each with its number."""
        assert self._shelf is not None, "a destination that is only read brings nothing in"
        share = max(1, at_once // self._crew.size)
        errand = Bring(link, self._shelf, version.name, tuple(blob for _, blob in some), share)
        try:
            found, seconds = await self._crew.do(errand)
        except Lost:
            return Brought((), tuple(some), 0.0)
        arrivals, left = list[Arrival](), list[tuple[int, Blob]]()
        for (number, blob), each in zip(some, found, strict=True):
            if each is None:
                left.append((number, blob))
            else:
                sha256, trace, reading = each
                arrivals.append(Arrival(number, Held(blob, sha256, *trace), reading))
        return Brought(tuple(arrivals), tuple(left), seconds)

    async def inspect(self, version: Version, some: Sequence[Held]) -> Sequence[Finding | Arrival]:
        """What is to be said of held files that fit into memory, in their order; nothing where that cannot be done."""
        try:
            told = await self._crew.do(Inspect(self._files, replace(version, record={}), tuple(some)))
        except Lost:
            return ()
        return [
            said if isinstance(said, Finding) else Arrival(0, Held(held.blob, held.sha256, *said[0]), said[1])
            for held, said in zip(some, told, strict=True)
        ]
