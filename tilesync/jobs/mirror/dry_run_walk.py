"""Dry-run walk: find the blobs of a container without downloading contents.

Reads tilesets, subtrees and their buffers; of other files only the beginning. Files that a tile content references
(textures, buffers) are therefore not found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable

from tilesync.catalog.catalog import Catalog
from tilesync.errors import BlobDamaged, BlobError, BlobMissing
from tilesync.events import DiagnosticReported, Warned
from tilesync.jobs.mirror.inventory import filter_warnings
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.jobs.versions.completeness import missing_root_error
from tilesync.jobs.versions.subtree_walk import MAX_SUBTREE_BYTES, SubtreeWalk
from tilesync.model import ROOT, Blob, FileResult, Globs, Inventory, Kind, ParsedContent, StoredFile, Version
from tilesync.model.tiles import DAMAGED
from tilesync.protocols import Body, Source, StoredFiles
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.tiles.validator import ContentCheck
from tilesync.values import dataclass

MAX_CONCURRENT_READS = 32

_DOCUMENT_PREFIXES = (b"{", b"\xef\xbb\xbf", b" ", b"\n", b"\r", b"\t", b"subt", b"\x1f\x8b")
"""First bytes of a file that may be a tileset or a subtree: JSON, binary subtree, gzip."""


@dataclass(frozen=True)
class ScratchSpace:
    """Scratch space of a dry-run walk: an empty catalog, readable files, and a function that writes one."""

    catalog: Catalog
    files: StoredFiles
    write: Callable[[Version, str, bytes], None]


class DryRunWalk:
    """Walk from the root tileset through one container, and yield every blob that it finds."""

    def __init__(self, source: Source, scratch: ScratchSpace, run: RunContext, globs: Globs) -> None:
        self._source = source
        self._scratch = scratch
        self._run = run
        self._globs = globs
        self._retrying = Retrying(run)
        self._subtree_buffers: set[str] = set()

    async def blobs(self) -> AsyncIterator[Blob]:
        """Yield every blob as the container describes it. Reports referenced blobs that are missing."""
        scratch, container_url = self._scratch, await self._source.container_url()
        name = f"dry-run walk {len(scratch.catalog.versions())}"
        draft = Version(0, name, "", inventory=Inventory.WALK, container_url=container_url, globs=self._globs)
        version = scratch.catalog.add_version(draft)
        scratch.catalog.add_wanted(version, ROOT)
        subtree_walk, after = SubtreeWalk(version, scratch.catalog, scratch.files), 0
        while True:
            batch = scratch.catalog.list_wanted(version, after, limit=MAX_CONCURRENT_READS)
            if not batch and not sum(
                scratch.catalog.add_wanted_references(version, name) for name in subtree_walk.advance(is_final=True)
            ):
                break
            answers = await gather_or_cancel(
                self._read_with_retry(version, number, blob.name) for number, blob in batch
            )
            results = [result for result in answers if result is not None]
            scratch.catalog.mark_stored(version, results)
            after = batch[-1][0] if batch else after
            for result in results:
                yield result.stored.blob
        for sentence in filter_warnings(version, self._globs, scratch.catalog, planned=True):
            self._run.observe(Warned(sentence))
        self._run.stats.excluded = scratch.catalog.compute_totals(version).excluded
        self._run.stats.listed += self._run.stats.excluded

    async def _read_with_retry(self, version: Version, number: int, name: str) -> FileResult | None:
        try:
            blob, content = await self._retrying.retry(name, lambda: self._read(version, name))
        except BlobMissing as error:
            if name == ROOT:
                raise missing_root_error() from error
            self._scratch.catalog.mark_missing(version, [number])
            self._run.observe(
                DiagnosticReported(name, "missing", "a tileset references it, but the container does not have it")
            )
            return None
        except BlobError as error:
            self._run.observe(DiagnosticReported(name, "unreadable", str(error)))
            return None
        return FileResult(number, StoredFile(blob, b"", 0), content)

    async def _read(self, version: Version, name: str) -> tuple[Blob, ParsedContent]:
        blob, body = await self._source.open_by_name(name)
        try:
            return blob, await self._parse(version, blob, body)
        finally:
            await body.aclose()

    async def _parse(self, version: Version, blob: Blob, body: Body) -> ParsedContent:
        """Return what a tileset or subtree references; nothing for other files, which are not read to their end."""
        check, pieces = ContentCheck(blob, version.container_url), list[bytes]()
        async for chunk in body.chunks():
            pieces.append(bytes(chunk))
            if not pieces[0].startswith(_DOCUMENT_PREFIXES) and blob.name not in self._subtree_buffers:
                return ParsedContent()
            check.feed(chunk)
            if check.size > MAX_SUBTREE_BYTES:
                raise BlobDamaged(
                    f"{blob.name}: it is too large to read into memory (more than {MAX_SUBTREE_BYTES:,} bytes)"
                )
        try:
            check.finish()
        except BlobDamaged as error:
            self._run.observe(DiagnosticReported(blob.name, "unreadable", str(error)))
            return ParsedContent()
        self._scratch.write(version, blob.name, b"".join(pieces))
        content = check.drain()
        for diagnostic in content.diagnostics:
            if diagnostic.problem == DAMAGED:
                self._run.observe(DiagnosticReported(blob.name, "unreadable", diagnostic.detail))
        if content.kind is Kind.SUBTREE:
            self._subtree_buffers.update(reference.target for reference in content.references)
        return content
