"""Worker tasks: fetch a batch of small blobs, verify a batch of stored files, warm up a worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import timedelta
from itertools import repeat
from typing import TYPE_CHECKING, Any, Generic, NamedTuple, TypeVar

from tilesync.azure.responses import parse_etag, parse_md5
from tilesync.errors import BlobDamaged, TilesyncError, UsageError
from tilesync.model import Blob, Digests, ParsedContent, SasUrl, StoredFile, UnpackedFile, Version
from tilesync.protocols import MirrorWorkerSource, StoredFiles, WorkerSource
from tilesync.runtime.task_pool import WorkerContext
from tilesync.stores.worker_target import PendingUpload, WorkerStore, WorkerTarget
from tilesync.tiles.validator import check_whole
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import HttpPool, PoolRequest, http_pool
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.events import Finding

T = TypeVar("T")

PlacedFile = tuple[bytes, bytes | None, int, int, UnpackedFile | None, ParsedContent]
"""Stored file: SHA-256, MD5 (None: not recorded), stamp, unpacked form (None: stored as it came), parsed content.

Plain tuples go between processes in a tenth of the time of named ones, so blobs and results are sent as such.
"""

BATCH_TIMEOUT = timedelta(seconds=2)
"""Time limit of a batch. The main process fetches what has not come by then: one slow blob must not delay the rest."""


class FetchedBatch(NamedTuple):
    """Result of FetchBatch: a stored file for each blob (None: failed), and medians of seconds.

    `response_s`: seconds per response; `first_byte_s`: seconds until its first byte.
    """

    files: list[PlacedFile | None]
    response_s: float
    first_byte_s: float


MAX_RECENT_VALUES = 32
"""Targets, and readers, whose files and folders a worker process keeps open."""


class RecentValues(Generic[T]):
    """Values that tasks of this process used last; equal ones share what they have opened."""

    def __init__(self) -> None:
        self._values: dict[T, T] = {}

    def get_or_add(self, value: T) -> T:
        """Return the known value that equals `value`; add `value` if there is none."""
        known = self._values.pop(value, value)
        self._values[known] = known
        if len(self._values) > MAX_RECENT_VALUES:
            del self._values[next(iter(self._values))]
        return known


@asynccontextmanager
async def open_targets() -> AsyncIterator[RecentValues[WorkerTarget]]:
    """Open the cache of targets of this process."""
    yield RecentValues()


@asynccontextmanager
async def open_readers() -> AsyncIterator[RecentValues[StoredFiles]]:
    """Open the cache of readers of this process."""
    yield RecentValues()


class StorePools:
    """Connection pools to stores whose certificates are not among those that are trusted anyway."""

    def __init__(self) -> None:
        self._pools: dict[bytes, HttpPool] = {}

    def get(self, ca_certificates: bytes | None, usual: HttpPool) -> HttpPool:
        """Return the pool that trusts these certificates too; `usual` if there are none."""
        if not ca_certificates:
            return usual
        if ca_certificates not in self._pools:
            self._pools[ca_certificates] = HttpPool(ca_certificates=ca_certificates)
        return self._pools[ca_certificates]

    def close(self) -> None:
        """Close all connections."""
        for pool in self._pools.values():
            pool.close()


@asynccontextmanager
async def open_store_pools() -> AsyncIterator[StorePools]:
    """Open the pools of this process."""
    pools = StorePools()
    try:
        yield pools
    finally:
        pools.close()


@dataclass(frozen=True, slots=True)
class FetchBatch:
    """Fetch small blobs at the same time, one attempt each; blobs that fail are left to the main process.

    The event loop itself checks and writes the bytes: it has nothing else to do.
    """

    worker_source: WorkerSource
    target: WorkerTarget
    version: str
    container_url: str
    blobs: tuple[Blob, ...]
    max_concurrent: int
    time_limit: timedelta

    def __reduce__(self) -> tuple[Callable[..., FetchBatch], tuple[object, ...]]:
        rows = [tuple(blob) for blob in self.blobs]
        settings = (self.worker_source, self.target, self.version, self.container_url)
        return _make_batch, (rows, settings, self.max_concurrent, self.time_limit)

    async def __call__(self, context: WorkerContext) -> FetchedBatch:
        """Fetch the blobs."""
        target = (await context.get_or_create(open_targets)).get_or_add(self.target).open_batch()
        results: list[PlacedFile | None] = [None] * len(self.blobs)
        times, first_byte_times = list[float](), list[float]()
        uploads = list[tuple[int, PendingUpload, ParsedContent]]()

        def handle_blob(number: int, response: PoolResponse) -> None:
            if response.seconds:
                times.append(response.seconds)
                first_byte_times.append(response.first_byte_seconds)
            with suppress(TilesyncError):
                blob = self.blobs[number]
                digests, content = self._verify(blob, response)
                placed = target.put_verified(self.version, blob, response.body, digests)
                if isinstance(placed, PendingUpload):
                    uploads.append((number, placed, content))
                else:
                    results[number] = _make_placed_file(placed, content)

        pool = await context.get_or_create(http_pool)
        with suppress(UsageError):
            if isinstance(self.worker_source, MirrorWorkerSource):
                files = (await context.get_or_create(open_readers)).get_or_add(self.worker_source.files)
                self._read_local(replace(self.worker_source, files=files), handle_blob)
            else:
                requests = [_make_request(self.worker_source, blob) for blob in self.blobs]
                await pool.send_all(
                    requests, handle_blob, max_connections=self.max_concurrent, time_limit=self.time_limit
                )
            if uploads:
                pools = await context.get_or_create(open_store_pools)
                await self._upload(pools.get(self.target.ca_certificates, pool), uploads, results, times)
        without_times = 0.0 if any(results) else self.time_limit.total_seconds()  # local files, or nothing came
        seconds = _median(times) if times else without_times
        return FetchedBatch(results, seconds, _median(first_byte_times) if first_byte_times else seconds)

    async def _upload(
        self,
        pool: HttpPool,
        uploads: list[tuple[int, PendingUpload, ParsedContent]],
        results: list[PlacedFile | None],
        times: list[float],
    ) -> None:
        """Upload verified blobs; add the results."""

        def handle_upload(index: int, response: PoolResponse) -> None:
            times.append(response.seconds)
            number, upload, content = uploads[index]
            results[number] = _make_placed_file(upload.make_stored_file(response), content)

        await pool.send_all(
            [upload.request for _, upload, _ in uploads],
            handle_upload,
            max_connections=self.max_concurrent,
            time_limit=self.time_limit,
        )

    def _read_local(self, worker_source: MirrorWorkerSource, on_response: Callable[[int, PoolResponse], None]) -> None:
        """Read files of a mirror; pass each on as a response that took no time."""
        files, version = worker_source.files, worker_source.version
        stored = [StoredFile(blob, b"", 0) for blob in self.blobs]
        for number, (blob, whole) in enumerate(zip(self.blobs, files.read_whole(version, stored), strict=True)):
            with suppress(TilesyncError):
                data = files.read(version, blob.name) if whole is None else whole.data
                etag = f'"{blob.etag}"' if worker_source.is_unproven else None
                on_response(number, PoolResponse(etag, data, 0.0))

    def _verify(self, blob: Blob, response: PoolResponse) -> tuple[Digests, ParsedContent]:
        """Return the digests and content of a body. Raises BlobDamaged, also if nothing proves which blob it is."""
        etag_matches = bool(blob.etag) and parse_etag(response.etag) == blob.etag
        expected_digest = blob.md5 or blob.sha256  # without one, only the ETag identifies the bytes
        if not etag_matches and (not expected_digest or (blob.etag and response.etag)):
            raise BlobDamaged(f"{blob.name}: the response is for another blob")
        return check_whole(
            blob,
            response.body,
            self.container_url,
            compute_md5=self.target.requires_md5,
            stated_md5=None if response.md5 is None else parse_md5(response.md5),
        )


def _make_batch(
    rows: Sequence[tuple[Any, ...]],
    settings: tuple[WorkerSource, WorkerTarget, str, str],
    max_concurrent: int,
    time_limit: timedelta,
) -> FetchBatch:
    return FetchBatch(*settings, tuple(map(Blob._make, rows)), max_concurrent, time_limit)


def _make_request(link: SasUrl, blob: Blob) -> PoolRequest:
    return PoolRequest(link.blob_url(blob.name), {"If-Match": f'"{blob.etag}"'} if blob.etag else {}, blob.size)


def _median(values: list[float]) -> float:
    """Return the upper median. The module `statistics` would load several others into each worker process."""
    return sorted(values)[len(values) // 2]


def _make_placed_file(stored: StoredFile, content: ParsedContent) -> PlacedFile:
    return stored.sha256, stored.blob.md5, stored.mtime_ns, stored.inode, stored.unpacked, content


@dataclass(frozen=True, slots=True)
class WarmUp:
    """Create the resources that later tasks need; `fetches`: also the HTTP connection pool."""

    fetches: bool

    async def __call__(self, context: WorkerContext) -> None:
        """Create them."""
        if self.fetches:
            import tilesync.stores.local.writer
            import tilesync.tiles.plain_glb
            import tilesync.tiles.plain_tileset  # noqa: F401 - loaded now, so that the first batch does not wait

            await context.get_or_create(http_pool)


VerifiedFile = tuple[int, int, ParsedContent]
"""Verified file: its stamp (mtime in ns, inode), and its parsed content."""


@dataclass(frozen=True, slots=True)
class VerifyBatch:
    """Verify stored files by reading every byte."""

    files: StoredFiles
    version: Version
    stored: tuple[StoredFile, ...]

    def __reduce__(self) -> tuple[Callable[..., VerifyBatch], tuple[object, ...]]:
        return _make_verify_batch, (self.files, self.version, _make_columns(self.stored))

    async def __call__(self, context: WorkerContext) -> Sequence[Finding | VerifiedFile | None]:
        """Return for each file its finding, or its stamp and parsed content."""
        from tilesync.events import Finding  # late: a worker that fetches needs neither
        from tilesync.jobs.versions.file_check import verify_files

        files = (await context.get_or_create(open_readers)).get_or_add(self.files)
        contents: dict[ParsedContent, ParsedContent] = {}  # equal ones become one object, which is pickled once
        return [
            result
            if isinstance(result, Finding)
            else (result.stored.mtime_ns, result.stored.inode, contents.setdefault(result.content, result.content))
            for result in verify_files(files, None, self.version, self.stored)
        ]


def _make_verify_batch(files: StoredFiles, version: Version, columns: StoredColumns) -> VerifyBatch:
    return VerifyBatch(files, version, _read_columns(columns))


@dataclass(frozen=True, slots=True)
class VerifyObjects:
    """Read small files of an object store at the same time, one attempt each, and verify them.

    A file that fails, for whatever reason, is left to the main process, which repeats requests and words the finding.
    """

    store: WorkerStore
    version: Version
    stored: tuple[StoredFile, ...]
    max_concurrent: int
    time_limit: timedelta

    def __reduce__(self) -> tuple[Callable[..., VerifyObjects], tuple[object, ...]]:
        settings = (self.store, self.version, self.max_concurrent, self.time_limit)
        return _make_verify_objects, (*settings, _make_columns(self.stored))

    async def __call__(self, context: WorkerContext) -> Sequence[Finding | VerifiedFile | None]:
        """Return for each verified file its stamp and parsed content."""
        from tilesync.jobs.versions.file_check import check_bytes

        results: list[VerifiedFile | None] = [None] * len(self.stored)
        made = [self.store.make_read_request(self.version.name, stored) for stored in self.stored]
        requests = [(number, request) for number, request in enumerate(made) if request is not None]

        def check_response(index: int, response: PoolResponse) -> None:
            number = requests[index][0]
            content = check_bytes(self.version, self.stored[number], response.body)
            if content is not None:
                results[number] = (*self.store.read_stamp(response), content)

        pools, usual = await context.get_or_create(open_store_pools), await context.get_or_create(http_pool)
        pool = pools.get(self.store.ca_certificates, usual)
        with suppress(UsageError):
            await pool.send_all(
                [request for _, request in requests],
                check_response,
                max_connections=self.max_concurrent,
                time_limit=self.time_limit,
            )
        return results


def _make_verify_objects(
    store: WorkerStore, version: Version, max_concurrent: int, time_limit: timedelta, columns: StoredColumns
) -> VerifyObjects:
    return VerifyObjects(store, version, _read_columns(columns), max_concurrent, time_limit)


StoredColumns = tuple[list[tuple[Any, ...]], list[bytes], list[UnpackedFile | None]]
"""Stored files as they are sent to a worker: the columns of their blobs, SHA-256s, unpacked forms.

A column is pickled as one object, and equal texts in it once.
"""


def _make_columns(stored: Sequence[StoredFile]) -> StoredColumns:
    blob_columns = list(zip(*(each.blob for each in stored), strict=True))
    return blob_columns, [each.sha256 for each in stored], [each.unpacked for each in stored]


def _read_columns(columns: StoredColumns) -> tuple[StoredFile, ...]:
    blob_columns, sha256s, unpacked = columns
    blobs = map(Blob, *blob_columns)
    return tuple(map(StoredFile, blobs, sha256s, repeat(0), repeat(0), unpacked))
