"""Dry run: plan a mirror run on a copy of the catalog, and report the plan."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import replace

from tilesync.catalog.schema import EMPTY, NOT_EMPTY
from tilesync.core.filters import find_added_globs, glob_matcher
from tilesync.core.manifest import format_timestamp
from tilesync.core.plan import Action, Decision, choose_version, decide
from tilesync.core.safe_names import collect_folders
from tilesync.errors import DestinationError, ListingDenied
from tilesync.events import Notice, Planned, VersionChosen, Warned
from tilesync.jobs.mirror.all_exports import mirror_each, stats_if_mirrored
from tilesync.jobs.mirror.dry_run_consequences import PlanInputs, PlannedConsequences
from tilesync.jobs.mirror.dry_run_walk import DryRunWalk
from tilesync.jobs.mirror.inventory import filter_warnings, is_changed
from tilesync.jobs.mirror.options import MirrorOptions
from tilesync.jobs.mirror.unchanged import has_same_listing
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.lifecycle import (
    create_version,
    find_changed,
    find_intact,
    list_export_versions,
    with_export_details,
)
from tilesync.jobs.versions.ownership import ResolveSource
from tilesync.jobs.versions.pointer import find_pinned_version, is_current_version
from tilesync.jobs.versions.presence import PresenceCheck
from tilesync.model import (
    EVERYTHING,
    ROOT,
    Blob,
    BlobColumns,
    Duplicate,
    Export,
    Inventory,
    Layout,
    StoredFile,
    Version,
)
from tilesync.protocols import ExportsResolver, Source, SourceResolver
from tilesync.runtime.threads import run_in_thread

EXCLUDED = Decision(Action.EXCLUDE, "excluded by --include or --exclude")
CHANGED_REASON = "it changed in the destination"
ROWS_PER_QUERY = 500


class DryRun:
    """Report the action for each file and version, with its reason. Writes nothing to the destination.

    Counts as if the run had been done. Raises the RunErrors of the service and the container, and UnsafeName. A guard
    that would stop the run is a warning.
    """

    def __init__(self, inputs: PlanInputs, run: RunContext, options: MirrorOptions) -> None:
        self._inputs = inputs
        self._catalog = inputs.catalog
        self._run = run
        self._options = options
        self._consequences = PlannedConsequences(inputs, run, options)
        self._globs = options.globs
        self._used_listing = False  # False: a walk, which warns about filters itself
        self._refetch_reasons: dict[str, str] = {}  # by name: stored files that must be fetched again
        self._assumes_stored = inputs.layout is Layout.FLAT  # later steps need the planned files as stored ones

    async def run(self, origin: SourceResolver) -> None:
        """Report the plan for the export that the source resolves to."""
        await self._check_owner(origin.resolve)
        self._report_missing_state()
        self._consequences.report(await self._plan(origin))

    async def run_all(self, exports: ExportsResolver) -> None:
        """Report the plan for every finished export that is not mirrored yet, oldest first."""
        await self._check_owner(exports.resolve)
        self._report_missing_state()
        self._assumes_stored = True
        planned: list[Version] = []

        async def plan(export: Export, *, newest: bool) -> None:
            version = await self._plan(exports.resolver_for(export))
            planned.extend([version] if newest else [])

        context = self._catalog, self._inputs.files, self._options, self._run.clock
        await mirror_each(
            await exports.list_finished(),
            plan,
            lambda export: run_in_thread(stats_if_mirrored, export, *context),
            self._run,
        )
        for version in planned:
            self._consequences.report(version)

    async def _check_owner(self, resolve: ResolveSource) -> None:
        """Raise OtherOwner if a run would."""
        if self._options.ownership is not None:
            inputs = self._inputs
            await self._options.ownership.resolve_owner(inputs.publication, self._catalog, resolve)

    def _report_missing_state(self) -> None:
        if self._catalog.get_value("adopted") is None and self._inputs.publication.manifest_names():
            self._run.observe(
                Notice(
                    "the catalog is missing: a run rebuilds it first; this plan ignores the files that exist already"
                )
            )

    # --- one export ---

    async def _plan(self, origin: SourceResolver) -> Version:
        resolution = await origin.resolve()
        export, observe = resolution.export, self._run.observe
        self._refetch_reasons.clear()
        self._run.report_resolution(resolution)
        choice = choose_version(
            list_export_versions(export, self._catalog), export, self._options.globs, self._options.content
        )
        self._globs = choice.globs
        if choice.is_unchanged and choice.existing is not None:
            damaged = self._release_lost_files(choice.existing) or choice.existing.damaged
            observe(VersionChosen(choice.existing.name, "continued" if damaged else "held"))
            return self._plan_repair(choice.existing) if damaged else self._plan_unchanged(choice.existing)
        version = choice.unfinished
        if version is None:
            version = create_version(export, choice.content, self._catalog, self._inputs.publication, self._run.clock)
        listing = version.listing if choice.unfinished is None else version.listing.restart()
        version = replace(with_export_details(version, export), listing=listing, globs=choice.globs)
        self._catalog.update_version(version)
        source = await origin.open_source(resolution)
        candidates = choice.candidates if choice.unfinished is None else ()
        await self._ingest_inventory(source, version)
        if self._used_listing:
            source_globs = export.stored_version.globs if export.stored_version is not None else EVERYTHING
            for sentence in filter_warnings(
                version, find_added_globs(source_globs, self._options.globs), self._catalog
            ):
                observe(Warned(sentence))
        for candidate in candidates:
            if has_same_listing(version, candidate, self._catalog):
                self._catalog.delete_version(version)
                observe(VersionChosen(candidate.name, "held"))
                return self._plan_unchanged(candidate)
        observe(VersionChosen(version.name, "continued" if choice.unfinished else "begun"))
        return self._plan_wanted(version, candidates[0] if candidates else None)

    def _release_lost_files(self, version: Version) -> bool:
        """Mark lost files of a version as wanted; return whether there are any.

        Like a run, checks all files if the pointer would have to move to the version, or if the check of a few files
        finds a problem.
        """
        files, pin = self._inputs.files, find_pinned_version(self._inputs.publication, self._catalog)
        has_root = files.size(version, ROOT) is not None
        may_move_pointer = self._options.move_pointer and (pin is None or pin.serial == version.serial)
        if has_root and (is_current_version(version, self._inputs.publication, self._catalog) or not may_move_pointer):
            sample = PresenceCheck(self._catalog, files, self._run.clock).check_next_files(version)
            self._run.stats.presence_checked = sample.files
            if sample.is_sound:
                return False
        self._run.stats.presence_checked = version.summary.files
        after, any_lost = "", False
        while batch := self._catalog.list_stored(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            lost = [stored.blob.name for stored in self._find_lost(version, [stored for _, stored in batch])]
            self._catalog.mark_wanted(version, lost)
            any_lost = any_lost or bool(lost)
        return any_lost

    def _plan_unchanged(self, version: Version) -> Version:
        totals, stats = self._catalog.compute_totals(version), self._run.stats
        stats.kept, stats.excluded = version.summary.files, totals.excluded
        stats.listed = stats.kept + stats.excluded
        reason = f"unchanged: all {version.summary.files} files are stored"
        self._run.observe(Planned(Action.KEEP.value, version.name, version.summary.bytes, reason))
        return version

    def _plan_repair(self, version: Version) -> Version:
        totals, stats = self._catalog.compute_totals(version), self._run.stats
        stats.kept, stats.excluded = totals.stored_files, totals.excluded
        stats.listed = stats.kept + stats.excluded
        return self._plan_wanted(version, None)

    async def _ingest_inventory(self, source: Source, version: Version) -> None:
        """Ingest the inventory; report files that are kept or excluded as they pass."""
        is_kept = glob_matcher(self._globs)
        async with aclosing(self._inventory_pages(source)) as pages:
            async for blobs in pages:
                names = list(filter(is_kept, blobs.names)) if self._globs else blobs.names
                self._inputs.validate_names(names)
                self._run.windows_names.check(names)
                known = self._find_sound(version, names) if version.listing.number > 1 else {}
                await run_in_thread(self._ingest_blobs, version, blobs, known, collect_folders(names))
                for blob in blobs if known or self._globs else ():
                    if not is_kept(blob.name):
                        self._report_file(blob, EXCLUDED)
                    elif blob.name in known:
                        self._report_stored(blob, known[blob.name])
        await run_in_thread(self._catalog.finish_listing, version)
        self._run.windows_names.warn(self._run.observe)

    def _find_sound(self, version: Version, names: Sequence[str]) -> dict[str, StoredFile]:
        """Find the files that an unfinished version has stored and a run would keep, if they are unchanged."""
        known = self._catalog.find_stored(version, names)
        for lost in self._find_lost(version, list(known.values())):
            self._refetch_reasons[lost.blob.name] = CHANGED_REASON
            del known[lost.blob.name]
        return known

    def _ingest_blobs(
        self, version: Version, blobs: BlobColumns, known: Mapping[str, StoredFile], folders: Collection[str]
    ) -> None:
        if known:
            rows = [(blob, None if is_changed(blob, known.get(blob.name)) else known[blob.name]) for blob in blobs]
            self._catalog.add_page(version, rows, folders)
        else:
            self._catalog.add_new_page(version, blobs, folders)

    def _report_stored(self, blob: Blob, stored: StoredFile) -> None:
        """Report a stored file that is kept; remember why a changed one must be fetched."""
        decision = decide(blob, stored)
        if decision.action is Action.KEEP:
            self._report_file(blob, decision)
        else:
            self._refetch_reasons[blob.name] = decision.reason

    async def _inventory_pages(self, source: Source) -> AsyncGenerator[BlobColumns, None]:
        """Yield the blobs of the container: by listing, or by a walk if listing is denied or not requested."""
        requested, self._used_listing = self._options.inventory, False
        if requested is Inventory.LIST or (requested is None and await source.is_listable()):
            try:
                async with aclosing(source.pages(None)) as pages:
                    async for page in pages:
                        yield page.blobs
                self._used_listing = True
                return
            except ListingDenied as denied:
                if requested is not None:
                    raise
                self._run.observe(Notice(f"{denied}; walking from {ROOT} instead"))
        self._run.observe(
            Notice(
                "this plan comes from a walk: files that tile contents reference (textures, buffers) are not included"
            )
        )
        async for blob in DryRunWalk(source, self._inputs.scratch, self._run, self._globs).blobs():
            yield BlobColumns.from_blobs([blob])

    def _plan_wanted(self, version: Version, previous: Version | None) -> Version:
        """Plan all wanted files, and record them as stored. `previous`: the version to compare with."""
        totals = self._catalog.compute_totals(version)
        if self._run.reports_every_file or len(self._catalog.versions()) > 1:
            self._plan_each_wanted(version, previous)
        else:  # no other version can have the files, and nobody wants to know the reason for each of them
            self._count_planned(totals.files - totals.stored_files, totals.bytes - totals.stored_bytes)
        if self._assumes_stored:
            self._catalog.mark_all_stored(version)
        finished = version.summary.published_at or format_timestamp(self._run.clock.now())
        version = replace(version, damaged=False).with_summary(
            published_at=finished, files=totals.files, bytes=totals.bytes
        )
        self._catalog.update_version(version)
        return version

    def _plan_each_wanted(self, version: Version, previous: Version | None) -> None:
        for sizes in (NOT_EMPTY, EMPTY):
            after = 0
            while batch := self._catalog.list_wanted(version, after, limit=ROWS_PER_QUERY, sizes=sizes):
                after = batch[-1][0]
                self._plan_batch(version, [blob for _, blob in batch], previous)

    def _count_planned(self, files: int, size: int) -> None:
        """Count files that are planned to be fetched."""
        stats = self._run.stats
        stats.listed, stats.listed_bytes = stats.listed + files, stats.listed_bytes + size
        stats.fetched, stats.planned_bytes = stats.fetched + files, stats.planned_bytes + size

    def _plan_batch(self, version: Version, blobs: Sequence[Blob], previous: Version | None) -> None:
        duplicates = self._catalog.duplicates.find_by_digest(version, blobs)
        known = self._catalog.find_stored(previous, [blob.name for blob in blobs]) if previous is not None else {}
        for blob in blobs:
            duplicate = next(filter(self._is_available, duplicates.get(blob.name, ())), None)
            if duplicate is None and blob.name in duplicates:
                all_duplicates = self._catalog.duplicates.find_by_digest(version, [blob], all_versions=True)
                duplicate = next(filter(self._is_available, all_duplicates.get(blob.name, ())), None)
            if duplicate is not None:
                self._report_file(blob, _reuse_decision(blob, duplicate))
                continue
            decision = decide(blob, known.get(blob.name))
            reason = (
                decision.reason if decision.action is Action.FETCH else "the listing has no MD5 to find a duplicate by"
            )
            self._report_file(blob, Decision(Action.FETCH, self._refetch_reasons.get(blob.name, reason)))

    def _is_available(self, duplicate: Duplicate) -> bool:
        """Return whether a file can be shared: it is unchanged on disk, or this plan would create it."""
        stored, files = duplicate.stored, self._inputs.files
        if not stored.mtime_ns and not stored.inode:
            return True
        try:
            is_unchanged = files.unchanged(duplicate.version, [stored]) == [True]
            stamp = files.stamp(duplicate.version, stored.blob.name)
            has_inode = stamp is not None and stamp.inode == stored.inode
            return is_unchanged and (has_inode or files.digest(duplicate.version, stored.blob.name) == stored.sha256)
        except DestinationError:
            return False

    def _find_lost(self, version: Version, stored: Sequence[StoredFile]) -> list[StoredFile]:
        """Return the stored files that a run would not keep."""
        doubtful = find_changed(version, stored, self._inputs.files)
        sound = {each.blob.name for each in find_intact(version, doubtful, self._inputs.files)}
        return [each for each in doubtful if each.blob.name not in sound]

    def _report_file(self, blob: Blob, decision: Decision) -> None:
        stats = self._run.stats
        if decision.action is Action.FETCH:
            self._count_planned(1, blob.size)
        else:
            stats.listed, stats.listed_bytes = stats.listed + 1, stats.listed_bytes + blob.size
        if decision.action is Action.KEEP:
            stats.kept += 1
        elif decision.action is Action.EXCLUDE:
            stats.excluded += 1
        elif decision.action is Action.REUSE:
            stats.reused += 1
            stats.reused_bytes += blob.size
        if self._run.reports_every_file:
            self._run.observe(Planned(decision.action.value, blob.name, blob.size, decision.reason))


def _reuse_decision(blob: Blob, duplicate: Duplicate) -> Decision:
    name = duplicate.stored.blob.name
    return Decision(
        Action.REUSE,
        f"version {duplicate.version.name} has it" + (f" as {name}" if name != blob.name else ", same MD5"),
    )
