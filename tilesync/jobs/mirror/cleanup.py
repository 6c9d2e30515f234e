"""Tidying: what was damaged is mended from what is held, old versions retire, the trash is emptied."""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from tilesync.core.guards import Most
from tilesync.core.manifest import stamp
from tilesync.core.retention import TRASH_FOR, Keep, to_retire
from tilesync.core.wording import files
from tilesync.events import Notice, Retired, Warned
from tilesync.jobs.run.context import Run
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.jobs.versions.flat_layout import SharedPlace
from tilesync.jobs.versions.pointer import Pointing
from tilesync.jobs.versions.publish import Publisher
from tilesync.model import Layout, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import in_thread

BATCH = 2000


class Tidy:
    """The last word of a run that went well. Each step can be done again after a kill."""

    def __init__(self, destination: Destination, run: Run, keep: Keep, delete: Most | None) -> None:
        self._destination = destination
        self._catalog = destination.catalog
        self._publication = destination.publication
        self._pointing = Pointing(destination, run.clock, run.observe)
        self._place = SharedPlace(destination, run, delete)
        self._run = run
        self._keep = keep

    async def run(self) -> None:
        """Mend, retire, empty the trash, drop the parts. Raises DestinationError, GuardTripped."""
        await in_thread(self._tidy)

    def _tidy(self) -> None:
        now, current = self._run.clock.now(), self._pointing.named()
        if self._destination.layout is Layout.FLAT and current is not None:
            self._place.settle(current)
        for version in self._catalog.versions():
            if version.damaged and version.published is not None:
                self._mend(version)
        self._retire_old(now)
        self._publication.empty_trash(stamp(now - TRASH_FOR))
        self._destination.files.tidy()

    def _mend(self, version: Version) -> None:
        """Take what a damaged version lacks from the others: the service may have deleted its export long since."""
        reuse, after = Reuse(version, self._destination), 0
        while batch := self._catalog.wanted(version, after, limit=BATCH):
            after = batch[-1][0]
            self._catalog.hold(version, reuse.take(batch)[0])
        totals = self._catalog.totals(version)
        if lost := totals.files - totals.held_files:
            self._run.observe(
                Warned(
                    f"version {version.name} lacks {files(lost)} that no other is known"
                    f" to have; `--export-id {version.export} --no-publish` fetches it as long as the service has it"
                )
            )
            return
        Publisher(self._destination, self._run, allow_missing=True).seal(replace(version, damaged=False))
        self._run.observe(Notice(f"version {version.name} is whole again, by what is held"))

    def _retire_old(self, now: datetime) -> None:
        interrupted = self._catalog.recall("retiring") or None
        for version in self._catalog.versions(name=interrupted, retired=True) if interrupted else ():
            if version.retired:
                self._retire(version, "its retirement was interrupted")
        for version, reason in to_retire(self._catalog.versions(), self._keep, now, self._pointing.spared()):
            self._retire(version, reason)

    def _retire(self, version: Version, reason: str) -> None:
        """Move a version into the trash. It is out of the catalog's sight first: nothing is shared with it any more."""
        moment = version.retired or stamp(self._run.clock.now())
        if version.published is None and version.retired is None:
            totals = self._catalog.totals(version)
            version = replace(version, files=totals.held_files, bytes=totals.held_bytes + totals.growth)
        self._catalog.remember("retiring", version.name)
        self._catalog.update(replace(version, retired=moment))
        self._publication.retire(version, moment)
        self._catalog.drop_files(version)
        self._catalog.remember("retiring", "")
        self._run.observe(Retired(version.name, version.files, version.bytes, reason))
