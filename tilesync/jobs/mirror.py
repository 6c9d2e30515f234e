"""The main job: resolve, list, plan, transfer, publish, tidy."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from tilesync.errors import DiskFull, ExportReplaced, GuardTripped, Incomplete
from tilesync.events import Notice, PageListed, Published, Resolved, VersionChosen, Warned
from tilesync.jobs.adopt import adopt
from tilesync.jobs.run import Run
from tilesync.jobs.transfer import Supply, Transfer
from tilesync.model import ROOT, Blob, Export, Held, Page, Resolution, Totals, Version
from tilesync.protocols import Destination, Origin, Source
from tilesync.rules.manifest import header, line, stamp
from tilesync.rules.names import folders, next_version
from tilesync.rules.plan import Action, choose, decide
from tilesync.rules.tilesets import rebase
from tilesync.threads import in_thread

REPLANS = 2
"""How often a run lists and plans again because the export changed under it."""

BATCH = 2000


class Mirror:
    """One run of the main job into one destination; events tell how far it came."""

    def __init__(self, origin: Origin, destination: Destination, run: Run, *, allow_shrink: bool = False) -> None:
        self._origin = origin
        self._destination = destination
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._allow_shrink = allow_shrink
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
            self._catalog.update(_relisted(version) if version.published is None else replace(version, modified=""))

    async def _mirror(self, resolution: Resolution) -> None:
        export = resolution.export
        choice = choose(self._catalog.versions(export=export.id), export)
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
        if version.damaged or (there and await in_thread(self._stands, version)):
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
        self._run.tally.listed = self._run.tally.kept = version.files
        self._run.tally.listed_bytes = version.bytes
        self._run.tally.inventory_complete = True
        self._run.observe(VersionChosen(version.name, "held"))
        if not await in_thread(self._stands, version):
            await in_thread(self._point, version)

    async def _fill(self, version: Version | None, held: Version | None, resolution: Resolution) -> None:
        export = resolution.export
        resumed = version is not None
        if version is None:
            version = self._catalog.begin(self._new_version(export))
        elif version.published is None and version.modified != export.modified:
            version = _relisted(version, modified=export.modified, record=export.record)
            self._catalog.update(version)
        self._run.observe(VersionChosen(version.name, "continued" if resumed else "begun"))
        if resumed:
            await self._recheck(version, read=not self._destination.calm)
        self._destination.settle()
        if not version.listed and version.marker is None and self._catalog.totals(version).files:
            version = _relisted(version)
            self._catalog.update(version)
        self._held_before.setdefault(version.serial, self._catalog.totals(version).held_files)
        source = await self._origin.source(resolution)
        if held is not None and held.serial != version.serial and not self._catalog.totals(version).held_files:
            if not version.listed:
                await self._list(version, source, Supply())
            version = self._catalog.versions(name=version.name)[0]
            if await in_thread(self._same_content, version, held):
                self._catalog.forget(version)
                held = replace(held, modified=export.modified, record=export.record)
                self._catalog.update(held)
                await self._keep(held)
                return
        await self._transfer(version, source)
        await self._publish(self._catalog.versions(name=version.name)[0])

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
        return [held.blob.name for held, digest in found if digest is None or digest[0] != held.sha256]

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
            self._files.judge(blob.name for blob in page.blobs)
            version = replace(version, marker=page.marker)
            await in_thread(self._take_in, version, page, compare=earlier)
            self._run.observe(PageListed(self._run.tally.listed, self._run.tally.listed_bytes, complete=False))
            supply.add()
        dropped = await in_thread(self._catalog.finish_listing, version)
        await in_thread(self._files.remove, version, dropped)
        totals = self._catalog.totals(version)
        self._run.tally.listed, self._run.tally.listed_bytes = totals.files, totals.bytes
        self._run.tally.inventory_complete = True
        self._run.observe(PageListed(totals.files, totals.bytes, complete=True))
        supply.add(complete=True)

    def _take_in(self, version: Version, page: Page, *, compare: bool) -> None:
        known = self._catalog.held_among(version, [blob.name for blob in page.blobs]) if compare else {}
        rows = [(blob, None if _changed(blob, held := known.get(blob.name)) else held) for blob in page.blobs]
        wanted = sum(blob.size for blob, held in rows if held is None)
        self._judge_room(wanted)
        self._catalog.add_page(version, rows, {folder for blob in page.blobs for folder in folders(blob.name)})
        self._run.tally.listed += len(rows)
        self._run.tally.listed_bytes += sum(blob.size for blob in page.blobs)
        self._run.tally.planned_bytes += wanted
        self._run.tally.kept += sum(held is not None for _, held in rows)

    def _judge_room(self, more: int) -> None:
        free = self._files.free()
        missing = self._run.tally.planned_bytes - self._run.tally.bytes + more
        if free is not None and missing > free:
            raise DiskFull(
                f"not enough disk space: the files listed so far need {missing:,} bytes more, {free:,} are free"
            )

    # --- transfer ---

    async def _transfer(self, version: Version, source: Source) -> None:
        """List what is not listed yet and move what is wanted, side by side. Raises Incomplete when files failed."""
        if version.listed or version.marker is not None:
            totals = self._catalog.totals(version)
            self._run.tally.listed, self._run.tally.listed_bytes = totals.files, totals.bytes
            self._run.tally.kept = totals.held_files
            self._run.tally.planned_bytes = self._run.tally.bytes + totals.bytes - totals.held_bytes
            self._judge_room(0)
        self._run.tally.inventory_complete = version.listed
        supply = Supply(complete=version.listed)
        transfer = Transfer(version, source, self._destination, self._run, salvage=self._catalog.fresh)
        try:
            await transfer.run(supply, None if version.listed else self._list(version, source, supply))
        except Incomplete:
            self._relist(version)
            raise
        finally:
            if self._run.tally.inventory_complete:
                held = self._catalog.totals(version).held_files
                self._run.tally.settle(held, held_before=self._held_before[version.serial])
        if self._run.tally.failed:
            raise self._incomplete(version)

    def _incomplete(self, version: Version) -> Incomplete:
        """Files failed: the next run lists anew, since the container may not be what was listed."""
        if version.published is None:
            self._relist(version)
        count = self._run.tally.failed
        return Incomplete(f"{count} {'file' if count == 1 else 'files'} failed; nothing was published")

    def _relist(self, version: Version) -> None:
        self._catalog.update(_relisted(self._catalog.versions(name=version.name)[0]))

    # --- publish, tidy ---

    async def _publish(self, version: Version) -> None:
        totals = self._catalog.totals(version)
        if totals.held_files != totals.files:
            raise Incomplete(f"{totals.files - totals.held_files} files are missing; nothing was published")
        if self._files.size(version, ROOT) is None:
            self._relist(version)
            raise Incomplete(
                f"the container has no {ROOT}: what it holds is no mesh export, or not a whole one",
                hint="nothing was published; is this the container of a 3D Tiles export?",
            )
        self._guard_against_shrinking(version, totals)
        version = replace(
            version, published=stamp(self._run.clock.now()), damaged=False, files=totals.files, bytes=totals.bytes
        )
        await in_thread(self._point, version)

    def _guard_against_shrinking(self, version: Version, totals: Totals) -> None:
        """Raise GuardTripped for an export with under half the files or bytes of the one that is published."""
        latest = self._destination.publication.latest() or {}
        current = next(iter(self._catalog.versions(name=str(latest.get("version")))), None)
        if current is None or current.serial == version.serial or self._allow_shrink:
            return
        if totals.files * 2 < current.files or totals.bytes * 2 < current.bytes:
            raise GuardTripped(
                f"version {version.name} has {totals.files:,} files of {totals.bytes:,} bytes, under half of what is"
                f" published ({current.files:,} files of {current.bytes:,} bytes)",
                hint="nothing was published; look at the export, and run again with --allow-shrink if it is right",
            )

    def _point(self, version: Version) -> None:
        """Publish: files durable, manifest, pointer, latest.json, symlink; then the catalog knows."""
        publication = self._destination.publication
        pointer = pointer_to(version, self._files.read(version, ROOT))
        moved = not publication.points_at(version, hashlib.sha256(pointer).hexdigest())
        sha256 = publication.write_manifest(version, self._manifest(version))
        publication.point_at(version, pointer, _latest(version))
        version = replace(version, manifest_sha256=sha256)
        self._catalog.update(version)
        self._catalog.remember("pointer", hashlib.sha256(pointer).hexdigest())
        self._files.tidy()
        if moved:
            self._run.observe(Published(version.name, version.files, version.bytes))

    def _stands(self, version: Version) -> bool:
        known = self._catalog.recall("pointer")
        publication = self._destination.publication
        return known is not None and publication.points_at(version, known) and publication.complete(version)

    def _manifest(self, version: Version) -> Iterator[Mapping[str, Any]]:
        yield header(version)
        after = ""
        while batch := self._catalog.held(version, after, limit=BATCH):
            after = batch[-1][0]
            yield from (line(held) for _, held in batch)


def _changed(blob: Blob, held: Held | None) -> bool:
    return decide(blob, held).action is not Action.KEEP


def _relisted(version: Version, **changes: Any) -> Version:
    """The version with a new listing ahead of it; what is held stays until that listing judges it."""
    return replace(version, listing=version.listing + 1, listed=False, marker=None, **changes)


def pointer_to(version: Version, root: bytes) -> bytes:
    """The pointer: the real root document of a version with its URIs re-based, so that it can stand at the top."""
    return rebase(root, f"versions/{version.name}/")


def _latest(version: Version) -> dict[str, Any]:
    return {
        "version": version.name,
        "export": version.export,
        "imodel": version.imodel,
        "changeset": version.changeset,
        "finished": version.published,
        "tileset": f"versions/{version.name}/{ROOT}",
        "manifest": f"manifests/{version.name}.jsonl",
    }
