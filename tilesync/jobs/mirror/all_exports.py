"""Mirror all exports: every finished export that is not mirrored yet, oldest first."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import replace
from typing import Protocol

from tilesync.catalog.catalog import Catalog
from tilesync.core.plan import choose_version
from tilesync.errors import DiskFull, InvalidRequest, TilesyncError, UsageError
from tilesync.events import ExportFailed, Warned
from tilesync.jobs.mirror.cleanup import Cleanup
from tilesync.jobs.mirror.job import MirrorJob
from tilesync.jobs.mirror.options import MirrorOptions
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.run.stats import RunStats
from tilesync.jobs.versions.last_success import record_last_success
from tilesync.jobs.versions.lifecycle import list_export_versions
from tilesync.jobs.versions.ownership import claim_destination
from tilesync.jobs.versions.presence import PresenceCheck
from tilesync.jobs.versions.startup import prepare_destination
from tilesync.model import ROOT, Export, Version
from tilesync.protocols import Clock, Destination, ExportsResolver, StoredFiles
from tilesync.runtime.threads import run_in_thread

FATAL_ERRORS = (DiskFull, InvalidRequest, UsageError)
"""Errors that would occur for the next export too."""


class AllExportsMirror:
    """Mirror all finished exports. The pointer moves only to the newest export, and only when that is complete."""

    def __init__(
        self, exports: ExportsResolver, destination: Destination, run: RunContext, options: MirrorOptions
    ) -> None:
        self._exports = exports
        self._destination = destination
        self._run = run
        self._options = options
        self._version: Version | None = None

    async def run(self) -> None:
        """Mirror the exports one after another; a failed one does not stop the next. Raises the last failure."""
        await claim_destination(self._destination, self._options.ownership, self._exports.resolve)
        await prepare_destination(self._destination, self._run)
        context = self._destination.catalog, self._destination.files, self._options, self._run.clock
        await mirror_each(
            await self._exports.list_finished(),
            self._mirror,
            lambda export: run_in_thread(stats_if_mirrored, export, *context),
            self._run,
        )
        await Cleanup(self._destination, self._run, self._options.retention, self._options.delete_limit).run()
        if self._version is not None:
            await record_last_success(self._destination, self._version, self._run)

    async def _mirror(self, export: Export, *, newest: bool) -> None:
        options = replace(self._options, move_pointer=self._options.move_pointer and newest)
        job = MirrorJob(self._exports.resolver_for(export), self._destination, self._run, options)
        await job.mirror()
        self._version = job.version


class EachExport(Protocol):
    """Callback that mirrors or plans one of several exports."""

    async def __call__(self, export: Export, *, newest: bool) -> None:
        """Mirror or plan the export; `newest`: it is the last one."""


async def mirror_each(
    exports: list[Export],
    mirror: EachExport,
    find_stats: Callable[[Export], Awaitable[RunStats | None]],
    run: RunContext,
) -> None:
    """Mirror or plan each export in turn, and add up the statistics of all.

    Skips exports for which `find_stats` returns the statistics of a stored version, except the newest one: its pointer
    may have to move. Raises the last failure after all exports.
    """
    failed: TilesyncError | None = None
    count = 0
    for export in exports:
        newest = export is exports[-1]
        stats_before = run.stats.snapshot_and_reset()
        try:
            stored_stats = None if newest else await find_stats(export)
            if stored_stats is not None:
                run.stats.merge(stored_stats)
            else:
                await mirror(export, newest=newest)
        except FATAL_ERRORS:
            raise
        except TilesyncError as error:
            failed, count = error, count + 1
            run.observe(ExportFailed(export.id, type(error).__name__, str(error)))
        finally:
            run.stats.merge(stats_before)
    if failed is not None:
        if len(exports) > count:
            run.observe(Warned(f"{count} of {len(exports)} exports failed; the others are complete"))
        raise failed


def stats_if_mirrored(
    export: Export, catalog: Catalog, files: StoredFiles, options: MirrorOptions, clock: Clock
) -> RunStats | None:
    """Return the statistics of an export that needs no run; None if it must be mirrored.

    An export needs no run if its version passes a check of a few files, or has retired. A version that fails the check
    is marked as damaged.
    """
    choice = choose_version(list_export_versions(export, catalog), export, options.globs, options.content)
    versions = catalog.versions(export=export.id, retired=True)
    retired = (v for v in versions if v.times.retired_at and v.is_published)
    if any(_is_version_of(v, export) and (v.globs, v.content) == (choice.globs, choice.content) for v in retired):
        return RunStats()
    if (
        not choice.is_unchanged
        or choice.existing is None
        or choice.existing.damaged
        or not files.size(choice.existing, ROOT)
    ):
        return None
    sample = PresenceCheck(catalog, files, clock).check_next_files(choice.existing)
    if not sample.is_sound:
        catalog.update_version(replace(choice.existing, damaged=True))
        return None
    totals = catalog.compute_totals(choice.existing)
    listed = totals.files + totals.excluded
    stats = RunStats(listed=listed, kept=totals.files, excluded=totals.excluded, presence_checked=sample.files)
    stats.completeness = choice.existing.summary.completeness
    return stats


def _is_version_of(version: Version, export: Export) -> bool:
    """Return whether a version belongs to an export: by modification time and, for copies without one, by name."""
    has_name = export.stored_version is None or bool(export.modified) or version.name == export.stored_version.name
    return has_name and version.facts.modified == export.modified
