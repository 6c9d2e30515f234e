"""The listing of a container, taken in page by page, each judged before the first write of it."""

from __future__ import annotations

from dataclasses import replace

from tilesync.core.filters import keeper
from tilesync.core.plan import Action, decide, lies_so
from tilesync.core.safe_names import folders_of
from tilesync.errors import DiskFull
from tilesync.events import PageListed
from tilesync.jobs.run.context import Run
from tilesync.jobs.run.stats import Tally
from tilesync.jobs.transfer.transfer import Supply
from tilesync.model import Blob, Held, Page, Totals, Version
from tilesync.protocols import Destination, Source
from tilesync.runtime.threads import in_thread


class Listing:
    """Brings the inventory of versions into the catalog, and counts it."""

    def __init__(self, destination: Destination, run: Run) -> None:
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run

    async def take(self, version: Version, source: Source, supply: Supply) -> None:
        """Take in the inventory from the version's marker on. Raises UnsafeName, DiskFull, Incomplete."""
        earlier, keeps = version.listing > 1, keeper(version.globs)
        async for page in source.pages(version.marker):
            self._files.judge(blob.name for blob in page.blobs if keeps(blob.name))
            version = replace(version, marker=page.marker)
            self._run.tally.add(await in_thread(self._take_in, version, page, compare=earlier))
            self._run.observe(PageListed(self._run.tally.listed, self._run.tally.listed_bytes, complete=False))
            supply.add()
        await self.finish(version)
        supply.add(complete=True)

    async def finish(self, version: Version) -> None:
        """All files are known; those of an earlier listing that are none of them leave the version."""
        dropped = await in_thread(self._catalog.finish_listing, version)
        await in_thread(self._files.remove, version, dropped)
        self.count(self._catalog.totals(version))
        self._run.tally.inventory_complete = True
        self._run.observe(PageListed(self._run.tally.listed, self._run.tally.listed_bytes, complete=True))

    def _take_in(self, version: Version, page: Page, *, compare: bool) -> Tally:
        """Enter a page in the catalog; what is to be counted for it."""
        keeps = keeper(version.globs)
        known = self._catalog.held_among(version, [blob.name for blob in page.blobs]) if compare else {}
        rows = [(blob, _still_held(blob, known.get(blob.name))) for blob in page.blobs]
        lacking = [blob for blob, held in rows if held is None and keeps(blob.name)]
        reusable = self._catalog.twins.by_digest(version, lacking)
        wanted = sum(blob.size for blob in lacking if blob.name not in reusable)
        self._judge_room(wanted)
        self._catalog.add_page(version, rows, folders_of(blob.name for blob in page.blobs if keeps(blob.name)))
        self._run.names.look([blob.name for blob in page.blobs if keeps(blob.name)])
        kept = [held for blob, held in rows if keeps(blob.name)]
        return Tally(
            listed=len(rows),
            listed_bytes=sum(blob.size for blob in page.blobs),
            planned_bytes=wanted,
            kept=sum(held is not None for held in kept),
            excluded=len(rows) - len(kept),
        )

    def _judge_room(self, more: int) -> None:
        free = self._files.free()
        missing = self._run.tally.planned_bytes - self._run.tally.bytes + more
        if free is not None and missing > free:
            raise DiskFull(
                f"not enough disk space: the files listed so far need {missing:,} bytes more, {free:,} are free"
            )

    def count_known(self, version: Version) -> None:
        """Count what an earlier run knew of the version. Raises DiskFull."""
        totals, tally = self._catalog.totals(version), self._run.tally
        self.count(totals)
        tally.kept = totals.held_files
        reusable = self._catalog.twins.bytes_of_wanted(version)
        tally.planned_bytes = tally.bytes + totals.bytes - totals.held_bytes - reusable
        self._judge_room(0)

    def count(self, totals: Totals) -> None:
        """Count an inventory as listed."""
        tally = self._run.tally
        tally.listed, tally.listed_bytes = totals.files + totals.excluded, totals.bytes + totals.excluded_bytes
        tally.excluded = totals.excluded


def _still_held(blob: Blob, held: Held | None) -> Held | None:
    """What is held of a listed file; None where that does not prove to be it. Listed as it lies it is held as such."""
    if held is None or changed(blob, held):
        return None
    return held._replace(unpacked=None) if lies_so(blob, held) else held


def changed(blob: Blob, held: Held | None) -> bool:
    """Whether what is held does not prove to be the listed content."""
    return decide(blob, held).action is not Action.KEEP
