"""The counters of a run, over several plans and exports."""

from __future__ import annotations

from tilesync.events import FileFailed
from tilesync.jobs.run.stats import RunStats
from tilesync.model import Completeness


def test_a_new_plan_keeps_what_the_run_has_done() -> None:
    """A new plan starts from zero, except for bytes and files that the run has moved or verified."""
    stats = RunStats(listed=9, listed_bytes=90, fetched=3, reused=2, kept=1, failed=1, presence_checked=4, verified=5)
    stats.transferred_bytes, stats.planned_bytes, stats.inventory_complete = 30, 70, True
    stats(FileFailed("a", "BlobMissing", "a is missing", hint="h"))
    stats.reset_for_replan()
    assert stats == RunStats(transferred_bytes=30, planned_bytes=30, verified=5, fetched_before=3, reused_before=2)


def test_every_stored_file_counts_once() -> None:
    """Files that an earlier plan of the run has moved count as moved, but no file counts twice."""
    stats = RunStats(fetched=2, reused=1, fetched_before=2, reused_before=3)
    stats.reconcile(10, stored_before=4)
    assert (stats.fetched, stats.reused, stats.kept) == (4, 2, 4)
    assert (stats.fetched_before, stats.reused_before) == (0, 0)


def test_merged_counters_add_up() -> None:
    """The counters of an earlier export are added to those of the next; flags stay those of the next."""
    stats = RunStats(listed=2, renewals=1, completeness=Completeness(4, 3, 2, 1), inventory_complete=True)
    before = stats.snapshot_and_reset()
    assert stats == RunStats()
    stats.listed, stats.completeness = 5, Completeness(missing=1)
    stats.merge(before)
    assert stats == RunStats(listed=7, renewals=1, completeness=Completeness(4, 4, 2, 1))
