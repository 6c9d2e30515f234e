"""What the crew does for a run: small blobs brought in, held files examined; a batch an errand."""

from __future__ import annotations

import statistics
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

from tilesync.crew import Tools
from tilesync.errors import TilesyncError, UsageError
from tilesync.events import Finding
from tilesync.jobs.inspect import inspect
from tilesync.model import Blob, Held, Proof, Reading, SasUrl, Trace, Version
from tilesync.rules.content import ContentCheck
from tilesync.rules.replies import plain_etag
from tilesync.stores.files import Shelf
from tilesync.stores.held import HeldFiles
from tilesync.wire.direct import Wish, direct
from tilesync.wire.line import Reply

Placed = tuple[bytes, Trace, Reading]
"""SHA-256 of a blob that is in place, where it lies, and what it says."""

LONGEST = timedelta(seconds=2)
"""After that one blob does not keep the others of its batch waiting any more: it is left to others."""


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

    async def __call__(self, tools: Tools) -> tuple[list[Placed | None], float]:
        """For each blob what it is and where it lies, None where it did not come; and the median answer in seconds."""
        found: list[Placed | None] = [None] * len(self.blobs)
        times = list[float]()

        def hear(number: int, reply: Reply) -> None:
            times.append(reply.seconds)
            with suppress(TilesyncError):
                found[number] = self._put(self.blobs[number], reply)

        pool = await tools.keep(direct)
        with suppress(UsageError):
            await pool.get(list(map(self._wish, self.blobs)), hear, at_once=self.at_once, within=LONGEST)
        return found, statistics.median(times) if times else LONGEST.total_seconds()

    def _wish(self, blob: Blob) -> Wish:
        return Wish(self.link.blob(blob.name), {"If-Match": f'"{blob.etag}"'} if blob.etag else {}, blob.size)

    def _put(self, blob: Blob, reply: Reply) -> Placed | None:
        proven = (
            blob.md5 is not None or blob.sha256 is not None
        )  # else the ETag alone says that these are the bytes of this blob
        if blob.etag and (reply.etag or not proven) and plain_etag(reply.etag or "") != blob.etag:
            return None
        check = ContentCheck(blob, self.home)
        held = self.shelf.put(self.version, blob, reply.body, lambda whole: _proof(check, whole))
        return held.sha256, Trace(held.mtime_ns, held.inode), check.take()


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
        return found if isinstance(found, Finding) else (Trace(*found.held[2:]), found.reading)


def _proof(check: ContentCheck, data: bytes) -> Proof:
    check.feed(data)
    return check.finish()
