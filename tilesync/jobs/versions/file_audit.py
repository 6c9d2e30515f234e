"""Held files against their lines of the manifest."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from tilesync.errors import BlobDamaged, DestinationError
from tilesync.events import Finding
from tilesync.jobs.versions.file_check import check_stored_file
from tilesync.model import FileResult, StoredFile, Version
from tilesync.protocols import ReferenceIndex, StoredFiles, Workers
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.threads import run_in_thread


def check_size(files: StoredFiles, version: Version, stored: StoredFile) -> Finding | None:
    """Name and size only; None when both are right."""
    name = stored.blob.name
    try:
        size = files.size(version, name)
    except DestinationError as error:
        return Finding(name, "unreadable", str(error))
    if size is None:
        return Finding(name, "missing", "is not there, or is no regular file")
    if size != stored.size:
        return Finding(name, "size", f"is {size} bytes, the manifest says {stored.size}")
    return None


def verify_file(
    files: StoredFiles, references: ReferenceIndex | None, version: Version, stored: StoredFile
) -> Finding | FileResult:
    """Every byte: the digest, and what the file asks for. With `references` a large document puts its own there."""
    name = stored.blob.name
    try:
        found = check_stored_file(files, references, version, stored, compare_md5=not stored.sha256)
    except DestinationError as error:
        return Finding(name, "unreadable", str(error))
    except BlobDamaged as error:
        return check_size(files, version, stored) or Finding(name, "content", f"is damaged: {error}")
    if found is not None and stored.sha256 in {found.stored.sha256, b""}:
        return FileResult(0, found.stored, found.content, has_more_references=found.has_more_references)
    return check_size(files, version, stored) or Finding(name, "content", "its SHA-256 is not that of the manifest")


MAX_WORKER_FILE_BYTES = 1 << 22
"""Up to so many bytes helpers read a file: everything that it asks for is in memory then."""


class FileVerifier:
    """Inspects files in this process, and with helpers in others from when these are ready."""

    def __init__(self, files: StoredFiles, references: ReferenceIndex, workers: Workers | None) -> None:
        self._files = files
        self._references = references
        self._workers = workers
        self._starting: asyncio.Task[None] | None = None

    def request_start(self) -> None:
        """There is so much to do that helpers are worth their start."""
        if self._workers is not None and self._starting is None:
            self._starting = asyncio.create_task(self._workers.start())

    async def verify_files(self, version: Version, files: Sequence[StoredFile]) -> dict[str, Finding | FileResult]:
        """What is to be said of each file, by its name."""
        small: list[StoredFile] = []
        found: dict[str, Finding | FileResult] = {}
        if self._workers is not None and self._starting is not None and self._starting.done():
            small = [held for held in files if held.size <= MAX_WORKER_FILE_BYTES]
            told = await self._workers.verify_batch(version, small) if small else ()
            found.update((held.blob.name, said) for held, said in zip(small, told, strict=False))
        rest = [held for held in files if held.blob.name not in found]
        wide = self._files.parallel_reads
        for part in await gather_or_cancel(
            run_in_thread(self._verify_in_process, version, rest[n::wide]) for n in range(min(wide, len(rest)))
        ):
            found.update(part)
        return found

    def _verify_in_process(self, version: Version, files: Sequence[StoredFile]) -> dict[str, Finding | FileResult]:
        return {held.blob.name: verify_file(self._files, self._references, version, held) for held in files}

    async def aclose(self) -> None:
        """Wait for no helpers any more: all files are read."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
