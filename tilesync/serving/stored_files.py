"""Files of one version of a destination that has no folder of paths, as a package: opened by their names."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Final

from tilesync.core.safe_names import find_universal_problem
from tilesync.model import Version
from tilesync.protocols import StoredFiles
from tilesync.runtime.streamed_file import StreamedFile, StreamPool
from tilesync.runtime.threads import run_abandonable

MAX_THREADS: Final = 32
"""Threads for the blocking reads of one destination."""


class VersionFiles:
    """The files of one version, by their names."""

    def __init__(self, files: StoredFiles, version: Version) -> None:
        self._files = files
        self._version = version
        self._pool = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="tilesync-stored")
        self._streams = StreamPool()

    async def open(self, path: str) -> StreamedFile | None:
        """Open a file by its name; None if there is none. Raises DestinationError."""
        if find_universal_problem(path):
            return None
        return await run_abandonable(self._pool, partial(self._open, path))

    def _open(self, name: str) -> StreamedFile | None:
        stamp, size = self._files.stamp(self._version, name), self._files.size(self._version, name)
        if stamp is None or size is None:
            return None
        chunks = self._files.chunks(self._version, name)
        etag = f'"{stamp.mtime_ns:x}-{stamp.inode:x}-{size:x}"'
        return StreamedFile(
            size,
            etag,
            chunks,
            read_from=lambda offset: self._files.chunks(self._version, name, offset=offset),
            pool=self._pool,
            streams=self._streams,
        )

    def close(self) -> None:
        """End the threads. Does not wait for reads that hang."""
        self._pool.shutdown(wait=False, cancel_futures=True)
