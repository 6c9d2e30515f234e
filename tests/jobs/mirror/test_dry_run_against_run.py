"""Dry run against run: the plan equals the run, for each file, whatever happened to the destination."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given
from hypothesis import strategies as st

from tests.support.builders import IMODEL, export, glb, read_tree
from tests.support.examples import examples
from tests.support.faults import error_response, is_blob, is_listing
from tests.support.sequential_exports import CHANGED_FILE, FIRST, FOURTH, SECOND, THIRD, mirror_each, offer_exports
from tests.support.simulator import EXPORT, JobOutcome, Simulator, verify
from tilesync.core.guards import DeleteLimit
from tilesync.core.retention import RetentionPolicy
from tilesync.demo.faults import RequestMatcher
from tilesync.events import (
    Planned,
    VersionChosen,
)
from tilesync.model import Globs, Inventory, Layout, Selector

Incident = Callable[[Simulator, Path], object]


def counts(run: JobOutcome) -> dict[str, int]:
    stats = run.stats
    return {
        "exit": run.exit_code,
        "listed": stats.listed,
        "fetched": stats.fetched,
        "reused": stats.reused,
        "kept": stats.kept,
        "excluded": stats.excluded,
        "deleted": stats.deleted,
    }


def agree(sim: Simulator, dest: Path, **options: Any) -> tuple[JobOutcome, JobOutcome]:
    """Return the plan and the run after it; asserts that the plan wrote nothing, and that both count the same."""
    before = read_tree(dest)
    plan = sim.dry_run(dest, **options)
    assert read_tree(dest) == before
    run = sim.mirror(dest, **options)
    assert counts(plan) == counts(run)
    return plan, run


def lose_folder(sim: Simulator, dest: Path) -> None:
    shutil.rmtree(dest / "versions" / SECOND)


def lose_file_and_latest(sim: Simulator, dest: Path) -> None:
    (dest / "versions" / SECOND / "tiles/001.glb").unlink()
    (dest / "latest.json").unlink()


def damage(sim: Simulator, dest: Path) -> None:
    (dest / "versions" / SECOND / "tiles/001.glb").write_bytes(b"rotten")
    verify(dest)


def touch(sim: Simulator, dest: Path) -> None:
    for path in dest.rglob("*.glb"):
        path.touch()
    (dest / "latest.json").unlink()


def regenerate(sim: Simulator, dest: Path) -> None:
    sim.regenerate(export(6) | {CHANGED_FILE: glb(b"again")}, export_id=SECOND)


def regenerate_without_md5(sim: Simulator, dest: Path) -> None:
    sim.regenerate(export(6) | {CHANGED_FILE: glb(b"again")}, export_id=SECOND, md5=False)


def touch_export(sim: Simulator, dest: Path) -> None:
    sim.regenerate(export(6) | {CHANGED_FILE: glb(SECOND.encode())}, export_id=SECOND)


def next_export(sim: Simulator, dest: Path) -> None:
    offer_exports(sim, THIRD)


def next_export_after_a_change_here(sim: Simulator, dest: Path) -> None:
    path = dest / "versions" / SECOND / "tiles/001.glb"
    data, result = path.read_bytes(), path.stat()
    path.unlink()
    path.write_bytes(data[:-1] + b"?")
    os.utime(path, ns=(result.st_mtime_ns, result.st_mtime_ns))
    offer_exports(sim, THIRD)


def interrupted(sim: Simulator, dest: Path) -> None:
    offer_exports(sim, THIRD)
    fault = sim.add_fault(is_blob, error_response(404, "BlobNotFound"))
    assert sim.mirror(dest, globs=Globs(exclude=("data/*",))).exit_code == 3
    sim.faults.remove(fault)


@pytest.mark.parametrize(
    "incident",
    [
        lose_folder, lose_file_and_latest, damage, touch, regenerate, regenerate_without_md5, touch_export,
        next_export, next_export_after_a_change_here, interrupted,
    ],
)  # fmt: skip
def test_the_plan_equals_the_run(tmp_path: Path, incident: Incident) -> None:
    """Kept, reused and fetched files agree, and the destination is valid afterwards."""
    mirror_each(tmp_path, FIRST, SECOND)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND)
        incident(sim, tmp_path)
        _, run = agree(sim, tmp_path)
    assert run.error is None
    assert verify(tmp_path).error is None


def test_an_older_export_that_lost_its_folder(tmp_path: Path) -> None:
    """Selected by its id and not published, it is planned and mirrored again."""
    mirror_each(tmp_path, FIRST, SECOND)
    shutil.rmtree(tmp_path / "versions" / FIRST)
    selector = Selector(imodel=IMODEL, export_type="3DTiles", export_id=FIRST)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND)
        _, run = agree(sim, tmp_path, selector=selector, publish=False)
    assert run.stats.fetched + run.stats.reused == len(export(6))
    assert verify(tmp_path, every=True).error is None


def of_container(export_id: str) -> RequestMatcher:
    return lambda request: not request.is_api and request.path.startswith(f"/{export_id}")


@pytest.mark.parametrize("inventory", [None, *Inventory])
def test_all_exports_with_each_inventory(tmp_path: Path, inventory: Inventory | None) -> None:
    """Several exports are planned by listing and by walking, also if listing is denied."""
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND, THIRD)
        for which in (FIRST, SECOND, THIRD):
            sim.containers[which].pop("data/empty")
        if inventory is None:
            sim.add_fault(is_listing, error_response(403, "AuthorizationPermissionMismatch"), times=None)
        plan = sim.dry_run(tmp_path / "d", all_exports=True, inventory=inventory)
        assert plan.error is None
        run = sim.mirror(tmp_path / "d", all_exports=True, inventory=inventory)
    assert run.error is None
    assert plan.stats.listed == run.stats.listed
    assert plan.stats.fetched + plan.stats.reused == run.stats.fetched + run.stats.reused


def test_a_broken_export_does_not_stop_the_plan(tmp_path: Path) -> None:
    """A broken export is reported, the others are planned, and the exit code is that of the run."""
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND, THIRD)
        del sim.containers[SECOND]
        plan = sim.dry_run(tmp_path / "d", all_exports=True)
        run = sim.mirror(tmp_path / "d", all_exports=True)
    assert plan.exit_code == run.exit_code == 7
    assert plan.stats.fetched == run.stats.fetched > len(export(6))


def test_planned_retirements_happen(tmp_path: Path) -> None:
    """The versions that the plan retires are those that the run retires."""
    mirror_each(tmp_path, FIRST, SECOND, THIRD)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND, THIRD, FOURTH)
        plan, _ = agree(sim, tmp_path, retention=RetentionPolicy(1, timedelta(microseconds=1)))
    retired = {event.name for event in plan.events_of(Planned) if event.action == "retire"}
    remaining = {path.name for path in (tmp_path / "versions").iterdir()}
    assert retired >= {FIRST, SECOND}
    assert remaining == {FIRST, SECOND, THIRD, FOURTH} - retired


def change_here(dest: Path) -> None:
    (dest / "tiles/009.glb").write_bytes(b"mine")


def lose_root(dest: Path) -> None:
    (dest / "tileset.json").unlink()
    (dest / "tiles/001.glb").unlink()


@pytest.mark.parametrize("incident", [None, change_here, lose_root])
@pytest.mark.parametrize("fewer", [False, True])
def test_a_flat_destination(tmp_path: Path, incident: Callable[[Path], None] | None, fewer: bool) -> None:
    """Deletions agree too, with local changes and with obstacles."""
    flat_options = {"layout": Layout.FLAT, "delete_limit": DeleteLimit(9)}
    with Simulator() as sim:
        sim.offer_export(export(12) | {"a": glb(b"file"), "b/c.glb": glb(b"deep")})
        assert sim.mirror(tmp_path / "d", **flat_options).error is None
        if fewer:
            turned = export(8) | {"a/x.glb": glb(b"x"), "b": glb(b"b")}
            sim.offer_export(turned, export_id=SECOND, lastModified="2026-03-02T08:30:00Z")
        if incident is not None:
            incident(tmp_path / "d")
        _, run = agree(sim, tmp_path / "d", **flat_options)
        assert run.error is None
        assert run.stats.deleted == (0 if not fewer else 5 if incident is change_here else 6)


def test_the_guard_counts_only_files_to_delete(tmp_path: Path) -> None:
    """A file with local changes is not deleted, and does not count against the limit."""
    with Simulator() as sim:
        sim.offer_export(export(12))
        assert sim.mirror(tmp_path / "d", layout=Layout.FLAT).error is None
        sim.offer_export(export(8), export_id=SECOND, lastModified="2026-03-02T08:30:00Z")
        change_here(tmp_path / "d")
        _, run = agree(sim, tmp_path / "d", layout=Layout.FLAT, delete_limit=DeleteLimit(3))
    assert run.stats.deleted == 3


@pytest.mark.scale
@examples(4, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(tiles=st.integers(0, 12), seed=st.integers(0, 100), md5=st.booleans(), page_size=st.integers(1, 20))
def test_an_applied_plan_replans_to_nothing(tiles: int, seed: int, md5: bool, page_size: int) -> None:
    """A dry run after a run keeps everything; also after a touch of lastModified."""
    with tempfile.TemporaryDirectory() as folder, Simulator(page_size=page_size) as sim:
        dest = Path(folder)
        files = sim.offer_export(export(tiles, seed=seed), md5=md5)
        plan = sim.dry_run(dest)
        assert {event.name for event in plan.events_of(Planned)} == set(files)
        run = sim.mirror(dest)
        assert (run.stats.fetched, run.stats.listed) == (plan.stats.fetched, plan.stats.listed)
        for again in (sim.dry_run(dest), sim.mirror(dest)):
            assert (again.exit_code, again.stats.fetched, again.stats.kept) == (0, 0, len(files))
        sim.regenerate(files, md5=md5)
        for again in (sim.dry_run(dest), sim.mirror(dest)):
            assert (again.exit_code, again.stats.fetched, again.stats.kept) == (0, 0, len(files))
        assert [event.version for event in again.events_of(VersionChosen)][-1] == EXPORT
