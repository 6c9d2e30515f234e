"""Cleanup after a run: repair damaged versions from others, retire old versions, empty the trash."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tilesync.core.guards import DeleteLimit
from tilesync.core.manifest import format_timestamp
from tilesync.core.retention import TRASH_RETENTION, RetentionPolicy, find_retirable
from tilesync.core.wording import format_file_count
from tilesync.events import Notice, VersionRetired, Warned
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.jobs.versions.flat_layout import FlatLayout
from tilesync.jobs.versions.pointer import Pointer
from tilesync.jobs.versions.publish import Publisher
from tilesync.model import Layout, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import run_in_thread

ROWS_PER_QUERY = 2000


class Cleanup:
    """Clean up a destination after a successful run. Each step can be repeated after a crash."""

    def __init__(
        self, destination: Destination, run: RunContext, retention: RetentionPolicy, delete_limit: DeleteLimit | None
    ) -> None:
        self._destination = destination
        self._catalog = destination.catalog
        self._publication = destination.publication
        self._pointer = Pointer(destination, run.clock, run.observe)
        self._flat_layout = FlatLayout(destination, run, delete_limit)
        self._run = run
        self._retention = retention

    async def run(self) -> None:
        """Repair, retire, empty the trash, remove unfinished downloads. Raises DestinationError, GuardTripped."""
        await run_in_thread(self._clean_up)

    def _clean_up(self) -> None:
        now, current = self._run.clock.now(), self._pointer.find_current()
        if self._destination.layout is Layout.FLAT and current is not None:
            self._flat_layout.retire_others(current)
        for version in self._catalog.versions():
            if version.damaged and version.is_published:
                self._repair(version)
        self._retire_old(now)
        self._publication.empty_trash(format_timestamp(now - TRASH_RETENTION))
        self._destination.files.remove_parts()

    def _repair(self, version: Version) -> None:
        """Restore the missing files of a damaged version from others: the service may have deleted its export."""
        reuse, after = Reuse(version, self._destination), 0
        while batch := self._catalog.list_wanted(version, after, limit=ROWS_PER_QUERY):
            after = batch[-1][0]
            self._catalog.mark_stored(version, reuse.share_duplicates(batch)[0])
        totals = self._catalog.compute_totals(version)
        if missing := totals.files - totals.stored_files:
            self._run.observe(
                Warned(
                    f"version {version.name} lacks {format_file_count(missing)} that no other version has;"
                    f" `--export-id {version.export} --no-publish` fetches them if the service still has the export"
                )
            )
            return
        Publisher(self._destination, self._run, allow_missing=True).seal(replace(version, damaged=False))
        self._run.observe(Notice(f"version {version.name} is complete again, with files of other versions"))

    def _retire_old(self, now: datetime) -> None:
        interrupted = self._catalog.get_value("retiring") or None
        for version in self._catalog.versions(name=interrupted, retired=True) if interrupted else ():
            if version.times.retired_at:
                self._retire(version, "its retirement was interrupted")
        for version, reason in find_retirable(
            self._catalog.versions(), self._retention, now, self._pointer.list_protected()
        ):
            self._retire(version, reason)

    def _retire(self, version: Version, reason: str) -> None:
        """Move a version into the trash. The catalog hides it first, so that no new file links to its files."""
        retired_at = version.times.retired_at or format_timestamp(self._run.clock.now())
        if not version.is_published and version.times.retired_at is None:
            totals = self._catalog.compute_totals(version)
            version = version.with_summary(files=totals.stored_files, bytes=totals.stored_bytes + totals.growth_bytes)
        self._catalog.set_value("retiring", version.name)
        self._catalog.update_version(version.with_times(retired_at=retired_at))
        self._publication.retire(version, retired_at)
        self._catalog.drop_files(version)
        self._catalog.set_value("retiring", "")
        self._run.observe(VersionRetired(version.name, version.summary.files, version.summary.bytes, reason))
