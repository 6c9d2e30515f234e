"""What the crew does for a run: small blobs brought in, held files examined; a batch an errand."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from tilesync.azure.responses import parse_md5, plain_etag
from tilesync.errors import BlobDamaged, TilesyncError, UsageError
from tilesync.events import Finding
from tilesync.jobs.versions.file_audit import inspect
from tilesync.model import Blob, Held, Proof, Reading, SasUrl, Trace, Unpacked, Version
from tilesync.runtime.process_pool import Tools
from tilesync.sources.mirror_files import HeldWay
from tilesync.stores.azure.direct_put import BlobShelf
from tilesync.stores.local.reader import HeldFiles
from tilesync.stores.local.writer import Shelf
from tilesync.tiles.validator import ContentCheck
from tilesync.transport.http1_connection import Reply
from tilesync.transport.http1_pool import Direct, Wish, direct

Placed = tuple[bytes, bytes | None, Trace, Unpacked | None, Reading]
"""SHA-256 of a blob that is in place, its MD5 where that is kept, its trace there, how it is unpacked, what it says."""

LONGEST = timedelta(seconds=2)
"""After that one blob does not keep the others of its batch waiting any more: it is left to others."""


@asynccontextmanager
async def shelves() -> AsyncIterator[dict[Shelf, Shelf]]:
    """The shelves that errands of this process have used: each is known by where it puts files."""
    yield {}


@dataclass(frozen=True, slots=True)
class Bring:
    """Bring some small blobs in, all at once, each at its first attempt: what does not come so is left to others.

    The bytes are checked and written by the loop itself, which has nothing else to do.
    """

    way: SasUrl | HeldWay
    shelf: Shelf | BlobShelf
    version: str
    home: str
    blobs: tuple[Blob, ...]
    at_once: int

    async def __call__(self, tools: Tools) -> tuple[list[Placed | None], float, float]:
        """For each blob what it is and where it lies, None where it did not come; and the seconds that an answer took,
        and that one took to begin, each the median.
        """
        shelf = self.shelf
        if isinstance(shelf, Shelf):  # the one of the first errand has its folders open
            shelf = (await tools.keep(shelves)).setdefault(shelf, shelf)
        found: list[Placed | None] = [None] * len(self.blobs)
        times, firsts, onward = list[float](), list[float](), list[tuple[int, Wish, Proof, Reading]]()

        def hear(number: int, reply: Reply) -> None:
            if reply.seconds:
                times.append(reply.seconds)
                firsts.append(reply.first)
            with suppress(TilesyncError):
                blob = self.blobs[number]
                proof, reading = self._prove(blob, reply)
                placed = shelf.take(self.version, blob, reply.body, proof)
                if isinstance(placed, Wish):
                    onward.append((number, placed, proof, reading))
                else:
                    found[number] = _placed(placed, reading)

        pool = await tools.keep(direct)
        with suppress(UsageError):
            if isinstance(self.way, HeldWay):
                self._read(self.way, hear)
            else:
                wishes = [_wish(self.way, blob) for blob in self.blobs]
                await pool.get(wishes, hear, at_once=self.at_once, within=LONGEST)
            if isinstance(shelf, BlobShelf):
                await self._put(pool, shelf, onward, found, times)
        came = 0.0 if any(found) else LONGEST.total_seconds()
        seconds = statistics.median(times) if times else came
        return found, seconds, statistics.median(firsts) if firsts else seconds

    async def _put(
        self,
        pool: Direct,
        shelf: BlobShelf,
        onward: list[tuple[int, Wish, Proof, Reading]],
        found: list[Placed | None],
        times: list[float],
    ) -> None:
        """Send on what has come."""

        def hear(place: int, reply: Reply) -> None:
            times.append(reply.seconds)
            number, _, proof, reading = onward[place]
            found[number] = _placed(shelf.held(self.blobs[number], proof, reply), reading)

        await pool.get([wish for _, wish, _, _ in onward], hear, at_once=self.at_once, within=LONGEST)

    def _read(self, way: HeldWay, hear: Callable[[int, Reply], None]) -> None:
        """Read held files, as if each was an answer that took no time."""
        for number, blob in enumerate(self.blobs):
            with suppress(TilesyncError):
                hear(number, Reply(None, way.files.read(way.version, blob.name), 0.0))

    def _prove(self, blob: Blob, reply: Reply) -> tuple[Proof, Reading]:
        """The proof of a body, and what it says. Raises BlobDamaged, also for bytes of which nothing says whose."""
        named = bool(blob.etag) and plain_etag(reply.etag) == blob.etag
        claimed = blob.md5 or blob.sha256  # else the ETag alone says whose bytes these are
        if not named and (not claimed or (blob.etag and reply.etag)):
            raise BlobDamaged(f"{blob.name} is another one")
        check = ContentCheck(blob, self.home, md5=isinstance(self.shelf, BlobShelf))
        check.claim(parse_md5(reply.md5))
        check.feed(reply.body)
        return check.finish(), check.take()


def _wish(link: SasUrl, blob: Blob) -> Wish:
    return Wish(link.blob(blob.name), {"If-Match": f'"{blob.etag}"'} if blob.etag else {}, blob.size)


def _placed(held: Held, reading: Reading) -> Placed:
    return held.sha256, held.blob.md5, Trace(held.mtime_ns, held.inode), held.unpacked, reading


@dataclass(frozen=True, slots=True)
class Prepare:
    """Have at hand what the other errands need; `brings`: connections among it."""

    brings: bool

    async def __call__(self, tools: Tools) -> None:
        """Make it."""
        if self.brings:
            await tools.keep(direct)


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
        return found if isinstance(found, Finding) else (Trace(*found.held[2:4]), found.reading)
