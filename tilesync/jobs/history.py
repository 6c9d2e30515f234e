"""Every finished export that is not held yet, oldest first."""

from __future__ import annotations

from dataclasses import replace

from tilesync.errors import DestinationBusy, DiskFull, Interrupted, InvalidRequest, TilesyncError, UsageError
from tilesync.events import ExportFailed
from tilesync.jobs.mirror import Mirror, Wishes, prepare
from tilesync.jobs.run import Run
from tilesync.jobs.tally import Tally
from tilesync.jobs.tidy import Tidy
from tilesync.model import Export, Globs
from tilesync.protocols import Catalog, Destination, Exports
from tilesync.rules.plan import choose

FINAL = (DiskFull, DestinationBusy, Interrupted, InvalidRequest, UsageError)
"""Errors that the next export would meet as well."""


class History:
    """Mirrors what the service still has. The pointer moves to the newest export alone, and only when that is whole."""

    def __init__(self, exports: Exports, destination: Destination, run: Run, wishes: Wishes) -> None:
        self._exports = exports
        self._destination = destination
        self._run = run
        self._wishes = wishes

    async def run(self) -> None:
        """Mirror them one after another; one that fails does not stop the next. Raises what the last failure was."""
        await prepare(self._destination, self._run)
        failed: TilesyncError | None = None
        rows = await self._exports.finished()
        for export in rows:
            newest = export is rows[-1]
            before = self._run.tally.set_aside()
            try:
                if newest or not had(export, self._destination.catalog, self._wishes.globs, self._run.tally):
                    await self._mirror(export, newest=newest)
            except FINAL:
                raise
            except TilesyncError as error:
                failed = error
                self._run.observe(ExportFailed(export.id, type(error).__name__, str(error)))
            finally:
                self._run.tally.add(before)
        if failed is not None:
            raise failed
        await Tidy(self._destination, self._run, self._wishes.keep, self._wishes.delete).run()

    async def _mirror(self, export: Export, *, newest: bool) -> None:
        wishes = replace(self._wishes, point=self._wishes.point and newest)
        await Mirror(self._exports.origin(export), self._destination, self._run, wishes).mirror()


def had(export: Export, catalog: Catalog, globs: Globs, tally: Tally) -> bool:
    """Whether an export is held, and whole, which is counted; or was, and has retired."""
    versions = catalog.versions(export=export.id, retired=True)
    if any(version.retired and version.modified == export.modified for version in versions):
        return True
    choice = choose([v for v in versions if not v.retired], export, globs)
    if not choice.unchanged or choice.held is None or choice.held.damaged:
        return False
    totals = catalog.totals(choice.held)
    tally.listed, tally.kept, tally.excluded = totals.files + totals.excluded, totals.files, totals.excluded
    tally.completeness = choice.held.completeness
    return True
