"""Recovery: lost or moved manifests, latest.json, state and mtimes are restored, or reported."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, export, glb, make_stored_blobs, read_manifest, read_tree
from tests.support.crash_injection import SimulatedCrash
from tests.support.faults import error_response, is_blob
from tests.support.sequential_exports import (
    CHANGED_FILE,
    FIRST,
    IDS,
    SECOND,
    THIRD,
    files_of,
    mirror_each,
    offer_exports,
)
from tests.support.simulator import JobOutcome, Simulator, read_latest, rollback, verify
from tilesync.app import commands
from tilesync.app.requests import Target
from tilesync.catalog.catalog import Catalog
from tilesync.core.retention import RetentionPolicy
from tilesync.errors import DestinationError
from tilesync.events import Notice, VersionPublished, VersionRetired, Warned
from tilesync.jobs.versions.listing import classify_export
from tilesync.model import Export, FileStamp, Globs, Layout, Selector
from tilesync.stores.local import flat_layout, fs, reader, writer
from tilesync.stores.local.destination import open_local
from tilesync.stores.local.publication import LocalPublication


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """A destination with two versions; the second is current."""
    return mirror_each(tmp_path / "d", FIRST, SECOND)


def run_mirror(dest: Path, *ids: str, **options: object) -> JobOutcome:
    with Simulator() as sim:
        offer_exports(sim, *(ids or (FIRST, SECOND)))
        return sim.mirror(dest, **options)


# --- manifests ---


@pytest.mark.parametrize("which", [FIRST, SECOND])
def test_a_lost_manifest_is_written_again(dest: Path, which: str) -> None:
    """A lost manifest of any version is written again, with a warning; nothing is fetched, and the pointer does not
    move.
    """
    path = dest / "manifests" / f"{which}.jsonl"
    was = read_manifest(dest, which)
    path.unlink()
    assert verify(dest).exit_code == (10 if which == SECOND else 0)
    run = run_mirror(dest)
    assert run.error is None
    assert run.stats.fetched == 0
    assert run.events_of(VersionPublished) == []
    assert any(which in event.message for event in run.events_of(Warned)) == (
        which == FIRST
    )  # verify had found the other
    assert read_manifest(dest, which) == was
    assert verify(dest, every=True).error is None


@pytest.mark.parametrize("which", [FIRST, SECOND])
@pytest.mark.parametrize("torn", ["", "{", '{"version": "x"}\n'])
def test_a_damaged_manifest_is_written_again(dest: Path, which: str, torn: str) -> None:
    """The run after verify repairs it."""
    was = read_manifest(dest, which)
    (dest / "manifests" / f"{which}.jsonl").write_text(torn)
    assert verify(dest, every=True).exit_code == 10
    assert run_mirror(dest).error is None
    assert read_manifest(dest, which)[1] == was[1]
    assert verify(dest, every=True).error is None


def test_rollback_to_a_version_without_manifest(dest: Path) -> None:
    """The manifest is written again before the pointer moves."""
    (dest / "manifests" / f"{FIRST}.jsonl").unlink()
    assert rollback(dest).error is None
    assert verify(dest).error is None


# --- latest.json ---


def test_without_latest_json_the_current_version_is_known(dest: Path) -> None:
    """Verify reports the missing latest.json; rollback goes to the version before; the guard still works."""
    (dest / "latest.json").unlink()
    run = verify(dest)
    assert run.exit_code == 10
    assert run.stats.verified == len(export(6))
    with Simulator() as sim:
        sim.offer_export(export(1), export_id=THIRD, lastModified="2026-03-03T08:30:00Z")
        assert sim.mirror(dest).exit_code == 11
    assert rollback(dest).error is None
    assert read_latest(dest)["version"] == FIRST


@pytest.mark.parametrize("lost", [False, True])
def test_the_version_of_the_pointer_never_retires(dest: Path, monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    """After a crash between the pointer and latest.json, or without latest.json, the published version stays."""
    if lost:
        (dest / "latest.json").unlink()
        current = SECOND
    else:
        current = THIRD

        def crash(*_: object) -> None:
            raise SimulatedCrash

        with monkeypatch.context() as patch:
            patch.setattr(LocalPublication, "_write_latest", crash)
            with pytest.raises(SimulatedCrash):
                run_mirror(dest, FIRST, SECOND, THIRD)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND, THIRD)
        files = export(6) | {CHANGED_FILE: glb(b"fourth")}
        sim.offer_export(files, export_id="dddddddd-0000-4000-8000-000000000004", lastModified="2026-03-04T08:30:00Z")
        run = sim.mirror(dest, publish=False, retention=RetentionPolicy(1, timedelta(microseconds=1)))
    assert run.error is None
    assert current not in {event.version for event in run.events_of(VersionRetired)}
    assert f"versions/{current}/" in (dest / "tileset.json").read_text()
    assert (dest / "versions" / current / "tileset.json").is_file()


# --- retirement, and what comes after ---


@pytest.mark.parametrize("step", ["retire", "drop_files"])
def test_after_a_crash_in_retirement_the_next_export_is_mirrored(
    dest: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """A version on its way to the trash is no source of duplicates: files come from other versions, or are fetched."""

    def crash(*_: object) -> None:
        raise SimulatedCrash

    with monkeypatch.context() as patch:
        patch.setattr(LocalPublication if step == "retire" else Catalog, step, crash)
        with pytest.raises(SimulatedCrash):
            run_mirror(dest, retention=RetentionPolicy(1, timedelta(microseconds=1)))
    with Simulator() as sim:
        files = export(6) | {CHANGED_FILE: glb(FIRST.encode())}
        sim.offer_export(files, export_id=THIRD, lastModified="2026-03-03T08:30:00Z")
        run = sim.mirror(dest)
    assert run.error is None
    assert read_tree(dest / "versions" / THIRD) == files
    assert not (dest / "versions" / FIRST).exists()
    assert verify(dest, every=True).error is None


def test_a_file_that_returns_in_the_flat_layout(tmp_path: Path) -> None:
    """A file is missing in one export and present in the next: remains of it cause no error."""
    with Simulator() as sim:
        first = export(8)
        for number, files in enumerate((first, export(6), first, export(6), first)):
            sim.offer_export(files, export_id=f"{number}-export", lastModified=f"2026-03-0{number + 1}T08:30:00Z")
            run = sim.mirror(tmp_path, layout=Layout.FLAT)
            assert run.error is None
            assert files.items() <= read_tree(tmp_path).items()
    assert verify(tmp_path).error is None


# --- copies ---


@pytest.fixture
def copied(dest: Path, tmp_path: Path) -> Path:
    """The destination, copied without its mtimes, as `cp -r` does."""
    target = tmp_path / "copy"
    shutil.copytree(dest, target, symlinks=True, copy_function=shutil.copyfile)
    return target


def test_a_copy_without_mtimes_is_valid(copied: Path) -> None:
    """Its bytes are checked: rollback works, nothing is fetched or called damaged, and its files are recorded again."""
    assert rollback(copied, FIRST).error is None
    assert rollback(copied, latest=True).error is None
    (copied / "latest.json").unlink()
    run = run_mirror(copied)
    assert run.error is None
    assert run.stats.fetched == 0
    assert run.events_of(Warned) == []
    states = {each.state for each in commands.list_versions(Target(copied), JobOutcome())[0]}
    assert states == {"held"}


def test_a_copy_with_a_damaged_file_is_not_valid(copied: Path) -> None:
    """Damage is found, though every file looks changed."""
    (copied / "versions" / FIRST / CHANGED_FILE).write_bytes(b"rotten")
    assert rollback(copied, FIRST).exit_code == 10


# --- the state ---


def test_foreign_files_of_an_unfinished_version_are_removed(tmp_path: Path) -> None:
    """A version in the folder of an unfinished one has exactly the files of the container at the end."""
    with Simulator() as sim:
        sim.offer_export(export(12))
        fault = sim.add_fault(is_blob, error_response(404, "BlobNotFound"), skip=9)
        assert sim.mirror(tmp_path).exit_code == 3
        sim.faults.remove(fault)
        shutil.rmtree(tmp_path / ".tilesync")
        folder = tmp_path / "versions" / FIRST
        (folder / "stray/deep").mkdir(parents=True)
        (folder / "stray/deep/file").write_text("stray")
        (folder / "stray/link").symlink_to("deep")
        files = export(4)
        sim.regenerate(files)
        assert sim.mirror(tmp_path, globs=Globs(exclude=("data/*",))).error is None
    wanted = {name for name in files if not name.startswith("data/")}
    assert read_tree(folder).keys() == wanted
    assert not (folder / "stray").exists()


@pytest.fixture
def foreign_folder() -> Iterator[Path]:
    """A folder that every user may enter; during the test another user, who owns nothing, opens it."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a while")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_another_user_can_list_and_verify(foreign_folder: Path) -> None:
    """A user who can read the files but not the state sees and verifies the versions, without internal errors."""
    mirror_each(foreign_folder / "d", FIRST, SECOND)
    os.seteuid(65534)
    try:
        rows = commands.list_versions(Target(foreign_folder / "d"), JobOutcome())[0]
        audit = verify(foreign_folder / "d", every=True)
        with Simulator() as sim:
            offer_exports(sim, FIRST, SECOND)
            plan = sim.dry_run(foreign_folder / "d")
        back = rollback(foreign_folder / "d")
    finally:
        os.seteuid(0)
    assert [row.version.name for row in rows] == [SECOND, FIRST]
    assert audit.error is None
    assert (plan.exit_code, back.exit_code) == (8, 8)


def test_a_repaired_old_version_stays_old(dest: Path) -> None:
    """The container changed during the repair of an old version: `rollback --latest` still leads to the newest one."""
    (dest / "versions" / FIRST / CHANGED_FILE).unlink()
    verify(dest, every=True)
    selector = Selector(imodel=IMODEL, export_type="3DTiles", export_id=FIRST)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND)
        sim.containers[FIRST] |= make_stored_blobs({CHANGED_FILE: glb(b"another")})
        assert sim.mirror(dest, selector=selector, publish=False).error is None
    rollback(dest, FIRST)
    assert rollback(dest, latest=True).error is None
    assert read_latest(dest)["version"] == SECOND


# --- what cannot be trusted ---


def test_a_manifest_with_another_name_is_ignored(dest: Path) -> None:
    """A version has the name of its manifest file: a manifest that names a path elsewhere is not used, nothing is
    written outside, and the files that it names stay.
    """
    head, *lines = (dest / "manifests" / f"{FIRST}.jsonl").read_text().splitlines()
    evil = json.dumps({**json.loads(head), "version": "../../victim"})
    (dest / "manifests/evil.jsonl").write_text("\n".join([evil, *lines]) + "\n")
    shutil.rmtree(dest / ".tilesync")
    beside = set(dest.parent.iterdir())
    run = run_mirror(dest, retention=RetentionPolicy(1, timedelta(microseconds=1)))
    assert run.error is None
    assert any("evil" in event.message for event in run.events_of(Warned))
    assert set(dest.parent.iterdir()) == beside
    assert verify(dest, every=True).exit_code == 10


@pytest.mark.parametrize(
    ("layout", "state"), [(Layout.FLAT, "st"), (Layout.FLAT, "."), (Layout.VERSIONED, "."), (Layout.VERSIONED, "")]
)
def test_a_state_among_the_files_is_refused(tmp_path: Path, layout: Layout, state: str) -> None:
    """The state must not lie where files of the container go, or be DEST itself; nothing is created."""
    with Simulator() as sim:
        sim.offer_export(export(2) | {"st/catalog.sqlite3": glb(b"evil")})
        run = sim.mirror(tmp_path / "d", layout=layout, state_dir=tmp_path / "d" / state)
    assert run.exit_code == 8
    assert not (tmp_path / "d").exists()


def test_an_older_state_is_not_emptied_by_a_reader(dest: Path) -> None:
    """A state of another tilesync version changes only in a run with the lock; the manifests list the versions."""
    path = dest / ".tilesync/catalog.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value='1' WHERE key='schema'")
        db.commit()
    rows = commands.list_versions(Target(dest), JobOutcome())[0]
    assert [(row.version.name, row.shared_bytes) for row in rows] == [(SECOND, None), (FIRST, None)]
    assert verify(dest, every=True).error is None
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM blob").fetchone()[0] == 2 * len(export(6))


def test_inodes_of_64_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Inodes that use the highest bit work."""

    class Stat:
        def __init__(self, result: os.stat_result) -> None:
            self.st_mtime_ns, self.st_ino = result.st_mtime_ns, result.st_ino | 1 << 63

    real: Callable[[Any], FileStamp] = fs.stamp_from_stat
    for module in (fs, reader, writer, flat_layout):
        monkeypatch.setattr(module, "stamp_from_stat", lambda result: real(Stat(result)))
    mirror_each(tmp_path, FIRST, SECOND)
    assert verify(tmp_path, every=True).error is None
    assert commands.list_versions(Target(tmp_path), JobOutcome())[0][0].shared_bytes


# --- what is never given up ---


def test_an_export_that_was_never_complete_does_not_count_as_retired(tmp_path: Path) -> None:
    """An unfinished version that retires is mirrored by the next --all-exports, and warned of until then."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        fault = sim.add_fault(is_blob, error_response(404, "BlobNotFound"))
        assert sim.mirror(tmp_path).exit_code == 3
        sim.faults.remove(fault)
        offer_exports(sim, SECOND)
        run = sim.mirror(tmp_path, retention=RetentionPolicy(1, timedelta(microseconds=1)))
        (event,) = run.events_of(VersionRetired)
        assert (event.version, event.files) == (FIRST, len(export(6)) - 1)
        assert (
            classify_export(export_row(FIRST), commands.list_versions(Target(tmp_path), JobOutcome(), retired=True)[0])
            == ""
        )
        assert sim.mirror(tmp_path, all_exports=True).error is None
    assert verify(tmp_path, every=True).error is None
    assert len(list((tmp_path / "manifests").iterdir())) == 2


def export_row(which: str) -> Export:
    return Export(which, "Complete", modified=f"2026-03-0{1 + IDS.index(which)}T08:30:00Z")


def test_a_resumed_version_gets_a_new_start_time(tmp_path: Path) -> None:
    """A resumed version does not retire because of its first start time."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        sim.add_fault(is_blob, error_response(404, "BlobNotFound"), times=None, skip=2)
        assert sim.mirror(tmp_path).exit_code == 3
        with open_local(tmp_path, state_dir=None) as destination:
            (version,) = destination.catalog.versions()
            destination.catalog.update_version(version.with_times(started_at="2020-01-01T00:00:00Z"))
        assert sim.mirror(tmp_path).exit_code == 3
    with open_local(tmp_path, state_dir=None) as destination:
        assert destination.catalog.versions()[0].times.started_at > "2026"


def test_an_export_with_only_a_new_date_is_stored(dest: Path) -> None:
    """The service changed only the date: the export counts as stored, without a warning."""
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND)
        sim.regenerate(files_of(SECOND), export_id=SECOND)
        assert sim.mirror(dest).stats.fetched == 0
        modified = sim.exports[0]["lastModified"]
    listed = commands.list_versions(Target(dest), JobOutcome())[0]
    assert classify_export(Export(SECOND, "Complete", modified=modified), listed) == "held"


def test_latest_is_the_newest_in_the_order_of_the_service(tmp_path: Path) -> None:
    """The order of the service decides which export is newest, not the date of an old changeset exported again."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        assert sim.mirror(tmp_path).error is None
        offer_exports(sim, SECOND)
        sim.exports[1]["lastModified"] = "2026-03-09T08:30:00Z"  # the older row, exported anew
        assert sim.mirror(tmp_path, all_exports=True).error is None
        assert read_latest(tmp_path)["version"] == SECOND
        rollback(tmp_path, FIRST)
        assert rollback(tmp_path, latest=True).error is None
    assert read_latest(tmp_path)["version"] == SECOND


def test_a_crash_between_unpinning_and_moving_the_pointer(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next run removes the pin from latest.json too."""
    rollback(dest, SECOND)
    assert read_latest(dest)["pinned"] is True

    def crash(*_: object) -> None:
        raise SimulatedCrash

    with monkeypatch.context() as patch:
        patch.setattr(LocalPublication, "point_at", crash)
        with pytest.raises(SimulatedCrash):
            rollback(dest, latest=True)
    assert run_mirror(dest).error is None
    assert "pinned" not in read_latest(dest)


def test_the_pointer_never_moves_to_an_incomplete_pinned_version(dest: Path) -> None:
    """With the pointer lost too, it is not restored to an incomplete version, and the run warns."""
    rollback(dest, FIRST)
    (dest / "versions" / FIRST / CHANGED_FILE).unlink()
    (dest / "tileset.json").unlink()
    run = run_mirror(dest)
    assert run.error is None
    assert any("not complete" in event.message for event in run.events_of(Warned))
    assert not (dest / "tileset.json").exists()


def test_files_of_earlier_filters_are_removed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file that was placed but not recorded before a crash, and is excluded by the next run, is removed."""

    def crash(*_: object) -> None:
        raise SimulatedCrash

    with Simulator() as sim:
        offer_exports(sim, FIRST)
        with monkeypatch.context() as patch:
            patch.setattr(Catalog, "mark_stored", crash)
            with pytest.raises(SimulatedCrash):
                sim.mirror(tmp_path)
        assert any((tmp_path / "versions" / FIRST / "tiles").glob("*.glb"))
        assert sim.mirror(tmp_path, globs=Globs(exclude=("*.glb",))).error is None
    assert not any(name.endswith(".glb") for name in read_tree(tmp_path / "versions" / FIRST))


def test_a_version_that_was_removed_by_hand_is_forgotten(dest: Path) -> None:
    """Without folder and manifest it is reported once, does not come back, and nothing else changes."""
    shutil.rmtree(dest / "versions" / FIRST)
    (dest / "manifests" / f"{FIRST}.jsonl").unlink()
    first, again = run_mirror(dest), run_mirror(dest)
    assert (first.error, again.error) == (None, None)
    assert any(FIRST in event.message for event in first.events_of(Notice))
    assert again.events_of(Notice) == again.events_of(Warned) == []
    assert [row.version.name for row in commands.list_versions(Target(dest), JobOutcome())[0]] == [SECOND]
    assert verify(dest, every=True).error is None


def test_a_manifest_is_not_written_again_for_lost_files(dest: Path) -> None:
    """With manifest and a file lost, the version is damaged, and repaired if possible."""
    (dest / "manifests" / f"{FIRST}.jsonl").unlink()
    (dest / "versions" / FIRST / CHANGED_FILE).unlink()
    run = run_mirror(dest, SECOND)
    assert run.error is None
    assert any("gone or changed" in event.message for event in run.events_of(Warned))
    assert not (dest / "manifests" / f"{FIRST}.jsonl").exists()
    (dest / "versions" / SECOND / "tiles/001.glb").unlink()
    (dest / "manifests" / f"{SECOND}.jsonl").unlink()
    assert run_mirror(dest).error is None
    assert verify(dest).error is None


def test_a_retired_filtered_version_does_not_count_as_the_export(tmp_path: Path) -> None:
    """A retired version with a part of the files does not count for the whole export."""
    selector = Selector(imodel=IMODEL, export_type="3DTiles", export_id=FIRST)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND)
        assert sim.mirror(tmp_path, selector=selector, globs=Globs(exclude=("*.glb",))).error is None
        assert (
            len(sim.mirror(tmp_path, retention=RetentionPolicy(1, timedelta(microseconds=1))).events_of(VersionRetired))
            == 1
        )
        listed = commands.list_versions(Target(tmp_path), JobOutcome(), retired=True)[0]
        assert classify_export(export_row(FIRST), listed) == ""
        assert sim.mirror(tmp_path, all_exports=True).error is None
    assert {row.version.export for row in commands.list_versions(Target(tmp_path), JobOutcome())[0]} == {
        FIRST,
        SECOND,
    }


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("closed", [".", ".tilesync"])
def test_an_unreadable_destination_is_an_error(foreign_folder: Path, layout: Layout, closed: str) -> None:
    """A destination or state that a user cannot read ends each command with exit 8, never with an internal error."""
    dest = foreign_folder / "d"
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        assert sim.mirror(dest, layout=layout).error is None
        (dest / closed).chmod(0o700)
        os.seteuid(65534)
        try:
            exits = {
                sim.mirror(dest, layout=layout).exit_code,
                sim.dry_run(dest, layout=layout).exit_code,
                rollback(dest).exit_code,
            }
            audit = verify(dest).exit_code
            try:
                commands.list_versions(Target(dest), JobOutcome())[0]
                listing_exit = 0
            except DestinationError:
                listing_exit = 8
        finally:
            os.seteuid(0)
    assert exits == {8}
    assert audit == listing_exit == (0 if layout is Layout.VERSIONED and closed == ".tilesync" else 8)


def test_a_manifest_with_huge_numbers_is_a_finding(dest: Path) -> None:
    """It cannot be read, which is a finding, not an internal error."""
    path = dest / "manifests" / f"{FIRST}.jsonl"
    path.write_text(path.read_text().replace('"files":', '"files":1000000000000000000000', 1))
    assert verify(dest, every=True).exit_code == 10
    shutil.rmtree(dest / ".tilesync")
    run = run_mirror(dest)
    assert run.error is None
    assert any("cannot be added to the catalog" in event.message for event in run.events_of(Warned))


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_bare_link_keeps_the_record_of_the_service(tmp_path: Path, unfinished: bool) -> None:
    """An older version that is mirrored or finished by its link keeps its date, record and position."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        if unfinished:
            sim.add_fault(is_blob, error_response(404, "BlobNotFound"))
        assert sim.mirror(tmp_path).exit_code == (3 if unfinished else 0)
        offer_exports(sim, SECOND)
        assert sim.mirror(tmp_path).error is None
        assert sim.mirror(tmp_path, link=sim.create_link(FIRST), publish=False).error is None
        rows = commands.list_versions(Target(tmp_path), JobOutcome())[0]
        assert [(row.version.name, row.version.facts.modified[:10]) for row in rows] == [
            (SECOND, "2026-03-02"),
            (FIRST, "2026-03-01"),
        ]
        assert rows[1].version.facts.record["displayName"]
        assert read_manifest(tmp_path, FIRST)[0]["export"]["displayName"]
        sim.clear_requests()
        assert sim.mirror(tmp_path, all_exports=True).error is None
        assert all(request.is_api for request in sim.requests)
