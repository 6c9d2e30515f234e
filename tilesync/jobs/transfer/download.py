"""One blob on its way: fetched until its bytes check, whatever breaks in between."""

from __future__ import annotations

from dataclasses import dataclass

from tilesync.core.backoff import trickled
from tilesync.errors import BlobDamaged, BlobUnreachable, RangeRefused, Transient
from tilesync.events import Retried
from tilesync.jobs.run.context import Run
from tilesync.jobs.run.retry import Persistence
from tilesync.jobs.versions.file_check import SPOOL, Examined
from tilesync.model import UNKNOWN, Blob, Proof, Version
from tilesync.protocols import Body, Draft, Files, References, Source
from tilesync.runtime.threads import in_thread
from tilesync.tiles.validator import ContentCheck

DAMAGED_FETCHES = 4
"""How often bytes that do not check are fetched anew, when they differ each time."""

DAMAGED_THERE = "another run brings the same bytes: make the export anew, or leave such a file out with --exclude"

WHOLE = 1 << 18
"""Up to this many bytes a body is read at once, while bodies are swift."""

SWIFT = 1.0
"""Seconds within which a body comes where the next small one may be read at once: a kill loses as much."""

SPILL = 1 << 20
"""So many bytes of one blob are kept in memory; then they are checked and go into the draft."""

UNSTATED = 1 << 32
"""Bytes at most of a body that states no length: one that does not end must not fill the disk."""

TICK = 0.25
"""Seconds after which what has arrived of a blob goes into the draft, however little it is: what a kill can lose."""


@dataclass(frozen=True)
class Road:
    """What all blobs of one transfer share."""

    version: Version
    source: Source
    files: Files
    references: References
    run: Run
    persistence: Persistence


class Fetch:
    """Brings one blob in. `body`: its bytes are coming already, from the start.

    A small blob never leaves the memory before it is whole: it is checked and written in one hop. A body that breaks is
    continued where the blob is pinned by an ETag or MD5, and fetched anew where it is not.
    """

    def __init__(self, road: Road, blob: Blob, body: Body | None = None) -> None:
        self._road = road
        self._blob = blob
        self._body = body
        self._described = body is not None  # by an answer alone: the next one may state another MD5
        self._check = self._new_check(md5=road.files.proves_md5)
        self._partly = False
        self._draft: Draft | None = None
        self._pending: list[bytes] = []  # behind what is in the draft
        self._checked = 0  # so many bytes of it, already
        self._proof: Proof | None = None
        self._received = 0
        self._spilled = 0
        self._since = 0.0
        self._broke = False
        self._wrong: list[bytes] = []  # SHA-256 of bytes that came whole and did not check

    def _new_check(self, *, md5: bool) -> ContentCheck:
        stated = self._blob._replace(md5=None) if self._described else self._blob
        return ContentCheck(stated, self._road.version.home, md5=md5)

    async def run(self) -> Examined:
        """Fetch until the bytes check, then commit. Raises BlobError for this blob, RunError for the run."""
        persistence, clock = self._road.persistence, self._road.run.clock
        await self._take_up()
        patience, best = None, self._received
        while True:
            began = clock.monotonic()
            try:
                if self._received != self._blob.size or self._blob.size == 0:
                    await self._receive()
                return await self._commit()
            except BlobDamaged as error:
                _judge_damage(error, self._check.sha256, self._wrong)
                await self._start_over()
                self._road.run.observe(Retried(self._blob.name, str(error), 0))
            except Transient as error:
                patience = patience or persistence.patience()
                self._broke = True
                if isinstance(error, RangeRefused) or not self._pinned:
                    await self._start_over()
                if (more := self._received - best) > 0:
                    best = self._received
                    if not trickled(more, clock.monotonic() - began):
                        patience.progress()
                await persistence.pause(self._blob.name, error, patience, began)

    @property
    def _pinned(self) -> bool:
        return bool(self._blob.etag) or self._blob.md5 is not None or self._blob.sha256 is not None

    async def _take_up(self) -> None:
        """Read what an earlier run left of this very blob; the bytes behind it are asked for by range."""
        if not self._road.files.begun(self._road.version, self._blob):
            return
        self._check = self._new_check(md5=True)  # the answer may state one
        self._draft = self._road.files.draft(self._road.version, self._blob)
        if self._draft.held:
            await self.aclose()
        async for chunk in self._draft.prefix():
            await in_thread(self._feed, chunk)
            self._received += len(chunk)
        self._spilled = self._received

    async def _receive(self) -> None:
        """Add the bytes that are missing. A body that ends early without a break is short for good."""
        size, run = self._blob.size, self._road.run
        if self._received - self._spilled >= SPILL:  # the draft did not take it: nothing more is read before it does
            await self._spill()
        self._since = run.clock.monotonic()
        small = 0 <= size <= WHOLE and not self._received and not self._broke  # at once nothing of a break would stay
        at_once = small and self._body is None and run.gate.swift
        if self._body is None:
            self._body = await self._road.source.open(self._blob, self._received, ahead=size + 1 if at_once else 1)
            if not at_once:  # else that is the time of the body, which depends on its size
                run.gate.answered(run.clock.monotonic() - self._since)
        try:
            if self._body.start != self._received:
                await self._start_over()
            self._check.claim(self._body.md5)
            if self._described and not self._received:
                self._blob = self._blob._replace(md5=self._body.md5)
            if at_once:
                self._add(await self._body.read(size))
            else:
                await self._stream(self._body)
        finally:
            await self.aclose()
        run.gate.swift = run.clock.monotonic() - self._since < SWIFT

    async def _stream(self, body: Body) -> None:
        async for chunk in body.chunks():
            self._add(chunk)
            if self._received > self._blob.size != UNKNOWN:
                return
            if self._received > UNSTATED and self._blob.size == UNKNOWN:
                raise BlobUnreachable(f"{self._blob.name}: its body does not end, and states no length")
            late = self._road.run.clock.monotonic() - self._since >= TICK
            if late or self._received - self._spilled >= SPILL:
                await self._spill()

    def _add(self, chunk: bytes) -> None:
        self._pending.append(chunk)
        self._proof = None
        self._received += len(chunk)
        self._road.run.tally.bytes += len(chunk)
        self._road.run.gate.moved(len(chunk))

    async def _spill(self) -> None:
        """Check what has come, and put it into the draft. Half done and done again, it is as if done once."""
        data = b"".join(self._pending)
        if self._draft is None:
            self._draft = self._road.files.draft(self._road.version, self._blob)
        await in_thread(self._feed, data[self._checked :])
        self._checked = len(data)
        await self._draft.append(data)
        self._pending.clear()
        self._checked = 0
        self._spilled = self._received
        self._since = self._road.run.clock.monotonic()

    async def _commit(self) -> Examined:
        road = self._road
        if self._draft is None:
            held = await road.files.put(road.version, self._blob, b"".join(self._pending), self._prove)
        else:
            if self._pending:
                await self._spill()
            self._proof = self._proof or self._check.finish(seen=self._wrong)
            held = await self._draft.commit(self._proof)
        if held.blob.size == UNKNOWN:
            held = held._replace(blob=held.blob._replace(size=self._check.size))
        return Examined(held, self._check.take(), self._partly)

    def _prove(self, data: bytes) -> Proof:
        """The proof of the whole content, once however often it is asked for."""
        if self._proof is None:
            self._feed(data)
            self._proof = self._check.finish(seen=self._wrong)
        return self._proof

    def _feed(self, data: bytes) -> None:
        """Check the next bytes; what a large document asks for goes to the catalog on the way."""
        self._check.feed(data)
        if self._check.named > SPOOL:
            said, anew = self._check.take(), not self._partly
            self._road.references.add(self._road.version, self._blob.name, said, anew=anew)
            self._partly = True

    async def _start_over(self) -> None:
        self._check.restart()
        self._partly = False
        self._pending.clear()
        self._checked, self._proof = 0, None
        self._received = self._spilled = 0
        if self._draft is not None:
            await self._draft.restart()

    async def suspend(self) -> None:
        """Keep what has come for a later run."""
        await self.aclose()
        if self._pending and self._pinned and self._road.files.keeps_parts:
            self._draft = self._draft or self._road.files.draft(self._road.version, self._blob)
            await self._draft.append(b"".join(self._pending))
        if self._draft is not None:
            await self._draft.suspend()

    async def aclose(self) -> None:
        """Release the connection. May be called twice."""
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()


def _judge_damage(error: BlobDamaged, sha256: bytes, wrong: list[bytes]) -> None:
    """Raise when fetching anew cannot help: the same wrong bytes came twice, or each time others. Where nothing but
    their structure is broken, bytes that come twice are not wrong: ContentCheck takes them.
    """
    if sha256 in wrong:
        what = f"{error} (the same bytes came twice: the container holds them so)"
        raise BlobDamaged(what, hint=DAMAGED_THERE) from error
    wrong.append(sha256)
    if len(wrong) >= DAMAGED_FETCHES:
        raise BlobDamaged(f"{error} (fetched {len(wrong)} times, other bytes each time)") from error
