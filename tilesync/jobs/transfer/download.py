"""One blob on its way: fetched until its bytes check, whatever breaks in between."""

from __future__ import annotations

from dataclasses import dataclass

from tilesync.core.backoff import has_stalled
from tilesync.errors import BlobDamaged, BlobUnreachable, RangeRefused, Transient
from tilesync.events import Retried
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.jobs.versions.file_check import MAX_REFERENCES_IN_MEMORY, CheckedFile
from tilesync.model import UNKNOWN_SIZE, Blob, Digests, Version
from tilesync.protocols import Body, Draft, Files, ReferenceIndex, Source
from tilesync.runtime.threads import run_in_thread
from tilesync.tiles.validator import ContentCheck

MAX_DAMAGED_FETCHES = 4
"""How often bytes that do not check are fetched anew, when they differ each time."""

DAMAGED_AT_SOURCE_HINT = (
    "another run brings the same bytes: make the export anew, or leave such a file out with --exclude"
)

MAX_SINGLE_READ_BYTES = 1 << 18
"""Up to this many bytes a body is read at once, while bodies are swift."""

FAST_BODY_S = 1.0
"""Seconds within which a body comes where the next small one may be read at once: a kill loses as much."""

SPILL_BYTES = 1 << 20
"""So many bytes of one blob are kept in memory; then they are checked and go into the draft."""

MAX_UNSTATED_LENGTH_BYTES = 1 << 32
"""Bytes at most of a body that states no length: one that does not end must not fill the disk."""

SPILL_INTERVAL_S = 0.25
"""Seconds after which what has arrived of a blob goes into the draft, however little it is: what a kill can lose."""


@dataclass(frozen=True)
class TransferContext:
    """What all blobs of one transfer share."""

    version: Version
    source: Source
    files: Files
    references: ReferenceIndex
    run: RunContext
    retrying: Retrying


class Download:
    """Brings one blob in. `body`: its bytes are coming already, from the start.

    A small blob never leaves the memory before it is whole: it is checked and written in one hop. A body that breaks is
    continued where the blob is pinned by an ETag or MD5, and fetched anew where it is not.
    """

    def __init__(self, context: TransferContext, blob: Blob, body: Body | None = None) -> None:
        self._context = context
        self._blob = blob
        self._body = body
        self._size_from_response = body is not None  # by an answer alone: the next one may state another MD5
        self._check = self._new_check(md5=context.files.requires_md5)
        self._references_saved = False
        self._draft: Draft | None = None
        self._pending: list[bytes] = []  # behind what is in the draft
        self._checked = 0  # so many bytes of it, already
        self._digests: Digests | None = None
        self._received = 0
        self._spilled = 0
        self._last_spill_s = 0.0
        self._was_interrupted = False
        self._damaged_digests: list[bytes] = []  # SHA-256 of bytes that came whole and did not check

    def _new_check(self, *, md5: bool) -> ContentCheck:
        stated = self._blob._replace(md5=None) if self._size_from_response else self._blob
        return ContentCheck(stated, self._context.version.container_url, compute_md5=md5)

    async def run(self) -> CheckedFile:
        """Fetch until the bytes check, then commit. Raises BlobError for this blob, RunError for the run."""
        persistence, clock = self._context.retrying, self._context.run.clock
        await self._resume_draft()
        patience, best = None, self._received
        while True:
            began = clock.monotonic()
            try:
                if self._received != self._blob.size or self._blob.size == 0:
                    await self._receive()
                return await self._commit()
            except BlobDamaged as error:
                _raise_if_permanent(error, self._check.sha256, self._damaged_digests)
                await self._start_over()
                self._context.run.observe(Retried(self._blob.name, str(error), 0))
            except Transient as error:
                patience = patience or persistence.new_budget()
                self._was_interrupted = True
                if isinstance(error, RangeRefused) or not self._is_pinned:
                    await self._start_over()
                if (more := self._received - best) > 0:
                    best = self._received
                    if not has_stalled(more, clock.monotonic() - began):
                        patience.record_progress()
                await persistence.wait_before_retry(self._blob.name, error, patience, began)

    @property
    def _is_pinned(self) -> bool:
        return bool(self._blob.etag) or self._blob.md5 is not None or self._blob.sha256 is not None

    async def _resume_draft(self) -> None:
        """Read what an earlier run left of this very blob; the bytes behind it are asked for by range."""
        if not self._context.files.has_part(self._context.version, self._blob):
            return
        self._check = self._new_check(md5=True)  # the answer may state one
        self._draft = self._context.files.draft(self._context.version, self._blob)
        if self._draft.received_bytes:
            await self.aclose()
        async for chunk in self._draft.received_chunks():
            await run_in_thread(self._feed, chunk)
            self._received += len(chunk)
        self._spilled = self._received

    async def _receive(self) -> None:
        """Add the bytes that are missing. A body that ends early without a break is short for good."""
        size, run = self._blob.size, self._context.run
        if (
            self._received - self._spilled >= SPILL_BYTES
        ):  # the draft did not take it: nothing more is read before it does
            await self._spill()
        self._last_spill_s = run.clock.monotonic()
        small = (
            0 <= size <= MAX_SINGLE_READ_BYTES and not self._received and not self._was_interrupted
        )  # at once nothing of a break would stay
        at_once = small and self._body is None and run.limiter.has_fast_bodies
        if self._body is None:
            self._body = await self._context.source.open(
                self._blob, self._received, prefetch_bytes=size + 1 if at_once else 1
            )
            if not at_once:  # else that is the time of the body, which depends on its size
                run.limiter.record_latency(run.clock.monotonic() - self._last_spill_s)
        try:
            if self._body.start != self._received:
                await self._start_over()
            self._check.expect_md5(self._body.md5)
            if self._size_from_response and not self._received:
                self._blob = self._blob._replace(md5=self._body.md5)
            if at_once:
                self._add(await self._body.read(size))
            else:
                await self._stream(self._body)
        finally:
            await self.aclose()
        run.limiter.has_fast_bodies = run.clock.monotonic() - self._last_spill_s < FAST_BODY_S

    async def _stream(self, body: Body) -> None:
        async for chunk in body.chunks():
            self._add(chunk)
            if self._received > self._blob.size != UNKNOWN_SIZE:
                return
            if self._received > MAX_UNSTATED_LENGTH_BYTES and self._blob.size == UNKNOWN_SIZE:
                raise BlobUnreachable(f"{self._blob.name}: its body does not end, and states no length")
            late = self._context.run.clock.monotonic() - self._last_spill_s >= SPILL_INTERVAL_S
            if late or self._received - self._spilled >= SPILL_BYTES:
                await self._spill()

    def _add(self, chunk: bytes) -> None:
        self._pending.append(chunk)
        self._digests = None
        self._received += len(chunk)
        self._context.run.stats.transferred_bytes += len(chunk)
        self._context.run.limiter.record_bytes(len(chunk))

    async def _spill(self) -> None:
        """Check what has come, and put it into the draft. Half done and done again, it is as if done once."""
        data = b"".join(self._pending)
        if self._draft is None:
            self._draft = self._context.files.draft(self._context.version, self._blob)
        await run_in_thread(self._feed, data[self._checked :])
        self._checked = len(data)
        await self._draft.append(data)
        self._pending.clear()
        self._checked = 0
        self._spilled = self._received
        self._last_spill_s = self._context.run.clock.monotonic()

    async def _commit(self) -> CheckedFile:
        road = self._context
        if self._draft is None:
            held = await road.files.put(road.version, self._blob, b"".join(self._pending), self._compute_digests)
        else:
            if self._pending:
                await self._spill()
            self._digests = self._digests or self._check.finish(known_sha256s=self._damaged_digests)
            held = await self._draft.commit(self._digests)
        if held.blob.size == UNKNOWN_SIZE:
            held = held._replace(blob=held.blob._replace(size=self._check.size))
        return CheckedFile(held, self._check.drain(), self._references_saved)

    def _compute_digests(self, data: bytes) -> Digests:
        """The proof of the whole content, once however often it is asked for."""
        if self._digests is None:
            self._feed(data)
            self._digests = self._check.finish(known_sha256s=self._damaged_digests)
        return self._digests

    def _feed(self, data: bytes) -> None:
        """Check the next bytes; what a large document asks for goes to the catalog on the way."""
        self._check.feed(data)
        if self._check.pending_count > MAX_REFERENCES_IN_MEMORY:
            said, anew = self._check.drain(), not self._references_saved
            self._context.references.add(self._context.version, self._blob.name, said, replace_existing=anew)
            self._references_saved = True

    async def _start_over(self) -> None:
        self._check.reset()
        self._references_saved = False
        self._pending.clear()
        self._checked, self._digests = 0, None
        self._received = self._spilled = 0
        if self._draft is not None:
            await self._draft.restart()

    async def suspend(self) -> None:
        """Keep what has come for a later run."""
        await self.aclose()
        if self._pending and self._is_pinned and self._context.files.keeps_parts:
            self._draft = self._draft or self._context.files.draft(self._context.version, self._blob)
            await self._draft.append(b"".join(self._pending))
        if self._draft is not None:
            await self._draft.suspend()

    async def aclose(self) -> None:
        """Release the connection. May be called twice."""
        body, self._body = self._body, None
        if body is not None:
            await body.aclose()


def _raise_if_permanent(error: BlobDamaged, sha256: bytes, damaged_digests: list[bytes]) -> None:
    """Raise when fetching anew cannot help: the same wrong bytes came twice, or each time others. Where nothing but
    their structure is broken, bytes that come twice are not wrong: ContentCheck takes them.
    """
    if sha256 in damaged_digests:
        what = f"{error} (the same bytes came twice: the container holds them so)"
        raise BlobDamaged(what, hint=DAMAGED_AT_SOURCE_HINT) from error
    damaged_digests.append(sha256)
    if len(damaged_digests) >= MAX_DAMAGED_FETCHES:
        raise BlobDamaged(f"{error} (fetched {len(damaged_digests)} times, other bytes each time)") from error
