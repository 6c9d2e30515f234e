"""What the crew does for a run: small blobs brought in, held files examined; a batch an errand."""

from __future__ import annotations

import statistics
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta

from tilesync.azure.responses import parse_etag, parse_md5
from tilesync.errors import BlobDamaged, TilesyncError, UsageError
from tilesync.events import Finding
from tilesync.jobs.versions.file_audit import verify_file
from tilesync.model import Blob, Digests, FileStamp, ParsedContent, SasUrl, StoredFile, UnpackedFile, Version
from tilesync.runtime.process_pool import WorkerContext
from tilesync.sources.mirror_files import MirrorWorkerSource
from tilesync.stores.azure.direct_put import AzurePutTarget
from tilesync.stores.local.reader import LocalStoredFiles
from tilesync.stores.local.writer import LocalPutTarget
from tilesync.tiles.validator import ContentCheck
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import HttpPool, PoolRequest, http_pool

PlacedFile = tuple[bytes, bytes | None, FileStamp, UnpackedFile | None, ParsedContent]
"""SHA-256 of a blob that is in place, its MD5 where that is kept, its trace there, how it is unpacked, what it says."""

BLOB_TIMEOUT = timedelta(seconds=2)
"""After that one blob does not keep the others of its batch waiting any more: it is left to others."""


@asynccontextmanager
async def open_put_targets() -> AsyncIterator[dict[LocalPutTarget, LocalPutTarget]]:
    """The shelves that errands of this process have used: each is known by where it puts files."""
    yield {}


@dataclass(frozen=True, slots=True)
class FetchBatch:
    """Bring some small blobs in, all at once, each at its first attempt: what does not come so is left to others.

    The bytes are checked and written by the loop itself, which has nothing else to do.
    """

    worker_source: SasUrl | MirrorWorkerSource
    put_target: LocalPutTarget | AzurePutTarget
    version: str
    container_url: str
    blobs: tuple[Blob, ...]
    max_concurrent: int

    async def __call__(self, context: WorkerContext) -> tuple[list[PlacedFile | None], float, float]:
        """For each blob what it is and where it lies, None where it did not come; and the seconds that an answer took,
        and that one took to begin, each the median.
        """
        shelf = self.put_target
        if isinstance(shelf, LocalPutTarget):  # the one of the first errand has its folders open
            shelf = (await context.get_or_create(open_put_targets)).setdefault(shelf, shelf)
        found: list[PlacedFile | None] = [None] * len(self.blobs)
        times, firsts, onward = list[float](), list[float](), list[tuple[int, PoolRequest, Digests, ParsedContent]]()

        def hear(number: int, reply: PoolResponse) -> None:
            if reply.seconds:
                times.append(reply.seconds)
                firsts.append(reply.first_byte_seconds)
            with suppress(TilesyncError):
                blob = self.blobs[number]
                proof, reading = self._verify(blob, reply)
                placed = shelf.put_verified(self.version, blob, reply.body, proof)
                if isinstance(placed, PoolRequest):
                    onward.append((number, placed, proof, reading))
                else:
                    found[number] = _make_placed_file(placed, reading)

        pool = await context.get_or_create(http_pool)
        with suppress(UsageError):
            if isinstance(self.worker_source, MirrorWorkerSource):
                self._read_local(self.worker_source, hear)
            else:
                wishes = [_make_request(self.worker_source, blob) for blob in self.blobs]
                await pool.send_all(wishes, hear, max_connections=self.max_concurrent, time_limit=BLOB_TIMEOUT)
            if isinstance(shelf, AzurePutTarget):
                await self._upload(pool, shelf, onward, found, times)
        came = 0.0 if any(found) else BLOB_TIMEOUT.total_seconds()
        seconds = statistics.median(times) if times else came
        return found, seconds, statistics.median(firsts) if firsts else seconds

    async def _upload(
        self,
        pool: HttpPool,
        put_target: AzurePutTarget,
        uploads: list[tuple[int, PoolRequest, Digests, ParsedContent]],
        results: list[PlacedFile | None],
        times: list[float],
    ) -> None:
        """Send on what has come."""

        def hear(place: int, reply: PoolResponse) -> None:
            times.append(reply.seconds)
            number, _, proof, reading = uploads[place]
            results[number] = _make_placed_file(put_target.make_stored_file(self.blobs[number], proof, reply), reading)

        await pool.send_all(
            [wish for _, wish, _, _ in uploads], hear, max_connections=self.max_concurrent, time_limit=BLOB_TIMEOUT
        )

    def _read_local(self, worker_source: MirrorWorkerSource, on_response: Callable[[int, PoolResponse], None]) -> None:
        """Read held files, as if each was an answer that took no time."""
        for number, blob in enumerate(self.blobs):
            with suppress(TilesyncError):
                on_response(number, PoolResponse(None, worker_source.files.read(worker_source.version, blob.name), 0.0))

    def _verify(self, blob: Blob, response: PoolResponse) -> tuple[Digests, ParsedContent]:
        """The proof of a body, and what it says. Raises BlobDamaged, also for bytes of which nothing says whose."""
        named = bool(blob.etag) and parse_etag(response.etag) == blob.etag
        claimed = blob.md5 or blob.sha256  # else the ETag alone says whose bytes these are
        if not named and (not claimed or (blob.etag and response.etag)):
            raise BlobDamaged(f"{blob.name} is another one")
        check = ContentCheck(blob, self.container_url, compute_md5=isinstance(self.put_target, AzurePutTarget))
        check.expect_md5(parse_md5(response.md5))
        check.feed(response.body)
        return check.finish(), check.drain()


def _make_request(link: SasUrl, blob: Blob) -> PoolRequest:
    return PoolRequest(link.blob_url(blob.name), {"If-Match": f'"{blob.etag}"'} if blob.etag else {}, blob.size)


def _make_placed_file(stored: StoredFile, reading: ParsedContent) -> PlacedFile:
    return stored.sha256, stored.blob.md5, FileStamp(stored.mtime_ns, stored.inode), stored.unpacked, reading


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Have at hand what the other errands need; `brings`: connections among it."""

    fetches: bool

    async def __call__(self, context: WorkerContext) -> None:
        """Make it."""
        if self.fetches:
            await context.get_or_create(http_pool)


@dataclass(frozen=True, slots=True)
class VerifyBatch:
    """Judge held files by every byte."""

    files: LocalStoredFiles
    version: Version
    stored: tuple[StoredFile, ...]

    async def __call__(self, context: WorkerContext) -> list[Finding | tuple[FileStamp, ParsedContent]]:
        """For each what is wrong with it, or its trace and what it says."""
        return [self._verify_file(each) for each in self.stored]

    def _verify_file(self, stored: StoredFile) -> Finding | tuple[FileStamp, ParsedContent]:
        found = verify_file(self.files, None, self.version, stored)
        return found if isinstance(found, Finding) else (FileStamp(*found.stored[2:4]), found.content)
