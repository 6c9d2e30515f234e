"""Every finished export that is not held yet, oldest first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from tilesync.core.plan import choose
from tilesync.errors import DiskFull, InvalidRequest, TilesyncError, UsageError
from tilesync.events import ExportFailed, Warned
from tilesync.jobs.mirror.cleanup import Tidy
from tilesync.jobs.mirror.job import Mirror, Wishes
from tilesync.jobs.run.context import Run
from tilesync.jobs.run.stats import Tally
from tilesync.jobs.versions.last_success import note_checked
from tilesync.jobs.versions.lifecycle import of_export
from tilesync.jobs.versions.ownership import take_over
from tilesync.jobs.versions.presence import Presence
from tilesync.jobs.versions.startup import prepare
from tilesync.model import ROOT, Export, Version
from tilesync.protocols import Catalog, Clock, Destination, Exports, HeldFiles
from tilesync.runtime.threads import in_thread

FINAL = (DiskFull, InvalidRequest, UsageError)
"""Errors that the next export would meet as well."""


class History:
    """Mirrors what the service still has. The pointer moves to the newest export alone, and only when that is whole."""

    def __init__(self, exports: Exports, destination: Destination, run: Run, wishes: Wishes) -> None:
        self._exports = exports
        self._destination = destination
        self._run = run
        self._wishes = wishes
        self._version: Version | None = None

    async def run(self) -> None:
        """Mirror them one after another; one that fails does not stop the next. Raises what the last failure was."""
        await take_over(self._destination, self._wishes.ownership, self._exports.resolve)
        await prepare(self._destination, self._run)
        there = self._destination.catalog, self._destination.files, self._wishes, self._run.clock
        await one_by_one(
            await self._exports.finished(), self._mirror, lambda export: in_thread(had, export, *there), self._run
        )
        await Tidy(self._destination, self._run, self._wishes.keep, self._wishes.delete).run()
        if self._version is not None:
            await note_checked(self._destination, self._version, self._run)

    async def _mirror(self, export: Export, *, newest: bool) -> None:
        wishes = replace(self._wishes, point=self._wishes.point and newest)
        mirror = Mirror(self._exports.origin(export), self._destination, self._run, wishes)
        await mirror.mirror()
        self._version = mirror.version


class EachExport(Protocol):
    """What is done with one of several exports."""

    async def __call__(self, export: Export, *, newest: bool) -> None:
        """Do it; `newest`: it is the last."""


async def one_by_one(
    exports: list[Export],
    mirror: EachExport,
    had: Callable[[Export], Awaitable[Tally | None]],
    run: Run,
) -> None:
    """Call `mirror` for each that is not `had`, and for the last, the newest, which it is told; all counts add up.

    Raises, when all are through, what the last failure was.
    """
    failed: TilesyncError | None = None
    count = 0
    for export in exports:
        newest = export is exports[-1]
        before = run.tally.set_aside()
        try:
            known = None if newest else await had(export)
            if known is not None:
                run.tally.add(known)
            else:
                await mirror(export, newest=newest)
        except FINAL:
            raise
        except TilesyncError as error:
            failed, count = error, count + 1
            run.observe(ExportFailed(export.id, type(error).__name__, str(error)))
        finally:
            run.tally.add(before)
    if failed is not None:
        if len(exports) > count:
            run.observe(Warned(f"{count} of {len(exports)} exports failed; the others are held"))
        raise failed


def had(export: Export, catalog: Catalog, files: HeldFiles, wishes: Wishes, clock: Clock) -> Tally | None:
    """What counts for an export that is held, and whole as far as a short look tells; or was, and has retired. None
    where it is to be mirrored; one that the look finds not to be whole is marked as damaged.
    """
    choice = choose(of_export(export, catalog), export, wishes.globs, wishes.content)
    retired = (v for v in catalog.versions(export=export.id, retired=True) if v.retired and v.published)
    if any(_was(v, export) and (v.globs, v.content) == (choice.globs, choice.content) for v in retired):
        return Tally()
    if not choice.unchanged or choice.held is None or choice.held.damaged or not files.size(choice.held, ROOT):
        return None
    look = Presence(catalog, files, clock).look(choice.held)
    if not look.sound:
        catalog.update(replace(choice.held, damaged=True))
        return None
    totals = catalog.totals(choice.held)
    listed = totals.files + totals.excluded
    tally = Tally(listed=listed, kept=totals.files, excluded=totals.excluded, looked=look.files)
    tally.completeness = choice.held.completeness
    return tally


def _was(version: Version, export: Export) -> bool:
    """Whether a version was that of an export: by time, and where a held version tells none, by name."""
    named = export.held is None or bool(export.modified) or version.name == export.held.name
    return named and version.modified == export.modified
