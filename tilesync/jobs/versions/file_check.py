"""File check: read stored files again, as during a download, or verify them against their manifest lines."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from tilesync.errors import BlobDamaged, DamagedPackage, DestinationError
from tilesync.events import Finding
from tilesync.model import Blob, FileResult, ParsedContent, StoredFile, Version
from tilesync.protocols import StoredFiles, Workers
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.threads import run_in_thread
from tilesync.tiles.validator import ContentCheck, check_whole
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.catalog.references import ReferenceIndex

MAX_REFERENCES_IN_MEMORY = 5000
"""References of one file that are kept in memory; beyond that they are written to the catalog."""


@dataclass(frozen=True, slots=True)
class CheckedFile:
    """Result of a file check. `has_more_references`: the catalog already holds references that `content` lacks."""

    stored: StoredFile
    content: ParsedContent
    has_more_references: bool


def check_file(
    files: StoredFiles,
    references: ReferenceIndex | None,
    version: Version,
    blob: Blob,
    *,
    compare_md5: bool = True,
    known_sha256s: Collection[bytes] = (),
) -> CheckedFile | None:
    """Read and check a stored file; return None if it is not there.

    `compare_md5`: compare the MD5 of `blob`. Without `references`, all references of the file are kept in memory.

    Raises BlobDamaged if the file does not match `blob`, or if its content is broken and no digest proves that the
    container holds it like that (a digest of `blob`, or its SHA-256 in `known_sha256s`).
    """
    check = ContentCheck(blob if compare_md5 else blob._replace(md5=None), version.container_url)
    has_more_references = False

    def feed_chunk(chunk: bytes) -> None:
        nonlocal has_more_references
        check.feed(chunk)
        if references is not None and check.pending_count > MAX_REFERENCES_IN_MEMORY:
            references.add(version, blob.name, check.drain(), replace_existing=not has_more_references)
            has_more_references = True

    stamp = files.read_into(version, blob.name, feed_chunk)
    if stamp is None:
        return None
    stored = StoredFile(blob, check.finish(known_sha256s=known_sha256s).sha256, *stamp)
    return CheckedFile(stored, check.drain(), has_more_references)


def check_stored_file(
    files: StoredFiles,
    references: ReferenceIndex | None,
    version: Version,
    stored: StoredFile,
    *,
    compare_md5: bool = True,
) -> CheckedFile | None:
    """Read and check a stored file in its form on disk, which may be unpacked.

    The SHA-256 is returned, not compared; it only proves that a broken file was stored like that.
    """
    found = check_file(
        files, references, version, stored.on_disk, compare_md5=compare_md5, known_sha256s=(stored.sha256,)
    )
    if found is None or stored.unpacked is None:
        return found
    return replace(found, stored=found.stored._replace(blob=stored.blob, unpacked=stored.unpacked))


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
    except (BlobDamaged, DamagedPackage) as error:
        return check_size(files, version, stored) or Finding(name, "content", f"is damaged: {error}")
    except DestinationError as error:
        return Finding(name, "unreadable", str(error))
    if found is not None and stored.sha256 in {found.stored.sha256, b""}:
        return FileResult(0, found.stored, found.content, has_more_references=found.has_more_references)
    return check_size(files, version, stored) or Finding(name, "content", "its SHA-256 differs from the manifest")


def verify_files(
    files: StoredFiles, references: ReferenceIndex | None, version: Version, stored: Sequence[StoredFile]
) -> Iterator[Finding | FileResult]:
    """Verify files as `verify_file` does, and yield the result of each.

    A small file is read with one call and checked in memory. A file with any problem, and every other file, is left to
    `verify_file`, which also words the finding.
    """
    for each, whole in zip(stored, files.read_whole(version, stored), strict=True):
        content = check_bytes(version, each, whole.data) if whole is not None else None
        if whole is None or content is None:
            yield verify_file(files, references, version, each)
        else:
            yield FileResult(0, StoredFile(*each[:2], whole.mtime_ns, whole.inode, each.unpacked), content)


def check_bytes(version: Version, stored: StoredFile, data: bytes) -> ParsedContent | None:
    """Return the content of a file whose bytes match its manifest line; None for every other file.

    The SHA-256 of the manifest proves the bytes, so a broken structure is only a diagnostic, as in `verify_file`.
    """
    if not stored.sha256:
        return None
    try:
        return check_whole(stored.on_disk._replace(sha256=stored.sha256), data, version.container_url)[1]
    except BlobDamaged:
        return None


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
            small = [file for file in files if file.size <= self._workers.max_verified_bytes]
            results = await self._workers.verify_batch(version, small) if small else ()
            checked = zip(small, results, strict=False)
            found.update((file.blob.name, result) for file, result in checked if result is not None)
            if results and len(found) * 2 < len(small):
                self._workers = None  # the store refuses them, or is too slow: here each request is repeated
        rest = [file for file in files if file.blob.name not in found]
        thread_count = self._files.parallel_reads
        for part in await gather_or_cancel(
            run_in_thread(self._verify_in_process, version, rest[n::thread_count])
            for n in range(min(thread_count, len(rest)))
        ):
            found.update(part)
        return found

    def _verify_in_process(self, version: Version, files: Sequence[StoredFile]) -> dict[str, Finding | FileResult]:
        results = verify_files(self._files, self._references, version, files)
        return {file.blob.name: result for file, result in zip(files, results, strict=True)}

    async def aclose(self) -> None:
        """Stop waiting for workers that are still starting: all files are verified."""
        if self._starting is not None:
            self._starting.cancel()
            await asyncio.wait([self._starting])
