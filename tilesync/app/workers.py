"""Worker processes of a run or an audit. The task modules are imported with the first task."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.events import Finding
from tilesync.model import BatchResult, Blob, FileResult, StoredFile, Version
from tilesync.protocols import StoredFiles, WorkerSource
from tilesync.runtime.process_pool import ProcessPool, WorkerLost
from tilesync.stores.worker_target import FindWorkerTarget


class ProcessWorkers:
    """Worker processes that fetch into one destination, or verify its files."""

    def __init__(
        self, pool: ProcessPool, files: StoredFiles | None, find_target: FindWorkerTarget | None = None
    ) -> None:
        self._pool = pool
        self._files = files
        self._find_target = find_target

    @property
    def start_requested(self) -> bool:
        """True if their start has been requested."""
        return self._pool.start_requested

    def request_start(self) -> None:
        """Start the workers without waiting, since they will be needed soon."""
        from tilesync.app.worker_tasks import WarmUp

        self._pool.request_start(WarmUp(fetches=self._find_target is not None))

    async def start(self) -> None:
        """Start the workers and wait until they are ready."""
        from tilesync.app.worker_tasks import WarmUp

        await self._pool.start(WarmUp(fetches=self._find_target is not None))

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
        max_per_worker = max(1, max_concurrent // self._pool.size)
        blobs = tuple(blob for _, blob in blobs_by_number)
        task = FetchBatch(
            worker_source, target, version.name, version.container_url, blobs, max_per_worker, BATCH_TIMEOUT
        )
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

    async def verify_batch(self, version: Version, files: Sequence[StoredFile]) -> Sequence[Finding | FileResult]:
        """Verify stored files that fit into memory; return results in order, or nothing if that is impossible."""
        from tilesync.app.worker_tasks import VerifyBatch

        if self._files is None:
            return ()
        try:
            task = VerifyBatch(self._files, version.with_facts(record={}), tuple(files))
            verified = await self._pool.run(task, payload_bytes=sum(stored.size for stored in files))
        except WorkerLost:
            return ()
        return [
            result
            if isinstance(result, Finding)
            else FileResult(0, StoredFile(*stored[:2], *result[:2], stored.unpacked), result[2])
            for stored, result in zip(files, verified, strict=True)
        ]
