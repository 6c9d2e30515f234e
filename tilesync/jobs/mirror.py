"""The main job: resolve, list, plan, transfer, publish, tidy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from typing import Any

from tilesync.errors import DiskFull, ExportReplaced, Incomplete, ListingDenied, NotAuthorised
from tilesync.events import Notice, PageListed, Resolved, VersionChosen, Warned
from tilesync.jobs.adopt import adopt
from tilesync.jobs.publish import Publisher
from tilesync.jobs.revalidate import first_appeared, first_changed
from tilesync.jobs.run import Run
from tilesync.jobs.transfer import Supply, Transfer
from tilesync.model import EVERYTHING, ROOT, Blob, Export, Globs, Held, Inventory, Page, Resolution, Totals, Version
from tilesync.protocols import Destination, Origin, Source
from tilesync.rules.filters import keeper
from tilesync.rules.names import folders, next_version
from tilesync.rules.plan import Action, choose, decide
from tilesync.threads import in_thread

REPLANS = 2
"""How often a run lists and plans again because the export changed under it."""

BATCH = 2000


@dataclass(frozen=True)
class Wishes:
    """What one run of the main job is asked to do. `inventory`: None lists where that is allowed, and else walks."""

    inventory: Inventory | None = None
    globs: Globs = EVERYTHING
    allow_missing: bool = False
    allow_shrink: bool = False


class Mirror:
    """One run of the main job into one destination; events tell how far it came."""

    def __init__(self, origin: Origin, destination: Destination, run: Run, wishes: Wishes) -> None:
        self._origin = origin
        self._destination = destination
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._inventory = wishes.inventory
        self._globs = wishes.globs
        self._keeps = keeper(wishes.globs)
        self._publisher = Publisher(
            destination, run, allow_missing=wishes.allow_missing, allow_shrink=wishes.allow_shrink
        )
        self._held_before: dict[int, int] = {}

    async def run(self) -> None:
        """Mirror the export that the origin resolves to; when it changes under the run, list and plan again.

        Raises the RunErrors; Incomplete when files failed: nothing is published then.
        """
        if self._catalog.recall("adopted") is None:
            await in_thread(adopt, self._destination, self._run.observe)
        for again in range(REPLANS + 1):
            resolution = await self._resolve(again=again > 0)
            self._run.tally.start_over()
            try:
                await self._mirror(resolution)
            except ExportReplaced as error:
                await self._replan(resolution.export)
                if again == REPLANS:
                    raise
                self._run.observe(Warned(f"{error}; resolving, listing and planning again"))
            else:
                return

    # --- resolve ---

    async def _resolve(self, *, again: bool) -> Resolution:
        resolution = await self._origin.resolve(again=again)
        export = resolution.export
        self._run.observe(
            Resolved(export.id, export.imodel, export.changeset, export.modified, resolution.newest, resolution.behind)
        )
        if resolution.behind:
            self._run.observe(
                Notice(f"the newest export {resolution.newest} is {resolution.newest_status}; mirroring {export.id}")
            )
        return resolution

    async def _replan(self, export: Export) -> None:
        """The export changed: what was listed of it is stale, what was fetched is judged anew.

        A published version is never touched: what could not be healed from the changed export becomes another version.
        """
        for version in self._catalog.versions(export=export.id):
            if version.published is None:
                self._relisted(version)
            else:
                self._catalog.update(replace(version, modified=""))

    async def _mirror(self, resolution: Resolution) -> None:
        export = resolution.export
        choice = choose(self._catalog.versions(export=export.id), export, self._globs)
        version = choice.begun
        if choice.unchanged and choice.held is not None:
            version = await self._healed(choice.held)
            if not version.damaged:
                await self._keep(version)
                return
        await self._fill(version, choice.held, resolution)

    async def _healed(self, version: Version) -> Version:
        """The version, marked damaged when files of it are gone. Looked at where the pointer does not stand on it."""
        there = self._files.size(version, ROOT) is not None
        if version.damaged or (there and await in_thread(self._publisher.stands, version)):
            return version
        await self._recheck(version, read=False)
        lost = version.files - self._catalog.totals(version).held_files
        if lost:
            self._run.observe(
                Warned(f"{lost} files of version {version.name} are gone or changed; fetching them again")
            )
            version = replace(version, damaged=True)
            self._catalog.update(version)
        return version

    async def _keep(self, version: Version) -> None:
        """Nothing to do but to see that the pointer stands."""
        self._count(self._catalog.totals(version))
        self._run.tally.kept = version.files
        self._run.tally.inventory_complete = True
        self._run.tally.completeness = version.completeness
        self._run.observe(VersionChosen(version.name, "held"))
        if not await in_thread(self._publisher.stands, version):
            await in_thread(self._publisher.point, version)

    async def _fill(self, version: Version | None, held: Version | None, resolution: Resolution) -> None:
        """Bring a version in, begun now or earlier, and publish it; unless what is held turns out to be the same."""
        export = resolution.export
        resumed = version is not None
        if version is None:
            version = self._catalog.begin(self._new_version(export))
        elif version.published is None and version.modified != export.modified:
            version = self._relisted(version, modified=export.modified, record=export.record)
        self._run.observe(VersionChosen(version.name, "continued" if resumed else "begun"))
        if resumed:
            await self._recheck(version, read=not self._destination.calm)
        self._destination.settle()
        self._held_before.setdefault(version.serial, self._catalog.totals(version).held_files)
        source = await self._origin.source(resolution)
        version = await self._prepared(version, source)
        try:
            await self._bring_in(version, held, source, export)
        except ListingDenied as denied:
            if self._inventory is not None:
                raise
            self._run.observe(Notice(f"{denied}; walking from {ROOT} instead"))
            version = self._relisted(version, inventory=Inventory.WALK)
            try:
                await self._bring_in(version, held, source, export)
            except NotAuthorised:
                raise denied.refusal from None

    async def _prepared(self, version: Version, source: Source) -> Version:
        """The version with the way in which its files are found, and a new listing where the one begun cannot go on."""
        inventory = self._inventory
        if inventory is None and version.inventory == Inventory.LIST and not await source.listable():
            inventory = Inventory.WALK
        inventory = inventory or Inventory(version.inventory)
        home = await source.home()
        lost = inventory == Inventory.LIST and not version.listed and version.marker is None
        other = version.published is None and (inventory, self._globs) != (version.inventory, version.globs)
        if other or (lost and self._catalog.totals(version).files):
            version = self._relisted(version)
        if version.published is None:
            if version.globs != self._globs:
                await in_thread(self._leave_out, version)
            version = replace(version, inventory=inventory, home=home, globs=self._globs)
            self._catalog.update(version)
        return version

    def _leave_out(self, version: Version) -> None:
        """Remove what an earlier run brought in with other globs."""
        after = ""
        while batch := self._catalog.held(version, after, limit=BATCH):
            after = batch[-1][0]
            names = [held.blob.name for _, held in batch if not self._keeps(held.blob.name)]
            self._files.remove(version, names)
            self._catalog.release(version, names)

    async def _bring_in(self, version: Version, held: Version | None, source: Source, export: Export) -> None:
        """Transfer and publish, unless `held`, another version of the same export, has the same content."""
        new = held is not None and held.serial != version.serial and not self._catalog.totals(version).held_files
        if held is not None and new and await self._is_still(held, version, source):
            self._catalog.forget(version)
            held = replace(held, modified=export.modified, record=export.record)
            self._catalog.update(held)
            await self._keep(held)
            return
        await self._transfer(self._current(version), source)
        version = self._current(version)
        if version.inventory == Inventory.WALK and version.published is None:
            await self._revalidate(version, source)
        try:
            await self._publisher.publish(version)
        except Incomplete:
            self._look_again(version)
            raise

    async def _revalidate(self, version: Version, source: Source) -> None:
        """A walk took each tileset and subtree as it was when it was asked for: all must be so still."""
        if changed := await first_changed(source, partial(self._catalog.documents, version, limit=BATCH), self._run):
            raise ExportReplaced(f"{changed} changed under the run")

    def _look_again(self, version: Version) -> None:
        """What is not whole is looked for anew by the next run; a walk asks for what it did not get."""
        if version.published is None and version.inventory == Inventory.LIST:
            self._relisted(version)
        elif version.published is None:
            self._catalog.update(replace(version, listed=False))

    async def _is_still(self, held: Version, version: Version, source: Source) -> bool:
        """Whether the container has what an earlier version of the same export holds: by its listing, else file by
        file.
        """
        if version.inventory == Inventory.LIST:
            if not version.listed:
                await self._list(version, source, Supply())
            return await in_thread(self._same_content, self._current(version), held)
        if held.damaged:
            return False
        batches = partial(self._catalog.held, held, limit=BATCH)
        if await first_changed(source, batches, self._run) is not None:
            return False
        missing = await in_thread(self._publisher.missing, held)
        return await first_appeared(source, missing, self._run) is None

    def _current(self, version: Version) -> Version:
        """The version as the catalog knows it now."""
        return self._catalog.versions(name=version.name)[0]

    def _new_version(self, export: Export) -> Version:
        taken = {v.name for v in self._catalog.versions()} | set(self._destination.publication.manifest_names())
        name = next_version(export.id, taken)
        return Version(0, name, export.id, export.imodel, export.changeset, export.modified, export.record)

    async def _recheck(self, version: Version, *, read: bool) -> None:
        """Look whether what the catalog says is held still is; read it all when the machine restarted since."""
        if read and (held := self._catalog.totals(version).held_files):
            self._run.observe(Notice(f"the machine restarted since the last run: reading {held} files again"))
        after = ""
        while batch := await in_thread(self._catalog.held, version, after, limit=BATCH):
            after = batch[-1][0]
            gone = await in_thread(self._lost, version, batch, read=read)
            if gone:
                self._catalog.release(version, gone)
            self._run.tally.verified += len(batch) - len(gone) if read else 0

    def _lost(self, version: Version, batch: list[tuple[str, Held]], *, read: bool) -> list[str]:
        if not read:
            sound = self._files.unchanged(version, [held for _, held in batch])
            return [held.blob.name for (_, held), ok in zip(batch, sound, strict=True) if not ok]
        found = ((held, self._files.digest(version, held.blob.name)) for _, held in batch)
        return [held.blob.name for held, digest in found if digest != held.sha256]

    def _same_content(self, version: Version, held: Version) -> bool:
        """Whether the listing just made describes exactly what an earlier version of the same export holds."""
        totals = self._catalog.totals(version)
        if totals.files != held.files or totals.bytes != held.bytes:
            return False
        after = 0
        for empty in (False, True):
            while batch := self._catalog.wanted(version, after, limit=BATCH, empty=empty):
                after = batch[-1][0]
                known = self._catalog.held_among(held, [blob.name for _, blob in batch])
                if any(_changed(blob, known.get(blob.name)) for _, blob in batch):
                    return False
            after = 0
        return True

    # --- list, plan ---

    async def _list(self, version: Version, source: Source, supply: Supply) -> None:
        """Take in the inventory page by page, each judged before the first write of it."""
        earlier = version.listing > 1
        async for page in source.pages(version.marker):
            self._files.judge(blob.name for blob in page.blobs if self._keeps(blob.name))
            version = replace(version, marker=page.marker)
            await in_thread(self._take_in, version, page, compare=earlier)
            self._run.observe(PageListed(self._run.tally.listed, self._run.tally.listed_bytes, complete=False))
            supply.add()
        await self._finish_listing(version)
        supply.add(complete=True)

    async def _finish_listing(self, version: Version) -> None:
        """All files are known; those of an earlier listing that are none of them leave the version."""
        dropped = await in_thread(self._catalog.finish_listing, version)
        await in_thread(self._files.remove, version, dropped)
        self._count(self._catalog.totals(version))
        self._run.tally.inventory_complete = True
        self._run.observe(PageListed(self._run.tally.listed, self._run.tally.listed_bytes, complete=True))

    def _take_in(self, version: Version, page: Page, *, compare: bool) -> None:
        known = self._catalog.held_among(version, [blob.name for blob in page.blobs]) if compare else {}
        rows = [(blob, None if _changed(blob, held := known.get(blob.name)) else held) for blob in page.blobs]
        lacking = [blob for blob, held in rows if held is None and self._keeps(blob.name)]
        reusable = self._catalog.twins.by_md5(version, lacking)
        wanted = sum(blob.size for blob in lacking if blob.name not in reusable)
        self._judge_room(wanted)
        self._catalog.add_page(version, rows, {folder for blob in page.blobs for folder in folders(blob.name)})
        kept = [held for blob, held in rows if self._keeps(blob.name)]
        self._run.tally.listed += len(rows)
        self._run.tally.listed_bytes += sum(blob.size for blob in page.blobs)
        self._run.tally.planned_bytes += wanted
        self._run.tally.kept += sum(held is not None for held in kept)
        self._run.tally.excluded += len(rows) - len(kept)

    def _judge_room(self, more: int) -> None:
        free = self._files.free()
        missing = self._run.tally.planned_bytes - self._run.tally.bytes + more
        if free is not None and missing > free:
            raise DiskFull(
                f"not enough disk space: the files listed so far need {missing:,} bytes more, {free:,} are free"
            )

    # --- transfer ---

    async def _transfer(self, version: Version, source: Source) -> None:
        """Move what is wanted while the files are still being found. Raises Incomplete when files failed."""
        walks = version.inventory == Inventory.WALK and not version.listed
        if walks:
            await in_thread(self._begin_walk, version)
        if version.listed or version.marker is not None or walks:
            self._count_what_is_known(version)
        self._run.tally.inventory_complete = version.listed
        supply = Supply(complete=version.listed)
        transfer = Transfer(version, source, self._destination, self._run, salvage=self._catalog.fresh)
        try:
            await transfer.run(supply, None if walks or version.listed else self._list(version, source, supply))
            if walks and not self._run.tally.failed:
                await self._finish_listing(version)
        except Incomplete:
            self._relisted(self._current(version))
            raise
        finally:
            if self._run.tally.inventory_complete:
                held = self._catalog.totals(version).held_files
                self._run.tally.settle(held, held_before=self._held_before[version.serial])
        if self._run.tally.failed:
            raise self._incomplete(version)

    def _begin_walk(self, version: Version) -> None:
        self._catalog.ask_again(version)
        self._catalog.want(version, ROOT)

    def _count_what_is_known(self, version: Version) -> None:
        totals, tally = self._catalog.totals(version), self._run.tally
        self._count(totals)
        tally.kept = totals.held_files
        reusable = self._catalog.twins.bytes_of_wanted(version)
        tally.planned_bytes = tally.bytes + totals.bytes - totals.held_bytes - reusable
        self._judge_room(0)

    def _count(self, totals: Totals) -> None:
        tally = self._run.tally
        tally.listed, tally.listed_bytes = totals.files + totals.excluded, totals.bytes + totals.excluded_bytes
        tally.excluded = totals.excluded

    def _incomplete(self, version: Version) -> Incomplete:
        """Files failed: the container may not be what was listed."""
        self._look_again(self._current(version))
        count = self._run.tally.failed
        return Incomplete(f"{count} {'file' if count == 1 else 'files'} failed; nothing was published")

    def _relisted(self, version: Version, **changes: Any) -> Version:
        """The version with a new listing ahead of it; what is held stays until that listing judges it."""
        version = replace(version, listing=version.listing + 1, listed=False, marker=None, **changes)
        self._catalog.update(version)
        return version


def _changed(blob: Blob, held: Held | None) -> bool:
    return decide(blob, held).action is not Action.KEEP
