"""Objects of a store for a server: by their paths, read in threads and passed on as they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from typing import Final

from tilesync.core.safe_names import find_universal_problem
from tilesync.errors import DestinationError
from tilesync.protocols import Objects
from tilesync.runtime.streamed_file import StreamedFile, StreamPool
from tilesync.runtime.threads import run_abandonable

MAX_REQUEST_THREADS: Final = 64
"""Threads for blocking requests to one store."""


class ObjectPublicFiles:
    """The objects below the prefix of a destination."""

    has_other_files = True

    def __init__(self, objects: Objects) -> None:
        self._objects = objects
        self._pool = ThreadPoolExecutor(MAX_REQUEST_THREADS, thread_name_prefix="tilesync-objects")
        self._streams = StreamPool()

    async def open(self, path: str) -> StreamedFile | None:
        """Open an object; None if there is none. Raises the RunErrors of the store."""
        if find_universal_problem(path):
            return None
        return await run_abandonable(self._pool, partial(self._open, path))

    def _open(self, path: str) -> StreamedFile | None:
        stored = self._objects.read(path)
        if stored is None:
            return None
        etag = stored.info.etag
        return StreamedFile(
            stored.info.size,
            f'"{etag}"',
            stored.chunks,
            read_from=partial(self._read_from, path, etag),
            pool=self._pool,
            streams=self._streams,
        )

    def _read_from(self, path: str, etag: str, offset: int) -> Iterator[bytes]:
        """Read the same object from an offset on. Raises DestinationError if it was replaced."""
        stored = self._objects.read(path, offset=offset)
        if stored is None or stored.info.etag != etag:
            raise DestinationError(f"{path} in {self._objects.display_name} was replaced or deleted meanwhile")
        return stored.chunks

    def close(self) -> None:
        """End the threads. Does not wait for requests that hang."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def open_public_objects(objects: Objects) -> Iterator[ObjectPublicFiles]:
    """Open the objects below a prefix for a server."""
    with closing(ObjectPublicFiles(objects)) as files:
        yield files
