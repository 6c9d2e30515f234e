"""Inventory ingest: enter the listing of a container into the catalog, page by page; warn about useless filters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from tilesync.catalog.catalog import Catalog
from tilesync.core.filters import find_unmatched, glob_matcher
from tilesync.core.guards import has_only_root
from tilesync.core.plan import Action, decide, is_same_unpacked
from tilesync.core.safe_names import collect_folders
from tilesync.core.wording import format_file_count
from tilesync.errors import DiskFull
from tilesync.events import PageListed
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.stats import RunStats
from tilesync.jobs.transfer.transfer import WorkSignal
from tilesync.model import Blob, BlobColumns, Globs, Inventory, StoredFile, Totals, Version
from tilesync.protocols import Destination, Source
from tilesync.runtime.threads import run_in_thread

ROWS_PER_QUERY = 5000

_UNSEEN_NOTE = "; files that only excluded files reference are not known"
_PLAN_NOTE = "; a dry run does not see the files that tile contents reference (textures, buffers)"


class InventoryIngest:
    """Enter the inventory of versions into the catalog, and count it."""

    def __init__(self, destination: Destination, run: RunContext) -> None:
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run

    async def ingest_listing(self, version: Version, source: Source, work_signal: WorkSignal) -> None:
        """Ingest the listing from the version's marker on. Raises UnsafeName, DiskFull, Incomplete.

        Names and free space are checked before anything of a page is written.
        """
        is_kept = glob_matcher(version.globs)
        async with aclosing(source.pages(version.listing.marker)) as pages:
            async for page in pages:
                kept_names = list(filter(is_kept, page.blobs.names)) if version.globs else page.blobs.names
                self._files.check_names(kept_names)
                version = replace(version, listing=replace(version.listing, marker=page.marker))
                self._run.stats.merge(await run_in_thread(self._ingest_page, version, page.blobs, kept_names))
                self._run.observe(PageListed(self._run.stats.listed, self._run.stats.listed_bytes, complete=False))
                work_signal.notify()
        await self.finish(version)
        work_signal.notify(complete=True)

    async def finish(self, version: Version) -> None:
        """Complete the inventory: remove files of an earlier listing that the container no longer has."""
        dropped = await run_in_thread(self._catalog.finish_listing, version)
        await run_in_thread(self._files.remove, version, dropped)
        self.count_listed(self._catalog.compute_totals(version))
        self._run.stats.inventory_complete = True
        self._run.observe(PageListed(self._run.stats.listed, self._run.stats.listed_bytes, complete=True))

    def _ingest_page(self, version: Version, blobs: BlobColumns, kept_names: Sequence[str]) -> RunStats:
        """Enter a page into the catalog; return the statistics to add for it."""
        known = self._catalog.find_stored(version, blobs.names) if version.listing.number > 1 else {}
        stats = RunStats(listed=len(blobs), listed_bytes=sum(blobs.sizes), excluded=len(blobs) - len(kept_names))
        if known:
            self._ingest_partly_stored(version, blobs, known, stats)
        else:

            def check_wanted_bytes(wanted: int) -> None:
                stats.planned_bytes = wanted
                self._check_free_space(wanted)

            self._catalog.add_new_page(version, blobs, collect_folders(kept_names), check=check_wanted_bytes)
        self._run.windows_names.check(kept_names)
        return stats

    def _ingest_partly_stored(
        self, version: Version, blobs: BlobColumns, known: Mapping[str, StoredFile], stats: RunStats
    ) -> None:
        """Enter a page of a repeated listing. `known`: stored files, which stay stored if they are unchanged."""
        is_kept = glob_matcher(version.globs)
        rows = [(blob, _match_stored(blob, known.get(blob.name))) for blob in blobs]
        kept = [(blob, stored) for blob, stored in rows if is_kept(blob.name)]
        missing = [blob for blob, stored in kept if stored is None]
        reusable = self._catalog.duplicates.find_by_digest(version, missing)
        stats.planned_bytes = sum(blob.size for blob in missing if blob.name not in reusable)
        stats.kept = len(kept) - len(missing)
        self._check_free_space(stats.planned_bytes)
        self._catalog.add_page(version, rows, collect_folders(blob.name for blob, _ in kept))

    def _check_free_space(self, more_bytes: int) -> None:
        free = self._files.free_bytes()
        missing = self._run.stats.planned_bytes - self._run.stats.transferred_bytes + more_bytes
        if free is not None and missing > free:
            raise DiskFull(
                f"not enough disk space: the files listed so far need {missing:,} more bytes, {free:,} are free"
            )

    def count_known(self, version: Version) -> None:
        """Count what earlier runs know of the version. Raises DiskFull."""
        totals, stats = self._catalog.compute_totals(version), self._run.stats
        self.count_listed(totals)
        stats.kept = totals.stored_files
        reusable = self._catalog.duplicates.count_reusable_bytes(version)
        stats.planned_bytes = stats.transferred_bytes + totals.bytes - totals.stored_bytes - reusable
        self._check_free_space(0)

    def count_listed(self, totals: Totals) -> None:
        """Count an inventory as listed."""
        stats = self._run.stats
        stats.listed, stats.listed_bytes = totals.files + totals.excluded, totals.bytes + totals.excluded_bytes
        stats.excluded = totals.excluded


def _match_stored(blob: Blob, stored: StoredFile | None) -> StoredFile | None:
    """Return the stored file of a listed blob; None if it may have other content.

    A file that was stored decoded, and that the container now lists in that form, counts as stored unchanged.
    """
    if stored is None or is_changed(blob, stored):
        return None
    return stored._replace(unpacked=None) if is_same_unpacked(blob, stored) else stored


def is_changed(blob: Blob, stored: StoredFile | None) -> bool:
    """Return whether the stored file may differ from the listed blob."""
    return decide(blob, stored).action is not Action.KEEP


def filter_warnings(version: Version, requested: Globs, catalog: Catalog, *, planned: bool = False) -> list[str]:
    """Return warnings about the filters of a version whose inventory is complete.

    `requested`: the globs of this command. A walk knows only the files that a stored file references, and a planned
    walk reads no contents: the warning says so. Stops reading the inventory when every glob has matched.
    """
    if not requested:
        return []
    totals = catalog.compute_totals(version)
    is_walk = version.inventory == Inventory.WALK
    all_files = (
        f"{format_file_count(totals.files + totals.excluded)} that {'the walk found' if is_walk else 'are listed'}"
    )
    limits = (_UNSEEN_NOTE if totals.excluded else "") + (_PLAN_NOTE if planned else "") if is_walk else ""
    warnings = [
        f"{option} {glob!r} matches none of the {all_files}{limits}"
        for option, glob in find_unmatched(requested, _read_names(version, catalog))
    ]
    if has_only_root(totals.files, totals.excluded):
        warnings.append(f"the filters leave only the root tileset of the {all_files}: no content is mirrored")
    return warnings


def _read_names(version: Version, catalog: Catalog) -> Iterator[str]:
    after = ""
    while batch := catalog.list_names(version, after, limit=ROWS_PER_QUERY):
        after = batch[-1][0]
        yield from (name for _, name in batch)
