"""Every finished export, oldest first; and exports that are mirrored without being published."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.builders import tree
from tests.support.faults import When, any_blob, error
from tests.support.sequential_exports import FIRST as EXPORT
from tests.support.sequential_exports import FOURTH, THIRD, offer
from tests.support.sequential_exports import SECOND as OTHER
from tests.support.simulator import Simulator, latest, rollback, verify
from tilesync.core.retention import Keep
from tilesync.events import ExportFailed, Planned, PointerStays, Published, Resolved, Retired, Warned
from tilesync.model import Inventory

ALL = (EXPORT, OTHER, THIRD)


def held(dest: Path, version: str) -> dict[str, bytes]:
    return tree(dest / "versions" / version)


def of_container(export_id: str) -> When:
    return lambda request: any_blob(request) and request.path.startswith(f"/{export_id}/")


def test_every_export_is_mirrored_oldest_first(tmp_path: Path) -> None:
    """All finished exports are held in the end, in the order of their age; the pointer moved once: to the newest."""
    with Simulator() as sim:
        files = offer(sim, *ALL)
        sim.hold(export_id=FOURTH, status="InProgress")
        run = sim.mirror(tmp_path, all_exports=True)
    assert run.error is None
    assert [event.export for event in run.of(Resolved)] == list(ALL)
    assert [event.version for event in run.of(Published)] == [THIRD]
    assert latest(tmp_path)["version"] == THIRD
    assert {which: held(tmp_path, which) for which in ALL} == files
    counts = run.tally
    assert counts.listed == counts.fetched + counts.reused + counts.kept == sum(map(len, files.values()))
    assert counts.fetched == len(files[EXPORT]) + 2
    assert verify(tmp_path, every=True).error is None


def test_what_is_held_is_not_asked_for_again(tmp_path: Path) -> None:
    """The next night asks the containers for the new export alone; a night without one asks them for nothing."""
    with Simulator() as sim:
        offer(sim, EXPORT, OTHER)
        sim.mirror(tmp_path, all_exports=True)
        offer(sim, THIRD)
        sim.forget()
        run = sim.mirror(tmp_path, all_exports=True)
        assert run.error is None
        assert {request.path.split("/")[1] for request in sim.requests if not request.is_api} == {THIRD}
        sim.forget()
        again = sim.mirror(tmp_path, all_exports=True)
        assert all(request.is_api for request in sim.requests)
    assert again.tally.kept == again.tally.listed == run.tally.listed
    assert again.of(Published) == []


def test_older_versions_are_looked_at_too(tmp_path: Path) -> None:
    """What vanished from one of them is fetched again, and counts as planned; the pointer stays where it is."""
    with Simulator() as sim:
        files = offer(sim, *ALL)
        sim.mirror(tmp_path, all_exports=True)
        calm = sim.mirror(tmp_path, all_exports=True)
        elsewhere = {*files[OTHER].values(), *files[THIRD].values()}
        lost = next(name for name, data in files[EXPORT].items() if name.endswith(".glb") and data not in elsewhere)
        (tmp_path / "versions" / EXPORT / lost).unlink()
        plan = sim.preview(tmp_path, all_exports=True)
        sim.forget()
        run = sim.mirror(tmp_path, all_exports=True)
        assert len(sim.asked()) == 1
    everything = sum(map(len, files.values()))
    assert (calm.tally.looked, calm.tally.kept) == (everything, everything)
    assert (plan.exit, plan.tally.fetched) == (0, 1)
    assert (run.exit, run.tally.fetched, run.tally.kept) == (0, 1, everything - 1)
    assert [w.message for w in run.of(Warned)] == [f"1 file is gone or changed in version {EXPORT}"]
    assert {which: held(tmp_path, which) for which in ALL} == files
    assert latest(tmp_path)["version"] == THIRD
    assert not run.of(Published)


def test_one_that_fails_does_not_stop_the_next(tmp_path: Path) -> None:
    """A broken export is told and ends the run with its exit code; the others are held, and the newest is published."""
    with Simulator() as sim:
        files = offer(sim, *ALL)
        sim.fault(of_container(OTHER), error(404, "BlobNotFound"), times=None)
        run = sim.mirror(tmp_path, all_exports=True)
        assert run.exit == 3
        assert [event.export for event in run.of(ExportFailed)] == [OTHER]
        assert latest(tmp_path)["version"] == THIRD
        assert held(tmp_path, EXPORT) == files[EXPORT]
        sim.faults.clear()
        again = sim.mirror(tmp_path, all_exports=True)
    assert again.error is None
    assert held(tmp_path, OTHER) == files[OTHER]
    assert latest(tmp_path)["version"] == THIRD
    assert again.of(Published) == []


def test_while_the_newest_fails_the_pointer_stays(tmp_path: Path) -> None:
    """The pointer never moves to an older export because the newest one cannot be had."""
    with Simulator() as sim:
        offer(sim, EXPORT)
        sim.mirror(tmp_path)
        files = offer(sim, OTHER, THIRD)
        sim.fault(of_container(THIRD), error(404, "BlobNotFound"), times=None)
        run = sim.mirror(tmp_path, all_exports=True)
    assert run.exit == 3
    assert latest(tmp_path)["version"] == EXPORT
    assert held(tmp_path, OTHER) == files[OTHER]


def test_an_export_that_vanishes_under_the_run(tmp_path: Path) -> None:
    """One that the service deletes while it is mirrored fails by itself."""
    with Simulator() as sim:
        offer(sim, *ALL)
        sim.on(3, of_container(EXPORT), lambda: sim.delete(EXPORT))
        run = sim.mirror(tmp_path, all_exports=True)
    assert run.exit == 7
    assert [event.export for event in run.of(ExportFailed)] == [EXPORT]
    assert latest(tmp_path)["version"] == THIRD


def test_what_retired_does_not_come_back(tmp_path: Path) -> None:
    """An export that retention gave up is not mirrored again while the service still has it."""
    keep = Keep(1, timedelta())
    with Simulator() as sim:
        offer(sim, *ALL)
        first = sim.mirror(tmp_path, all_exports=True, keep=keep)
        sim.forget()
        again = sim.mirror(tmp_path, all_exports=True, keep=keep)
        assert all(request.is_api for request in sim.requests)
    assert [event.version for event in first.of(Retired)] == [OTHER, EXPORT]
    assert again.error is None
    assert again.of(Retired) == []
    assert [path.name for path in (tmp_path / "versions").iterdir()] == [THIRD]


def test_without_publishing_the_pointer_stays(tmp_path: Path) -> None:
    """What is mirrored without being published is held, whole and finished, and the next run moves the pointer to it
    without fetching anything.
    """
    with Simulator() as sim:
        offer(sim, EXPORT)
        sim.mirror(tmp_path)
        pointer = (tmp_path / "tileset.json").read_bytes()
        files = offer(sim, OTHER)
        run = sim.mirror(tmp_path, publish=False)
        assert run.error is None
        assert run.of(Published) == []
        assert [event.version for event in run.of(PointerStays)] == [OTHER]
        assert (tmp_path / "tileset.json").read_bytes() == pointer
        assert latest(tmp_path)["version"] == EXPORT
        assert held(tmp_path, OTHER) == files[OTHER]
        assert (tmp_path / "manifests" / f"{OTHER}.jsonl").is_file()
        sim.forget()
        again = sim.mirror(tmp_path)
        assert all(request.is_api for request in sim.requests)
    assert [event.version for event in again.of(Published)] == [OTHER]


def test_a_first_export_need_not_be_published(tmp_path: Path) -> None:
    """Without any pointer yet the export is held all the same, and can be audited and pointed at."""
    with Simulator() as sim:
        offer(sim, EXPORT)
        assert sim.mirror(tmp_path, publish=False).error is None
        assert not (tmp_path / "tileset.json").exists()
    assert verify(tmp_path).exit == 8
    assert verify(tmp_path, every=True).error is None
    assert rollback(tmp_path, EXPORT).error is None
    assert verify(tmp_path).error is None


def test_the_plan_of_all_exports(tmp_path: Path) -> None:
    """A dry run tells each export in turn; what an earlier one of them brings in is reused by the next; nothing is
    written.
    """
    with Simulator() as sim:
        files = offer(sim, *ALL)
        run = sim.preview(tmp_path / "new", all_exports=True)
        assert run.error is None
        assert not (tmp_path / "new").exists()
        told = run.of(Planned)
        assert sum(event.action == "fetch" for event in told) == len(files[EXPORT]) + 2
        assert sum(event.action == "reuse" for event in told) == 2 * (len(files[EXPORT]) - 1)
        real = sim.mirror(tmp_path / "new", all_exports=True)
    assert (run.tally.fetched, run.tally.reused, run.tally.listed) == (
        real.tally.fetched,
        real.tally.reused,
        real.tally.listed,
    )


@pytest.mark.parametrize("inventory", list(Inventory))
def test_a_history_goes_on(tmp_path: Path, inventory: Inventory) -> None:
    """A run that ended in the middle of the second export leaves the first whole, and the next run does the rest."""
    with Simulator() as sim:
        files = offer(sim, *ALL)
        for which in ALL:
            sim.containers[which].pop("data/empty")  # nothing asks for it
            files[which].pop("data/empty")
        sim.fault(of_container(OTHER), error(401), times=None)
        run = sim.mirror(tmp_path, all_exports=True, inventory=inventory, retry_for=timedelta(seconds=1))
        assert run.error is not None
        sim.faults.clear()
        assert sim.mirror(tmp_path, all_exports=True, inventory=inventory).error is None
    assert {which: held(tmp_path, which) for which in ALL} == files
