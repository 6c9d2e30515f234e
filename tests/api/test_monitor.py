"""Test the monitor of a run: the record that it makes for the history.

tests/cli/output/test_report.py and tests/cli/test_session.py assert its lines and reports.
"""

from __future__ import annotations

import pytest

from tilesync.api.monitor import MAX_RECORDED_WARNINGS, RunMonitor
from tilesync.errors import DiskFull
from tilesync.events import ExportResolved, LinkRenewed, Retried, VersionChosen, VersionPublished, Warned
from tilesync.model.history import RunRecord


@pytest.fixture
def monitor() -> RunMonitor:
    """Make a monitor that has recorded the events of a run."""
    monitor = RunMonitor(source="https://account.blob.core.windows.net/c", dest="/srv/tiles/office")
    for event in (
        ExportResolved("e1", "i1", "c1", "2026-03-01T08:30:00Z", "e2", True, "2026-03-02T08:30:00Z"),
        VersionChosen("e1-2", "begun"),
        LinkRenewed(None),
        Retried("a blob", "503", 1.0),
        VersionPublished("e1-2", 3, 300),
    ):
        monitor.record(event)
    monitor.stats.fetched, monitor.stats.transferred_bytes = 3, 300
    return monitor


def test_the_record_of_a_good_run(monitor: RunMonitor) -> None:
    """A run that ended well has exit 0, its export and version, and its counts."""
    record = monitor.record_of_run()
    assert (record.exit, record.error, record.message, record.is_success) == (0, "", "", True)
    assert (record.export, record.version, record.published, record.behind) == ("e1", "e1-2", True, True)
    assert (record.newest, record.newest_modified) == ("e2", "2026-03-02T08:30:00Z")
    assert (record.fetched, record.bytes, record.renewals, record.retries) == (3, 300, 1, 1)
    assert record.finished is not None
    assert record.started <= record.finished


def test_the_record_of_a_failed_run(monitor: RunMonitor) -> None:
    """A failed run has the exit code, the name, the message and the hint of its error, without secrets."""
    record = monitor.record_of_run(DiskFull("no space for https://a.example/c?sig=SECRET", hint="free some"))
    assert (record.exit, record.error, record.hint) == (8, "DiskFull", "free some")
    assert record.message == "no space for https://a.example/c?…"


def test_records_of_one_run_share_their_start(monitor: RunMonitor) -> None:
    """A history keeps one record of a run, however often it is made: `started` does not change."""
    assert monitor.record_of_run().started == monitor.record_of_run(DiskFull("full")).started


def test_the_record_of_a_bug(monitor: RunMonitor) -> None:
    """A run that ended with a foreign exception is recorded from its last line."""
    line = monitor.failed_line(name="KeyError", message="this is a bug in tilesync", hint="report it")
    record = monitor.record_of_line(line)
    assert (record.exit, record.error, record.message) == (1, "KeyError", "this is a bug in tilesync")


def test_a_run_before_any_event_has_a_record() -> None:
    """A run that failed at once has a record in which all else is unknown or zero."""
    record = RunMonitor().record_of_run(DiskFull("full"))
    assert record == RunRecord(
        record.started, record.finished, 8, "DiskFull", "full", DiskFull.default_hint, record.seconds
    )


def test_only_the_first_warnings_are_kept() -> None:
    """A server may warn for months: the first warnings are kept, and the others are counted."""
    monitor = RunMonitor()
    for number in range(MAX_RECORDED_WARNINGS):
        monitor.record(Warned(f"warning {number}"))
    assert monitor.warnings[-1] == f"warning {MAX_RECORDED_WARNINGS - 1}"
    for _ in range(2000):
        monitor.record(Warned("one more"))
    assert len(monitor.warnings) == MAX_RECORDED_WARNINGS + 1
    assert monitor.warnings[-1] == monitor.report({})["warnings"][-1] == "2,000 further warnings came later"
