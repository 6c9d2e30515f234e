"""The listing of a container, taken in page by page, each judged before the first write of it."""

from __future__ import annotations

from dataclasses import replace

from tilesync.core.filters import glob_matcher
from tilesync.core.plan import Action, decide, is_same_unpacked
from tilesync.core.safe_names import collect_folders
from tilesync.errors import DiskFull
from tilesync.events import PageListed
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.stats import RunStats
from tilesync.jobs.transfer.transfer import WorkSignal
from tilesync.model import Blob, Page, StoredFile, Totals, Version
from tilesync.protocols import Destination, Source
from tilesync.runtime.threads import run_in_thread


class InventoryIngest:
    """Brings the inventory of versions into the catalog, and counts it."""

    def __init__(self, destination: Destination, run: RunContext) -> None:
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run

    async def ingest_listing(self, version: Version, source: Source, work_signal: WorkSignal) -> None:
        """Take in the inventory from the version's marker on. Raises UnsafeName, DiskFull, Incomplete."""
        earlier, keeps = version.listing_number > 1, glob_matcher(version.globs)
        async for page in source.pages(version.marker):
            self._files.check_names(blob.name for blob in page.blobs if keeps(blob.name))
            version = replace(version, marker=page.marker)
            self._run.stats.merge(await run_in_thread(self._ingest_page, version, page, compare=earlier))
            self._run.observe(PageListed(self._run.stats.listed, self._run.stats.listed_bytes, complete=False))
            work_signal.notify()
        await self.finish(version)
        work_signal.notify(complete=True)

    async def finish(self, version: Version) -> None:
        """All files are known; those of an earlier listing that are none of them leave the version."""
        dropped = await run_in_thread(self._catalog.finish_listing, version)
        await run_in_thread(self._files.remove, version, dropped)
        self.count_listed(self._catalog.compute_totals(version))
        self._run.stats.inventory_complete = True
        self._run.observe(PageListed(self._run.stats.listed, self._run.stats.listed_bytes, complete=True))

    def _ingest_page(self, version: Version, page: Page, *, compare: bool) -> RunStats:
        """Enter a page in the catalog; what is to be counted for it."""
        keeps = glob_matcher(version.globs)
        known = self._catalog.find_stored(version, [blob.name for blob in page.blobs]) if compare else {}
        rows = [(blob, _match_stored(blob, known.get(blob.name))) for blob in page.blobs]
        lacking = [blob for blob, held in rows if held is None and keeps(blob.name)]
        reusable = self._catalog.duplicates.find_by_digest(version, lacking)
        wanted = sum(blob.size for blob in lacking if blob.name not in reusable)
        self._check_free_space(wanted)
        self._catalog.add_page(version, rows, collect_folders(blob.name for blob in page.blobs if keeps(blob.name)))
        self._run.windows_names.check([blob.name for blob in page.blobs if keeps(blob.name)])
        kept = [held for blob, held in rows if keeps(blob.name)]
        return RunStats(
            listed=len(rows),
            listed_bytes=sum(blob.size for blob in page.blobs),
            planned_bytes=wanted,
            kept=sum(held is not None for held in kept),
            excluded=len(rows) - len(kept),
        )

    def _check_free_space(self, more_bytes: int) -> None:
        free = self._files.free_bytes()
        missing = self._run.stats.planned_bytes - self._run.stats.transferred_bytes + more_bytes
        if free is not None and missing > free:
            raise DiskFull(
                f"not enough disk space: the files listed so far need {missing:,} bytes more, {free:,} are free"
            )

    def count_known(self, version: Version) -> None:
        """Count what an earlier run knew of the version. Raises DiskFull."""
        totals, tally = self._catalog.compute_totals(version), self._run.stats
        self.count_listed(totals)
        tally.kept = totals.stored_files
        reusable = self._catalog.duplicates.count_reusable_bytes(version)
        tally.planned_bytes = tally.transferred_bytes + totals.bytes - totals.stored_bytes - reusable
        self._check_free_space(0)

    def count_listed(self, totals: Totals) -> None:
        """Count an inventory as listed."""
        tally = self._run.stats
        tally.listed, tally.listed_bytes = totals.files + totals.excluded, totals.bytes + totals.excluded_bytes
        tally.excluded = totals.excluded


def _match_stored(blob: Blob, stored: StoredFile | None) -> StoredFile | None:
    """What is held of a listed file; None where that does not prove to be it. Listed as it lies it is held as such."""
    if stored is None or is_changed(blob, stored):
        return None
    return stored._replace(unpacked=None) if is_same_unpacked(blob, stored) else stored


def is_changed(blob: Blob, stored: StoredFile | None) -> bool:
    """Whether what is held does not prove to be the listed content."""
    return decide(blob, stored).action is not Action.KEEP
