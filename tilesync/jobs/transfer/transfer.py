"""Transfer: everything of a version that is wanted, fetched, checked and placed."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable
from dataclasses import dataclass, field

from tilesync.core.safe_names import refuse_both
from tilesync.errors import BlobDamaged, BlobError, BlobMissing, DestinationError, TilesyncError
from tilesync.events import Failed, Reused, Stored
from tilesync.jobs.run.context import Run
from tilesync.jobs.run.retry import Persistence
from tilesync.jobs.transfer.download import Fetch, Road
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.jobs.transfer.server_copy import Handover
from tilesync.jobs.transfer.worker_batches import Express
from tilesync.jobs.versions.completeness import rootless
from tilesync.jobs.versions.file_check import examine
from tilesync.jobs.versions.subtree_walk import Expansion
from tilesync.model import ROOT, UNKNOWN, Arrival, Blob, Inventory, Kind, Version
from tilesync.protocols import Body, Destination, Source
from tilesync.runtime.task_groups import first_error
from tilesync.runtime.threads import in_thread

JOURNAL = 0.25
"""Seconds between two entries in the catalog: what a kill can lose."""

BATCH = 512

MANY = 256
"""Blobs to be fetched for which helpers are worth their start."""

ROOMY = 32
"""Blobs that take room in memory, at most, of a fixed number of transfers."""

FEW = 64
"""Blobs that are on the usual way while helpers start: what waits there longer would be with them sooner."""


@dataclass
class Supply:
    """What tells the transfer that the catalog has more for it: set by the listing."""

    more: asyncio.Event = field(default_factory=asyncio.Event)
    complete: bool = False

    def add(self, *, complete: bool = False) -> None:
        """There is more in the catalog; `complete`: and that was all."""
        self.complete = self.complete or complete
        self.more.set()


class Transfer:
    """Workers over a source, into the files of one version.

    A `BlobError` fails one file; a `RunError` ends the transfer. What is in place is in the catalog within a quarter
    second, with what it asks for; what is under way when a run ends may be fetched again. `salvage`: files may lie
    there of which nothing was noted; each is kept when it is the listed one by its bytes.

    A version that is walked finds its own supply: what arrives says what else is wanted, until nothing is under way.
    A blob that is asked for and that the container does not have is then missing, which fails no file.
    """

    def __init__(
        self, version: Version, source: Source, destination: Destination, run: Run, *, salvage: bool = False
    ) -> None:
        self._version = version
        self._source = source
        self._files = destination.files
        self._catalog = destination.catalog
        self._run = run
        self._salvage = salvage
        self._persistence = Persistence(run)
        self._road = Road(version, source, self._files, destination.catalog.references, run, self._persistence)
        self._handover = Handover(version, source, self._files, run)
        self._expansion = Expansion(version, destination.catalog, destination.files)
        self._reuse = Reuse(version, destination)
        self._queue: asyncio.Queue[tuple[int, Blob] | None] = asyncio.Queue(maxsize=2 * run.gate.most)
        self._under_way = 0  # handed out, and how it ended is not in the catalog yet
        self._settled = asyncio.Event()
        self._done: list[Arrival] = []
        self._missed: list[int] = []
        self._there: set[int] = set()
        self._handed_out = 0
        self._usual = 0  # on the usual way, or waiting for it
        self._express = Express(
            version, source, run, take=self._arrived, hand_back=self._hand_back, ready=self._settled.set
        )
        self._expandable = True

    async def run(self, supply: Supply, listing: Awaitable[None] | None) -> None:
        """Return when everything that the catalog wants is held, or has failed. `listing` runs beside it."""
        walks = self._version.inventory == Inventory.WALK and not supply.complete
        try:
            async with asyncio.TaskGroup() as group:
                if listing is not None:
                    group.create_task(_awaited(listing))
                journal = group.create_task(self._journal())
                async with asyncio.TaskGroup() as movers:
                    express = movers.create_task(self._express.run())
                    movers.create_task(self._feed_walked(express) if walks else self._feed(supply, express))
                    for _ in range(self._run.gate.most):
                        movers.create_task(self._work())
                journal.cancel()
        except BaseExceptionGroup as group_error:
            raise first_error(group_error) from None
        finally:
            await self._flush()

    # --- what is to be done ---

    async def _feed(self, supply: Supply, express: asyncio.Task[None]) -> None:
        """Hand out what the catalog wants; blobs without bytes last, when it is known that they are no folders."""
        for empty in (False, True):
            after = 0
            while True:
                complete = supply.complete
                supply.more.clear()
                batch = await in_thread(self._catalog.wanted, self._version, after, limit=BATCH, empty=empty)
                after = await self._hand_out(batch, after)
                if not batch and complete:
                    break
                if not batch:
                    await supply.more.wait()
        await self._send_home(express)

    async def _feed_walked(self, express: asyncio.Task[None]) -> None:
        """Hand out what the catalog wants, and what that turns out to ask for, until nothing asks for more."""
        after = 0
        while True:
            self._settled.clear()
            if batch := await in_thread(self._catalog.wanted, self._version, after, limit=BATCH):
                after = await self._hand_out(batch, after)
            elif self._done or self._missed:
                await self._flush()
            elif self._expandable or not self._under_way:
                if not await self._expand(last=not self._under_way) and not self._under_way:
                    break
            else:
                await self._settled.wait()
        await self._send_home(express)

    async def _hand_out(self, batch: list[tuple[int, Blob]], after: int) -> int:
        """Give the workers a batch, but for what other versions hold; the number behind which the next one begins."""
        taken, refused, there = await in_thread(self._look_around, batch)
        self._run.tally.planned_bytes += refused
        self._there |= there
        reused = {arrival.number: arrival for arrival in taken}
        for item in batch:
            after = item[0]
            self._under_way += 1
            if arrival := reused.get(after):
                self._take_over(arrival)
            elif after not in self._there and self._express.suits(item[1]):
                await self._express.put(item)
            else:
                if self._express.carries(item[1]):
                    await self._hold_back()
                self._usual += 1
                await self._queue.put(item)
        await self._express.flush()
        return after

    async def _hold_back(self) -> None:
        """One more small blob for the usual way: many of them call the helpers, and wait while these start."""
        self._handed_out += 1
        if self._handed_out == MANY:
            self._express.call()
        while self._express.starting and self._usual >= FEW:
            self._settled.clear()
            await self._settled.wait()

    async def _hand_back(self, item: tuple[int, Blob]) -> None:
        """What did not come by way of the helpers goes the usual one."""
        self._usual += 1
        await self._queue.put(item)

    def _look_around(self, batch: list[tuple[int, Blob]]) -> tuple[list[Arrival], int, set[int]]:
        """What other versions hold of a batch, and the numbers of those that seem to lie here already."""
        lying = self._files.lying(self._version, [blob for _, blob in batch]) if self._salvage else set()
        there = {number for number, blob in batch if blob.name in lying}
        return (*self._reuse.take(batch), there)

    def _take_over(self, arrival: Arrival) -> None:
        """A file of another version is in place."""
        blob, tally = arrival.held.blob, self._run.tally
        self._done.append(arrival)
        tally.reused += 1
        tally.reused_bytes += blob.size
        tally.verified += 1
        if self._run.every_file:
            self._run.observe(Reused(blob.name, blob.size))

    async def _send_home(self, express: asyncio.Task[None]) -> None:
        await self._express.finish()
        await express  # it hands back what did not come
        for _ in range(self._run.gate.most):
            await self._queue.put(None)

    async def _expand(self, *, last: bool) -> bool:
        """Let the subtrees that have arrived say what else is wanted; whether that is more than before."""
        self._expandable = False
        grown = await in_thread(self._expansion.grow, last=last)
        new = 0
        for name in sorted(grown):
            new += await in_thread(self._want, name)
        self._run.tally.listed += new
        return bool(new)

    def _want(self, source: str) -> int:
        return self._catalog.want_what(self._version, source)

    async def _work(self) -> None:
        while (item := await self._queue.get()) is not None:
            number, blob = item
            async with self._run.gate.turn(self._places(blob)):
                try:
                    await self._take(number, blob)
                except BlobError as error:
                    self._run.tally.failed += 1
                    self._run.observe(Failed(blob.name, type(error).__name__, str(error), error.hint))
                    self._under_way -= 1
                except DestinationError:
                    if clash := await in_thread(self._catalog.clash, self._version, blob.name):
                        refuse_both(*clash)
                    raise
                finally:
                    self._persistence.settled(blob.name)
                    self._usual -= 1
                    self._settled.set()

    def _places(self, blob: Blob) -> int:
        """As how many transfers a blob counts: of those that take room in memory few are under way at once, also where
        someone fixed how many there may be of all.
        """
        places = self._files.places(blob)
        return max(1, self._run.gate.most // ROOMY) if places > 1 and self._run.gate.fixed else places

    async def _take(self, number: int, blob: Blob) -> None:
        """See to it that one wanted blob is held, or known to be missing."""
        if number in self._there:
            self._there.discard(number)
            if found := await in_thread(self._found, number, blob):
                self._keep(found)
                return
        try:
            arrival = await self._move(number, blob)
        except BlobMissing as error:
            if blob.size != UNKNOWN:
                raise
            if blob.name == ROOT:
                raise rootless() from error
            self._missed.append(number)
            self._run.tally.listed -= 1
            return
        if arrival is None:
            return
        self._arrived(arrival)

    def _arrived(self, arrival: Arrival) -> None:
        """A blob was fetched, and is in place."""
        self._done.append(arrival)
        self._persistence.succeeded()
        self._run.tally.fetched += 1
        self._run.tally.verified += 1
        if self._run.every_file:
            self._run.observe(Stored(arrival.held.blob.name, arrival.held.blob.size))

    def _keep(self, found: Arrival) -> None:
        self._done.append(found)
        self._run.tally.verified += 1

    def _found(self, number: int, blob: Blob) -> Arrival | None:
        """The file that lies there already, when it is the listed one by size and MD5."""
        if not self._files.lying(self._version, [blob]):
            return None
        try:
            found = examine(self._files, self._catalog.references, self._version, blob)
        except BlobDamaged:
            return None
        return Arrival(number, found.held, found.reading, partly=found.partly) if found else None

    async def _journal(self) -> None:
        while True:
            await self._run.clock.sleep(JOURNAL)
            await self._flush()

    async def _flush(self) -> None:
        """Record what has arrived, and want what a walk learns by it: in one hop, which a cancellation waits for."""
        (done, self._done), (missed, self._missed) = (self._done, []), (self._missed, [])
        if done or missed:
            new = await in_thread(self._record, done, missed)  # `+= await` would take the count from before it
            self._run.tally.listed += new
            self._expandable = self._expandable or any(_says_more(arrival) for arrival in done)
        self._under_way -= len(done) + len(missed)
        self._settled.set()

    def _record(self, done: list[Arrival], missed: list[int]) -> int:
        """Enter them in the catalog; how many names a walk learns by that."""
        new = self._catalog.hold(self._version, self._reuse.merge(done)) if done else 0
        if missed:
            self._catalog.miss(self._version, missed)
        return new

    # --- one blob ---

    async def _move(self, number: int, blob: Blob) -> Arrival | None:
        """Fetch one blob; where a walk knows its name alone, the first answer describes it. None: it was salvaged,
        or another version holds it.
        """
        body: Body | None = None
        if blob.size == UNKNOWN:
            blob, coming = await self._persistence.insist(blob.name, lambda: self._source.first(blob.name))
            body = coming
            await in_thread(self._files.judge, [blob.name])
            self._run.names.look([blob.name])
            self._run.tally.listed_bytes += max(blob.size, 0)
            if self._salvage and (kept := await in_thread(self._found, number, blob)):
                await coming.aclose()
                self._keep(kept)
                return None
            taken, _ = await in_thread(self._reuse.take, [(number, blob)])
            if taken:
                await coming.aclose()
                self._take_over(taken[0])
                return None
            self._run.tally.planned_bytes += max(blob.size, 0)
        if body is None and self._handover.suits(blob):
            described = blob
            handed = await self._persistence.insist(blob.name, lambda: self._handover.bring(number, described))
            if handed is not None:
                return handed
        fetch = Fetch(self._road, blob, body)
        try:
            found = await fetch.run()
        except BaseException:
            with contextlib.suppress(TilesyncError):
                await fetch.suspend()
            raise
        return Arrival(number, found.held, found.reading, partly=found.partly)


def _says_more(arrival: Arrival) -> bool:
    """Whether a subtree may be followed now: it has arrived, or what it needs may have."""
    reading = arrival.reading
    return reading.implicit or reading.kind in {Kind.SUBTREE, Kind.SCHEMA, Kind.NONE}


async def _awaited(work: Awaitable[None]) -> None:
    await work
