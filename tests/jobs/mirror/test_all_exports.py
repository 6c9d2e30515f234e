"""All exports: every finished export, oldest first; and exports that are mirrored without publishing."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.support.faults import error_response, is_blob
from tests.support.sequential_exports import FIRST as EXPORT
from tests.support.sequential_exports import FOURTH, THIRD, offer_exports
from tests.support.sequential_exports import SECOND as OTHER
from tests.support.simulator import Simulator, both_inventories, read_latest, read_version, rollback, verify
from tilesync.core.retention import RetentionPolicy
from tilesync.demo.faults import RequestMatcher
from tilesync.events import ExportFailed, ExportResolved, Planned, PointerKept, VersionPublished, VersionRetired, Warned
from tilesync.model import Inventory

ALL = (EXPORT, OTHER, THIRD)


def of_container(export_id: str) -> RequestMatcher:
    return lambda request: is_blob(request) and request.path.startswith(f"/{export_id}/")


def test_every_export_is_mirrored_oldest_first(tmp_path: Path) -> None:
    """All finished exports are stored, in the order of their age; the pointer moves once: to the newest."""
    with Simulator() as sim:
        files = offer_exports(sim, *ALL)
        sim.offer_export(export_id=FOURTH, status="InProgress")
        run = sim.mirror(tmp_path, all_exports=True)
    assert run.error is None
    assert [event.export for event in run.events_of(ExportResolved)] == list(ALL)
    assert [event.version for event in run.events_of(VersionPublished)] == [THIRD]
    assert read_latest(tmp_path)["version"] == THIRD
    assert {which: read_version(tmp_path, which) for which in ALL} == files
    counts = run.stats
    assert counts.listed == counts.fetched + counts.reused + counts.kept == sum(map(len, files.values()))
    assert counts.fetched == len(files[EXPORT]) + 2
    assert verify(tmp_path, every=True).error is None


def test_mirrored_exports_are_not_requested_again(tmp_path: Path) -> None:
    """The next run requests only the container of the new export; a run without a new export requests none."""
    with Simulator() as sim:
        offer_exports(sim, EXPORT, OTHER)
        sim.mirror(tmp_path, all_exports=True)
        offer_exports(sim, THIRD)
        sim.clear_requests()
        run = sim.mirror(tmp_path, all_exports=True)
        assert run.error is None
        assert {request.path.split("/")[1] for request in sim.requests if not request.is_api} == {THIRD}
        sim.clear_requests()
        again = sim.mirror(tmp_path, all_exports=True)
        assert all(request.is_api for request in sim.requests)
    assert again.stats.kept == again.stats.listed == run.stats.listed
    assert again.events_of(VersionPublished) == []


def test_older_versions_are_checked_too(tmp_path: Path) -> None:
    """Files that vanished from one of them are planned and fetched again; the pointer does not move."""
    with Simulator() as sim:
        files = offer_exports(sim, *ALL)
        sim.mirror(tmp_path, all_exports=True)
        calm = sim.mirror(tmp_path, all_exports=True)
        elsewhere = {*files[OTHER].values(), *files[THIRD].values()}
        lost = next(name for name, data in files[EXPORT].items() if name.endswith(".glb") and data not in elsewhere)
        (tmp_path / "versions" / EXPORT / lost).unlink()
        plan = sim.dry_run(tmp_path, all_exports=True)
        sim.clear_requests()
        run = sim.mirror(tmp_path, all_exports=True)
        assert len(sim.blob_requests()) == 1
    everything = sum(map(len, files.values()))
    assert (calm.stats.presence_checked, calm.stats.kept) == (everything, everything)
    assert (plan.exit_code, plan.stats.fetched) == (0, 1)
    assert (run.exit_code, run.stats.fetched, run.stats.kept) == (0, 1, everything - 1)
    assert [w.message for w in run.events_of(Warned)] == [f"1 file is gone or changed in version {EXPORT}"]
    assert {which: read_version(tmp_path, which) for which in ALL} == files
    assert read_latest(tmp_path)["version"] == THIRD
    assert not run.events_of(VersionPublished)


def test_a_failed_export_does_not_stop_the_next(tmp_path: Path) -> None:
    """A broken export is reported and sets the exit code; the others are complete, and the newest is published."""
    with Simulator() as sim:
        files = offer_exports(sim, *ALL)
        sim.add_fault(of_container(OTHER), error_response(404, "BlobNotFound"), times=None)
        run = sim.mirror(tmp_path, all_exports=True)
        assert run.exit_code == 3
        assert [event.export for event in run.events_of(ExportFailed)] == [OTHER]
        assert read_latest(tmp_path)["version"] == THIRD
        assert read_version(tmp_path, EXPORT) == files[EXPORT]
        sim.faults.clear()
        again = sim.mirror(tmp_path, all_exports=True)
    assert again.error is None
    assert read_version(tmp_path, OTHER) == files[OTHER]
    assert read_latest(tmp_path)["version"] == THIRD
    assert again.events_of(VersionPublished) == []


def test_while_the_newest_fails_the_pointer_stays(tmp_path: Path) -> None:
    """The pointer never moves to an older export because the newest one failed."""
    with Simulator() as sim:
        offer_exports(sim, EXPORT)
        sim.mirror(tmp_path)
        files = offer_exports(sim, OTHER, THIRD)
        sim.add_fault(of_container(THIRD), error_response(404, "BlobNotFound"), times=None)
        run = sim.mirror(tmp_path, all_exports=True)
    assert run.exit_code == 3
    assert read_latest(tmp_path)["version"] == EXPORT
    assert read_version(tmp_path, OTHER) == files[OTHER]


def test_an_export_that_vanishes_during_the_run(tmp_path: Path) -> None:
    """An export that the service deletes while it is mirrored fails alone."""
    with Simulator() as sim:
        offer_exports(sim, *ALL)
        sim.run_before_request(3, of_container(EXPORT), lambda: sim.delete(EXPORT))
        run = sim.mirror(tmp_path, all_exports=True)
    assert run.exit_code == 7
    assert [event.export for event in run.events_of(ExportFailed)] == [EXPORT]
    assert read_latest(tmp_path)["version"] == THIRD


def test_a_retired_export_is_not_mirrored_again(tmp_path: Path) -> None:
    """An export that retention removed is not mirrored again while the service still has it."""
    keep = RetentionPolicy(1, timedelta())
    with Simulator() as sim:
        offer_exports(sim, *ALL)
        first = sim.mirror(tmp_path, all_exports=True, retention=keep)
        sim.clear_requests()
        again = sim.mirror(tmp_path, all_exports=True, retention=keep)
        assert all(request.is_api for request in sim.requests)
    assert [event.version for event in first.events_of(VersionRetired)] == [OTHER, EXPORT]
    assert again.error is None
    assert again.events_of(VersionRetired) == []
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [THIRD]


def test_without_publishing_the_pointer_stays(tmp_path: Path) -> None:
    """An export mirrored without publishing is complete, and the next run moves the pointer to it without fetching
    anything.
    """
    with Simulator() as sim:
        offer_exports(sim, EXPORT)
        sim.mirror(tmp_path)
        pointer = (tmp_path / "tileset.json").read_bytes()
        files = offer_exports(sim, OTHER)
        run = sim.mirror(tmp_path, publish=False)
        assert run.error is None
        assert run.events_of(VersionPublished) == []
        assert [event.version for event in run.events_of(PointerKept)] == [OTHER]
        assert (tmp_path / "tileset.json").read_bytes() == pointer
        assert read_latest(tmp_path)["version"] == EXPORT
        assert read_version(tmp_path, OTHER) == files[OTHER]
        assert (tmp_path / "manifests" / f"{OTHER}.jsonl").is_file()
        sim.clear_requests()
        again = sim.mirror(tmp_path)
        assert all(request.is_api for request in sim.requests)
    assert [event.version for event in again.events_of(VersionPublished)] == [OTHER]


def test_a_first_export_need_not_be_published(tmp_path: Path) -> None:
    """Without any pointer the export is stored all the same, and can be verified and pointed at."""
    with Simulator() as sim:
        offer_exports(sim, EXPORT)
        assert sim.mirror(tmp_path, publish=False).error is None
        assert not (tmp_path / "tileset.json").exists()
    assert verify(tmp_path).exit_code == 8
    assert verify(tmp_path, every=True).error is None
    assert rollback(tmp_path, EXPORT).error is None
    assert verify(tmp_path).error is None


def test_a_dry_run_of_all_exports(tmp_path: Path) -> None:
    """A dry run reports each export in turn; the next one reuses files of an earlier one; nothing is written."""
    with Simulator() as sim:
        files = offer_exports(sim, *ALL)
        run = sim.dry_run(tmp_path / "new", all_exports=True)
        assert run.error is None
        assert not (tmp_path / "new").exists()
        planned = run.events_of(Planned)
        assert sum(event.action == "fetch" for event in planned) == len(files[EXPORT]) + 2
        assert sum(event.action == "reuse" for event in planned) == 2 * (len(files[EXPORT]) - 1)
        real = sim.mirror(tmp_path / "new", all_exports=True)
    assert (run.stats.fetched, run.stats.reused, run.stats.listed) == (
        real.stats.fetched,
        real.stats.reused,
        real.stats.listed,
    )


@both_inventories
def test_an_interrupted_run_of_all_exports_continues(tmp_path: Path, inventory: Inventory) -> None:
    """A run that ended in the middle of the second export leaves the first complete, and the next run does the rest."""
    with Simulator() as sim:
        files = offer_exports(sim, *ALL)
        for which in ALL:
            sim.containers[which].pop("data/empty")  # nothing asks for it
            files[which].pop("data/empty")
        sim.add_fault(of_container(OTHER), error_response(401), times=None)
        run = sim.mirror(tmp_path, all_exports=True, inventory=inventory, retry_for=timedelta(seconds=1))
        assert run.error is not None
        sim.faults.clear()
        assert sim.mirror(tmp_path, all_exports=True, inventory=inventory).error is None
    assert {which: read_version(tmp_path, which) for which in ALL} == files
