"""The crew, for a run into one destination, or an audit of one. The errands are loaded with the first of them."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace

from tilesync.events import Finding
from tilesync.model import BatchResult, Blob, FileResult, SasUrl, StoredFile, Version
from tilesync.runtime.process_pool import ProcessPool, WorkerLost
from tilesync.sources.mirror_files import MirrorWorkerSource
from tilesync.stores.azure.direct_put import AzurePutTarget
from tilesync.stores.local.reader import LocalStoredFiles
from tilesync.stores.local.writer import LocalPutTarget

FindPutTarget = Callable[[Version], Awaitable[LocalPutTarget | AzurePutTarget]]
"""Where small blobs of a version are put now. Raises RunErrors."""


class ProcessWorkers:
    """The crew, for a run into one destination."""

    def __init__(
        self, pool: ProcessPool, files: LocalStoredFiles | None, find_put_target: FindPutTarget | None = None
    ) -> None:
        self._pool = pool
        self._files = files
        self._find_put_target = find_put_target

    @property
    def start_requested(self) -> bool:
        """Whether they have been called."""
        return self._pool.start_requested

    def request_start(self) -> None:
        """They will be asked soon."""
        from tilesync.app.worker_tasks import WarmUp

        self._pool.request_start(WarmUp(fetches=self._find_put_target is not None))

    async def start(self) -> None:
        """Return when they can be asked."""
        from tilesync.app.worker_tasks import WarmUp

        await self._pool.start(WarmUp(fetches=self._find_put_target is not None))

    async def fetch_batch(
        self,
        version: Version,
        worker_source: object,
        blobs_by_number: Sequence[tuple[int, Blob]],
        *,
        max_concurrent: int,
    ) -> BatchResult:
        """Bring some small blobs in, each with its number."""
        from tilesync.app.worker_tasks import FetchBatch

        assert self._find_put_target is not None, "a destination that is only read brings nothing in"
        shelf = await self._find_put_target(version)
        share = max(1, max_concurrent // self._pool.size)
        blobs = tuple(blob for _, blob in blobs_by_number)
        if not isinstance(worker_source, SasUrl | MirrorWorkerSource):
            return BatchResult((), tuple(blobs_by_number), 0.0)
        errand = FetchBatch(worker_source, shelf, version.name, version.container_url, blobs, share)
        try:
            found, seconds, first = await self._pool.run(errand, payload_bytes=sum(blob.size for blob in blobs))
        except WorkerLost:
            return BatchResult((), tuple(blobs_by_number), 0.0)
        arrivals, left = list[FileResult](), list[tuple[int, Blob]]()
        for (number, blob), each in zip(blobs_by_number, found, strict=True):
            if each is None:
                left.append((number, blob))
            else:
                sha256, md5, trace, unpacked, reading = each
                arrivals.append(
                    FileResult(number, StoredFile(blob._replace(md5=md5), sha256, *trace, unpacked), reading)
                )
        return BatchResult(tuple(arrivals), tuple(left), seconds, first)

    async def verify_batch(self, version: Version, files: Sequence[StoredFile]) -> Sequence[Finding | FileResult]:
        """What is to be said of held files that fit into memory, in their order; nothing where that cannot be done."""
        from tilesync.app.worker_tasks import VerifyBatch

        if self._files is None:
            return ()
        try:
            errand = VerifyBatch(self._files, replace(version, record={}), tuple(files))
            told = await self._pool.run(errand, payload_bytes=sum(held.size for held in files))
        except WorkerLost:
            return ()
        return [
            said
            if isinstance(said, Finding)
            else FileResult(0, StoredFile(*held[:2], *said[0], held.unpacked), said[1])
            for held, said in zip(files, told, strict=True)
        ]
