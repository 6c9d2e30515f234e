"""The life cycle of versions during a run: create, prepare, resume, relist, recheck their files."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import islice

from tilesync.catalog.catalog import Catalog
from tilesync.core.filters import glob_matcher
from tilesync.core.manifest import format_timestamp
from tilesync.core.safe_names import make_next_version_name
from tilesync.core.wording import format_file_count
from tilesync.errors import UnsafeName
from tilesync.events import Notice, Warned
from tilesync.jobs.run.context import RunContext
from tilesync.model import Content, Export, ExportFacts, Globs, Inventory, StoredFile, Version, VersionTimes
from tilesync.protocols import Clock, Destination, ReadOnlyPublication, Source, StoredFiles
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.threads import run_in_thread

ROWS_PER_QUERY = 2000

LISTED_AT_KEY = "listed at {}"
"""Catalog key for the inventory key of the source from which an unfinished version was listed."""


class VersionLifecycle:
    """Changes of one run to the versions of one destination, except the transfer of files."""

    def __init__(self, destination: Destination, run: RunContext) -> None:
        self._destination = destination
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run

    def begin_version(self, export: Export, content: Content) -> Version:
        """Create a new version of an export, under a name that was never used before."""
        version = create_version(export, content, self._catalog, self._destination.publication, self._run.clock)
        if self.has_any_files(version):  # files of an earlier run whose catalog was lost
            self._catalog.set_value(f"sweep {version.name}", "yes")
        return version

    def has_any_files(self, version: Version) -> bool:
        """Return whether the folder of a version holds any file."""
        return next(self._files.names(version), None) is not None

    def resume(self, version: Version) -> Version:
        """Return the unfinished version with a new start time."""
        version = version.with_times(started_at=format_timestamp(self._run.clock.now()))
        self._catalog.update_version(version)
        return version

    def reload(self, version: Version) -> Version:
        """Read the version again from the catalog."""
        return self._catalog.versions(name=version.name)[0]

    def restart_listing(self, version: Version) -> Version:
        """Start a new listing of a version; stored files stay until that listing decides about them."""
        version = replace(version, listing=version.listing.restart())
        self._catalog.update_version(version)
        return version

    def restart_listings(self, export: Export) -> None:
        """Restart the listings of a changed export: its old listings are stale, fetched files are compared again.

        A published version is never changed: if it cannot be repaired from the changed export, that becomes a new one.
        """
        for version in self._catalog.versions(export=export.id):
            if not version.is_published:
                self.restart_listing(version)
            else:
                self._catalog.update_version(version.with_facts(modified=""))

    def schedule_relisting(self, version: Version) -> None:
        """Let the next run list an incomplete version again; a walk continues with the files that it lacks."""
        if not version.is_published and version.inventory == Inventory.LIST:
            self.restart_listing(version)
        elif not version.is_published:
            self._catalog.update_version(replace(version, listing=replace(version.listing, is_complete=False)))

    async def prepare_version(
        self, version: Version, source: Source, inventory: Inventory | None, globs: Globs
    ) -> Version:
        """Set how the files of a version are found, and start a new listing if the current one cannot go on."""
        if inventory is None and version.inventory == Inventory.LIST and not await source.is_listable():
            inventory = Inventory.WALK
        inventory = inventory or Inventory(version.inventory)
        container_url = await source.container_url()
        is_marker_lost = inventory == Inventory.LIST and not version.listing.has_begun
        has_new_options = not version.is_published and (inventory, globs) != (version.inventory, version.globs)
        has_moved = not version.is_published and source.inventory_key != get_inventory_key(version, self._catalog)
        has_listed = version.listing.has_begun or self._catalog.compute_totals(version).files > 0
        if has_new_options or ((is_marker_lost or has_moved) and has_listed):
            version = self.restart_listing(version)
        if has_moved:
            self._catalog.set_value(LISTED_AT_KEY.format(version.name), source.inventory_key)
        if not version.is_published:
            if version.globs != globs:
                self._catalog.set_value(f"sweep {version.name}", "yes")
                await run_in_thread(self._remove_excluded, version, globs)
            version = replace(version, inventory=inventory, container_url=container_url, globs=globs)
            self._catalog.update_version(version)
        return version

    def _remove_excluded(self, version: Version, globs: Globs) -> None:
        """Remove the files of an earlier run that the new globs exclude."""
        is_included, after = glob_matcher(globs), ""
        while batch := self._catalog.list_stored(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            names = [stored.blob.name for _, stored in batch if not is_included(stored.blob.name)]
            self._files.remove(version, names)
            self._catalog.mark_wanted(version, names)

    # --- files in the destination ---

    def remove_foreign_files(self, version: Version) -> None:
        """Remove files that were in the folder of a version before it began, and do not belong to it."""
        if self._catalog.get_value(f"sweep {version.name}") != "yes":
            return
        found_names = self._files.names(version)
        while names := list(islice(found_names, ROWS_PER_QUERY)):
            known = self._catalog.find_stored(version, names)
            for name in (name for name in names if name not in known):
                try:
                    self._files.remove(version, [name])
                except UnsafeName as error:
                    self._run.observe(
                        Warned(
                            f"a file in version {version.name} does not belong to it, and cannot be removed: {error}"
                        )
                    )
        self._catalog.set_value(f"sweep {version.name}", "")

    async def recheck_after_restart(self) -> None:
        """Read the files again that a restart of the machine may have damaged: all that were not made durable."""
        if self._destination.is_intact:
            return
        for version in self._catalog.versions():
            stored_files = (
                self._catalog.compute_totals(version).stored_files if not version.is_published or version.damaged else 0
            )
            if stored_files:
                reason = "after a restart, or without the state folder, some files may not have reached the disk"
                self._run.observe(Notice(f"reading {stored_files} files of version {version.name} again: {reason}"))
                await self.recheck(version, read_bytes=True)
        self._destination.mark_intact()

    async def check_damage(self, version: Version) -> Version:
        """Recheck the files of a version by their stamps, and mark it damaged if some are gone or changed."""
        await self.recheck(version)
        self._run.stats.presence_checked = version.summary.files
        lost_count = version.summary.files - self._catalog.compute_totals(version).stored_files
        if lost_count:
            what = f"{format_file_count(lost_count)} {'is' if lost_count == 1 else 'are'}"
            self._run.observe(Warned(f"{what} gone or changed in version {version.name}"))
            version = replace(version, damaged=True)
            self._catalog.update_version(version)
        return version

    async def count_vanished(self, version: Version) -> int:
        """Return how many stored files are gone or changed since; they will be fetched again.

        An object store is listed once for this. A file system writes the files to the disk meanwhile.
        """
        syncing = run_in_thread(self._destination.publication.sync_files)
        await gather_or_cancel([syncing, self._recheck_listed(version)])
        totals = self._catalog.compute_totals(version)
        self._run.stats.presence_checked = totals.files
        return totals.files - totals.stored_files

    async def _recheck_listed(self, version: Version) -> None:
        await run_in_thread(self._files.prepare_listing, version)
        await self.recheck(version)

    async def recheck(self, version: Version, *, read_bytes: bool = False) -> None:
        """Check that the files in the catalog are still there and unchanged.

        A changed stamp alone is no damage, since the whole destination may have been copied: then the bytes decide.
        `read_bytes`: read the bytes of all files.
        """
        pages = self._list_pages(version) if read_bytes else self._files.changed_pages(version, self._catalog)
        while (doubtful := await run_in_thread(next, pages, None)) is not None:
            if not doubtful:
                continue
            intact = await run_in_thread(find_intact, version, doubtful, self._files)
            self._catalog.update_stamps(version, intact)
            names = {each.blob.name for each in intact}
            damaged_names = [each.blob.name for each in doubtful if each.blob.name not in names]
            missing_names = await run_in_thread(self._find_missing, version, damaged_names)
            self._catalog.mark_wanted(version, missing_names)
            self._catalog.mark_wanted(
                version, [name for name in damaged_names if name not in missing_names], include_linked=True
            )
            self._run.stats.verified += len(intact) if read_bytes else 0

    def _list_pages(self, version: Version) -> Iterator[list[StoredFile]]:
        after = ""
        while batch := self._catalog.list_stored(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            yield [each for _, each in batch]

    def _find_missing(self, version: Version, names: Sequence[str]) -> set[str]:
        return {name for name in names if self._files.size(version, name) is None}


def create_version(
    export: Export, content: Content, catalog: Catalog, publication: ReadOnlyPublication, clock: Clock
) -> Version:
    """Add a new version of an export to a catalog, under a name that was never used before.

    A version copied from another mirror keeps its name if that is free.
    """
    used_names = {
        *(version.name for version in catalog.versions(retired=True)),
        *publication.manifest_names(),
        *publication.retired_names(),
    }
    own_name, now = (
        export.stored_version.name if export.stored_version is not None else "",
        format_timestamp(clock.now()),
    )
    name = own_name if own_name and own_name not in used_names else make_next_version_name(export.id, used_names)
    facts = ExportFacts(export.imodel, export.changeset, export.modified, export.record)
    version = Version(0, name, export.id, facts, content=content, times=VersionTimes(started_at=now))
    return catalog.add_version(version)


def list_export_versions(export: Export, catalog: Catalog) -> list[Version]:
    """List the versions of an export, without unfinished ones that come from another version in the source mirror."""
    own_name = export.stored_version.name if export.stored_version is not None else None
    versions = catalog.versions(export=export.id)
    if own_name is None:
        return versions
    return [
        v for v in versions if v.is_published or own_name == (get_inventory_key(v, catalog).split(" ")[0] or v.name)
    ]


def get_inventory_key(version: Version, catalog: Catalog) -> str:
    """Return the inventory key of the source from which an unfinished version was listed; empty for a container."""
    return catalog.get_value(LISTED_AT_KEY.format(version.name)) or ""


def with_export_details(version: Version, export: Export) -> Version:
    """Return the version with the current details of its export; a bare link has none, so the old ones stay."""
    if export.stored_version is not None:
        return replace(version, facts=export.stored_version.facts)
    return version.with_facts(modified=export.modified, record=export.record) if export.modified else version


def is_stale(version: Version, export: Export) -> bool:
    """Return whether the details of the export changed since an unfinished version began."""
    if export.stored_version is not None:
        return with_export_details(version, export) != version
    return version.facts.modified != export.modified


def find_changed(version: Version, stored: Sequence[StoredFile], files: StoredFiles) -> list[StoredFile]:
    """Return the files whose stamp changed."""
    return [each for each, same in zip(stored, files.unchanged(version, stored), strict=True) if not same]


def find_intact(version: Version, stored: Sequence[StoredFile], files: StoredFiles) -> list[StoredFile]:
    """Read files again; return those with the right bytes, with their current stamps."""
    intact = []
    for each in stored:
        name = each.blob.name
        stamp = files.stamp(version, name)
        if stamp is not None and _has_matching_digest(version, each, files):
            intact.append(each._replace(mtime_ns=stamp.mtime_ns, inode=stamp.inode))
    return intact


def _has_matching_digest(version: Version, stored: StoredFile, files: StoredFiles) -> bool:
    if stored.sha256:
        return files.digest(version, stored.blob.name) == stored.sha256
    md5 = hashlib.md5(usedforsecurity=False)
    return files.read_into(version, stored.blob.name, md5.update) is not None and md5.digest() == stored.blob.md5
