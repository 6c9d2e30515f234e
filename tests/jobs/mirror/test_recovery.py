"""What was lost or carried elsewhere: manifests, latest.json, the state, mtimes; each is recovered, or said."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import tempfile
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import replace
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
from tilesync.app import commands as wiring
from tilesync.app.requests import Target
from tilesync.catalog.catalog import SqliteCatalog
from tilesync.core.retention import RetentionPolicy
from tilesync.errors import DestinationError
from tilesync.events import Notice, VersionPublished, VersionRetired, Warned
from tilesync.jobs.versions.listing import classify_export
from tilesync.model import Export, FileStamp, Globs, Layout, Selector
from tilesync.stores.local import flat_layout as flat
from tilesync.stores.local import fs as disk
from tilesync.stores.local import reader as held
from tilesync.stores.local import writer as files
from tilesync.stores.local.destination import open_local
from tilesync.stores.local.publication import LocalPublication


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    """Two versions, the second one current."""
    return mirror_each(tmp_path / "d", FIRST, SECOND)


def run_mirror(dest: Path, *ids: str, **wishes: object) -> JobOutcome:
    with Simulator() as sim:
        offer_exports(sim, *(ids or (FIRST, SECOND)))
        return sim.mirror(dest, **wishes)


# --- manifests ---


@pytest.mark.parametrize("which", [FIRST, SECOND])
def test_a_lost_manifest_is_written_again(dest: Path, which: str) -> None:
    """That of any version; it is said, nothing is fetched, and the pointer is not called moved."""
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
def test_a_torn_manifest_that_verify_found_is_written_again(dest: Path, which: str, torn: str) -> None:
    """As verify promises: the next run mends it."""
    was = read_manifest(dest, which)
    (dest / "manifests" / f"{which}.jsonl").write_text(torn)
    assert verify(dest, every=True).exit_code == 10
    assert run_mirror(dest).error is None
    assert read_manifest(dest, which)[1] == was[1]
    assert verify(dest, every=True).error is None


def test_back_to_a_version_whose_manifest_was_lost(dest: Path) -> None:
    """It is written again before the pointer leads there."""
    (dest / "manifests" / f"{FIRST}.jsonl").unlink()
    assert rollback(dest).error is None
    assert verify(dest).error is None


# --- latest.json ---


def test_without_latest_json_the_current_version_is_known(dest: Path) -> None:
    """Verify audits it and finds latest.json missing; going back goes to the version before; the guard holds."""
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
def test_what_the_pointer_leads_to_never_retires(dest: Path, monkeypatch: pytest.MonkeyPatch, lost: bool) -> None:
    """Killed between the pointer and latest.json, or with latest.json lost: the version stays that viewers see."""
    if lost:
        (dest / "latest.json").unlink()
        current = SECOND
    else:
        current = THIRD

        def kill(*_: object) -> None:
            raise SimulatedCrash

        with monkeypatch.context() as patch:
            patch.setattr(LocalPublication, "_write_latest", kill)
            with pytest.raises(SimulatedCrash):
                run_mirror(dest, FIRST, SECOND, THIRD)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND, THIRD)
        files = export(6) | {CHANGED_FILE: glb(b"fourth")}
        sim.offer_export(files, export_id="dddddddd-0000-4000-8000-000000000004", lastModified="2026-03-04T08:30:00Z")
        run = sim.mirror(dest, publish=False, keep=RetentionPolicy(1, timedelta(microseconds=1)))
    assert run.error is None
    assert current not in {event.version for event in run.events_of(VersionRetired)}
    assert f"versions/{current}/" in (dest / "tileset.json").read_text()
    assert (dest / "versions" / current / "tileset.json").is_file()


# --- retirement, and what comes after ---


@pytest.mark.parametrize("step", ["retire", "drop_files"])
def test_after_a_kill_in_retirement_the_next_export_comes(
    dest: Path, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    """What is on its way to the trash is no one's twin: the next export shares with others, or is fetched."""

    def kill(*_: object) -> None:
        raise SimulatedCrash

    with monkeypatch.context() as patch:
        patch.setattr(LocalPublication if step == "retire" else SqliteCatalog, step, kill)
        with pytest.raises(SimulatedCrash):
            run_mirror(dest, keep=RetentionPolicy(1, timedelta(microseconds=1)))
    with Simulator() as sim:
        files = export(6) | {CHANGED_FILE: glb(FIRST.encode())}
        sim.offer_export(files, export_id=THIRD, lastModified="2026-03-03T08:30:00Z")
        run = sim.mirror(dest)
    assert run.error is None
    assert read_tree(dest / "versions" / THIRD) == files
    assert not (dest / "versions" / FIRST).exists()
    assert verify(dest, every=True).error is None


def test_a_file_that_comes_back_in_the_flat_layout(tmp_path: Path) -> None:
    """Gone in one export and there again in the next: what was left of it is no reason to stumble."""
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


def test_a_copy_without_mtimes_is_whole(copied: Path) -> None:
    """Its bytes decide: it can be gone back in, nothing is fetched or called damaged, and its files are known again."""
    assert rollback(copied, FIRST).error is None
    assert rollback(copied, latest=True).error is None
    (copied / "latest.json").unlink()
    run = run_mirror(copied)
    assert run.error is None
    assert run.stats.fetched == 0
    assert run.events_of(Warned) == []
    states = {each.state for each in wiring.list_versions(Target(copied), JobOutcome())[0]}
    assert states == {"held"}


def test_a_copy_with_a_rotten_file_is_not(copied: Path) -> None:
    """What is not right is found, though everything looks changed."""
    (copied / "versions" / FIRST / CHANGED_FILE).write_bytes(b"rotten")
    assert rollback(copied, FIRST).exit_code == 10


# --- the state ---


def test_what_lay_there_before_the_state_was_lost_is_swept(tmp_path: Path) -> None:
    """A version that takes the folder of one that was never finished has exactly the container's files in the end."""
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
    """A folder that anyone may enter, and for the time of the test a user who owns nothing."""
    if os.geteuid() != 0:
        pytest.skip("only root can be another user for a while")
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def test_another_user_may_look(foreign_folder: Path) -> None:
    """Whoever may read the files but not the state sees the versions and can prove them; nothing is called a bug."""
    mirror_each(foreign_folder / "d", FIRST, SECOND)
    os.seteuid(65534)
    try:
        rows = wiring.list_versions(Target(foreign_folder / "d"), JobOutcome())[0]
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


def test_a_container_that_changed_while_an_old_version_was_healed(dest: Path) -> None:
    """The old version stays the older one: going forward again leads to the newest."""
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


def test_a_manifest_of_another_name_leads_nowhere(dest: Path) -> None:
    """A version is what its manifest is named after: one that names a path elsewhere is not taken over, nothing is
    written outside, and what it names is left alone.
    """
    head, *lines = (dest / "manifests" / f"{FIRST}.jsonl").read_text().splitlines()
    evil = json.dumps({**json.loads(head), "version": "../../victim"})
    (dest / "manifests/evil.jsonl").write_text("\n".join([evil, *lines]) + "\n")
    shutil.rmtree(dest / ".tilesync")
    beside = set(dest.parent.iterdir())
    run = run_mirror(dest, keep=RetentionPolicy(1, timedelta(microseconds=1)))
    assert run.error is None
    assert any("evil" in event.message for event in run.events_of(Warned))
    assert set(dest.parent.iterdir()) == beside
    assert verify(dest, every=True).exit_code == 10


@pytest.mark.parametrize(
    ("layout", "state"), [(Layout.FLAT, "st"), (Layout.FLAT, "."), (Layout.VERSIONED, "."), (Layout.VERSIONED, "")]
)
def test_a_state_among_the_files_is_refused(tmp_path: Path, layout: Layout, state: str) -> None:
    """Where the container's files would lie on it, or it is the folder itself; nothing is made."""
    with Simulator() as sim:
        sim.offer_export(export(2) | {"st/catalog.sqlite3": glb(b"evil")})
        run = sim.mirror(tmp_path / "d", layout=layout, state_dir=tmp_path / "d" / state)
    assert run.exit_code == 8
    assert not (tmp_path / "d").exists()


def test_an_older_state_is_not_emptied_by_looking(dest: Path) -> None:
    """What another tilesync wrote is left to a run that holds the lock; the versions are told by their manifests."""
    path = dest / ".tilesync/catalog.sqlite3"
    with closing(sqlite3.connect(path)) as db:
        db.execute("UPDATE meta SET value='1' WHERE key='schema'")
        db.commit()
    rows = wiring.list_versions(Target(dest), JobOutcome())[0]
    assert [(row.version.name, row.shared_bytes) for row in rows] == [(SECOND, None), (FIRST, None)]
    assert verify(dest, every=True).error is None
    with closing(sqlite3.connect(path)) as db:
        assert db.execute("SELECT count(*) FROM blob").fetchone()[0] == 2 * len(export(6))


def test_inodes_of_64_bits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A file system whose inodes use the highest bit is one like any other."""

    class Stat:
        def __init__(self, found: os.stat_result) -> None:
            self.st_mtime_ns, self.st_ino = found.st_mtime_ns, found.st_ino | 1 << 63

    real: Callable[[Any], FileStamp] = disk.stamp_from_stat
    for module in (disk, held, files, flat):
        monkeypatch.setattr(module, "stamp_from_stat", lambda found: real(Stat(found)))
    mirror_each(tmp_path, FIRST, SECOND)
    assert verify(tmp_path, every=True).error is None
    assert wiring.list_versions(Target(tmp_path), JobOutcome())[0][0].shared_bytes


# --- what is never given up ---


def test_an_export_that_was_never_held_whole_is_not_taken_for_retired(tmp_path: Path) -> None:
    """An unfinished version that retires is brought in by the next --all-exports, and warned of until then."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        fault = sim.add_fault(is_blob, error_response(404, "BlobNotFound"))
        assert sim.mirror(tmp_path).exit_code == 3
        sim.faults.remove(fault)
        offer_exports(sim, SECOND)
        run = sim.mirror(tmp_path, keep=RetentionPolicy(1, timedelta(microseconds=1)))
        (event,) = run.events_of(VersionRetired)
        assert (event.version, event.files) == (FIRST, len(export(6)) - 1)
        assert (
            classify_export(export_row(FIRST), wiring.list_versions(Target(tmp_path), JobOutcome(), retired=True)[0])
            == ""
        )
        assert sim.mirror(tmp_path, all_exports=True).error is None
    assert verify(tmp_path, every=True).error is None
    assert len(list((tmp_path / "manifests").iterdir())) == 2


def export_row(which: str) -> Export:
    return Export(which, "Complete", modified=f"2026-03-0{1 + IDS.index(which)}T08:30:00Z")


def test_a_version_that_is_taken_up_again_is_young(tmp_path: Path) -> None:
    """What a run resumes is not given up for having been begun long ago."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        sim.add_fault(is_blob, error_response(404, "BlobNotFound"), times=None, skip=2)
        assert sim.mirror(tmp_path).exit_code == 3
        with open_local(tmp_path, state_dir=None) as there:
            (version,) = there.catalog.versions()
            there.catalog.update_version(replace(version, started_at="2020-01-01T00:00:00Z"))
        assert sim.mirror(tmp_path).exit_code == 3
    with open_local(tmp_path, state_dir=None) as there:
        assert there.catalog.versions()[0].started_at > "2026"


def test_an_export_that_was_only_touched_is_held(dest: Path) -> None:
    """The service changed nothing but the date: the export is held as it is, and nothing is warned of."""
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND)
        sim.regenerate(files_of(SECOND), export_id=SECOND)
        assert sim.mirror(dest).stats.fetched == 0
        modified = sim.exports[0]["lastModified"]
    there = wiring.list_versions(Target(dest), JobOutcome())[0]
    assert classify_export(Export(SECOND, "Complete", modified=modified), there) == "held"


def test_forward_again_is_where_the_mirror_is(tmp_path: Path) -> None:
    """The service's order decides what is newest, not the date of an old changeset that was exported again."""
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


def test_a_kill_between_the_pin_s_end_and_the_pointer(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The pin is gone from latest.json, too, after the next run."""
    rollback(dest, SECOND)
    assert read_latest(dest)["pinned"] is True

    def kill(*_: object) -> None:
        raise SimulatedCrash

    with monkeypatch.context() as patch:
        patch.setattr(LocalPublication, "point_at", kill)
        with pytest.raises(SimulatedCrash):
            rollback(dest, latest=True)
    assert run_mirror(dest).error is None
    assert "pinned" not in read_latest(dest)


def test_a_pinned_version_that_lost_files_is_not_pointed_at(dest: Path) -> None:
    """The pointer was lost too: it is not put back to what is not whole, and that is said."""
    rollback(dest, FIRST)
    (dest / "versions" / FIRST / CHANGED_FILE).unlink()
    (dest / "tileset.json").unlink()
    run = run_mirror(dest)
    assert run.error is None
    assert any("not whole" in event.message for event in run.events_of(Warned))
    assert not (dest / "tileset.json").exists()


def test_a_version_has_no_file_that_other_filters_left(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Placed and not journalled when the run was killed, then left out by the next run's filters: swept."""

    def kill(*_: object) -> None:
        raise SimulatedCrash

    with Simulator() as sim:
        offer_exports(sim, FIRST)
        with monkeypatch.context() as patch:
            patch.setattr(SqliteCatalog, "mark_stored", kill)
            with pytest.raises(SimulatedCrash):
                sim.mirror(tmp_path)
        assert any((tmp_path / "versions" / FIRST / "tiles").glob("*.glb"))
        assert sim.mirror(tmp_path, globs=Globs(exclude=("*.glb",))).error is None
    assert not any(name.endswith(".glb") for name in read_tree(tmp_path / "versions" / FIRST))


def test_a_version_that_was_removed_by_hand_is_forgotten(dest: Path) -> None:
    """Folder and manifest are gone: it is said once, it does not come back as held, and nothing else is touched."""
    shutil.rmtree(dest / "versions" / FIRST)
    (dest / "manifests" / f"{FIRST}.jsonl").unlink()
    first, again = run_mirror(dest), run_mirror(dest)
    assert (first.error, again.error) == (None, None)
    assert any(FIRST in event.message for event in first.events_of(Notice))
    assert again.events_of(Notice) == again.events_of(Warned) == []
    assert [row.version.name for row in wiring.list_versions(Target(dest), JobOutcome())[0]] == [SECOND]
    assert verify(dest, every=True).error is None


def test_a_manifest_is_not_written_again_for_files_that_are_gone(dest: Path) -> None:
    """With a file lost beside the manifest the version is damaged, and mended where that is possible."""
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


def test_a_filtered_version_that_retired_is_not_the_export(tmp_path: Path) -> None:
    """What was held in part, and is no more, does not count for the whole export."""
    selector = Selector(imodel=IMODEL, export_type="3DTiles", export_id=FIRST)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND)
        assert sim.mirror(tmp_path, selector=selector, globs=Globs(exclude=("*.glb",))).error is None
        assert (
            len(sim.mirror(tmp_path, keep=RetentionPolicy(1, timedelta(microseconds=1))).events_of(VersionRetired)) == 1
        )
        there = wiring.list_versions(Target(tmp_path), JobOutcome(), retired=True)[0]
        assert classify_export(export_row(FIRST), there) == ""
        assert sim.mirror(tmp_path, all_exports=True).error is None
    assert {row.version.export for row in wiring.list_versions(Target(tmp_path), JobOutcome())[0]} == {
        FIRST,
        SECOND,
    }


@pytest.mark.parametrize("layout", list(Layout))
@pytest.mark.parametrize("closed", [".", ".tilesync"])
def test_what_may_not_be_looked_at_is_an_error(foreign_folder: Path, layout: Layout, closed: str) -> None:
    """A destination or state that is closed to a user ends each command with 8 at the most, never as a bug."""
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
                wiring.list_versions(Target(dest), JobOutcome())[0]
                told = 0
            except DestinationError:
                told = 8
        finally:
            os.seteuid(0)
    assert exits == {8}
    assert audit == told == (0 if layout is Layout.VERSIONED and closed == ".tilesync" else 8)


def test_a_manifest_with_numbers_beyond_measure(dest: Path) -> None:
    """It cannot be read, which is a finding, and no bug."""
    path = dest / "manifests" / f"{FIRST}.jsonl"
    path.write_text(path.read_text().replace('"files":', '"files":1000000000000000000000', 1))
    assert verify(dest, every=True).exit_code == 10
    shutil.rmtree(dest / ".tilesync")
    run = run_mirror(dest)
    assert run.error is None
    assert any("cannot be taken over" in event.message for event in run.events_of(Warned))


@pytest.mark.parametrize("unfinished", [False, True])
def test_a_bare_link_takes_nothing_from_what_the_service_said(tmp_path: Path, unfinished: bool) -> None:
    """An older version that is mirrored again, or to its end, by its link keeps its date and record, and its place."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        if unfinished:
            sim.add_fault(is_blob, error_response(404, "BlobNotFound"))
        assert sim.mirror(tmp_path).exit_code == (3 if unfinished else 0)
        offer_exports(sim, SECOND)
        assert sim.mirror(tmp_path).error is None
        assert sim.mirror(tmp_path, link=sim.create_link(FIRST), publish=False).error is None
        rows = wiring.list_versions(Target(tmp_path), JobOutcome())[0]
        assert [(row.version.name, row.version.modified[:10]) for row in rows] == [
            (SECOND, "2026-03-02"),
            (FIRST, "2026-03-01"),
        ]
        assert rows[1].version.record["displayName"]
        assert read_manifest(tmp_path, FIRST)[0]["export"]["displayName"]
        sim.clear_requests()
        assert sim.mirror(tmp_path, all_exports=True).error is None
        assert all(request.is_api for request in sim.requests)
