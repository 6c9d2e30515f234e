"""Files of a package for a server: by their names, read in threads and passed on as they arrive."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial

from tilesync.runtime.streamed_file import StreamedFile, StreamPool
from tilesync.runtime.threads import MAX_DISK_THREADS, run_abandonable
from tilesync.stores.packages.readers.package import Package, find_file


class PackagePublicFiles:
    """The files of the version in a package."""

    has_other_files = False

    def __init__(self, package: Package) -> None:
        self._package = package
        self._pool = ThreadPoolExecutor(MAX_DISK_THREADS, thread_name_prefix="tilesync-package")
        self._streams = StreamPool()

    async def open(self, path: str) -> StreamedFile | None:
        """Open a file; None if there is none. Raises DamagedPackage, ExportReplaced, DestinationError."""
        return await run_abandonable(self._pool, partial(self._open, path))

    def _open(self, name: str) -> StreamedFile | None:
        entry = find_file(self._package, name)
        if entry is None:
            return None
        stamp, read_from = self._package.file.stamp, partial(self._package.read, entry)
        etag = f'"{stamp.mtime_ns:x}-{stamp.inode:x}-{entry.size:x}"'
        return StreamedFile(entry.size, etag, read_from(0), read_from=read_from, pool=self._pool, streams=self._streams)

    def close(self) -> None:
        """End the threads. Does not wait for reads that hang."""
        self._pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def open_public_entries(package: Package) -> Iterator[PackagePublicFiles]:
    """Open the files of a package for a server."""
    with closing(PackagePublicFiles(package)) as files:
        yield files
