"""The versions of a destination while a run works on them: begun, prepared, looked at again, listed anew."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from itertools import islice
from typing import Any

from tilesync.core.filters import glob_matcher
from tilesync.core.manifest import format_timestamp
from tilesync.core.safe_names import make_next_version_name
from tilesync.core.wording import format_file_count
from tilesync.errors import UnsafeName
from tilesync.events import Notice, Warned
from tilesync.jobs.run.context import RunContext
from tilesync.model import Content, Export, Globs, Inventory, StoredFile, Version
from tilesync.protocols import Catalog, Clock, Destination, ReadOnlyPublication, Source, StoredFiles
from tilesync.runtime.threads import run_in_thread

ROWS_PER_QUERY = 2000

LISTED_AT_KEY = "listed at {}"
"""Under which key the catalog keeps where the listing of a version on its way in comes from."""


class VersionLifecycle:
    """What one run does to the versions of one destination, apart from moving files into them."""

    def __init__(self, destination: Destination, run: RunContext) -> None:
        self._destination = destination
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run

    def begin_version(self, export: Export, content: Content) -> Version:
        """A new version of an export, under a name that none had before."""
        version = create_version(export, content, self._catalog, self._destination.publication, self._run.clock)
        if self.has_any_files(version):  # of a state that was lost
            self._catalog.set_value(f"sweep {version.name}", "yes")
        return version

    def has_any_files(self, version: Version) -> bool:
        """Whether its place holds any file."""
        return next(self._files.names(version), None) is not None

    def resume(self, version: Version) -> Version:
        """The version, on its way in again."""
        version = replace(version, started_at=format_timestamp(self._run.clock.now()))
        self._catalog.update_version(version)
        return version

    def reload(self, version: Version) -> Version:
        """The version as the catalog knows it now."""
        return self._catalog.versions(name=version.name)[0]

    def restart_listing(self, version: Version, **changes: Any) -> Version:
        """The version with a new listing ahead of it; what is held stays until that listing judges it."""
        version = replace(version, listing_number=version.listing_number + 1, listed=False, marker=None, **changes)
        self._catalog.update_version(version)
        return version

    def restart_listings(self, export: Export) -> None:
        """The export changed: what was listed of it is stale, what was fetched is judged anew.

        A published version is never touched: what could not be healed from the changed export becomes another version.
        """
        for version in self._catalog.versions(export=export.id):
            if version.published_at is None:
                self.restart_listing(version)
            else:
                self._catalog.update_version(replace(version, modified=""))

    def schedule_relisting(self, version: Version) -> None:
        """What is not whole is looked for anew by the next run; a walk asks for what it did not get."""
        if version.published_at is None and version.inventory == Inventory.LIST:
            self.restart_listing(version)
        elif version.published_at is None:
            self._catalog.update_version(replace(version, listed=False))

    async def prepare_version(
        self, version: Version, source: Source, inventory: Inventory | None, globs: Globs
    ) -> Version:
        """The version with the way in which its files are found, and a new listing where the one begun cannot go on."""
        if inventory is None and version.inventory == Inventory.LIST and not await source.is_listable():
            inventory = Inventory.WALK
        inventory = inventory or Inventory(version.inventory)
        home = await source.container_url()
        lost = inventory == Inventory.LIST and not version.listed and version.marker is None
        other = version.published_at is None and (inventory, globs) != (version.inventory, version.globs)
        moved = version.published_at is None and source.inventory_key != get_inventory_key(version, self._catalog)
        some = version.listed or version.marker is not None or self._catalog.compute_totals(version).files > 0
        if other or ((lost or moved) and some):
            version = self.restart_listing(version)
        if moved:
            self._catalog.set_value(LISTED_AT_KEY.format(version.name), source.inventory_key)
        if version.published_at is None:
            if version.globs != globs:
                self._catalog.set_value(f"sweep {version.name}", "yes")
                await run_in_thread(self._remove_excluded, version, globs)
            version = replace(version, inventory=inventory, container_url=home, globs=globs)
            self._catalog.update_version(version)
        return version

    def _remove_excluded(self, version: Version, globs: Globs) -> None:
        """Remove what an earlier run brought in with other globs."""
        keeps, after = glob_matcher(globs), ""
        while batch := self._catalog.list_stored(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            names = [held.blob.name for _, held in batch if not keeps(held.blob.name)]
            self._files.remove(version, names)
            self._catalog.mark_wanted(version, names)

    # --- what lies there ---

    def remove_foreign_files(self, version: Version) -> None:
        """Remove what lay in the folder of a version before it was begun, and is no part of it."""
        if self._catalog.get_value(f"sweep {version.name}") != "yes":
            return
        lying = self._files.names(version)
        while some := list(islice(lying, ROWS_PER_QUERY)):
            known = self._catalog.find_stored(version, some)
            for name in (name for name in some if name not in known):
                try:
                    self._files.remove(version, [name])
                except UnsafeName as error:
                    self._run.observe(Warned(f"a file in version {version.name} that is no part of it stays: {error}"))
        self._catalog.set_value(f"sweep {version.name}", "")

    async def recheck_after_restart(self) -> None:
        """Read again what may not be whole since the machine restarted: all that was never made durable."""
        if self._destination.is_intact:
            return
        for version in self._catalog.versions():
            held = (
                self._catalog.compute_totals(version).stored_files
                if version.published_at is None or version.damaged
                else 0
            )
            if held:
                why = "after a restart, or without its state, nobody knows whether all of it came to the disk"
                self._run.observe(Notice(f"reading {held} files of version {version.name} again: {why}"))
                await self.recheck(version, read_bytes=True)
        self._destination.mark_intact()

    async def check_damage(self, version: Version) -> Version:
        """The version, marked damaged when files of it are gone or changed, as far as a look can tell."""
        await self.recheck(version)
        self._run.stats.presence_checked = version.files
        lost = version.files - self._catalog.compute_totals(version).stored_files
        if lost:
            what = f"{format_file_count(lost)} {'is' if lost == 1 else 'are'}"
            self._run.observe(Warned(f"{what} gone or changed in version {version.name}"))
            version = replace(version, damaged=True)
            self._catalog.update_version(version)
        return version

    async def count_vanished(self, version: Version) -> int:
        """How many files that were held, or came in, do not lie there any more as they were left; they are wanted
        again. A store is listed once for that.
        """
        await run_in_thread(self._files.prepare_listing, version)
        await self.recheck(version)
        totals = self._catalog.compute_totals(version)
        self._run.stats.presence_checked = totals.files
        return totals.files - totals.stored_files

    async def recheck(self, version: Version, *, read_bytes: bool = False) -> None:
        """Look whether what the catalog says is held still is; `read`: by its bytes, which decide, too, where a file
        looks changed: the whole destination may have been copied.
        """
        after = ""
        while batch := await run_in_thread(self._catalog.list_stored, version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            held = [each for _, each in batch]
            doubtful = held if read_bytes else await run_in_thread(find_changed, version, held, self._files)
            sound = await run_in_thread(find_intact, version, doubtful, self._files)
            self._catalog.update_stamps(version, sound)
            names = {each.blob.name for each in sound}
            bad = [each.blob.name for each in doubtful if each.blob.name not in names]
            gone = await run_in_thread(self._find_missing, version, bad)
            self._catalog.mark_wanted(version, gone)
            self._catalog.mark_wanted(version, [name for name in bad if name not in gone], include_linked=True)
            self._run.stats.verified += len(sound) if read_bytes else 0

    def _find_missing(self, version: Version, names: Sequence[str]) -> set[str]:
        return {name for name in names if self._files.size(version, name) is None}


def create_version(
    export: Export, content: Content, catalog: Catalog, publication: ReadOnlyPublication, clock: Clock
) -> Version:
    """A new version of an export in a catalog, under a name that none had before; its own, where it has one."""
    taken = {
        *(version.name for version in catalog.versions(retired=True)),
        *publication.manifest_names(),
        *publication.retired_names(),
    }
    own, now = export.stored_version.name if export.stored_version is not None else "", format_timestamp(clock.now())
    name = own if own and own not in taken else make_next_version_name(export.id, taken)
    of = (export.id, export.imodel, export.changeset, export.modified, export.record)
    return catalog.add_version(Version(0, name, *of, started_at=now, content=content))


def list_export_versions(export: Export, catalog: Catalog) -> list[Version]:
    """The versions of an export, but for those that come in from another held version of it than is to be mirrored."""
    own = export.stored_version.name if export.stored_version is not None else None
    versions = catalog.versions(export=export.id)
    if own is None:
        return versions
    return [
        v
        for v in versions
        if v.published_at is not None or own == (get_inventory_key(v, catalog).split(" ")[0] or v.name)
    ]


def get_inventory_key(version: Version, catalog: Catalog) -> str:
    """Where the listing of a version on its way in comes from, as its source says; empty for a container."""
    return catalog.get_value(LISTED_AT_KEY.format(version.name)) or ""


def with_export_details(version: Version, export: Export) -> Version:
    """The version with what is said of its export now; a bare link says nothing, and takes nothing away."""
    if export.stored_version is not None:
        of = export.stored_version
        return replace(version, imodel=of.imodel, changeset=of.changeset, modified=of.modified, record=of.record)
    return replace(version, modified=export.modified, record=export.record) if export.modified else version


def is_stale(version: Version, export: Export) -> bool:
    """Whether a version on its way in was begun when something else was said of its export."""
    if export.stored_version is not None:
        return with_export_details(version, export) != version
    return version.modified != export.modified


def find_changed(version: Version, stored: Sequence[StoredFile], files: StoredFiles) -> list[StoredFile]:
    """Those that do not look as they were left."""
    return [each for each, same in zip(stored, files.unchanged(version, stored), strict=True) if not same]


def find_intact(version: Version, stored: Sequence[StoredFile], files: StoredFiles) -> list[StoredFile]:
    """Those whose bytes are right, read anew, with the trace that they have now."""
    sound = []
    for each in stored:
        name = each.blob.name
        trace = files.stamp(version, name)
        if trace is not None and _has_matching_digest(version, each, files):
            sound.append(each._replace(mtime_ns=trace.mtime_ns, inode=trace.inode))
    return sound


def _has_matching_digest(version: Version, stored: StoredFile, files: StoredFiles) -> bool:
    if stored.sha256:
        return files.digest(version, stored.blob.name) == stored.sha256
    md5 = hashlib.md5(usedforsecurity=False)
    return files.read_into(version, stored.blob.name, md5.update) is not None and md5.digest() == stored.blob.md5
