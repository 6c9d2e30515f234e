"""Verify stored files against their manifest lines: sizes, or every byte, also in worker processes."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tilesync.errors import BlobDamaged, DestinationError
from tilesync.events import Finding
from tilesync.jobs.versions.file_check import check_stored_file
from tilesync.model import FileResult, StoredFile, Version
from tilesync.protocols import StoredFiles, Workers
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.threads import run_in_thread

if TYPE_CHECKING:
    from tilesync.catalog.references import ReferenceIndex


def check_size(files: StoredFiles, version: Version, stored: StoredFile) -> Finding | None:
    """Compare name and size only; return None if both match."""
    name = stored.blob.name
    try:
        size = files.size(version, name)
    except DestinationError as error:
        return Finding(name, "unreadable", str(error))
    if size is None:
        return Finding(name, "missing", "is not there, or is not a regular file")
    if size != stored.size:
        return Finding(name, "size", f"is {size} bytes, the manifest says {stored.size}")
    return None


def verify_file(
    files: StoredFiles, references: ReferenceIndex | None, version: Version, stored: StoredFile
) -> Finding | FileResult:
    """Read every byte: compare the digest, and parse the references.

    With `references`, a large document writes its references there instead of keeping them in memory.
    """
    name = stored.blob.name
    try:
        found = check_stored_file(files, references, version, stored, compare_md5=not stored.sha256)
    except DestinationError as error:
        return Finding(name, "unreadable", str(error))
    except BlobDamaged as error:
        return check_size(files, version, stored) or Finding(name, "content", f"is damaged: {error}")
    if found is not None and stored.sha256 in {found.stored.sha256, b""}:
        return FileResult(0, found.stored, found.content, has_more_references=found.has_more_references)
    return check_size(files, version, stored) or Finding(name, "content", "its SHA-256 differs from the manifest")


MAX_WORKER_FILE_BYTES = 1 << 22
"""Maximum size of a file that a worker reads, since it returns all references of the file in memory."""


class FileVerifier:
    """Verifies files in threads of this process, and in worker processes once these are ready."""

    def __init__(self, files: StoredFiles, references: ReferenceIndex, workers: Workers | None) -> None:
        self._files = files
        self._references = references
        self._workers = workers
        self._starting: asyncio.Task[None] | None = None

    def request_start(self) -> None:
        """Start the worker processes in the background: there are enough files to make them worthwhile."""
        if self._workers is not None and self._starting is None:
            self._starting = asyncio.create_task(self._workers.start())

    async def verify_files(self, version: Version, files: Sequence[StoredFile]) -> dict[str, Finding | FileResult]:
        """Return the finding or the result of each file, by name."""
        small: list[StoredFile] = []
        found: dict[str, Finding | FileResult] = {}
        if self._workers is not None and self._starting is not None and self._starting.done():
            small = [file for file in files if file.size <= MAX_WORKER_FILE_BYTES]
            results = await self._workers.verify_batch(version, small) if small else ()
            found.update((file.blob.name, result) for file, result in zip(small, results, strict=False))
        rest = [file for file in files if file.blob.name not in found]
        thread_count = self._files.parallel_reads
        for part in await gather_or_cancel(
            run_in_thread(self._verify_in_process, version, rest[n::thread_count])
            for n in range(min(thread_count, len(rest)))
        ):
            found.update(part)
        return found

    def _verify_in_process(self, version: Version, files: Sequence[StoredFile]) -> dict[str, Finding | FileResult]:
        return {file.blob.name: verify_file(self._files, self._references, version, file) for file in files}

    async def aclose(self) -> None:
        """Stop waiting for workers that are still starting: all files are verified."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
