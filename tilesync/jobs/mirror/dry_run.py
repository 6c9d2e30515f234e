"""The plan of the main job, told instead of done: it is carried out on a copy of the catalog alone."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from dataclasses import dataclass, replace

from tilesync.core.filters import added, keeper
from tilesync.core.guards import guard_against_deleting, guard_against_shrinking
from tilesync.core.manifest import stamp
from tilesync.core.plan import Action, Decision, choose, decide
from tilesync.core.retention import to_retire
from tilesync.core.safe_names import folders_of
from tilesync.errors import DestinationError, GuardTripped, ListingDenied
from tilesync.events import Notice, Planned, Resolved, VersionChosen, Warned
from tilesync.jobs.mirror.all_exports import had, one_by_one
from tilesync.jobs.mirror.dry_run_walk import Desk, Survey
from tilesync.jobs.mirror.filter_warnings import filter_warnings
from tilesync.jobs.mirror.inventory import changed
from tilesync.jobs.mirror.job import Wishes
from tilesync.jobs.mirror.unchanged import same_listing
from tilesync.jobs.run.context import Run
from tilesync.jobs.versions.flat_layout import in_the_way, left_by_others, to_delete
from tilesync.jobs.versions.lifecycle import as_said, begun, changed_since, of_export, proven
from tilesync.jobs.versions.ownership import Resolve
from tilesync.jobs.versions.pointer import named, pinned, stands
from tilesync.jobs.versions.presence import Presence
from tilesync.model import EVERYTHING, ROOT, Blob, Content, Export, Held, Inventory, Layout, Twin, Version
from tilesync.protocols import Catalog, Exports, HeldFiles, Origin, Published, Source
from tilesync.runtime.threads import in_thread

LEFT_OUT = Decision(Action.EXCLUDE, "left out by --include or --exclude")
GONE = "the container does not have it any more"
IN_THE_WAY = "a folder is to stand where it is, or a file where its folder is"
CHANGED_HERE = "it is not as it was left here"
BATCH = 500


@dataclass(frozen=True)
class View:
    """What a preview looks at: a copy of the catalog, what lies there, how names are judged, and a desk for a walk."""

    catalog: Catalog
    files: HeldFiles
    publication: Published
    judge: Callable[[Iterable[str]], None]
    desk: Desk
    layout: Layout


class Preview:
    """Tells what would happen with each file and version, and why. Writes nothing; counts as if it had been done.

    Raises the RunErrors of the service and the container, and UnsafeName. What a guard would stop is a warning.
    """

    def __init__(self, view: View, run: Run, wishes: Wishes) -> None:
        self._view = view
        self._catalog = view.catalog
        self._run = run
        self._wishes = wishes
        self._globs = wishes.globs
        self._listed = False  # the inventory is a listing; else a walk, which tells of its filters itself
        self._why: dict[str, str] = {}  # what was held and is to be fetched again
        self._looks_back = view.layout is Layout.FLAT  # what follows depends on which files would be held

    async def run(self, origin: Origin) -> None:
        """Tell the plan for the export that the origin resolves to."""
        await self._see_owner(origin.resolve)
        self._say_if_lost()
        self._tell_what_follows(await self._plan(origin))

    async def run_all(self, exports: Exports) -> None:
        """Tell the plan for every finished export that is not held yet, oldest first."""
        await self._see_owner(exports.resolve)
        self._say_if_lost()
        self._looks_back = True
        planned: list[Version] = []

        async def plan(export: Export, *, newest: bool) -> None:
            version = await self._plan(exports.origin(export))
            planned.extend([version] if newest else [])

        there = self._catalog, self._view.files, self._wishes, self._run.clock
        await one_by_one(await exports.finished(), plan, lambda export: in_thread(had, export, *there), self._run)
        for version in planned:
            self._tell_what_follows(version)

    async def _see_owner(self, resolve: Resolve) -> None:
        """Raise OtherOwner where a run would."""
        if self._wishes.ownership is not None:
            view = self._view
            await self._wishes.ownership.settle(view.publication, self._catalog, resolve)

    def _say_if_lost(self) -> None:
        if self._catalog.recall("adopted") is None and self._view.publication.manifest_names():
            self._run.observe(
                Notice("the state is not here: a run reads what is held first; this plan counts none of it")
            )

    # --- one export ---

    async def _plan(self, origin: Origin) -> Version:
        resolution = await origin.resolve()
        export, observe = resolution.export, self._run.observe
        self._why.clear()
        observe(
            Resolved(export.id, export.imodel, export.changeset, export.modified, resolution.newest, resolution.behind)
        )
        choice = choose(of_export(export, self._catalog), export, self._wishes.globs, self._wishes.content)
        self._globs = choice.globs
        if choice.unchanged and choice.held is not None:
            damaged = self._has_lost(choice.held) or choice.held.damaged
            observe(VersionChosen(choice.held.name, "continued" if damaged else "held"))
            return self._healed(choice.held) if damaged else self._unchanged(choice.held)
        version = choice.begun
        if version is None:
            version = begun(export, choice.content, self._catalog, self._view.publication, self._run.clock)
        wished = as_said(version, export)
        version = replace(wished, listing=version.listing + 1, listed=False, marker=None, globs=choice.globs)
        self._catalog.update(version)
        source = await origin.source(resolution)
        alike = choice.alike if choice.begun is None else ()
        await self._list(source, version)
        if self._listed:
            own = export.held.globs if export.held is not None else EVERYTHING
            for sentence in filter_warnings(version, added(own, self._wishes.globs), self._catalog):
                observe(Warned(sentence))
        for before in alike:
            if same_listing(version, before, self._catalog):
                self._catalog.forget(version)
                observe(VersionChosen(before.name, "held"))
                return self._unchanged(before)
        observe(VersionChosen(version.name, "continued" if choice.begun else "begun"))
        return self._carried_out(version, alike[0] if alike else None)

    def _has_lost(self, version: Version) -> bool:
        """Whether files of a version are gone; all are looked at where the pointer would have to come to it, or where a
        short look finds one, as a run does.
        """
        files, pin = self._view.files, pinned(self._view.publication, self._catalog)
        there = files.size(version, ROOT) is not None
        may_point = self._wishes.point and (pin is None or pin.serial == version.serial)
        if there and (stands(version, self._view.publication, self._catalog) or not may_point):
            look = Presence(self._catalog, files, self._run.clock).look(version)
            self._run.tally.looked = look.files
            if look.sound:
                return False
        self._run.tally.looked = version.files
        after, lost = "", False
        while batch := self._catalog.held(version, after, limit=BATCH):
            after = batch[-1][0]
            gone = [held.blob.name for held in self._lost(version, [held for _, held in batch])]
            self._catalog.release(version, gone)
            lost = lost or bool(gone)
        return lost

    def _unchanged(self, version: Version) -> Version:
        totals, tally = self._catalog.totals(version), self._run.tally
        tally.kept, tally.excluded, tally.listed = version.files, totals.excluded, version.files + totals.excluded
        reason = f"unchanged: all {version.files} files are held"
        self._run.observe(Planned(Action.KEEP.value, version.name, version.bytes, reason))
        return version

    def _healed(self, version: Version) -> Version:
        totals, tally = self._catalog.totals(version), self._run.tally
        tally.kept, tally.excluded = totals.held_files, totals.excluded
        tally.listed = tally.kept + tally.excluded
        return self._carried_out(version, None)

    async def _list(self, source: Source, version: Version) -> None:
        """Take in the inventory; what is kept or left out is told as it passes."""
        keeps = keeper(self._globs)
        async for blobs in self._pages(source):
            names = [blob.name for blob in blobs if keeps(blob.name)]
            self._view.judge(names)
            known = self._catalog.held_among(version, names)
            sound = known.keys() - {held.blob.name for held in self._lost(version, list(known.values()))}
            self._why.update((name, CHANGED_HERE) for name in known.keys() - sound)
            known = {name: known[name] for name in sound}
            rows = [(blob, None if changed(blob, known.get(blob.name)) else known[blob.name]) for blob in blobs]
            self._catalog.add_page(version, rows, folders_of(names))
            self._run.names.look(names)
            for blob, held in rows:
                if not keeps(blob.name):
                    self._tell(blob, LEFT_OUT)
                elif held is not None:
                    self._tell(blob, decide(blob, known[blob.name]))
                elif blob.name in known:
                    self._why[blob.name] = decide(blob, known[blob.name]).reason
        self._catalog.finish_listing(version)
        self._run.names.tell(self._run.observe)

    async def _pages(self, source: Source) -> AsyncIterator[Sequence[Blob]]:
        """The blobs of the container by its listing, or where that is denied, or not wished for, by a walk."""
        wished, self._listed = self._wishes.inventory, False
        if wished is Inventory.LIST or (wished is None and await source.listable()):
            try:
                async for page in source.pages(None):
                    yield page.blobs
                self._listed = True
                return
            except ListingDenied as denied:
                if wished is not None:
                    raise
                self._run.observe(Notice(f"{denied}; walking from {ROOT} instead"))
        self._run.observe(
            Notice("a walk: what the contents name themselves (textures, buffers) is found when they are fetched")
        )
        async for blob in Survey(source, self._view.desk, self._run, self._globs).blobs():
            yield [blob]

    def _carried_out(self, version: Version, before: Version | None) -> Version:
        """Tell what becomes of all that is wanted, and record it as held. `before` is what it is compared with."""
        for empty in (False, True):
            after = 0
            while batch := self._catalog.wanted(version, after, limit=BATCH, empty=empty):
                after = batch[-1][0]
                self._decide(version, [blob for _, blob in batch], before)
        if self._looks_back:
            self._catalog.suppose(version)
        totals = self._catalog.totals(version)
        finished = version.published or stamp(self._run.clock.now())
        version = replace(version, published=finished, damaged=False, files=totals.files, bytes=totals.bytes)
        self._catalog.update(version)
        return version

    def _decide(self, version: Version, blobs: Sequence[Blob], before: Version | None) -> None:
        twins = self._catalog.twins.by_digest(version, blobs)
        known = self._catalog.held_among(before, [blob.name for blob in blobs]) if before is not None else {}
        for blob in blobs:
            twin = next(filter(self._is_there, twins.get(blob.name, ())), None)
            if twin is None and blob.name in twins:
                every = self._catalog.twins.by_digest(version, [blob], every=True)
                twin = next(filter(self._is_there, every.get(blob.name, ())), None)
            if twin is not None:
                self._tell(blob, _reuse(blob, twin))
                continue
            decision = decide(blob, known.get(blob.name))
            reason = decision.reason if decision.action is Action.FETCH else "no MD5 to share it by"
            self._tell(blob, Decision(Action.FETCH, self._why.get(blob.name, reason)))

    def _is_there(self, twin: Twin) -> bool:
        """Whether the file would be shared: it is as it was left, or would be there by this very plan."""
        held, files = twin.held, self._view.files
        if not held.mtime_ns and not held.inode:
            return True
        try:
            same = files.unchanged(twin.version, [held]) == [True]
            trace = files.trace(twin.version, held.blob.name)
            inode = trace is not None and trace.inode == held.inode
            return same and (inode or files.digest(twin.version, held.blob.name) == held.sha256)
        except DestinationError:
            return False

    def _lost(self, version: Version, held: Sequence[Held]) -> list[Held]:
        """Those that a run would not keep."""
        doubtful = changed_since(version, held, self._view.files)
        sound = {each.blob.name for each in proven(version, doubtful, self._view.files)}
        return [each for each in doubtful if each.blob.name not in sound]

    def _tell(self, blob: Blob, decision: Decision) -> None:
        tally = self._run.tally
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
        if self._run.every_file:
            self._run.observe(Planned(decision.action.value, blob.name, blob.size, decision.reason))

    # --- what follows ---

    def _tell_what_follows(self, version: Version) -> None:
        """Tell what the guards would say, and which files or versions would go."""
        current, pin = named(self._view.publication, self._catalog), pinned(self._view.publication, self._catalog)
        if pin is not None and pin.serial != version.serial:
            self._run.observe(Notice(f"the pointer is pinned to version {pin.name}, and stays there"))
        try:
            if self._wishes.point and pin is None and not self._wishes.allow_shrink:
                guard_against_shrinking(version, self._as_stored(current))
            if self._view.layout is Layout.FLAT:
                self._tell_deletions(version)
        except GuardTripped as error:
            self._run.observe(Warned(f"the run would stop: {error}"))
        self._tell_retirements(pin or (version if self._wishes.point else current), current)

    def _as_stored(self, version: Version | None) -> Version | None:
        """The version with the bytes that its container stores: what a file unpacks to is known when it is there."""
        if version is None or version.content is Content.STORED:
            return version
        return replace(version, bytes=self._catalog.totals(version).bytes)

    def _tell_deletions(self, version: Version) -> None:
        obstacles = set()
        for left in left_by_others(version, self._catalog):
            if in_the_way(version, left.held, self._catalog):
                obstacles.add(left.held.blob.name)
                self._tell_deletion(left.held, IN_THE_WAY)
        if self._wishes.delete is None:
            return
        count = 0
        for held in to_delete(version, self._catalog, self._view.files):
            count += 1
            if held.blob.name not in obstacles:
                self._tell_deletion(held, GONE)
        guard_against_deleting(count, self._wishes.delete, of=version.files + count)

    def _tell_deletion(self, held: Held, reason: str) -> None:
        self._run.tally.deleted += 1
        self._run.observe(Planned(Action.DELETE.value, held.blob.name, held.size, reason))

    def _tell_retirements(self, current: Version | None, before: Version | None) -> None:
        now = self._run.clock.now()
        if before is not None and current is not None and before.serial != current.serial:
            self._catalog.update(replace(before, left=stamp(now)))
        spared = {current.name} if current is not None else set()
        for version, reason in to_retire(self._catalog.versions(), self._wishes.keep, now, spared):
            size = version.bytes if version.published else self._catalog.totals(version).held_bytes
            self._run.observe(Planned(Action.RETIRE.value, version.name, size, reason))


def _reuse(blob: Blob, twin: Twin) -> Decision:
    name = twin.held.blob.name
    return Decision(
        Action.REUSE, f"version {twin.version.name} has it" + (f" as {name}" if name != blob.name else ", same MD5")
    )
