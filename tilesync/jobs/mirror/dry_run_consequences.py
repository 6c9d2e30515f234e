"""Consequences of a planned run: guards that would stop it, files and versions that it would remove."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from tilesync.catalog.catalog import Catalog
from tilesync.core.guards import guard_against_deleting, guard_against_shrinking
from tilesync.core.manifest import format_timestamp
from tilesync.core.plan import Action
from tilesync.core.retention import find_retirable
from tilesync.errors import GuardTripped
from tilesync.events import Notice, Planned, Warned
from tilesync.jobs.mirror.dry_run_walk import ScratchSpace
from tilesync.jobs.mirror.options import MirrorOptions
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.flat_layout import is_obstacle, list_deletable, list_stale_files
from tilesync.jobs.versions.pointer import find_current_version, find_pinned_version
from tilesync.model import Content, Layout, StoredFile, Version
from tilesync.protocols import ReadOnlyPublication, StoredFiles
from tilesync.values import dataclass

GONE_REASON = "the container no longer has it"
OBSTACLE_REASON = "the new version needs a folder in its place, or a file in place of its folder"


@dataclass(frozen=True)
class PlanInputs:
    """Inputs of a dry run: a catalog copy, the stored files and pointer, the name check, scratch space."""

    catalog: Catalog
    files: StoredFiles
    publication: ReadOnlyPublication
    validate_names: Callable[[Iterable[str]], None]
    scratch: ScratchSpace
    layout: Layout


class PlannedConsequences:
    """Report what a planned run does besides fetching files, once its version is complete."""

    def __init__(self, inputs: PlanInputs, run: RunContext, options: MirrorOptions) -> None:
        self._inputs = inputs
        self._catalog = inputs.catalog
        self._run = run
        self._options = options

    def report(self, version: Version) -> None:
        """Report guards that would stop the run, and files or versions that it would remove."""
        current, pinned = (
            find_current_version(self._inputs.publication, self._catalog),
            find_pinned_version(self._inputs.publication, self._catalog),
        )
        if pinned is not None and pinned.serial != version.serial:
            self._run.observe(Notice(f"the pointer is pinned to version {pinned.name} and does not move"))
        try:
            if self._options.move_pointer and pinned is None and not self._options.allow_shrink:
                guard_against_shrinking(version, self._with_stored_size(current))
            if self._inputs.layout is Layout.FLAT:
                self._report_deletions(version)
        except GuardTripped as error:
            self._run.observe(Warned(f"the run would stop: {error}"))
        self._report_retirements(pinned or (version if self._options.move_pointer else current), current)

    def _with_stored_size(self, version: Version | None) -> Version | None:
        """Return the version with its size in the container: decoded sizes are known only after a download."""
        if version is None or version.content is Content.STORED:
            return version
        return version.with_summary(bytes=self._catalog.compute_totals(version).bytes)

    def _report_deletions(self, version: Version) -> None:
        obstacles = set()
        for stale in list_stale_files(version, self._catalog):
            if is_obstacle(version, stale.stored, self._catalog):
                obstacles.add(stale.stored.blob.name)
                self._report_deletion(stale.stored, OBSTACLE_REASON)
        if self._options.delete_limit is None:
            return
        count = 0
        for stored in list_deletable(version, self._catalog, self._inputs.files):
            count += 1
            if stored.blob.name not in obstacles:
                self._report_deletion(stored, GONE_REASON)
        guard_against_deleting(count, self._options.delete_limit, total=version.summary.files + count)

    def _report_deletion(self, stored: StoredFile, reason: str) -> None:
        self._run.stats.deleted += 1
        self._run.observe(Planned(Action.DELETE.value, stored.blob.name, stored.size, reason))

    def _report_retirements(self, current: Version | None, previous: Version | None) -> None:
        now = self._run.clock.now()
        if previous is not None and current is not None and previous.serial != current.serial:
            self._catalog.update_version(previous.with_times(replaced_at=format_timestamp(now)))
        protected = {current.name} if current is not None else set()
        for version, reason in find_retirable(self._catalog.versions(), self._options.retention, now, protected):
            size = version.summary.bytes if version.is_published else self._catalog.compute_totals(version).stored_bytes
            self._run.observe(Planned(Action.RETIRE.value, version.name, size, reason))
