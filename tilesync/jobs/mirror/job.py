"""The main job: resolve, list, plan, transfer, publish, tidy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from tilesync.core.filters import find_added_globs
from tilesync.core.guards import DeleteLimit, guard_against_shrinking
from tilesync.core.plan import VersionChoice, choose_version
from tilesync.core.retention import KEEP_ALL_VERSIONS, RetentionPolicy
from tilesync.core.wording import format_file_count
from tilesync.errors import ExportReplaced, Incomplete, ListingDenied, NotAuthorised
from tilesync.events import ExportResolved, Notice, PointerKept, VersionChosen, Warned
from tilesync.jobs.mirror.cleanup import Cleanup
from tilesync.jobs.mirror.filter_warnings import filter_warnings
from tilesync.jobs.mirror.inventory import InventoryIngest
from tilesync.jobs.mirror.unchanged import find_first_changed, has_same_files, has_same_listing
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.transfer import Transfer, WorkSignal
from tilesync.jobs.versions.flat_layout import FlatLayout
from tilesync.jobs.versions.last_success import record_last_success
from tilesync.jobs.versions.lifecycle import VersionLifecycle, is_stale, list_export_versions, with_export_details
from tilesync.jobs.versions.ownership import OwnershipRequest, claim_destination
from tilesync.jobs.versions.pointer import Pointer
from tilesync.jobs.versions.presence import PresenceCheck
from tilesync.jobs.versions.publish import Publisher
from tilesync.jobs.versions.startup import prepare_destination
from tilesync.model import (
    EVERYTHING,
    ROOT,
    Content,
    Export,
    Globs,
    Inventory,
    Kind,
    Layout,
    Resolution,
    Status,
    Totals,
    Version,
)
from tilesync.protocols import Destination, Source, SourceResolver
from tilesync.runtime.threads import run_in_thread

MAX_REPLANS = 2
"""How often a run lists and plans again because the export changed under it."""

ROWS_PER_QUERY = 2000

MIN_BYTES_FOR_WORKERS = 50_000_000
"""Bytes of a first export for which helpers are worth their start, as far as the service tells its size."""

UNPIN_HINT = "`tilesync rollback DEST --latest` lets it follow the newest export again"


@dataclass(frozen=True)
class MirrorOptions:
    """What one run of the main job is asked to do. `inventory`: None lists where that is allowed, and else walks.

    `point`: the pointer is to lead to the export in the end. `delete`: how many files that the container no longer has
    may be deleted where all versions share one place; None leaves them. `content`: how the files are to lie.
    `ownership`: whose exports the destination must hold; None asks nobody.
    """

    inventory: Inventory | None = None
    globs: Globs = EVERYTHING
    allow_missing: bool = False
    allow_shrink: bool = False
    move_pointer: bool = True
    retention: RetentionPolicy = KEEP_ALL_VERSIONS
    delete_limit: DeleteLimit | None = None
    content: Content = Content.STORED
    ownership: OwnershipRequest | None = None


class MirrorJob:
    """One run of the main job into one destination; events tell how far it came, and `version` what it was about."""

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
        self._presence = PresenceCheck(destination.catalog, destination.files, run.clock)
        self._pointer = Pointer(destination, run.clock, run.observe)
        self._flat_layout = FlatLayout(destination, run, options.delete_limit)
        self._publisher = Publisher(destination, run, allow_missing=options.allow_missing)
        self._stored_before: dict[int, int] = {}
        self._warned: set[str] = set()
        self._is_newest = False  # the export is the newest finished one
        self._initial_resolution: Resolution | None = None  # what SOURCE resolved to already
        self.version: Version | None = None

    async def run(self) -> None:
        """Mirror the export that the origin resolves to, then tidy. Raises as `mirror` does."""
        ownership = self._options.ownership
        self._initial_resolution = await claim_destination(self._destination, ownership, self._origin.resolve)
        await prepare_destination(self._destination, self._run)
        await self.mirror()
        await Cleanup(self._destination, self._run, self._options.retention, self._options.delete_limit).run()
        if self.version is not None:
            await record_last_success(self._destination, self.version, self._run)

    async def mirror(self) -> None:
        """Mirror the export that the origin resolves to; when it changes under the run, list and plan again.

        Raises the RunErrors; Incomplete when files failed: nothing is published then.
        """
        for again in range(MAX_REPLANS + 1):
            resolution = await self._resolve(again=again > 0)
            self._run.stats.reset_for_replan()
            try:
                await self._mirror(resolution)
            except ExportReplaced as error:
                self._versions.restart_listings(resolution.export)
                if again == MAX_REPLANS:
                    raise
                self._run.observe(Warned(f"{error}; resolving, listing and planning again"))
            else:
                return

    # --- resolve ---

    async def _resolve(self, *, again: bool) -> Resolution:
        resolution, self._initial_resolution = (
            self._initial_resolution or await self._origin.resolve(is_replacement=again),
            None,
        )
        export = resolution.export
        self._run.observe(
            ExportResolved(
                export.id, export.imodel, export.changeset, export.modified, resolution.newest, resolution.behind
            )
        )
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
        """The version, marked damaged when files of it are gone or changed: all are looked at where the pointer has yet
        to come to it, or where one of those that a short look finds is so.
        """
        there = await run_in_thread(self._destination.files.size, version, ROOT) is not None
        stands = there and await run_in_thread(self._pointer.is_current, version)
        if version.damaged:
            return await self._versions.check_damage(version)
        if stands or (there and not await run_in_thread(self._can_move_pointer, version)):
            look = await run_in_thread(self._presence.check_next_files, version)
            self._run.stats.presence_checked = look.files
            if look.is_sound:
                return version
        return await self._versions.check_damage(version)

    async def _keep_unchanged(self, version: Version) -> None:
        """Nothing to do but to see that the pointer stands."""
        whole = Totals(version.files, version.bytes, version.files, version.bytes)
        apart = version.globs or version.content is Content.DECODED
        self._inventory.count_listed(self._catalog.compute_totals(version) if apart else whole)
        self._run.stats.kept = version.files
        self._run.stats.inventory_complete = True
        self._run.stats.completeness = version.completeness
        self._run.observe(VersionChosen(version.name, "held"))
        await self._update_pointer(version)

    async def _complete_version(self, version: Version | None, choice: VersionChoice, resolution: Resolution) -> None:
        """Bring a version in, begun now or earlier, and publish it; unless what is held turns out to be the same."""
        export = resolution.export
        resumed = version is not None
        if version is None:
            version = await run_in_thread(self._versions.begin_version, export, choice.content)
        elif version.published_at is None and is_stale(version, export):
            version = self._versions.restart_listing(with_export_details(version, export))
        self._run.observe(VersionChosen(version.name, "continued" if resumed else "begun"))
        if resumed:
            version = self._versions.resume(version)
            await self._versions.recheck(version)
            if export.stored_version is not None and version.content is Content.DECODED and version.listed:
                version = self._versions.restart_listing(
                    version
                )  # a copy lists what lies there, its container what it stores
        self._stored_before.setdefault(version.serial, self._catalog.compute_totals(version).stored_files)
        source = await self._origin.open_source(resolution)
        inventory = self._options.inventory if export.stored_version is None else Inventory.LIST
        version = await self._versions.prepare_version(version, source, inventory, choice.globs)
        try:
            await self._transfer_and_publish(version, choice, source, resolution)
        except ListingDenied as denied:
            if self._options.inventory is not None:
                raise
            self._run.observe(Notice(f"{denied}; walking from {ROOT} instead"))
            version = self._versions.restart_listing(version, inventory=Inventory.WALK)
            try:
                await self._transfer_and_publish(version, choice, source, resolution)
            except NotAuthorised as error:
                denied.refusal.hint = error.hint  # the listing is not all that is refused
                raise denied.refusal from None

    async def _transfer_and_publish(
        self, version: Version, choice: VersionChoice, source: Source, resolution: Resolution
    ) -> None:
        """Transfer and publish, unless another version of the same export has the same content."""
        export = resolution.export
        if held := await self._find_identical(choice.candidates, version, source):
            await self._warn_about_filters(self._versions.reload(version), resolution)
            self._catalog.delete_version(version)
            held = with_export_details(held, export) if export.stored_version is None else held
            self._catalog.update_version(held)
            held = await self._check_stored(held)
            await (self._complete_version(held, choice, resolution) if held.damaged else self._keep_unchanged(held))
            return
        await self._transfer(self._versions.reload(version), source)
        await self._warn_about_filters(self._versions.reload(version), resolution)
        await self._refetch_vanished(self._versions.reload(version), source)
        version = self._versions.reload(version)
        if version.inventory == Inventory.WALK and version.published_at is None:
            await self._revalidate(version, source)
        await run_in_thread(self._versions.remove_foreign_files, version)
        try:
            version = await self._publisher.finish(_with_source_inventory(version, export), defects=resolution.defects)
        except Incomplete:
            self._versions.schedule_relisting(version)
            raise
        await self._update_pointer(version)

    async def _refetch_vanished(self, version: Version, source: Source) -> None:
        """All files must lie there as they came before they are published; what vanished meanwhile is fetched again,
        once. Raises Incomplete.
        """
        lost = await self._versions.count_vanished(version)
        if lost:
            what = f"{format_file_count(lost)} of this version vanished or changed under the run"
            self._run.observe(Warned(f"{what}; fetching again"))
            self._run.stats.reset_for_replan()
            await self._transfer(version, source)
            lost = await self._versions.count_vanished(version)
        if lost:
            raise Incomplete(
                f"{format_file_count(lost)} vanished or changed under the run, twice; this export was not published",
                hint="find out what else deletes or changes files of DEST; the next run fetches them again",
            )

    async def _revalidate(self, version: Version, source: Source) -> None:
        """A walk took each tileset and subtree as it was when it was asked for: all must be so still."""
        kinds = (Kind.TILESET, Kind.SUBTREE)
        documents = partial(self._catalog.list_stored, version, limit=ROWS_PER_QUERY, kinds=kinds)
        if changed := await find_first_changed(source, documents, self._run):
            raise ExportReplaced(f"{changed} changed under the run")

    async def _find_identical(self, alike: Sequence[Version], version: Version, source: Source) -> Version | None:
        """The first of some finished versions that has what a new one would have; None where none has."""
        if version.published_at is not None or self._catalog.compute_totals(version).stored_files:
            return None
        for held in alike:
            if held.serial != version.serial and await self._is_unchanged(held, self._versions.reload(version), source):
                return held
        return None

    async def _is_unchanged(self, existing: Version, version: Version, source: Source) -> bool:
        """Whether the container has what an earlier version of the same export holds: by its listing, else file by
        file.
        """
        if version.inventory == Inventory.LIST:
            if not version.listed:
                await self._inventory.ingest_listing(version, source, WorkSignal())
            return await run_in_thread(has_same_listing, self._versions.reload(version), existing, self._catalog)
        missing = await run_in_thread(self._publisher.list_missing, existing)
        return await has_same_files(existing, missing, source, self._catalog, self._run)

    # --- transfer ---

    async def _transfer(self, version: Version, source: Source) -> None:
        """Move what is wanted while the files are still being found. Raises Incomplete when files failed."""
        walks = version.inventory == Inventory.WALK and not version.listed
        if walks:
            await run_in_thread(self._begin_walk, version)
        if version.listed or version.marker is not None or walks:
            self._inventory.count_known(version)
        self._run.stats.inventory_complete = version.listed
        supply = WorkSignal(complete=version.listed)
        unsure = self._catalog.is_new or self._destination.is_shared  # what lies there, and was never noted
        salvage = unsure and await run_in_thread(self._versions.has_any_files, version)
        transfer = Transfer(version, source, self._destination, self._run, salvage=salvage)
        try:
            await transfer.run(
                supply, None if walks or version.listed else self._inventory.ingest_listing(version, source, supply)
            )
            if walks and not self._run.stats.failed:
                await self._inventory.finish(version)
        except Incomplete:
            self._versions.restart_listing(self._versions.reload(version))
            raise
        finally:
            self._run.windows_names.warn(self._run.observe)
            self._warn_about_dates(source)
            if self._run.stats.inventory_complete:
                held = self._catalog.compute_totals(version).stored_files
                self._run.stats.reconcile(held, stored_before=self._stored_before[version.serial])
        if self._run.stats.failed:
            raise self._incomplete_error(version, source)

    async def _warn_about_filters(self, version: Version, resolution: Resolution) -> None:
        """Warn once of globs that match nothing, and of those that leave nothing, where all names are known."""
        if not version.listed:
            return
        own = resolution.export.stored_version.globs if resolution.export.stored_version is not None else EVERYTHING
        given = find_added_globs(own, self._options.globs)
        for sentence in await run_in_thread(filter_warnings, version, given, self._catalog):
            if sentence not in self._warned:
                self._run.observe(Warned(sentence))
                self._warned.add(sentence)

    def _warn_about_dates(self, source: Source) -> None:
        if source.undated:
            dates = f"a modification time of {format_file_count(source.undated)} that no file can have"
            self._run.observe(Warned(f"the container states {dates}: it is taken for unknown"))

    def _begin_walk(self, version: Version) -> None:
        self._catalog.mark_missing_wanted(version)
        self._catalog.add_wanted(version, ROOT)

    def _incomplete_error(self, version: Version, source: Source) -> Incomplete:
        """Files failed: the container may not be what was listed."""
        self._versions.schedule_relisting(self._versions.reload(version))
        what = f"{format_file_count(self._run.stats.failed)} failed; this export was not published"
        return Incomplete(what, hint=source.remedy or _combine_hints(self._run.stats.failure_hints))

    # --- publish ---

    def _can_move_pointer(self, version: Version) -> bool:
        pinned = self._pointer.find_pinned()
        return self._options.move_pointer and (pinned is None or pinned.serial == version.serial)

    async def _update_pointer(self, version: Version) -> None:
        """See that the pointer leads to the version, or to the one that it is pinned to. Raises GuardTripped."""
        self.version, pinned = version, await run_in_thread(self._pointer.find_pinned)
        if self._is_newest:
            self._catalog.set_value("newest", version.name)
        if not self._options.move_pointer:
            self._run.observe(PointerKept(version.name, f"version {version.name} is held; the pointer was left alone"))
            return
        if pinned is not None and pinned.serial != version.serial:
            held = f"version {version.name} is held; the pointer is pinned to {pinned.name}"
            self._run.observe(PointerKept(version.name, f"{held}: {UNPIN_HINT}"))
        target = pinned or version
        if await run_in_thread(self._pointer.is_current, target):
            return
        if not self._options.allow_shrink and pinned is None:
            guard_against_shrinking(target, await run_in_thread(self._pointer.find_current))
        if pinned is not None and (await self._versions.check_damage(pinned)).damaged:
            self._run.observe(Warned("the pointer stays as it is: it cannot lead to a version that is not whole"))
            return
        await run_in_thread(self._switch_pointer, target)

    def _switch_pointer(self, version: Version) -> None:
        if self._destination.layout is Layout.FLAT:
            self._flat_layout.move_into_place(version, self._pointer.invalidate)
        self._pointer.move(version)


def _combine_hints(hints: set[str]) -> str | None:
    """What helps against the failures of a run: None where another run does, for some of them or all."""
    told = "; ".join(sorted(hints - {""}))
    if not told or "" not in hints:
        return told or None
    return f"{told}; for the others {Incomplete.default_hint}"


def _with_source_inventory(version: Version, export: Export) -> Version:
    """A version that is whole, with the inventory that its manifest tells: a copy was not walked, it says what was."""
    if export.stored_version is None or version.published_at is not None:
        return version
    return replace(version, inventory=export.stored_version.inventory)
