"""The versions of a destination while a run works on them: begun, prepared, looked at again, listed anew."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from tilesync.core.filters import keeper
from tilesync.core.manifest import stamp
from tilesync.core.safe_names import next_version
from tilesync.core.wording import files
from tilesync.errors import UnsafeName
from tilesync.events import Notice, Warned
from tilesync.jobs.run.context import Run
from tilesync.model import Content, Export, Globs, Held, Inventory, Version
from tilesync.protocols import Catalog, Clock, Destination, HeldFiles, Published, Source
from tilesync.runtime.threads import in_thread

BATCH = 2000

PLACE = "listed at {}"
"""Under which key the catalog keeps where the listing of a version on its way in comes from."""


class Versions:
    """What one run does to the versions of one destination, apart from moving files into them."""

    def __init__(self, destination: Destination, run: Run) -> None:
        self._destination = destination
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run

    def begin(self, export: Export, content: Content) -> Version:
        """A new version of an export, under a name that none had before."""
        version = begun(export, content, self._catalog, self._destination.publication, self._run.clock)
        if self.lies_somewhere(version):  # of a state that was lost
            self._catalog.remember(f"sweep {version.name}", "yes")
        return version

    def lies_somewhere(self, version: Version) -> bool:
        """Whether its place holds any file."""
        return next(self._files.names(version), None) is not None

    def taken_up(self, version: Version) -> Version:
        """The version, on its way in again."""
        version = replace(version, begun=stamp(self._run.clock.now()))
        self._catalog.update(version)
        return version

    def current(self, version: Version) -> Version:
        """The version as the catalog knows it now."""
        return self._catalog.versions(name=version.name)[0]

    def relist(self, version: Version, **changes: Any) -> Version:
        """The version with a new listing ahead of it; what is held stays until that listing judges it."""
        version = replace(version, listing=version.listing + 1, listed=False, marker=None, **changes)
        self._catalog.update(version)
        return version

    def relist_all(self, export: Export) -> None:
        """The export changed: what was listed of it is stale, what was fetched is judged anew.

        A published version is never touched: what could not be healed from the changed export becomes another version.
        """
        for version in self._catalog.versions(export=export.id):
            if version.published is None:
                self.relist(version)
            else:
                self._catalog.update(replace(version, modified=""))

    def look_again(self, version: Version) -> None:
        """What is not whole is looked for anew by the next run; a walk asks for what it did not get."""
        if version.published is None and version.inventory == Inventory.LIST:
            self.relist(version)
        elif version.published is None:
            self._catalog.update(replace(version, listed=False))

    async def prepare(self, version: Version, source: Source, inventory: Inventory | None, globs: Globs) -> Version:
        """The version with the way in which its files are found, and a new listing where the one begun cannot go on."""
        if inventory is None and version.inventory == Inventory.LIST and not await source.listable():
            inventory = Inventory.WALK
        inventory = inventory or Inventory(version.inventory)
        home = await source.home()
        lost = inventory == Inventory.LIST and not version.listed and version.marker is None
        other = version.published is None and (inventory, globs) != (version.inventory, version.globs)
        moved = version.published is None and source.place != listed_at(version, self._catalog)
        some = version.listed or version.marker is not None or self._catalog.totals(version).files > 0
        if other or ((lost or moved) and some):
            version = self.relist(version)
        if moved:
            self._catalog.remember(PLACE.format(version.name), source.place)
        if version.published is None:
            if version.globs != globs:
                self._catalog.remember(f"sweep {version.name}", "yes")
                await in_thread(self._leave_out, version, globs)
            version = replace(version, inventory=inventory, home=home, globs=globs)
            self._catalog.update(version)
        return version

    def _leave_out(self, version: Version, globs: Globs) -> None:
        """Remove what an earlier run brought in with other globs."""
        keeps, after = keeper(globs), ""
        while batch := self._catalog.held(version, after, limit=BATCH):
            after = batch[-1][0]
            names = [held.blob.name for _, held in batch if not keeps(held.blob.name)]
            self._files.remove(version, names)
            self._catalog.release(version, names)

    # --- what lies there ---

    def sweep(self, version: Version) -> None:
        """Remove what lay in the folder of a version before it was begun, and is no part of it."""
        if self._catalog.recall(f"sweep {version.name}") != "yes":
            return
        lying = self._files.names(version)
        while some := list(islice(lying, BATCH)):
            known = self._catalog.held_among(version, some)
            for name in (name for name in some if name not in known):
                try:
                    self._files.remove(version, [name])
                except UnsafeName as error:
                    self._run.observe(Warned(f"a file in version {version.name} that is no part of it stays: {error}"))
        self._catalog.remember(f"sweep {version.name}", "")

    async def settle(self) -> None:
        """Read again what may not be whole since the machine restarted: all that was never made durable."""
        if self._destination.calm:
            return
        for version in self._catalog.versions():
            held = self._catalog.totals(version).held_files if version.published is None or version.damaged else 0
            if held:
                why = "after a restart, or without its state, nobody knows whether all of it came to the disk"
                self._run.observe(Notice(f"reading {held} files of version {version.name} again: {why}"))
                await self.recheck(version, read=True)
        self._destination.settle()

    async def healed(self, version: Version) -> Version:
        """The version, marked damaged when files of it are gone or changed, as far as a look can tell."""
        await self.recheck(version)
        self._run.tally.looked = version.files
        lost = version.files - self._catalog.totals(version).held_files
        if lost:
            what = f"{files(lost)} {'is' if lost == 1 else 'are'}"
            self._run.observe(Warned(f"{what} gone or changed in version {version.name}"))
            version = replace(version, damaged=True)
            self._catalog.update(version)
        return version

    async def vanished(self, version: Version) -> int:
        """How many files that were held, or came in, do not lie there any more as they were left; they are wanted
        again. A store is listed once for that.
        """
        await in_thread(self._files.survey, version)
        await self.recheck(version)
        totals = self._catalog.totals(version)
        self._run.tally.looked = totals.files
        return totals.files - totals.held_files

    async def recheck(self, version: Version, *, read: bool = False) -> None:
        """Look whether what the catalog says is held still is; `read`: by its bytes, which decide, too, where a file
        looks changed: the whole destination may have been copied.
        """
        after = ""
        while batch := await in_thread(self._catalog.held, version, after, limit=BATCH):
            after = batch[-1][0]
            held = [each for _, each in batch]
            doubtful = held if read else await in_thread(changed_since, version, held, self._files)
            sound = await in_thread(proven, version, doubtful, self._files)
            self._catalog.retrace(version, sound)
            names = {each.blob.name for each in sound}
            bad = [each.blob.name for each in doubtful if each.blob.name not in names]
            gone = await in_thread(self._gone, version, bad)
            self._catalog.release(version, gone)
            self._catalog.release(version, [name for name in bad if name not in gone], linked=True)
            self._run.tally.verified += len(sound) if read else 0

    def _gone(self, version: Version, names: Sequence[str]) -> set[str]:
        return {name for name in names if self._files.size(version, name) is None}


def begun(export: Export, content: Content, catalog: Catalog, publication: Published, clock: Clock) -> Version:
    """A new version of an export in a catalog, under a name that none had before; its own, where it has one."""
    taken = {
        *(version.name for version in catalog.versions(retired=True)),
        *publication.manifest_names(),
        *publication.retired_names(),
    }
    own, now = export.held.name if export.held is not None else "", stamp(clock.now())
    name = own if own and own not in taken else next_version(export.id, taken)
    of = (export.id, export.imodel, export.changeset, export.modified, export.record)
    return catalog.begin(Version(0, name, *of, begun=now, content=content))


def of_export(export: Export, catalog: Catalog) -> list[Version]:
    """The versions of an export, but for those that come in from another held version of it than is to be mirrored."""
    own = export.held.name if export.held is not None else None
    versions = catalog.versions(export=export.id)
    if own is None:
        return versions
    return [v for v in versions if v.published is not None or own == (listed_at(v, catalog).split(" ")[0] or v.name)]


def listed_at(version: Version, catalog: Catalog) -> str:
    """Where the listing of a version on its way in comes from, as its source says; empty for a container."""
    return catalog.recall(PLACE.format(version.name)) or ""


def as_said(version: Version, export: Export) -> Version:
    """The version with what is said of its export now; a bare link says nothing, and takes nothing away."""
    if export.held is not None:
        of = export.held
        return replace(version, imodel=of.imodel, changeset=of.changeset, modified=of.modified, record=of.record)
    return replace(version, modified=export.modified, record=export.record) if export.modified else version


def is_stale(version: Version, export: Export) -> bool:
    """Whether a version on its way in was begun when something else was said of its export."""
    if export.held is not None:
        return as_said(version, export) != version
    return version.modified != export.modified


def changed_since(version: Version, held: Sequence[Held], files: HeldFiles) -> list[Held]:
    """Those that do not look as they were left."""
    return [each for each, same in zip(held, files.unchanged(version, held), strict=True) if not same]


def proven(version: Version, held: Sequence[Held], files: HeldFiles) -> list[Held]:
    """Those whose bytes are right, read anew, with the trace that they have now."""
    sound = []
    for each in held:
        name = each.blob.name
        trace = files.trace(version, name)
        if trace is not None and _has_digest(version, each, files):
            sound.append(each._replace(mtime_ns=trace.mtime_ns, inode=trace.inode))
    return sound


def _has_digest(version: Version, held: Held, files: HeldFiles) -> bool:
    if held.sha256:
        return files.digest(version, held.blob.name) == held.sha256
    md5 = hashlib.md5(usedforsecurity=False)
    return files.feed(version, held.blob.name, md5.update) is not None and md5.digest() == held.blob.md5
