"""The plan of the main job, told instead of done: it is carried out on a copy of the catalog alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tilesync.core.filters import find_added_globs, glob_matcher
from tilesync.core.guards import guard_against_deleting, guard_against_shrinking
from tilesync.core.manifest import format_timestamp
from tilesync.core.plan import Action, Decision, choose_version, decide
from tilesync.core.retention import find_retirable
from tilesync.core.safe_names import collect_folders
from tilesync.errors import DestinationError, GuardTripped, ListingDenied
from tilesync.events import ExportResolved, Notice, Planned, VersionChosen, Warned
from tilesync.jobs.mirror.all_exports import mirror_each, stats_if_mirrored
from tilesync.jobs.mirror.dry_run_walk import DryRunWalk, ScratchSpace
from tilesync.jobs.mirror.filter_warnings import filter_warnings
from tilesync.jobs.mirror.inventory import is_changed
from tilesync.jobs.mirror.job import MirrorOptions
from tilesync.jobs.mirror.unchanged import has_same_listing
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.flat_layout import is_obstacle, list_deletable, list_stale_files
from tilesync.jobs.versions.lifecycle import (
    create_version,
    find_changed,
    find_intact,
    list_export_versions,
    with_export_details,
)
from tilesync.jobs.versions.ownership import ResolveSource
from tilesync.jobs.versions.pointer import find_current_version, find_pinned_version, is_current_version
from tilesync.jobs.versions.presence import PresenceCheck
from tilesync.model import EVERYTHING, ROOT, Blob, Content, Duplicate, Export, Inventory, Layout, StoredFile, Version
from tilesync.protocols import Catalog, ExportsResolver, ReadOnlyPublication, Source, SourceResolver, StoredFiles
from tilesync.runtime.threads import run_in_thread

EXCLUDED = Decision(Action.EXCLUDE, "left out by --include or --exclude")
GONE_REASON = "the container does not have it any more"
OBSTACLE_REASON = "a folder is to stand where it is, or a file where its folder is"
CHANGED_REASON = "it is not as it was left here"
ROWS_PER_QUERY = 500


@dataclass(frozen=True)
class PlanInputs:
    """What a preview looks at: a copy of the catalog, what lies there, how names are judged, and a desk for a walk."""

    catalog: Catalog
    files: StoredFiles
    publication: ReadOnlyPublication
    validate_names: Callable[[Iterable[str]], None]
    scratch: ScratchSpace
    layout: Layout


class DryRun:
    """Tells what would happen with each file and version, and why. Writes nothing; counts as if it had been done.

    Raises the RunErrors of the service and the container, and UnsafeName. What a guard would stop is a warning.
    """

    def __init__(self, inputs: PlanInputs, run: RunContext, options: MirrorOptions) -> None:
        self._inputs = inputs
        self._catalog = inputs.catalog
        self._run = run
        self._options = options
        self._globs = options.globs
        self._used_listing = False  # the inventory is a listing; else a walk, which tells of its filters itself
        self._refetch_reasons: dict[str, str] = {}  # what was held and is to be fetched again
        self._assumes_stored = inputs.layout is Layout.FLAT  # what follows depends on which files would be held

    async def run(self, origin: SourceResolver) -> None:
        """Tell the plan for the export that the origin resolves to."""
        await self._check_owner(origin.resolve)
        self._report_missing_state()
        self._report_consequences(await self._plan(origin))

    async def run_all(self, exports: ExportsResolver) -> None:
        """Tell the plan for every finished export that is not held yet, oldest first."""
        await self._check_owner(exports.resolve)
        self._report_missing_state()
        self._assumes_stored = True
        planned: list[Version] = []

        async def plan(export: Export, *, newest: bool) -> None:
            version = await self._plan(exports.resolver_for(export))
            planned.extend([version] if newest else [])

        there = self._catalog, self._inputs.files, self._options, self._run.clock
        await mirror_each(
            await exports.list_finished(),
            plan,
            lambda export: run_in_thread(stats_if_mirrored, export, *there),
            self._run,
        )
        for version in planned:
            self._report_consequences(version)

    async def _check_owner(self, resolve: ResolveSource) -> None:
        """Raise OtherOwner where a run would."""
        if self._options.ownership is not None:
            view = self._inputs
            await self._options.ownership.resolve_owner(view.publication, self._catalog, resolve)

    def _report_missing_state(self) -> None:
        if self._catalog.get_value("adopted") is None and self._inputs.publication.manifest_names():
            self._run.observe(
                Notice("the state is not here: a run reads what is held first; this plan counts none of it")
            )

    # --- one export ---

    async def _plan(self, origin: SourceResolver) -> Version:
        resolution = await origin.resolve()
        export, observe = resolution.export, self._run.observe
        self._refetch_reasons.clear()
        observe(
            ExportResolved(
                export.id, export.imodel, export.changeset, export.modified, resolution.newest, resolution.behind
            )
        )
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
        wished = with_export_details(version, export)
        version = replace(
            wished, listing_number=version.listing_number + 1, listed=False, marker=None, globs=choice.globs
        )
        self._catalog.update_version(version)
        source = await origin.open_source(resolution)
        alike = choice.candidates if choice.unfinished is None else ()
        await self._ingest_inventory(source, version)
        if self._used_listing:
            own = export.stored_version.globs if export.stored_version is not None else EVERYTHING
            for sentence in filter_warnings(version, find_added_globs(own, self._options.globs), self._catalog):
                observe(Warned(sentence))
        for before in alike:
            if has_same_listing(version, before, self._catalog):
                self._catalog.delete_version(version)
                observe(VersionChosen(before.name, "held"))
                return self._plan_unchanged(before)
        observe(VersionChosen(version.name, "continued" if choice.unfinished else "begun"))
        return self._plan_wanted(version, alike[0] if alike else None)

    def _release_lost_files(self, version: Version) -> bool:
        """Whether files of a version are gone; all are looked at where the pointer would have to come to it, or where a
        short look finds one, as a run does.
        """
        files, pin = self._inputs.files, find_pinned_version(self._inputs.publication, self._catalog)
        there = files.size(version, ROOT) is not None
        may_point = self._options.move_pointer and (pin is None or pin.serial == version.serial)
        if there and (is_current_version(version, self._inputs.publication, self._catalog) or not may_point):
            look = PresenceCheck(self._catalog, files, self._run.clock).check_next_files(version)
            self._run.stats.presence_checked = look.files
            if look.is_sound:
                return False
        self._run.stats.presence_checked = version.files
        after, lost = "", False
        while batch := self._catalog.list_stored(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            gone = [held.blob.name for held in self._find_lost(version, [held for _, held in batch])]
            self._catalog.mark_wanted(version, gone)
            lost = lost or bool(gone)
        return lost

    def _plan_unchanged(self, version: Version) -> Version:
        totals, tally = self._catalog.compute_totals(version), self._run.stats
        tally.kept, tally.excluded, tally.listed = version.files, totals.excluded, version.files + totals.excluded
        reason = f"unchanged: all {version.files} files are held"
        self._run.observe(Planned(Action.KEEP.value, version.name, version.bytes, reason))
        return version

    def _plan_repair(self, version: Version) -> Version:
        totals, tally = self._catalog.compute_totals(version), self._run.stats
        tally.kept, tally.excluded = totals.stored_files, totals.excluded
        tally.listed = tally.kept + tally.excluded
        return self._plan_wanted(version, None)

    async def _ingest_inventory(self, source: Source, version: Version) -> None:
        """Take in the inventory; what is kept or left out is told as it passes."""
        keeps = glob_matcher(self._globs)
        async for blobs in self._inventory_pages(source):
            names = [blob.name for blob in blobs if keeps(blob.name)]
            self._inputs.validate_names(names)
            known = self._catalog.find_stored(version, names)
            sound = known.keys() - {held.blob.name for held in self._find_lost(version, list(known.values()))}
            self._refetch_reasons.update((name, CHANGED_REASON) for name in known.keys() - sound)
            known = {name: known[name] for name in sound}
            rows = [(blob, None if is_changed(blob, known.get(blob.name)) else known[blob.name]) for blob in blobs]
            self._catalog.add_page(version, rows, collect_folders(names))
            self._run.windows_names.check(names)
            for blob, held in rows:
                if not keeps(blob.name):
                    self._report_file(blob, EXCLUDED)
                elif held is not None:
                    self._report_file(blob, decide(blob, known[blob.name]))
                elif blob.name in known:
                    self._refetch_reasons[blob.name] = decide(blob, known[blob.name]).reason
        self._catalog.finish_listing(version)
        self._run.windows_names.warn(self._run.observe)

    async def _inventory_pages(self, source: Source) -> AsyncIterator[Sequence[Blob]]:
        """The blobs of the container by its listing, or where that is denied, or not wished for, by a walk."""
        wished, self._used_listing = self._options.inventory, False
        if wished is Inventory.LIST or (wished is None and await source.is_listable()):
            try:
                async for page in source.pages(None):
                    yield page.blobs
                self._used_listing = True
                return
            except ListingDenied as denied:
                if wished is not None:
                    raise
                self._run.observe(Notice(f"{denied}; walking from {ROOT} instead"))
        self._run.observe(
            Notice("a walk: what the contents name themselves (textures, buffers) is found when they are fetched")
        )
        async for blob in DryRunWalk(source, self._inputs.scratch, self._run, self._globs).blobs():
            yield [blob]

    def _plan_wanted(self, version: Version, previous: Version | None) -> Version:
        """Tell what becomes of all that is wanted, and record it as held. `before` is what it is compared with."""
        for empty in (False, True):
            after = 0
            while batch := self._catalog.list_wanted(version, after, limit=ROWS_PER_QUERY, empty=empty):
                after = batch[-1][0]
                self._plan_batch(version, [blob for _, blob in batch], previous)
        if self._assumes_stored:
            self._catalog.mark_all_stored(version)
        totals = self._catalog.compute_totals(version)
        finished = version.published_at or format_timestamp(self._run.clock.now())
        version = replace(version, published_at=finished, damaged=False, files=totals.files, bytes=totals.bytes)
        self._catalog.update_version(version)
        return version

    def _plan_batch(self, version: Version, blobs: Sequence[Blob], previous: Version | None) -> None:
        twins = self._catalog.duplicates.find_by_digest(version, blobs)
        known = self._catalog.find_stored(previous, [blob.name for blob in blobs]) if previous is not None else {}
        for blob in blobs:
            twin = next(filter(self._is_available, twins.get(blob.name, ())), None)
            if twin is None and blob.name in twins:
                every = self._catalog.duplicates.find_by_digest(version, [blob], all_versions=True)
                twin = next(filter(self._is_available, every.get(blob.name, ())), None)
            if twin is not None:
                self._report_file(blob, _reuse_decision(blob, twin))
                continue
            decision = decide(blob, known.get(blob.name))
            reason = decision.reason if decision.action is Action.FETCH else "no MD5 to share it by"
            self._report_file(blob, Decision(Action.FETCH, self._refetch_reasons.get(blob.name, reason)))

    def _is_available(self, duplicate: Duplicate) -> bool:
        """Whether the file would be shared: it is as it was left, or would be there by this very plan."""
        held, files = duplicate.stored, self._inputs.files
        if not held.mtime_ns and not held.inode:
            return True
        try:
            same = files.unchanged(duplicate.version, [held]) == [True]
            trace = files.stamp(duplicate.version, held.blob.name)
            inode = trace is not None and trace.inode == held.inode
            return same and (inode or files.digest(duplicate.version, held.blob.name) == held.sha256)
        except DestinationError:
            return False

    def _find_lost(self, version: Version, stored: Sequence[StoredFile]) -> list[StoredFile]:
        """Those that a run would not keep."""
        doubtful = find_changed(version, stored, self._inputs.files)
        sound = {each.blob.name for each in find_intact(version, doubtful, self._inputs.files)}
        return [each for each in doubtful if each.blob.name not in sound]

    def _report_file(self, blob: Blob, decision: Decision) -> None:
        tally = self._run.stats
        tally.listed += 1
        tally.listed_bytes += blob.size
        if decision.action is Action.KEEP:
            tally.kept += 1
        elif decision.action is Action.EXCLUDE:
            tally.excluded += 1
        elif decision.action is Action.REUSE:
            tally.reused += 1
            tally.reused_bytes += blob.size
        else:
            tally.fetched += 1
            tally.planned_bytes += blob.size
        if self._run.reports_every_file:
            self._run.observe(Planned(decision.action.value, blob.name, blob.size, decision.reason))

    # --- what follows ---

    def _report_consequences(self, version: Version) -> None:
        """Tell what the guards would say, and which files or versions would go."""
        current, pin = (
            find_current_version(self._inputs.publication, self._catalog),
            find_pinned_version(self._inputs.publication, self._catalog),
        )
        if pin is not None and pin.serial != version.serial:
            self._run.observe(Notice(f"the pointer is pinned to version {pin.name}, and stays there"))
        try:
            if self._options.move_pointer and pin is None and not self._options.allow_shrink:
                guard_against_shrinking(version, self._with_stored_size(current))
            if self._inputs.layout is Layout.FLAT:
                self._report_deletions(version)
        except GuardTripped as error:
            self._run.observe(Warned(f"the run would stop: {error}"))
        self._report_retirements(pin or (version if self._options.move_pointer else current), current)

    def _with_stored_size(self, version: Version | None) -> Version | None:
        """The version with the bytes that its container stores: what a file unpacks to is known when it is there."""
        if version is None or version.content is Content.STORED:
            return version
        return replace(version, bytes=self._catalog.compute_totals(version).bytes)

    def _report_deletions(self, version: Version) -> None:
        obstacles = set()
        for left in list_stale_files(version, self._catalog):
            if is_obstacle(version, left.stored, self._catalog):
                obstacles.add(left.stored.blob.name)
                self._report_deletion(left.stored, OBSTACLE_REASON)
        if self._options.delete_limit is None:
            return
        count = 0
        for held in list_deletable(version, self._catalog, self._inputs.files):
            count += 1
            if held.blob.name not in obstacles:
                self._report_deletion(held, GONE_REASON)
        guard_against_deleting(count, self._options.delete_limit, total=version.files + count)

    def _report_deletion(self, stored: StoredFile, reason: str) -> None:
        self._run.stats.deleted += 1
        self._run.observe(Planned(Action.DELETE.value, stored.blob.name, stored.size, reason))

    def _report_retirements(self, current: Version | None, previous: Version | None) -> None:
        now = self._run.clock.now()
        if previous is not None and current is not None and previous.serial != current.serial:
            self._catalog.update_version(replace(previous, replaced_at=format_timestamp(now)))
        spared = {current.name} if current is not None else set()
        for version, reason in find_retirable(self._catalog.versions(), self._options.retention, now, spared):
            size = version.bytes if version.published_at else self._catalog.compute_totals(version).stored_bytes
            self._run.observe(Planned(Action.RETIRE.value, version.name, size, reason))


def _reuse_decision(blob: Blob, duplicate: Duplicate) -> Decision:
    name = duplicate.stored.blob.name
    return Decision(
        Action.REUSE,
        f"version {duplicate.version.name} has it" + (f" as {name}" if name != blob.name else ", same MD5"),
    )
