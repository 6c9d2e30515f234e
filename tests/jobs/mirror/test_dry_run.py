"""Dry run: a plan with reasons, and an unchanged destination."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

from tests.support.builders import export, glb, make_stored_blobs, read_tree
from tests.support.faults import error_response, is_blob_named, is_listing
from tests.support.simulator import EXPORT, Simulator, verify
from tilesync.demo.fake_service import StoredBlob
from tilesync.errors import NoExport, UnsafeName
from tilesync.events import Planned, VersionChosen


def test_an_empty_destination_is_not_created(tmp_path: Path) -> None:
    """DEST is not created; every blob is planned with its reason; no blob is requested."""
    with Simulator(page_size=4) as sim:
        files = sim.offer_export()
        run = sim.dry_run(tmp_path / "d")
        assert sim.blob_requests() == []
    assert run.exit_code == 0
    assert not (tmp_path / "d").exists()
    assert {event.name: (event.action, event.bytes) for event in run.events_of(Planned)} == {
        name: ("fetch", len(data)) for name, data in files.items()
    }
    assert all(event.reason for event in run.events_of(Planned))
    assert run.stats.planned_bytes == sum(map(len, files.values()))


def test_a_destination_in_use_is_not_changed(tmp_path: Path) -> None:
    """With stored, new and unfinished files: no byte and no file of DEST changes, the catalog included."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        sim.regenerate({**files, "tiles/new.glb": glb(b"new"), "tiles/001.glb": glb(b"changed, and longer" * 99)})
        before = read_tree(tmp_path)
        run = sim.dry_run(tmp_path)
        assert read_tree(tmp_path) == before
    assert run.exit_code == 0
    assert run.stats.fetched > 0


def test_it_names_the_version_that_the_run_creates(tmp_path: Path) -> None:
    """The same export with other content: the plan names `<id>-2`, as the run does."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        sim.regenerate({**files, "tiles/new.glb": glb(b"new")})
        plan, run = sim.dry_run(tmp_path), sim.mirror(tmp_path)
    names = [[event.version for event in outcome.events_of(VersionChosen)][-1] for outcome in (plan, run)]
    assert names == [f"{EXPORT}-2", f"{EXPORT}-2"]


def test_an_unchanged_export_is_one_request(tmp_path: Path) -> None:
    """An unchanged export is reported after one request to the API, without a listing."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        sim.clear_requests()
        run = sim.dry_run(tmp_path)
        assert len(sim.requests) == 1
    assert (run.stats.kept, run.stats.fetched) == (len(files), 0)
    assert [event.action for event in run.events_of(Planned)] == ["keep"]


def test_each_file_is_reported_with_its_reason(tmp_path: Path) -> None:
    """In an unfinished version stored files are kept, missing or changed ones fetched, each with its reason."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/001.glb"), error_response(404, "BlobNotFound"))
        assert sim.mirror(tmp_path).exit_code == 3
        changed = {**files, "tiles/002.glb": glb(b"y" * len(files["tiles/002.glb"]) * 2)}
        sim.containers[EXPORT] = make_stored_blobs(changed)
        run = sim.dry_run(tmp_path)
    planned = {event.name: (event.action, event.reason) for event in run.events_of(Planned)}
    assert planned["tiles/001.glb"] == ("fetch", "not stored yet")
    assert planned["tiles/002.glb"][0] == "fetch"
    assert "size was" in planned["tiles/002.glb"][1]
    assert planned["tiles/003.glb"] == ("keep", "unchanged, same ETag")
    assert (run.stats.fetched, run.stats.kept) == (2, len(files) - 2)


def test_it_plans_the_repair_of_damage(tmp_path: Path) -> None:
    """Damaged files that verify found are fetched, the rest kept, as the run does."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.mirror(tmp_path)
        (tmp_path / "versions" / EXPORT / "tiles/002.glb").unlink()
        verify(tmp_path)
        plan = sim.dry_run(tmp_path)
        assert [event.name for event in plan.events_of(Planned) if event.action == "fetch"] == ["tiles/002.glb"]
        run = sim.mirror(tmp_path)
    assert (plan.stats.fetched, plan.stats.kept) == (run.stats.fetched, run.stats.kept) == (1, len(files) - 1)


def test_hostile_names_are_refused_in_the_plan_too(tmp_path: Path) -> None:
    """A plan that could not be carried out is an error."""
    with Simulator() as sim:
        sim.offer_export()
        sim.containers[EXPORT]["../x"] = StoredBlob(b"x")
        run = sim.dry_run(tmp_path)
    assert isinstance(run.error, UnsafeName)


def test_service_errors_are_those_of_a_run(tmp_path: Path) -> None:
    """No export: 4; no listing: 6; as in a real run."""
    with Simulator() as sim:
        run = sim.dry_run(tmp_path, wait=timedelta())
        assert isinstance(run.error, NoExport)
        sim.offer_export(export())
        sim.add_fault(is_listing, error_response(500, "InternalError"), times=None)
        assert sim.dry_run(tmp_path, retry_for=timedelta(seconds=0.3)).exit_code == 6
