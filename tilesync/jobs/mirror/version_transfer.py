"""Version transfer: fetch the wanted files of one version, and those that vanish meanwhile."""

from __future__ import annotations

from tilesync.core.wording import format_file_count
from tilesync.errors import Incomplete
from tilesync.events import Warned
from tilesync.jobs.mirror.inventory import InventoryIngest
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.transfer import Transfer, WorkSignal
from tilesync.jobs.versions.lifecycle import VersionLifecycle
from tilesync.model.tiles import ROOT
from tilesync.model.version import Inventory, Version
from tilesync.protocols import Destination, Source
from tilesync.runtime.threads import run_in_thread


class VersionTransfer:
    """Fetch the files of versions into a destination. Counts once per version what was stored before the run."""

    def __init__(
        self, destination: Destination, run: RunContext, versions: VersionLifecycle, inventory: InventoryIngest
    ) -> None:
        self._destination = destination
        self._catalog = destination.catalog
        self._run = run
        self._versions = versions
        self._inventory = inventory
        self._stored_before: dict[int, int] = {}

    def note_stored(self, version: Version) -> None:
        """Note how many files of a version are stored, before the run fetches any."""
        self._stored_before.setdefault(version.serial, self._catalog.compute_totals(version).stored_files)

    async def fetch_all(self, version: Version, source: Source) -> None:
        """Fetch the wanted files while the listing or walk still finds more. Raises Incomplete if files failed."""
        is_listed = version.listing.is_complete
        is_walk = version.inventory == Inventory.WALK and not is_listed
        if is_walk:
            await run_in_thread(self._begin_walk, version)
        if version.listing.has_begun or is_walk:
            self._inventory.count_known(version)
        self._run.stats.inventory_complete = is_listed
        work_signal = WorkSignal(complete=is_listed)
        # A new or shared catalog may not know files that already exist here: check them instead of fetching again.
        may_have_unknown_files = self._catalog.is_new or self._destination.is_shared
        salvage = may_have_unknown_files and await run_in_thread(self._versions.has_any_files, version)
        transfer = Transfer(version, source, self._destination, self._run, salvage=salvage)
        try:
            await transfer.run(
                work_signal,
                None if is_walk or is_listed else self._inventory.ingest_listing(version, source, work_signal),
            )
            if is_walk and not self._run.stats.failed:
                await self._inventory.finish(version)
        except Incomplete:
            self._versions.restart_listing(self._versions.reload(version))
            raise
        finally:
            self._run.windows_names.warn(self._run.observe)
            self._warn_about_dates(source)
            if self._run.stats.inventory_complete:
                stored = self._catalog.compute_totals(version).stored_files
                self._run.stats.reconcile(stored, stored_before=self._stored_before[version.serial])
        if self._run.stats.failed:
            raise self._incomplete_error(version, source)

    async def refetch_vanished(self, version: Version, source: Source) -> None:
        """Fetch files again, once, that vanished or changed locally between their download and publishing.

        Raises Incomplete if files are still missing after that.
        """
        vanished = await self._versions.count_vanished(version)
        if vanished:
            what = f"{format_file_count(vanished)} of this version vanished or changed during the run"
            self._run.observe(Warned(f"{what}; fetching again"))
            self._run.stats.reset_for_replan()
            await self.fetch_all(version, source)
            vanished = await self._versions.count_vanished(version)
        if vanished:
            what = f"{format_file_count(vanished)} vanished or changed during the run, twice"
            raise Incomplete(
                f"{what}; this export was not published",
                hint="find the program that deletes or changes files in DEST; the next run fetches them again",
            )

    def _warn_about_dates(self, source: Source) -> None:
        if source.undated:
            what = f"an impossible modification time for {format_file_count(source.undated)}"
            self._run.observe(Warned(f"the container states {what}: it is stored as unknown"))

    def _begin_walk(self, version: Version) -> None:
        self._catalog.mark_missing_wanted(version)
        self._catalog.add_wanted(version, ROOT)

    def _incomplete_error(self, version: Version, source: Source) -> Incomplete:
        """Make the error for failed files; the next run lists again, since the container may have changed."""
        self._versions.schedule_relisting(self._versions.reload(version))
        message = f"{format_file_count(self._run.stats.failed)} failed; this export was not published"
        return Incomplete(message, hint=source.remedy or _combine_hints(self._run.stats.failure_hints))


def _combine_hints(hints: set[str]) -> str | None:
    """Return the hint for the failed files of a run; None if the default hint, to run again, fits all of them."""
    specific = "; ".join(sorted(hints - {""}))
    if not specific or "" not in hints:
        return specific or None
    return f"{specific}; for the other files: {Incomplete.default_hint}"
