"""The main job: resolve, list, plan, transfer, publish, tidy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import partial

from tilesync.core.filters import added
from tilesync.core.guards import Most, guard_against_shrinking
from tilesync.core.plan import Choice, choose
from tilesync.core.retention import KEEP_ALL, Keep
from tilesync.core.wording import files
from tilesync.errors import ExportReplaced, Incomplete, ListingDenied, NotAuthorised
from tilesync.events import Notice, PointerStays, Resolved, VersionChosen, Warned
from tilesync.jobs.mirror.cleanup import Tidy
from tilesync.jobs.mirror.filter_warnings import filter_warnings
from tilesync.jobs.mirror.inventory import Listing
from tilesync.jobs.mirror.revalidate import first_changed
from tilesync.jobs.mirror.unchanged import same_files, same_listing
from tilesync.jobs.run.context import Run
from tilesync.jobs.transfer.transfer import Supply, Transfer
from tilesync.jobs.versions.flat_layout import SharedPlace
from tilesync.jobs.versions.last_success import note_checked
from tilesync.jobs.versions.lifecycle import Versions, as_said, is_stale, of_export
from tilesync.jobs.versions.ownership import Ownership, take_over
from tilesync.jobs.versions.pointer import Pointing
from tilesync.jobs.versions.presence import Presence
from tilesync.jobs.versions.publish import Publisher
from tilesync.jobs.versions.startup import prepare
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
from tilesync.protocols import Destination, Origin, Source
from tilesync.runtime.threads import in_thread

REPLANS = 2
"""How often a run lists and plans again because the export changed under it."""

BATCH = 2000

MUCH = 50_000_000
"""Bytes of a first export for which helpers are worth their start, as far as the service tells its size."""

UNPIN = "`tilesync rollback DEST --latest` lets it follow the newest export again"


@dataclass(frozen=True)
class Wishes:
    """What one run of the main job is asked to do. `inventory`: None lists where that is allowed, and else walks.

    `point`: the pointer is to lead to the export in the end. `delete`: how many files that the container no longer has
    may be deleted where all versions share one place; None leaves them. `content`: how the files are to lie.
    `ownership`: whose exports the destination must hold; None asks nobody.
    """

    inventory: Inventory | None = None
    globs: Globs = EVERYTHING
    allow_missing: bool = False
    allow_shrink: bool = False
    point: bool = True
    keep: Keep = KEEP_ALL
    delete: Most | None = None
    content: Content = Content.STORED
    ownership: Ownership | None = None


class Mirror:
    """One run of the main job into one destination; events tell how far it came, and `version` what it was about."""

    def __init__(self, origin: Origin, destination: Destination, run: Run, wishes: Wishes) -> None:
        self._origin = origin
        self._destination = destination
        self._catalog = destination.catalog
        self._run = run
        self._wishes = wishes
        self._versions = Versions(destination, run)
        self._listing = Listing(destination, run)
        self._presence = Presence(destination.catalog, destination.files, run.clock)
        self._pointing = Pointing(destination, run.clock, run.observe)
        self._place = SharedPlace(destination, run, wishes.delete)
        self._publisher = Publisher(destination, run, allow_missing=wishes.allow_missing)
        self._held_before: dict[int, int] = {}
        self._warned: set[str] = set()
        self._follows = False  # the export is the newest finished one
        self._first: Resolution | None = None  # what SOURCE resolved to already
        self.version: Version | None = None

    async def run(self) -> None:
        """Mirror the export that the origin resolves to, then tidy. Raises as `mirror` does."""
        ownership = self._wishes.ownership
        self._first = await take_over(self._destination, ownership, self._origin.resolve)
        await prepare(self._destination, self._run)
        await self.mirror()
        await Tidy(self._destination, self._run, self._wishes.keep, self._wishes.delete).run()
        if self.version is not None:
            await note_checked(self._destination, self.version, self._run)

    async def mirror(self) -> None:
        """Mirror the export that the origin resolves to; when it changes under the run, list and plan again.

        Raises the RunErrors; Incomplete when files failed: nothing is published then.
        """
        for again in range(REPLANS + 1):
            resolution = await self._resolve(again=again > 0)
            self._run.tally.start_over()
            try:
                await self._mirror(resolution)
            except ExportReplaced as error:
                self._versions.relist_all(resolution.export)
                if again == REPLANS:
                    raise
                self._run.observe(Warned(f"{error}; resolving, listing and planning again"))
            else:
                return

    # --- resolve ---

    async def _resolve(self, *, again: bool) -> Resolution:
        resolution, self._first = self._first or await self._origin.resolve(again=again), None
        export = resolution.export
        self._run.observe(
            Resolved(export.id, export.imodel, export.changeset, export.modified, resolution.newest, resolution.behind)
        )
        self._follows = not resolution.behind or resolution.newest_status != Status.COMPLETE
        if resolution.behind and self._follows:
            self._run.observe(
                Notice(f"the newest export {resolution.newest} is {resolution.newest_status}; mirroring {export.id}")
            )
        return resolution

    async def _mirror(self, resolution: Resolution) -> None:
        export = resolution.export
        choice = choose(of_export(export, self._catalog), export, self._wishes.globs, self._wishes.content)
        version = choice.begun
        if choice.unchanged and choice.held is not None:
            version = await self._looked_at(choice.held)
            if not version.damaged:
                await self._keep(version)
                return
        if self._run.helpers is not None and (export.size or 0) >= MUCH and not self._catalog.versions():
            self._run.helpers.call()  # they start while the container is listed
        await self._fill(version, choice, resolution)

    async def _looked_at(self, version: Version) -> Version:
        """The version, marked damaged when files of it are gone or changed: all are looked at where the pointer has yet
        to come to it, or where one of those that a short look finds is so.
        """
        there = await in_thread(self._destination.files.size, version, ROOT) is not None
        stands = there and await in_thread(self._pointing.stands, version)
        if version.damaged:
            return await self._versions.healed(version)
        if stands or (there and not await in_thread(self._may_point, version)):
            look = await in_thread(self._presence.look, version)
            self._run.tally.looked = look.files
            if look.sound:
                return version
        return await self._versions.healed(version)

    async def _keep(self, version: Version) -> None:
        """Nothing to do but to see that the pointer stands."""
        whole = Totals(version.files, version.bytes, version.files, version.bytes)
        apart = version.globs or version.content is Content.DECODED
        self._listing.count(self._catalog.totals(version) if apart else whole)
        self._run.tally.kept = version.files
        self._run.tally.inventory_complete = True
        self._run.tally.completeness = version.completeness
        self._run.observe(VersionChosen(version.name, "held"))
        await self._point(version)

    async def _fill(self, version: Version | None, choice: Choice, resolution: Resolution) -> None:
        """Bring a version in, begun now or earlier, and publish it; unless what is held turns out to be the same."""
        export = resolution.export
        resumed = version is not None
        if version is None:
            version = await in_thread(self._versions.begin, export, choice.content)
        elif version.published is None and is_stale(version, export):
            version = self._versions.relist(as_said(version, export))
        self._run.observe(VersionChosen(version.name, "continued" if resumed else "begun"))
        if resumed:
            version = self._versions.taken_up(version)
            await self._versions.recheck(version)
            if export.held is not None and version.content is Content.DECODED and version.listed:
                version = self._versions.relist(version)  # a copy lists what lies there, its container what it stores
        self._held_before.setdefault(version.serial, self._catalog.totals(version).held_files)
        source = await self._origin.source(resolution)
        inventory = self._wishes.inventory if export.held is None else Inventory.LIST
        version = await self._versions.prepare(version, source, inventory, choice.globs)
        try:
            await self._bring_in(version, choice, source, resolution)
        except ListingDenied as denied:
            if self._wishes.inventory is not None:
                raise
            self._run.observe(Notice(f"{denied}; walking from {ROOT} instead"))
            version = self._versions.relist(version, inventory=Inventory.WALK)
            try:
                await self._bring_in(version, choice, source, resolution)
            except NotAuthorised as error:
                denied.refusal.hint = error.hint  # the listing is not all that is refused
                raise denied.refusal from None

    async def _bring_in(self, version: Version, choice: Choice, source: Source, resolution: Resolution) -> None:
        """Transfer and publish, unless another version of the same export has the same content."""
        export = resolution.export
        if held := await self._same(choice.alike, version, source):
            await self._tell_of_filters(self._versions.current(version), resolution)
            self._catalog.forget(version)
            held = as_said(held, export) if export.held is None else held
            self._catalog.update(held)
            held = await self._looked_at(held)
            await (self._fill(held, choice, resolution) if held.damaged else self._keep(held))
            return
        await self._transfer(self._versions.current(version), source)
        await self._tell_of_filters(self._versions.current(version), resolution)
        await self._confirm(self._versions.current(version), source)
        version = self._versions.current(version)
        if version.inventory == Inventory.WALK and version.published is None:
            await self._revalidate(version, source)
        await in_thread(self._versions.sweep, version)
        try:
            version = await self._publisher.finish(_as_listed(version, export), lacks=resolution.lacks)
        except Incomplete:
            self._versions.look_again(version)
            raise
        await self._point(version)

    async def _confirm(self, version: Version, source: Source) -> None:
        """All files must lie there as they came before they are published; what vanished meanwhile is fetched again,
        once. Raises Incomplete.
        """
        lost = await self._versions.vanished(version)
        if lost:
            what = f"{files(lost)} of this version vanished or changed under the run"
            self._run.observe(Warned(f"{what}; fetching again"))
            self._run.tally.start_over()
            await self._transfer(version, source)
            lost = await self._versions.vanished(version)
        if lost:
            raise Incomplete(
                f"{files(lost)} vanished or changed under the run, twice; this export was not published",
                hint="find out what else deletes or changes files of DEST; the next run fetches them again",
            )

    async def _revalidate(self, version: Version, source: Source) -> None:
        """A walk took each tileset and subtree as it was when it was asked for: all must be so still."""
        kinds = (Kind.TILESET, Kind.SUBTREE)
        documents = partial(self._catalog.held, version, limit=BATCH, kinds=kinds)
        if changed := await first_changed(source, documents, self._run):
            raise ExportReplaced(f"{changed} changed under the run")

    async def _same(self, alike: Sequence[Version], version: Version, source: Source) -> Version | None:
        """The first of some finished versions that has what a new one would have; None where none has."""
        if version.published is not None or self._catalog.totals(version).held_files:
            return None
        for held in alike:
            if held.serial != version.serial and await self._is_still(held, self._versions.current(version), source):
                return held
        return None

    async def _is_still(self, held: Version, version: Version, source: Source) -> bool:
        """Whether the container has what an earlier version of the same export holds: by its listing, else file by
        file.
        """
        if version.inventory == Inventory.LIST:
            if not version.listed:
                await self._listing.take(version, source, Supply())
            return await in_thread(same_listing, self._versions.current(version), held, self._catalog)
        missing = await in_thread(self._publisher.missing, held)
        return await same_files(held, missing, source, self._catalog, self._run)

    # --- transfer ---

    async def _transfer(self, version: Version, source: Source) -> None:
        """Move what is wanted while the files are still being found. Raises Incomplete when files failed."""
        walks = version.inventory == Inventory.WALK and not version.listed
        if walks:
            await in_thread(self._begin_walk, version)
        if version.listed or version.marker is not None or walks:
            self._listing.count_known(version)
        self._run.tally.inventory_complete = version.listed
        supply = Supply(complete=version.listed)
        unsure = self._catalog.fresh or self._destination.shared  # what lies there, and was never noted
        salvage = unsure and await in_thread(self._versions.lies_somewhere, version)
        transfer = Transfer(version, source, self._destination, self._run, salvage=salvage)
        try:
            await transfer.run(supply, None if walks or version.listed else self._listing.take(version, source, supply))
            if walks and not self._run.tally.failed:
                await self._listing.finish(version)
        except Incomplete:
            self._versions.relist(self._versions.current(version))
            raise
        finally:
            self._run.names.tell(self._run.observe)
            self._tell_undated(source)
            if self._run.tally.inventory_complete:
                held = self._catalog.totals(version).held_files
                self._run.tally.settle(held, held_before=self._held_before[version.serial])
        if self._run.tally.failed:
            raise self._incomplete(version, source)

    async def _tell_of_filters(self, version: Version, resolution: Resolution) -> None:
        """Warn once of globs that match nothing, and of those that leave nothing, where all names are known."""
        if not version.listed:
            return
        own = resolution.export.held.globs if resolution.export.held is not None else EVERYTHING
        given = added(own, self._wishes.globs)
        for sentence in await in_thread(filter_warnings, version, given, self._catalog):
            if sentence not in self._warned:
                self._run.observe(Warned(sentence))
                self._warned.add(sentence)

    def _tell_undated(self, source: Source) -> None:
        if source.undated:
            dates = f"a modification time of {files(source.undated)} that no file can have"
            self._run.observe(Warned(f"the container states {dates}: it is taken for unknown"))

    def _begin_walk(self, version: Version) -> None:
        self._catalog.ask_again(version)
        self._catalog.want(version, ROOT)

    def _incomplete(self, version: Version, source: Source) -> Incomplete:
        """Files failed: the container may not be what was listed."""
        self._versions.look_again(self._versions.current(version))
        what = f"{files(self._run.tally.failed)} failed; this export was not published"
        return Incomplete(what, hint=source.remedy or _remedy(self._run.tally.hints))

    # --- publish ---

    def _may_point(self, version: Version) -> bool:
        pinned = self._pointing.pinned()
        return self._wishes.point and (pinned is None or pinned.serial == version.serial)

    async def _point(self, version: Version) -> None:
        """See that the pointer leads to the version, or to the one that it is pinned to. Raises GuardTripped."""
        self.version, pinned = version, await in_thread(self._pointing.pinned)
        if self._follows:
            self._catalog.remember("newest", version.name)
        if not self._wishes.point:
            self._run.observe(PointerStays(version.name, f"version {version.name} is held; the pointer was left alone"))
            return
        if pinned is not None and pinned.serial != version.serial:
            held = f"version {version.name} is held; the pointer is pinned to {pinned.name}"
            self._run.observe(PointerStays(version.name, f"{held}: {UNPIN}"))
        target = pinned or version
        if await in_thread(self._pointing.stands, target):
            return
        if not self._wishes.allow_shrink and pinned is None:
            guard_against_shrinking(target, await in_thread(self._pointing.named))
        if pinned is not None and (await self._versions.healed(pinned)).damaged:
            self._run.observe(Warned("the pointer stays as it is: it cannot lead to a version that is not whole"))
            return
        await in_thread(self._lead_to, target)

    def _lead_to(self, version: Version) -> None:
        if self._destination.layout is Layout.FLAT:
            self._place.lay_out(version, self._pointing.forget)
        self._pointing.move(version)


def _remedy(hints: set[str]) -> str | None:
    """What helps against the failures of a run: None where another run does, for some of them or all."""
    told = "; ".join(sorted(hints - {""}))
    if not told or "" not in hints:
        return told or None
    return f"{told}; for the others {Incomplete.hint_text}"


def _as_listed(version: Version, export: Export) -> Version:
    """A version that is whole, with the inventory that its manifest tells: a copy was not walked, it says what was."""
    if export.held is None or version.published is not None:
        return version
    return replace(version, inventory=export.held.inventory)
