"""What a run has done so far, in numbers."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields, replace

from tilesync.events import Event, FileFailed, LinkRenewed, Retried
from tilesync.model import Completeness


@dataclass
class RunStats:
    """Counters of one run, read by whoever shows progress. Files, and bytes where the name says so.

    `fetched` moved by this run; `reused` taken from another version, `reused_bytes` of them; `kept` already held;
    `bytes` counts what arrived, `planned_bytes` what has to.
    `looked`: of how many files it was seen that they lie in the destination as they were left.
    `completeness` is known at the end, of the files that are there then. `hints`: those of the failed files.
    """

    listed: int = 0
    listed_bytes: int = 0
    fetched: int = 0
    reused: int = 0
    reused_bytes: int = 0
    kept: int = 0
    excluded: int = 0
    failed: int = 0
    deleted: int = 0
    verified: int = 0
    presence_checked: int = 0
    transferred_bytes: int = 0
    planned_bytes: int = 0
    fetched_before: int = 0
    reused_before: int = 0
    renewals: int = 0
    retries: int = 0
    completeness: Completeness = field(default_factory=Completeness)
    inventory_complete: bool = False
    failure_hints: set[str] = field(default_factory=set)

    def snapshot_and_reset(self) -> RunStats:
        """What was counted so far, to be added later; counting begins anew."""
        before = replace(self)
        for each in fields(self):
            setattr(self, each.name, getattr(RunStats(), each.name))
        return before

    def merge(self, other: RunStats) -> None:
        """Count in what another counted."""
        for each in fields(self):
            count = getattr(self, each.name)
            if isinstance(count, int) and not isinstance(count, bool):
                setattr(self, each.name, count + getattr(other, each.name))
        counts = (asdict(each.completeness) for each in (self, other))
        self.completeness = Completeness(*map(sum, zip(*(count.values() for count in counts), strict=True)))

    def reset_for_replan(self) -> None:
        """The plan is made anew: what was moved counts again when that plan is through."""
        self.fetched_before += self.fetched
        self.reused_before += self.reused
        self.listed = self.listed_bytes = self.kept = self.excluded = self.failed = 0
        self.fetched = self.reused = self.presence_checked = 0
        self.planned_bytes = self.transferred_bytes
        self.completeness, self.failure_hints = Completeness(), set()
        self.inventory_complete = False

    def reconcile(self, stored: int, *, stored_before: int) -> None:
        """Of `held` files this run moved or reused some, each counted once also when it planned twice; the rest was
        kept.
        """
        new = stored - min(stored_before, stored)
        self.fetched = min(self.fetched + self.fetched_before, new)
        self.reused = min(self.reused + self.reused_before, new - self.fetched)
        self.fetched_before = self.reused_before = 0
        self.kept = stored - self.fetched - self.reused

    def reclassify_as_failed(self, count: int) -> None:
        """So many of the files that were counted as held turn out to be broken: those that came last, first."""
        self.failed += count
        for name in ("fetched", "reused", "kept"):
            taken = min(count, getattr(self, name))
            setattr(self, name, getattr(self, name) - taken)
            count -= taken

    def __call__(self, event: Event) -> None:
        """Count what is told by events alone."""
        if isinstance(event, LinkRenewed):
            self.renewals += 1
        elif isinstance(event, Retried):
            self.retries += 1
        elif isinstance(event, FileFailed):
            self.failure_hints.add(event.hint)
