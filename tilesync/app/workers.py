"""Workers of a run or an audit: processes of this machine, or of a cluster.

The task modules are imported with the first task.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

from tilesync.errors import TilesyncError
from tilesync.events import Finding
from tilesync.model import BatchResult, Blob, FileResult, StoredFile, Version
from tilesync.protocols import MAX_WHOLE_FILE_BYTES, StoredFiles, WorkerSource
from tilesync.runtime.task_pool import TaskPool, WorkerLost, WorkerTask
from tilesync.stores.worker_target import FindWorkerTarget, MakeWorkerStore
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.app.worker_tasks import VerifiedFile


MAX_VERIFY_REQUESTS = 128
"""Requests to an object store at the same time, of all processes, while its files are verified."""

MAX_VERIFIED_OBJECT_BYTES = 1 << 18
"""Maximum size of an object that a worker verifies: it receives many at the same time, each in memory."""

MIN_BYTES_PER_S = 1 << 20
"""Minimum bytes per second of a batch that is verified; what has not come by then is read by the main process."""


@dataclass(frozen=True, slots=True)
class BatchRules:
    """Rules of the batches that a pool gets.

    `blobs`: how many blobs of a batch are fetched. `time_limit`: of a batch that is fetched; None: the usual one.
    `batches_per_worker`: how many a worker of a cluster fetches at the same time, each with its share of the limit on
    transfers, which then holds for each worker. None: the processes of this machine share one limit.
    """

    blobs: int = 32
    time_limit: timedelta | None = None
    batches_per_worker: int | None = None


LOCAL_BATCHES = BatchRules()
CLUSTER_BATCHES = BatchRules(blobs=256, time_limit=timedelta(seconds=20), batches_per_worker=2)
"""Each batch costs the coordinator some milliseconds, so it has more blobs."""


class PoolWorkers:
    """Workers that fetch into one destination, or verify its files."""

    def __init__(
        self,
        pool: TaskPool,
        files: StoredFiles | None,
        find_target: FindWorkerTarget | None = None,
        *,
        make_store: MakeWorkerStore | None = None,
        rules: BatchRules = LOCAL_BATCHES,
    ) -> None:
        self._pool = pool
        self._rules = rules
        self._files = files
        self._find_target = find_target
        self._make_store = make_store
        self._fetches = find_target is not None or make_store is not None

    @property
    def blobs_per_batch(self) -> int:
        """Maximum blobs of one batch."""
        return self._rules.blobs

    @property
    def has_own_limits(self) -> bool:
        """True if the limit on transfers holds for each worker, not for all together."""
        return self._rules.batches_per_worker is not None

    @property
    def start_requested(self) -> bool:
        """True if their start has been requested."""
        return self._pool.start_requested

    def request_start(self) -> None:
        """Start the workers without waiting, since they will be needed soon."""
        from tilesync.app.worker_tasks import WarmUp

        self._pool.request_start(WarmUp(fetches=self._fetches))

    async def start(self) -> None:
        """Start the workers and wait until they are ready."""
        from tilesync.app.worker_tasks import WarmUp

        await self._pool.start(WarmUp(fetches=self._fetches))

    async def fetch_batch(
        self,
        version: Version,
        worker_source: WorkerSource,
        blobs_by_number: Sequence[tuple[int, Blob]],
        *,
        max_concurrent: int,
    ) -> BatchResult:
        """Fetch small blobs, one attempt each; the result has the files that arrived and the blobs that did not."""
        from tilesync.app.worker_tasks import BATCH_TIMEOUT, FetchBatch

        assert self._find_target is not None, "workers of a read-only destination cannot fetch"
        target = await self._find_target(version)
        max_per_batch = max(1, max_concurrent // (self._rules.batches_per_worker or self._pool.size))
        blobs, time_limit = tuple(blob for _, blob in blobs_by_number), self._rules.time_limit or BATCH_TIMEOUT
        task = FetchBatch(worker_source, target, version.name, version.container_url, blobs, max_per_batch, time_limit)
        try:
            fetched = await self._pool.run(task, payload_bytes=sum(blob.size for blob in blobs))
        except WorkerLost:
            return BatchResult((), tuple(blobs_by_number), 0.0)
        results, failed = list[FileResult](), list[tuple[int, Blob]]()
        for (number, blob), placed in zip(blobs_by_number, fetched.files, strict=True):
            if placed is None:
                failed.append((number, blob))
            else:
                sha256, md5, mtime_ns, inode, unpacked, content = placed
                described = blob if md5 == blob.md5 else blob._replace(md5=md5)
                results.append(FileResult(number, StoredFile(described, sha256, mtime_ns, inode, unpacked), content))
        return BatchResult(tuple(results), tuple(failed), fetched.response_s, fetched.first_byte_s)

    @property
    def max_verified_bytes(self) -> int:
        """Maximum size of a file that `verify_batch` can read: it holds whole files in memory."""
        return MAX_WHOLE_FILE_BYTES if self._make_store is None else MAX_VERIFIED_OBJECT_BYTES

    async def verify_batch(
        self, version: Version, files: Sequence[StoredFile]
    ) -> Sequence[Finding | FileResult | None]:
        """Verify files of at most `max_verified_bytes`; return results in order, or nothing if that is impossible.

        None stands for a file of a store that did not come at once, or that is not as it should be.
        """
        payload_bytes = sum(stored.size for stored in files)
        verified: Sequence[Finding | VerifiedFile | None] = ()
        with suppress(TilesyncError, WorkerLost):
            task = await self._make_verify_task(version.with_facts(record={}), tuple(files), payload_bytes)
            verified = await self._pool.run(task, payload_bytes=payload_bytes) if task is not None else ()
        return [
            FileResult(0, StoredFile(*stored[:2], *result[:2], stored.unpacked), result[2])
            if isinstance(result, tuple)
            else result
            for stored, result in zip(files, verified, strict=bool(verified))
        ]

    async def _make_verify_task(
        self, version: Version, files: tuple[StoredFile, ...], payload_bytes: int
    ) -> WorkerTask[Sequence[Finding | VerifiedFile | None]] | None:
        from tilesync.app.worker_tasks import BATCH_TIMEOUT, VerifyBatch, VerifyObjects

        if self._make_store is not None:
            time_limit = BATCH_TIMEOUT + timedelta(seconds=payload_bytes / MIN_BYTES_PER_S)
            max_concurrent = max(1, MAX_VERIFY_REQUESTS // (self._rules.batches_per_worker or self._pool.size))
            return VerifyObjects(await self._make_store(), version, files, max_concurrent, time_limit)
        return VerifyBatch(self._files, version, files) if self._files is not None else None
