"""Mirror job: resolve, list, plan, transfer, publish, clean up."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from tilesync.core.filters import find_added_globs
from tilesync.core.plan import VersionChoice, choose_version
from tilesync.errors import ExportReplaced, Incomplete, ListingDenied, NotAuthorised
from tilesync.events import ExportEndangered, Notice, VersionChosen, Warned
from tilesync.jobs.mirror.cleanup import Cleanup
from tilesync.jobs.mirror.inventory import InventoryIngest, filter_warnings
from tilesync.jobs.mirror.options import MirrorOptions
from tilesync.jobs.mirror.pointer_update import PointerUpdate
from tilesync.jobs.mirror.unchanged import find_first_changed, has_same_files, has_same_listing
from tilesync.jobs.mirror.version_transfer import VersionTransfer
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.transfer import WorkSignal
from tilesync.jobs.versions.last_success import record_last_success
from tilesync.jobs.versions.lifecycle import VersionLifecycle, is_stale, list_export_versions, with_export_details
from tilesync.jobs.versions.ownership import claim_destination
from tilesync.jobs.versions.presence import PresenceCheck
from tilesync.jobs.versions.publish import Publisher
from tilesync.jobs.versions.startup import prepare_destination
from tilesync.model.export import Export, Resolution, Status
from tilesync.model.tiles import ROOT, Kind
from tilesync.model.version import EVERYTHING, Content, Inventory, Totals, Version
from tilesync.protocols import Destination, Source, SourceResolver
from tilesync.runtime.threads import run_in_thread

MAX_REPLANS = 2
"""Maximum times that a run lists and plans again because the export changed during the run."""

ROWS_PER_QUERY = 2000

MIN_BYTES_FOR_WORKERS = 50_000_000
"""Minimum size of a first export, as the service states it, for which the workers are started before the listing."""


class MirrorJob:
    """Mirror one export into one destination. Events report the progress; `version` is the version it worked on."""

    def __init__(
        self, origin: SourceResolver, destination: Destination, run: RunContext, options: MirrorOptions
    ) -> None:
        self._origin = origin
        self._destination = destination
        self._catalog = destination.catalog
        self._run = run
        self._options = options
        self._versions = VersionLifecycle(destination, run)
        self._inventory = InventoryIngest(destination, run)
        self._presence = PresenceCheck(
            destination.catalog, destination.files, run.clock, max_time=options.presence_time
        )
        self._pointer = PointerUpdate(destination, run, options, self._versions)
        self._transfer = VersionTransfer(destination, run, self._versions, self._inventory)
        self._publisher = Publisher(destination, run, allow_missing=options.allow_missing)
        self._warned: set[str] = set()
        self._is_newest = False  # the export is the newest finished export
        self._initial_resolution: Resolution | None = None  # made by the ownership check; used once
        self._next_deleted: tuple[Export, ...] = ()
        self.version: Version | None = None

    async def run(self) -> None:
        """Mirror the export that the source resolves to, then clean up. Raises as `mirror` does."""
        ownership = self._options.ownership
        self._initial_resolution = await claim_destination(self._destination, ownership, self._origin.resolve)
        await prepare_destination(self._destination, self._run)
        await self.mirror()
        self._report_endangered()
        await Cleanup(self._destination, self._run, self._options.retention, self._options.delete_limit).run()
        if self.version is not None:
            await record_last_success(self._destination, self.version, self._run)

    async def mirror(self) -> None:
        """Mirror the export that the source resolves to; list and plan again if it changes during the run.

        Raises the RunErrors. Raises Incomplete if files failed; nothing is published then.
        """
        for attempt in range(MAX_REPLANS + 1):
            resolution = await self._resolve(is_replacement=attempt > 0)
            self._run.stats.reset_for_replan()
            try:
                await self._mirror(resolution)
            except ExportReplaced as error:
                self._versions.restart_listings(resolution.export)
                if attempt == MAX_REPLANS:
                    raise
                self._run.observe(Warned(f"{error}; starting over"))
            else:
                return

    # --- resolve ---

    async def _resolve(self, *, is_replacement: bool) -> Resolution:
        resolution = self._initial_resolution or await self._origin.resolve(is_replacement=is_replacement)
        self._initial_resolution = None
        export, self._next_deleted = resolution.export, resolution.next_deleted
        self._run.report_resolution(resolution)
        self._is_newest = not resolution.behind or resolution.newest_status != Status.COMPLETE
        if resolution.behind and self._is_newest:
            self._run.observe(
                Notice(f"the newest export {resolution.newest} is {resolution.newest_status}; mirroring {export.id}")
            )
        return resolution

    async def _mirror(self, resolution: Resolution) -> None:
        export = resolution.export
        choice = choose_version(
            list_export_versions(export, self._catalog), export, self._options.globs, self._options.content
        )
        version = choice.unfinished
        if choice.is_unchanged and choice.existing is not None:
            version = await self._check_stored(choice.existing)
            if not version.damaged:
                await self._keep_unchanged(version)
                return
        if (
            self._run.workers is not None
            and (export.size or 0) >= MIN_BYTES_FOR_WORKERS
            and not self._catalog.versions()
        ):
            self._run.workers.request_start()  # they start while the container is listed
        await self._complete_version(version, choice, resolution)

    async def _check_stored(self, version: Version) -> Version:
        """Return the version, marked as damaged if files of it are gone or changed.

        Checks all files if the pointer has still to move to the version, or if the check of a few files finds a
        problem.
        """
        has_root = await run_in_thread(self._destination.files.size, version, ROOT) is not None
        is_current = has_root and await self._pointer.is_current(version)
        if version.damaged:
            return await self._versions.check_damage(version)
        if is_current or (has_root and not await run_in_thread(self._pointer.may_move, version)):
            sample = await run_in_thread(self._presence.check_next_files, version)
            self._run.stats.presence_checked = sample.files
            if sample.is_sound:
                return version
        return await self._versions.check_damage(version)

    async def _keep_unchanged(self, version: Version) -> None:
        """Keep a stored version: only the pointer may have to move."""
        all_files = Totals(version.summary.files, version.summary.bytes, version.summary.files, version.summary.bytes)
        needs_counting = version.globs or version.content is Content.DECODED
        self._inventory.count_listed(self._catalog.compute_totals(version) if needs_counting else all_files)
        self._run.stats.kept = version.summary.files
        self._run.stats.inventory_complete = True
        self._run.stats.completeness = version.summary.completeness
        self._run.observe(VersionChosen(version.name, "held"))
        await self._publish(version)

    async def _complete_version(self, version: Version | None, choice: VersionChoice, resolution: Resolution) -> None:
        """Complete a new or unfinished version and publish it, unless a stored version turns out to be identical."""
        export = resolution.export
        self._catalog.prepare_for_many_rows()
        is_resumed = version is not None
        if version is None:
            version = await run_in_thread(self._versions.begin_version, export, choice.content)
        elif not version.is_published and is_stale(version, export):
            version = self._versions.restart_listing(with_export_details(version, export))
        self._run.observe(VersionChosen(version.name, "continued" if is_resumed else "begun"))
        if is_resumed:
            version = self._versions.resume(version)
            await self._versions.recheck(version)
            if export.stored_version is not None and version.content is Content.DECODED and version.listing.is_complete:
                # A copy lists decoded files, its container the stored ones: the two listings cannot be mixed.
                version = self._versions.restart_listing(version)
        self._transfer.note_stored(version)
        source = await self._origin.open_source(resolution)
        inventory = self._options.inventory if export.stored_version is None else Inventory.LIST
        version = await self._versions.prepare_version(version, source, inventory, choice.globs)
        try:
            await self._transfer_and_publish(version, choice, source, resolution)
        except ListingDenied as denied:
            if self._options.inventory is not None:
                raise
            self._run.observe(Notice(f"{denied}; walking from {ROOT} instead"))
            version = self._versions.restart_listing(replace(version, inventory=Inventory.WALK))
            try:
                await self._transfer_and_publish(version, choice, source, resolution)
            except NotAuthorised as error:
                denied.refusal.hint = error.hint  # reading is refused as well: its hint is the better one
                raise denied.refusal from None

    async def _transfer_and_publish(
        self, version: Version, choice: VersionChoice, source: Source, resolution: Resolution
    ) -> None:
        """Transfer and publish, unless another version of the same export has the same content."""
        export = resolution.export
        if identical := await self._find_identical(choice.candidates, version, source):
            await self._warn_about_filters(self._versions.reload(version), resolution)
            self._catalog.delete_version(version)
            identical = with_export_details(identical, export) if export.stored_version is None else identical
            self._catalog.update_version(identical)
            identical = await self._check_stored(identical)
            if identical.damaged:
                await self._complete_version(identical, choice, resolution)
            else:
                await self._keep_unchanged(identical)
            return
        await self._transfer.fetch_all(self._versions.reload(version), source)
        await self._warn_about_filters(self._versions.reload(version), resolution)
        await self._transfer.refetch_vanished(self._versions.reload(version), source)
        version = self._versions.reload(version)
        if version.inventory == Inventory.WALK and not version.is_published:
            await self._revalidate(version, source)
        await run_in_thread(self._versions.remove_foreign_files, version)
        try:
            version = await self._publisher.finish(_with_source_inventory(version, export), defects=resolution.defects)
        except Incomplete:
            self._versions.schedule_relisting(version)
            raise
        await self._publish(version)

    async def _revalidate(self, version: Version, source: Source) -> None:
        """Check that no tileset or subtree changed since the walk read it. Raises ExportReplaced."""
        kinds = (Kind.TILESET, Kind.SUBTREE)
        documents = partial(self._catalog.list_stored, version, limit=ROWS_PER_QUERY, kinds=kinds)
        if changed := await find_first_changed(source, documents, self._run):
            raise ExportReplaced(f"{changed} changed during the run")

    async def _find_identical(self, candidates: Sequence[Version], version: Version, source: Source) -> Version | None:
        """Return the first finished version with the content that the new version would get; None if there is none."""
        if version.is_published or self._catalog.compute_totals(version).stored_files:
            return None
        for candidate in candidates:
            if candidate.serial == version.serial:
                continue
            if await self._is_unchanged(candidate, self._versions.reload(version), source):
                return candidate
        return None

    async def _is_unchanged(self, existing: Version, version: Version, source: Source) -> bool:
        """Return whether the container equals a stored version of the same export: by listing, else file by file."""
        if version.inventory == Inventory.LIST:
            if not version.listing.is_complete:
                await self._inventory.ingest_listing(version, source, WorkSignal())
            return await run_in_thread(has_same_listing, self._versions.reload(version), existing, self._catalog)
        missing = await run_in_thread(self._publisher.list_missing, existing)
        return await has_same_files(existing, missing, source, self._catalog, self._run)

    async def _publish(self, version: Version) -> None:
        """Publish a complete version. Raises GuardTripped."""
        self.version = version
        if self._is_newest:
            self._catalog.set_value("newest", version.name)
        await self._pointer.update(version)

    def _report_endangered(self) -> None:
        """Report the exports that the service deletes next and that this destination does not hold."""
        for export in self._next_deleted:
            if not any(version.is_published for version in self._catalog.versions(export=export.id, retired=True)):
                message = f"export {export.id} is not held, and the service deletes it when it makes the next one"
                self._run.observe(ExportEndangered(export.id, export.modified, message))

    async def _warn_about_filters(self, version: Version, resolution: Resolution) -> None:
        """Warn once about globs that match nothing, or leave nothing, as soon as all names are known."""
        if not version.listing.is_complete:
            return
        copied = resolution.export.stored_version
        added = find_added_globs(EVERYTHING if copied is None else copied.globs, self._options.globs)
        for sentence in await run_in_thread(filter_warnings, version, added, self._catalog):
            if sentence not in self._warned:
                self._run.observe(Warned(sentence))
                self._warned.add(sentence)


def _with_source_inventory(version: Version, export: Export) -> Version:
    """Return the version with the inventory of the copied manifest: a copy was not walked itself."""
    if export.stored_version is None or version.is_published:
        return version
    return replace(version, inventory=export.stored_version.inventory)
