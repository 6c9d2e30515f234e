"""Cleanup with a fake clock: retention, the trash, repair of damaged versions."""

from __future__ import annotations

import asyncio
import os
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from tests.support.builders import IMODEL, read_tree
from tests.support.clock import FakeClock
from tests.support.crash_injection import CrashAfterCalls, SimulatedCrash
from tests.support.sequential_exports import CHANGED_FILE, IDS, mirror_each, offer_exports
from tests.support.simulator import JobOutcome, Simulator, read_latest, rollback, verify
from tilesync.catalog.catalog import Catalog
from tilesync.core.retention import KEEP_ALL_VERSIONS, TRASH_RETENTION, RetentionPolicy
from tilesync.errors import DestinationError
from tilesync.events import VersionRetired, Warned
from tilesync.jobs.mirror.cleanup import Cleanup
from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.run.context import RunContext
from tilesync.model import Selector
from tilesync.stores.local.destination import open_local

DAY = timedelta(days=1)


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A destination with five versions; the fifth is current."""
    return mirror_each(tmp_path / "d", *IDS)


def clean_up(dest: Path, retention: RetentionPolicy, *, after: timedelta = timedelta()) -> JobOutcome:
    """Clean up at the given time after now, and return the outcome."""
    outcome = JobOutcome()
    clock = FakeClock(datetime.now(UTC) + after)
    run = RunContext(clock, outcome, outcome.stats, ConcurrencyLimiter(clock, fixed_limit=1), retry_for=timedelta())
    with open_local(dest, state_dir=None) as destination:
        asyncio.run(Cleanup(destination, run, retention, None).run())
    return outcome


def versions(dest: Path) -> list[str]:
    return sorted(path.name for path in (dest / "versions").iterdir())


def trash(dest: Path) -> list[str]:
    folder = dest / ".tilesync/trash"
    return sorted(path.name.split("Z-", 1)[1] for path in folder.iterdir()) if folder.is_dir() else []


def test_versions_retire_through_the_trash(dest: Path) -> None:
    """Versions beyond number and age move to the trash with folder and manifest; no other version changes."""
    before = {which: read_tree(dest / "versions" / which) for which in IDS}
    assert clean_up(dest, RetentionPolicy(2, 2 * DAY), after=DAY).events_of(VersionRetired) == []
    run = clean_up(dest, RetentionPolicy(2, 2 * DAY), after=3 * DAY)
    assert [event.version for event in run.events_of(VersionRetired)] == list(IDS[2::-1])
    assert run.events_of(VersionRetired)[0].files == len(before[IDS[2]])
    assert versions(dest) == list(IDS[3:])
    assert sorted(path.stem for path in (dest / "manifests").iterdir()) == list(IDS[3:])
    assert trash(dest) == list(IDS[:3])
    for which in IDS[:3]:
        (place,) = (dest / ".tilesync/trash").glob(f"*-{which}")
        assert read_tree(place / "versions" / which) == before[which]
        assert (place / "manifests" / f"{which}.jsonl").is_file()
    assert verify(dest, every=True).error is None
    assert clean_up(dest, RetentionPolicy(2, 2 * DAY), after=3 * DAY).events_of(VersionRetired) == []


def test_the_trash_is_emptied_after_seven_days(dest: Path) -> None:
    """Not earlier, and files of the user in the trash stay; shared files stay intact."""
    clean_up(dest, RetentionPolicy(1, timedelta()), after=DAY)
    (dest / ".tilesync/trash/mine").mkdir()
    clean_up(dest, KEEP_ALL_VERSIONS, after=DAY + TRASH_RETENTION - timedelta(minutes=1))
    assert len(trash_entries(dest)) == 5
    clean_up(dest, KEEP_ALL_VERSIONS, after=DAY + TRASH_RETENTION + timedelta(seconds=2))
    assert trash_entries(dest) == ["mine"]
    assert verify(dest).error is None


def trash_entries(dest: Path) -> list[str]:
    return sorted(path.name for path in (dest / ".tilesync/trash").iterdir())


def test_the_current_version_never_retires(dest: Path) -> None:
    """After a rollback to the oldest version, that one stays, whatever its age."""
    assert rollback(dest, IDS[0]).error is None
    clean_up(dest, RetentionPolicy(1, timedelta()), after=9 * DAY)
    assert versions(dest) == [IDS[0], IDS[4]]
    assert read_latest(dest)["version"] == IDS[0]
    assert verify(dest).error is None


def test_an_abandoned_unfinished_version_retires(dest: Path) -> None:
    """An unfinished version has no manifest; its files are removed all the same."""
    with open_local(dest, state_dir=None) as destination:
        old = destination.catalog.versions()[0]
        destination.catalog.add_version(
            replace(old, name="half", export="half")
            .with_summary(published_at=None)
            .with_times(started_at="2026-01-01T00:00:00Z")
        )
    (dest / "versions/half").mkdir()
    run = clean_up(dest, RetentionPolicy(9, DAY))
    assert [event.version for event in run.events_of(VersionRetired)] == ["half"]
    assert versions(dest) == list(IDS)


@pytest.mark.parametrize("step", range(1, 12))
def test_an_interrupted_retirement_resumes(dest: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    """After a crash at any rename or catalog write, the next run ends like an undisturbed one."""
    crash = CrashAfterCalls(step)
    with monkeypatch.context() as patch:
        patch.setattr(os, "rename", crash.wrap(os.rename))
        for method in ("set_value", "update_version", "drop_files"):
            patch.setattr(Catalog, method, crash.wrap(getattr(Catalog, method)))
        with pytest.raises(SimulatedCrash):
            clean_up(dest, RetentionPolicy(2, 2 * DAY), after=3 * DAY)
    run = clean_up(dest, RetentionPolicy(2, 2 * DAY), after=3 * DAY)
    assert run.error is None
    assert versions(dest) == list(IDS[3:])
    assert sorted(path.stem for path in (dest / "manifests").iterdir()) == list(IDS[3:])
    assert trash(dest) == list(IDS[:3])
    assert verify(dest, every=True).error is None
    with open_local(dest, state_dir=None) as destination:
        assert [version.name for version in destination.catalog.versions()] == list(IDS[3:])


def test_a_damaged_version_is_repaired_from_others(dest: Path) -> None:
    """Files that verify found bad in an older version are restored from one that shares them, without the service."""
    old = dest / "versions" / IDS[1]
    lost, data = old / "tiles/002.glb", (old / "tiles/002.glb").read_bytes()
    lost.unlink()
    assert verify(dest, every=True).exit_code == 10
    run = clean_up(dest, KEEP_ALL_VERSIONS)
    assert run.events_of(Warned) == []
    assert lost.read_bytes() == data
    assert verify(dest, every=True).error is None


def test_a_lost_file_without_duplicate_is_reported(dest: Path) -> None:
    """A file that only the damaged version had is lost; the warning says how to fetch it, and the version stays
    damaged.
    """
    (dest / "versions" / IDS[1] / CHANGED_FILE).unlink()
    assert verify(dest, every=True).exit_code == 10
    run = clean_up(dest, KEEP_ALL_VERSIONS)
    (warning,) = run.events_of(Warned)
    assert f"--export-id {IDS[1]}" in warning.message
    with Simulator() as sim:
        files = offer_exports(sim, IDS[1], IDS[4])[IDS[1]]
        selector = Selector(imodel=IMODEL, export_type="3DTiles", export_id=IDS[1])
        assert sim.mirror(dest, selector=selector, publish=False).error is None
    assert (dest / "versions" / IDS[1] / CHANGED_FILE).read_bytes() == files[CHANGED_FILE]
    assert verify(dest, every=True).error is None
    assert read_latest(dest)["version"] == IDS[4]


def test_an_unusable_trash_is_an_error(dest: Path) -> None:
    """A file in place of the trash folder is an error of the destination, and loses nothing."""
    (dest / ".tilesync/trash").write_text("")
    with pytest.raises(DestinationError):
        clean_up(dest, RetentionPolicy(1, timedelta()), after=DAY)
    (dest / ".tilesync/trash").unlink()
    assert clean_up(dest, RetentionPolicy(1, timedelta()), after=DAY).error is None
    assert versions(dest) == list(IDS[4:])
