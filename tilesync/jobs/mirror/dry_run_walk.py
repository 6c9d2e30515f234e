"""What a walk would find, for the plan: tilesets, subtrees and what those need are read, contents are only begun.

What a content names itself (textures, buffers) is therefore not found.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from tilesync.errors import BlobDamaged, BlobError, BlobMissing
from tilesync.events import Remarked, Warned
from tilesync.jobs.mirror.filter_warnings import filter_warnings
from tilesync.jobs.run.context import Run
from tilesync.jobs.run.retry import Persistence
from tilesync.jobs.versions.completeness import rootless
from tilesync.jobs.versions.subtree_walk import LARGEST, Expansion
from tilesync.model import ROOT, Arrival, Blob, Globs, Held, Inventory, Kind, Reading, Version
from tilesync.model.tiles import DAMAGED
from tilesync.protocols import Body, Catalog, HeldFiles, Source
from tilesync.runtime.task_groups import gathered
from tilesync.tiles.validator import ContentCheck

AT_ONCE = 32

_LEADS_ON = (b"{", b"\xef\xbb\xbf", b" ", b"\n", b"\r", b"\t", b"subt", b"\x1f\x8b")
"""How a document begins that may be a tileset or a subtree: JSON, binary subtrees, gzip."""


@dataclass(frozen=True)
class Desk:
    """Where a survey keeps what it has read: an empty catalog, files that can be read again, and a way to put one."""

    catalog: Catalog
    files: HeldFiles
    put: Callable[[Version, str, bytes], None]


class Survey:
    """Walks from the root tileset through one container, and gives out every blob that it finds."""

    def __init__(self, source: Source, desk: Desk, run: Run, globs: Globs) -> None:
        self._source = source
        self._desk = desk
        self._run = run
        self._globs = globs
        self._persistence = Persistence(run)
        self._buffers: set[str] = set()

    async def blobs(self) -> AsyncIterator[Blob]:
        """Every blob, as the container describes it. One that is asked for and not there is remarked."""
        desk, home = self._desk, await self._source.home()
        name = f"survey {len(desk.catalog.versions())}"
        survey = Version(0, name, "", None, None, "", {}, inventory=Inventory.WALK, home=home, globs=self._globs)
        version = desk.catalog.begin(survey)
        desk.catalog.want(version, ROOT)
        expansion, after = Expansion(version, desk.catalog, desk.files), 0
        while True:
            batch = desk.catalog.wanted(version, after, limit=AT_ONCE)
            if not batch and not sum(desk.catalog.want_what(version, name) for name in expansion.grow(last=True)):
                break
            looked = await gathered(self._look(version, number, blob.name) for number, blob in batch)
            arrivals = [arrival for arrival in looked if arrival is not None]
            desk.catalog.hold(version, arrivals)
            after = batch[-1][0] if batch else after
            for arrival in arrivals:
                yield arrival.held.blob
        for sentence in filter_warnings(version, self._globs, desk.catalog, planned=True):
            self._run.observe(Warned(sentence))
        self._run.tally.excluded = desk.catalog.totals(version).excluded
        self._run.tally.listed += self._run.tally.excluded

    async def _look(self, version: Version, number: int, name: str) -> Arrival | None:
        try:
            blob, reading = await self._persistence.insist(name, lambda: self._read(version, name))
        except BlobMissing as error:
            if name == ROOT:
                raise rootless() from error
            self._desk.catalog.miss(version, [number])
            self._run.observe(Remarked(name, "missing", "it is asked for, and is not in the container"))
            return None
        except BlobError as error:
            self._run.observe(Remarked(name, "unreadable", str(error)))
            return None
        return Arrival(number, Held(blob, b"", 0), reading)

    async def _read(self, version: Version, name: str) -> tuple[Blob, Reading]:
        blob, body = await self._source.first(name)
        try:
            return blob, await self._reading(version, blob, body)
        finally:
            await body.aclose()

    async def _reading(self, version: Version, blob: Blob, body: Body) -> Reading:
        """What a file says that may lead to others; of any other nothing."""
        check, pieces = ContentCheck(blob, version.home), list[bytes]()
        async for chunk in body.chunks():
            pieces.append(chunk)
            if not pieces[0].startswith(_LEADS_ON) and blob.name not in self._buffers:
                return Reading()
            check.feed(chunk)
            if check.size > LARGEST:
                raise BlobDamaged(f"{blob.name}: it has more than {LARGEST:,} bytes, and is read whole")
        try:
            check.finish()
        except BlobDamaged as error:
            self._run.observe(Remarked(blob.name, "unreadable", str(error)))
            return Reading()
        self._desk.put(version, blob.name, b"".join(pieces))
        reading = check.take()
        for remark in reading.remarks:
            if remark.problem == DAMAGED:
                self._run.observe(Remarked(blob.name, "unreadable", remark.detail))
        if reading.kind is Kind.SUBTREE:
            self._buffers.update(asked.target for asked in reading.references)
        return reading
