"""What a walk would find, for the plan: tilesets, subtrees and what those need are read, contents are only begun.

What a content names itself (textures, buffers) is therefore not found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tilesync.errors import BlobDamaged, BlobError, BlobMissing
from tilesync.events import DiagnosticReported, Warned
from tilesync.jobs.mirror.filter_warnings import filter_warnings
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.retry import Retrying
from tilesync.jobs.versions.completeness import missing_root_error
from tilesync.jobs.versions.subtree_walk import MAX_SUBTREE_BYTES, SubtreeWalk
from tilesync.model import ROOT, Blob, FileResult, Globs, Inventory, Kind, ParsedContent, StoredFile, Version
from tilesync.model.tiles import DAMAGED
from tilesync.protocols import Body, Catalog, Source, StoredFiles
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.tiles.validator import ContentCheck

MAX_CONCURRENT_READS = 32

_DOCUMENT_PREFIXES = (b"{", b"\xef\xbb\xbf", b" ", b"\n", b"\r", b"\t", b"subt", b"\x1f\x8b")
"""How a document begins that may be a tileset or a subtree: JSON, binary subtrees, gzip."""


@dataclass(frozen=True)
class ScratchSpace:
    """Where a survey keeps what it has read: an empty catalog, files that can be read again, and a way to put one."""

    catalog: Catalog
    files: StoredFiles
    write: Callable[[Version, str, bytes], None]


class DryRunWalk:
    """Walks from the root tileset through one container, and gives out every blob that it finds."""

    def __init__(self, source: Source, scratch: ScratchSpace, run: RunContext, globs: Globs) -> None:
        self._source = source
        self._scratch = scratch
        self._run = run
        self._globs = globs
        self._retrying = Retrying(run)
        self._subtree_buffers: set[str] = set()

    async def blobs(self) -> AsyncIterator[Blob]:
        """Every blob, as the container describes it. One that is asked for and not there is remarked."""
        desk, home = self._scratch, await self._source.container_url()
        name = f"survey {len(desk.catalog.versions())}"
        survey = Version(
            0, name, "", None, None, "", {}, inventory=Inventory.WALK, container_url=home, globs=self._globs
        )
        version = desk.catalog.add_version(survey)
        desk.catalog.add_wanted(version, ROOT)
        expansion, after = SubtreeWalk(version, desk.catalog, desk.files), 0
        while True:
            batch = desk.catalog.list_wanted(version, after, limit=MAX_CONCURRENT_READS)
            if not batch and not sum(
                desk.catalog.add_wanted_references(version, name) for name in expansion.advance(is_final=True)
            ):
                break
            looked = await gather_or_cancel(self._read_with_retry(version, number, blob.name) for number, blob in batch)
            arrivals = [arrival for arrival in looked if arrival is not None]
            desk.catalog.mark_stored(version, arrivals)
            after = batch[-1][0] if batch else after
            for arrival in arrivals:
                yield arrival.stored.blob
        for sentence in filter_warnings(version, self._globs, desk.catalog, planned=True):
            self._run.observe(Warned(sentence))
        self._run.stats.excluded = desk.catalog.compute_totals(version).excluded
        self._run.stats.listed += self._run.stats.excluded

    async def _read_with_retry(self, version: Version, number: int, name: str) -> FileResult | None:
        try:
            blob, reading = await self._retrying.retry(name, lambda: self._read(version, name))
        except BlobMissing as error:
            if name == ROOT:
                raise missing_root_error() from error
            self._scratch.catalog.mark_missing(version, [number])
            self._run.observe(DiagnosticReported(name, "missing", "it is asked for, and is not in the container"))
            return None
        except BlobError as error:
            self._run.observe(DiagnosticReported(name, "unreadable", str(error)))
            return None
        return FileResult(number, StoredFile(blob, b"", 0), reading)

    async def _read(self, version: Version, name: str) -> tuple[Blob, ParsedContent]:
        blob, body = await self._source.open_by_name(name)
        try:
            return blob, await self._parse(version, blob, body)
        finally:
            await body.aclose()

    async def _parse(self, version: Version, blob: Blob, body: Body) -> ParsedContent:
        """What a file says that may lead to others; of any other nothing."""
        check, pieces = ContentCheck(blob, version.container_url), list[bytes]()
        async for chunk in body.chunks():
            pieces.append(chunk)
            if not pieces[0].startswith(_DOCUMENT_PREFIXES) and blob.name not in self._subtree_buffers:
                return ParsedContent()
            check.feed(chunk)
            if check.size > MAX_SUBTREE_BYTES:
                raise BlobDamaged(f"{blob.name}: it has more than {MAX_SUBTREE_BYTES:,} bytes, and is read whole")
        try:
            check.finish()
        except BlobDamaged as error:
            self._run.observe(DiagnosticReported(blob.name, "unreadable", str(error)))
            return ParsedContent()
        self._scratch.write(version, blob.name, b"".join(pieces))
        reading = check.drain()
        for remark in reading.diagnostics:
            if remark.problem == DAMAGED:
                self._run.observe(DiagnosticReported(blob.name, "unreadable", remark.detail))
        if reading.kind is Kind.SUBTREE:
            self._subtree_buffers.update(asked.target for asked in reading.references)
        return reading
