"""Every finished export that is not held yet, oldest first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from tilesync.core.plan import choose_version
from tilesync.errors import DiskFull, InvalidRequest, TilesyncError, UsageError
from tilesync.events import ExportFailed, Warned
from tilesync.jobs.mirror.cleanup import Cleanup
from tilesync.jobs.mirror.job import MirrorJob, MirrorOptions
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.stats import RunStats
from tilesync.jobs.versions.last_success import record_last_success
from tilesync.jobs.versions.lifecycle import list_export_versions
from tilesync.jobs.versions.ownership import claim_destination
from tilesync.jobs.versions.presence import PresenceCheck
from tilesync.jobs.versions.startup import prepare_destination
from tilesync.model import ROOT, Export, Version
from tilesync.protocols import Catalog, Clock, Destination, ExportsResolver, StoredFiles
from tilesync.runtime.threads import run_in_thread

FATAL_ERRORS = (DiskFull, InvalidRequest, UsageError)
"""Errors that the next export would meet as well."""


class AllExportsMirror:
    """Mirrors what the service still has. The pointer moves to the newest export alone, and only when that is whole."""

    def __init__(
        self, exports: ExportsResolver, destination: Destination, run: RunContext, options: MirrorOptions
    ) -> None:
        self._exports = exports
        self._destination = destination
        self._run = run
        self._options = options
        self._version: Version | None = None

    async def run(self) -> None:
        """Mirror them one after another; one that fails does not stop the next. Raises what the last failure was."""
        await claim_destination(self._destination, self._options.ownership, self._exports.resolve)
        await prepare_destination(self._destination, self._run)
        there = self._destination.catalog, self._destination.files, self._options, self._run.clock
        await mirror_each(
            await self._exports.list_finished(),
            self._mirror,
            lambda export: run_in_thread(stats_if_mirrored, export, *there),
            self._run,
        )
        await Cleanup(self._destination, self._run, self._options.retention, self._options.delete_limit).run()
        if self._version is not None:
            await record_last_success(self._destination, self._version, self._run)

    async def _mirror(self, export: Export, *, newest: bool) -> None:
        wishes = replace(self._options, move_pointer=self._options.move_pointer and newest)
        mirror = MirrorJob(self._exports.resolver_for(export), self._destination, self._run, wishes)
        await mirror.mirror()
        self._version = mirror.version


class EachExport(Protocol):
    """What is done with one of several exports."""

    async def __call__(self, export: Export, *, newest: bool) -> None:
        """Do it; `newest`: it is the last."""


async def mirror_each(
    exports: list[Export],
    mirror: EachExport,
    find_stats: Callable[[Export], Awaitable[RunStats | None]],
    run: RunContext,
) -> None:
    """Call `mirror` for each that is not `had`, and for the last, the newest, which it is told; all counts add up.

    Raises, when all are through, what the last failure was.
    """
    failed: TilesyncError | None = None
    count = 0
    for export in exports:
        newest = export is exports[-1]
        before = run.stats.snapshot_and_reset()
        try:
            known = None if newest else await find_stats(export)
            if known is not None:
                run.stats.merge(known)
            else:
                await mirror(export, newest=newest)
        except FATAL_ERRORS:
            raise
        except TilesyncError as error:
            failed, count = error, count + 1
            run.observe(ExportFailed(export.id, type(error).__name__, str(error)))
        finally:
            run.stats.merge(before)
    if failed is not None:
        if len(exports) > count:
            run.observe(Warned(f"{count} of {len(exports)} exports failed; the others are held"))
        raise failed


def stats_if_mirrored(
    export: Export, catalog: Catalog, files: StoredFiles, options: MirrorOptions, clock: Clock
) -> RunStats | None:
    """What counts for an export that is held, and whole as far as a short look tells; or was, and has retired. None
    where it is to be mirrored; one that the look finds not to be whole is marked as damaged.
    """
    choice = choose_version(list_export_versions(export, catalog), export, options.globs, options.content)
    retired = (v for v in catalog.versions(export=export.id, retired=True) if v.retired_at and v.published_at)
    if any(_is_version_of(v, export) and (v.globs, v.content) == (choice.globs, choice.content) for v in retired):
        return RunStats()
    if (
        not choice.is_unchanged
        or choice.existing is None
        or choice.existing.damaged
        or not files.size(choice.existing, ROOT)
    ):
        return None
    look = PresenceCheck(catalog, files, clock).check_next_files(choice.existing)
    if not look.is_sound:
        catalog.update_version(replace(choice.existing, damaged=True))
        return None
    totals = catalog.compute_totals(choice.existing)
    listed = totals.files + totals.excluded
    tally = RunStats(listed=listed, kept=totals.files, excluded=totals.excluded, presence_checked=look.files)
    tally.completeness = choice.existing.completeness
    return tally


def _is_version_of(version: Version, export: Export) -> bool:
    """Whether a version was that of an export: by time, and where a held version tells none, by name."""
    named = export.stored_version is None or bool(export.modified) or version.name == export.stored_version.name
    return named and version.modified == export.modified
