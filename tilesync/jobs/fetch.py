"""One blob on its way: fetched until its bytes check, whatever breaks in between."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tilesync.errors import BlobDamaged, RangeRefused, Transient
from tilesync.events import Retried
from tilesync.jobs.examine import SPOOL, Examined
from tilesync.jobs.persistence import Persistence
from tilesync.jobs.run import Run
from tilesync.model import UNKNOWN, Blob, Version
from tilesync.protocols import Body, Draft, References, Source
from tilesync.rules.content import ContentCheck
from tilesync.threads import in_thread

DAMAGED_FETCHES = 4
"""How often bytes that do not check are fetched anew, when they differ each time."""


@dataclass(frozen=True)
class Road:
    """What all blobs of one transfer share."""

    version: Version
    source: Source
    references: References
    run: Run
    persistence: Persistence


class Fetch:
    """Brings one blob into its draft. `body`: its bytes are coming already, from the start.

    A body that breaks is continued where the blob is pinned by an ETag or MD5, and fetched anew where it is not.
    """

    def __init__(self, road: Road, blob: Blob, draft: Draft, body: Body | None = None) -> None:
        self._road = road
        self._blob = blob
        self._draft = draft
        self._body = body
        self._check = ContentCheck(blob, road.version.home)
        self._partly = False

    async def run(self) -> Examined:
        """Fetch until the bytes check, then commit. Raises BlobError for this blob, RunError for the run."""
        patience, clock = self._road.persistence.patience(), self._road.run.clock
        await self._take_up()
        best, wrong = self._check.size, list[bytes]()
        while True:
            began = clock.monotonic()
            try:
                if self._check.size != self._blob.size or self._blob.size == 0:
                    await self._receive()
                return await self._commit()
            except BlobDamaged as error:
                _judge_damage(error, self._check.sha256, wrong)
                await self._start_over()
                self._road.run.observe(Retried(self._blob.name, str(error), 0))
            except Transient as error:
                if isinstance(error, RangeRefused) or not (self._blob.etag or self._blob.md5):
                    await self._start_over()
                if self._check.size > best:
                    best = self._check.size
                    patience.progress()
                await self._road.persistence.pause(self._blob.name, error, patience, began)

    async def _take_up(self) -> None:
        """Read what an earlier run left of this very blob; the bytes behind it are asked for by range."""
        if not self._draft.held:
            return
        await self.aclose()
        async for chunk in self._draft.prefix():
            await self._feed(chunk)

    async def _commit(self) -> Examined:
        proof = self._check.finish()
        held = await self._draft.commit(proof)
        return Examined(replace(held, blob=replace(held.blob, size=proof.size)), self._check.take(), self._partly)

    async def _receive(self) -> None:
        """Add the bytes that are missing. A body that ends early without a break is short for good."""
        if self._body is None:
            self._body = await self._road.source.open(self._blob, self._check.size)
        try:
            if self._body.start != self._check.size:
                await self._start_over()
            async for chunk in self._body.chunks():
                await self._feed(chunk)
                self._road.run.tally.bytes += len(chunk)
                if self._check.size > self._blob.size != UNKNOWN:
                    return
                await self._draft.append(chunk)
        finally:
            await self.aclose()

    async def _feed(self, chunk: bytes) -> None:
        """Check the next bytes; what a large document asks for goes to the catalog on the way."""
        self._check.feed(chunk)
        if self._check.named > SPOOL:
            said, anew = self._check.take(), not self._partly
            await in_thread(self._road.references.add, self._road.version, self._blob.name, said, anew=anew)
            self._partly = True

    async def _start_over(self) -> None:
        self._check.restart()
        self._partly = False
        await self._draft.restart()

    async def aclose(self) -> None:
        """Release the connection. May be called twice."""
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()


def _judge_damage(error: BlobDamaged, sha256: bytes, wrong: list[bytes]) -> None:
    """Raise when fetching anew cannot help: the same wrong bytes came twice, or each time others."""
    if sha256 in wrong:
        raise BlobDamaged(f"{error} (the same bytes came twice: the container holds them so)") from error
    wrong.append(sha256)
    if len(wrong) >= DAMAGED_FETCHES:
        raise BlobDamaged(f"{error} (fetched {len(wrong)} times, other bytes each time)") from error
