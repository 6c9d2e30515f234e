"""The counters of a run: files and bytes that it listed, fetched, reused, kept, deleted and verified."""

from __future__ import annotations

from dataclasses import field, fields, replace

from tilesync.events import Event, FileFailed, LinkRenewed, Retried
from tilesync.model import Completeness
from tilesync.values import dataclass


@dataclass
class PlanStats:
    """Counters of one plan: of the files `listed`, each one counts once, as what became of it. A new plan resets them.

    `fetched`: transferred by this run. `reused`: taken from another version. `kept`: already stored.
    `presence_checked`: files that a check found unchanged in the destination. `inventory_complete`: all files are
    listed. `completeness` is known at the end, for the files stored then. `failure_hints`: hints of the failed files.
    """

    listed: int = 0
    listed_bytes: int = 0
    fetched: int = 0
    reused: int = 0
    kept: int = 0
    excluded: int = 0
    failed: int = 0
    presence_checked: int = 0
    inventory_complete: bool = False
    completeness: Completeness = field(default_factory=Completeness)
    failure_hints: set[str] = field(default_factory=set)

    def reclassify_as_failed(self, count: int) -> None:
        """Count stored files that turned out to be damaged as failed: fetched ones first, then reused, then kept."""
        self.failed += count
        for name in ("fetched", "reused", "kept"):
            moved = min(count, getattr(self, name))
            setattr(self, name, getattr(self, name) - moved)
            count -= moved


@dataclass
class RunStats(PlanStats):
    """Counters of one run: those of its current plan, and those of all its plans. Progress displays read them.

    They count files, or bytes if the name says so. `transferred_bytes` have arrived; `planned_bytes` must arrive in
    total. `fetched_before`, `reused_before`: files of earlier plans of this run.
    """

    transferred_bytes: int = 0
    planned_bytes: int = 0
    reused_bytes: int = 0
    verified: int = 0
    deleted: int = 0
    renewals: int = 0
    retries: int = 0
    fetched_before: int = 0
    reused_before: int = 0

    def snapshot_and_reset(self) -> RunStats:
        """Return a copy of the counters, to be merged later, and reset them to zero."""
        before = replace(self)
        vars(self).update(vars(RunStats()))
        return before

    def merge(self, other: RunStats) -> None:
        """Add the counters of another run or phase; flags and hints stay."""
        for each in fields(self):
            count = getattr(self, each.name)
            if not isinstance(count, bool | set):
                setattr(self, each.name, count + getattr(other, each.name))

    def reset_for_replan(self) -> None:
        """Reset the counters of the plan. Files already moved are remembered for `reconcile`."""
        self.fetched_before += self.fetched
        self.reused_before += self.reused
        self.planned_bytes = self.transferred_bytes
        vars(self).update(vars(PlanStats()))

    def reconcile(self, stored: int, *, stored_before: int) -> None:
        """Make `fetched`, `reused` and `kept` add up to the stored files; each file counts once."""
        new_files = stored - min(stored_before, stored)
        self.fetched = min(self.fetched + self.fetched_before, new_files)
        self.reused = min(self.reused + self.reused_before, new_files - self.fetched)
        self.fetched_before = self.reused_before = 0
        self.kept = stored - self.fetched - self.reused

    def __call__(self, event: Event) -> None:
        """Count link renewals, retries and failure hints from events."""
        if isinstance(event, LinkRenewed):
            self.renewals += 1
        elif isinstance(event, Retried):
            self.retries += 1
        elif isinstance(event, FileFailed):
            self.failure_hints.add(event.hint)
