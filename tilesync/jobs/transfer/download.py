"""Download: fetch one blob until its bytes are correct, with resumption after a break."""

from __future__ import annotations

from functools import partial

from tilesync.catalog.references import ReferenceIndex
from tilesync.core.backoff import RetryBudget, has_stalled
from tilesync.errors import BlobDamaged, BlobUnreachable, RangeRefused, Transient
from tilesync.events import Retried
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.jobs.versions.file_check import MAX_REFERENCES_IN_MEMORY, CheckedFile
from tilesync.model import UNKNOWN_SIZE, Blob, Chunk, Digests, Version
from tilesync.protocols import Body, Draft, Files, Source
from tilesync.runtime.threads import run_in_thread
from tilesync.tiles.validator import ContentCheck
from tilesync.values import dataclass

MAX_DAMAGED_FETCHES = 4
"""Maximum fetches of one blob that delivers damaged bytes, different ones each time."""

DAMAGED_AT_SOURCE_HINT = "another run fetches the same bytes: create a new export, or exclude the file with --exclude"

MAX_SINGLE_READ_BYTES = 1 << 18
"""Maximum bytes of a body that is read with one call. Bodies are so read only while they arrive fast."""

FAST_BODY_S = 1.0
"""Bodies arrive fast if the last one took less than this many seconds. A body read with one call is lost in a crash."""

SPILL_BYTES = 1 << 20
"""Bytes of one blob that are kept in memory before they are checked and written to the draft."""

MAX_UNSTATED_LENGTH_BYTES = 1 << 32
"""Maximum bytes of a body without a stated length: an endless one must not fill the disk."""

SPILL_INTERVAL_S = 0.25
"""Maximum seconds until received bytes are written to the draft: a crash loses at most so much."""


@dataclass(frozen=True)
class TransferContext:
    """Context that all downloads of one transfer share."""

    version: Version
    source: Source
    files: Files
    references: ReferenceIndex
    run: RunContext
    retrying: Retrying


class Download:
    """Download one blob. `body`: an open response body that starts at the first byte.

    A small blob stays in memory until it is complete: it is checked and written in one call to a thread. A body that
    breaks is resumed if the blob is identified by an ETag, MD5 or SHA-256, and fetched again from the start if not.
    """

    def __init__(self, context: TransferContext, blob: Blob, body: Body | None = None) -> None:
        self._context = context
        self._blob = blob
        self._body = body
        self._size_from_response = body is not None  # not from a listing: the next response may state another MD5
        self._check = self._new_check(md5=context.files.requires_md5)
        self._references_saved = False
        self._draft: Draft | None = None
        self._pending: list[Chunk] = []  # received, but not in the draft yet
        self._checked = 0  # bytes of `_pending` that are checked already
        self._digests: Digests | None = None
        self._received = 0
        self._best_received = 0  # before any break
        self._spilled = 0
        self._last_spill_s = 0.0
        self._was_interrupted = False
        self._damaged_digests: list[bytes] = []  # SHA-256 of complete but damaged content

    def _new_check(self, *, md5: bool) -> ContentCheck:
        blob = self._blob._replace(md5=None) if self._size_from_response else self._blob
        return ContentCheck(blob, self._context.version.container_url, compute_md5=md5)

    async def run(self) -> CheckedFile:
        """Fetch until the bytes are correct, then commit. Raises BlobError for this blob, RunError for the run."""
        await self._resume_draft()
        self._best_received = self._received
        retrying = self._context.retrying
        policy = retrying.new_policy(self._blob.name)
        while True:
            try:
                return await retrying.retry_within(policy, partial(self._attempt, policy.budget))
            except BlobDamaged as error:
                _raise_if_permanent(error, self._check.sha256, self._damaged_digests)
                await self._start_over()
                self._context.run.observe(Retried(self._blob.name, str(error), 0))

    async def _attempt(self, budget: RetryBudget) -> CheckedFile:
        started_s = self._context.run.clock.monotonic()
        try:
            if self._received != self._blob.size or self._blob.size == 0:
                await self._receive()
            return await self._commit()
        except Transient as error:
            self._was_interrupted = True
            if isinstance(error, RangeRefused) or not self._is_pinned:
                await self._start_over()
            if (progress := self._received - self._best_received) > 0:
                self._best_received = self._received
                if not has_stalled(progress, self._context.run.clock.monotonic() - started_s):
                    budget.record_progress()
            raise

    @property
    def _is_pinned(self) -> bool:
        return bool(self._blob.etag) or self._blob.md5 is not None or self._blob.sha256 is not None

    async def _resume_draft(self) -> None:
        """Read what an earlier run left of the same blob; the rest is requested with a range."""
        if not self._context.files.has_part(self._context.version, self._blob):
            return
        self._check = self._new_check(md5=True)  # the response may state an MD5 that the listing lacks
        self._draft = self._context.files.draft(self._context.version, self._blob)
        if self._draft.received_bytes:
            await self.aclose()
        async for chunk in self._draft.received_chunks():
            await run_in_thread(self._feed, chunk)
            self._received += len(chunk)
        self._spilled = self._received

    async def _receive(self) -> None:
        """Receive the missing bytes. A body that ends early without a broken connection is damaged."""
        size, run = self._blob.size, self._context.run
        # A spill that failed before must succeed now: memory would grow without bound otherwise.
        if self._received - self._spilled >= SPILL_BYTES:
            await self._spill()
        self._last_spill_s = run.clock.monotonic()
        # One call for the whole body is cheapest, but a break loses all of it: not after an interruption.
        is_small = 0 <= size <= MAX_SINGLE_READ_BYTES and not self._received and not self._was_interrupted
        single_read = is_small and self._body is None and run.limiter.has_fast_bodies
        if self._body is None:
            self._body = await self._context.source.open(
                self._blob, self._received, prefetch_bytes=size + 1 if single_read else 1
            )
            if not single_read:  # a prefetched body would count its transfer time as latency
                run.limiter.record_latency(run.clock.monotonic() - self._last_spill_s)
        try:
            if self._body.start != self._received:
                await self._start_over()
            self._check.expect_md5(self._body.md5)
            if self._size_from_response and not self._received:
                self._blob = self._blob._replace(md5=self._body.md5)
            if single_read:
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
                limit = f"more than {MAX_UNSTATED_LENGTH_BYTES:,} bytes"
                raise BlobUnreachable(f"{self._blob.name}: its body states no length, and has {limit}")
            is_due = self._context.run.clock.monotonic() - self._last_spill_s >= SPILL_INTERVAL_S
            if is_due or self._received - self._spilled >= SPILL_BYTES:
                await self._spill()

    def _add(self, chunk: Chunk) -> None:
        self._pending.append(chunk)
        self._digests = None
        self._received += len(chunk)
        self._context.run.stats.transferred_bytes += len(chunk)
        self._context.run.limiter.record_bytes(len(chunk))

    async def _spill(self) -> None:
        """Check the received bytes, and append them to the draft. Safe to repeat after a failure in between."""
        data = self._pending[0] if len(self._pending) == 1 else b"".join(self._pending)
        if self._draft is None:
            self._draft = self._context.files.draft(self._context.version, self._blob)
        await self._draft.append(data, partial(self._check_pending, data))
        self._pending.clear()
        self._checked = 0
        self._spilled = self._received
        self._last_spill_s = self._context.run.clock.monotonic()

    def _check_pending(self, data: Chunk) -> None:
        """Check what is not checked yet of `data`, which are all pending bytes."""
        self._feed(data[self._checked :])
        self._checked = len(data)

    async def _commit(self) -> CheckedFile:
        context = self._context
        if self._draft is None:
            stored = await context.files.put(
                context.version, self._blob, b"".join(self._pending), self._compute_digests
            )
        else:
            if self._pending:
                await self._spill()
            self._digests = self._digests or self._check.finish(known_sha256s=self._damaged_digests)
            stored = await self._draft.commit(self._digests)
        if stored.blob.size == UNKNOWN_SIZE:
            stored = stored._replace(blob=stored.blob._replace(size=self._check.size))
        return CheckedFile(stored, self._check.drain(), self._references_saved)

    def _compute_digests(self, data: bytes) -> Digests:
        """Return the digests of the whole content; computed once."""
        if self._digests is None:
            self._feed(data)
            self._digests = self._check.finish(known_sha256s=self._damaged_digests)
        return self._digests

    def _feed(self, data: Chunk) -> None:
        """Check the next bytes; store references of a large document in the catalog on the way."""
        self._check.feed(data)
        if self._check.pending_count > MAX_REFERENCES_IN_MEMORY:
            content, is_first = self._check.drain(), not self._references_saved
            self._context.references.add(self._context.version, self._blob.name, content, replace_existing=is_first)
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
        """Keep the received bytes for a later run."""
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
    """Raise if another fetch cannot help: the same damaged bytes came twice, or too many fetches failed.

    If only the structure is damaged, bytes that come twice are not an error: ContentCheck accepts them.
    """
    if sha256 in damaged_digests:
        message = f"{error} (the same bytes came twice: the source stores them like this)"
        raise BlobDamaged(message, hint=DAMAGED_AT_SOURCE_HINT) from error
    damaged_digests.append(sha256)
    if len(damaged_digests) >= MAX_DAMAGED_FETCHES:
        raise BlobDamaged(f"{error} (fetched {len(damaged_digests)} times, with different bytes each time)") from error
