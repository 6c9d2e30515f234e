"""The flat layout: files at the paths of the container, moved in order, stale ones deleted on request."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.support import samples
from tests.support.builders import export, glb, read_tree, tileset
from tests.support.catalog_fixture import CatalogFixture
from tests.support.crash_injection import CrashAfterCalls, SimulatedCrash
from tests.support.faults import blob_name, error_response, is_blob
from tests.support.simulator import EXPORT, OTHER_EXPORT, JobOutcome, Simulator, rollback, verify
from tilesync.app import commands
from tilesync.app.requests import Target
from tilesync.catalog.catalog import Catalog
from tilesync.core.guards import DEFAULT_DELETE_LIMIT, DeleteLimit
from tilesync.events import FileDeleted, Finding, Planned, VersionPublished, Warned
from tilesync.jobs.versions.flat_layout import FlatLayout, list_dependencies_first
from tilesync.model import Globs, Inventory, Layout

THIRD = "cccccccc-0000-4000-8000-000000000003"


def mirror(sim: Simulator, dest: Path, **changes: Any) -> JobOutcome:
    return sim.mirror(dest, layout=Layout.FLAT, **changes)


def files_at(dest: Path) -> dict[str, bytes]:
    """Return all files of the destination, without the state folder."""
    return {name: data for name, data in read_tree(dest).items() if not name.startswith(".tilesync/")}


def fetched_names(sim: Simulator) -> set[str]:
    return {str(blob_name(request)) for request in sim.blob_requests()}


def offer_next_export(sim: Simulator, files: dict[str, bytes], export_id: str = OTHER_EXPORT) -> None:
    """Offer the next export, and count requests from here."""
    day = 1 + (EXPORT, OTHER_EXPORT, THIRD).index(export_id)
    sim.offer_export(files, export_id=export_id, lastModified=f"2026-03-0{day}T08:30:00Z")
    sim.clear_requests()


def test_only_the_files_of_the_container(tmp_path: Path) -> None:
    """Every file is at its own name with its own bytes; only the state folder is beside them."""
    with Simulator(page_size=5) as sim:
        files = sim.offer_export()
        run = mirror(sim, tmp_path)
    assert run.error is None
    assert files_at(tmp_path) == files
    assert {path.name for path in tmp_path.iterdir()} == {name.split("/")[0] for name in files} | {".tilesync"}
    assert [event.version for event in run.events_of(VersionPublished)] == [EXPORT]
    assert (tmp_path / "tiles/003.glb").stat().st_mtime == 1772353800
    assert not (tmp_path / ".tilesync/staged" / EXPORT).exists()
    assert verify(tmp_path).error is None
    assert verify(tmp_path, every=True).error is None


def test_unchanged_run_is_one_request(tmp_path: Path) -> None:
    """An unchanged run makes one API request, and touches only `checked.json`."""
    with Simulator() as sim:
        sim.offer_export()
        mirror(sim, tmp_path)
        before = {path: path.stat().st_ino for path in tmp_path.rglob("*") if path.is_file()}
        del before[tmp_path / ".tilesync/checked.json"]
        sim.clear_requests()
        run = mirror(sim, tmp_path)
        assert len(sim.requests) == 1
    assert run.events_of(VersionPublished) == []
    assert {path: path.stat().st_ino for path in before} == before


def test_next_export_moves_only_changes(tmp_path: Path) -> None:
    """Unchanged files stay untouched, and a renamed file is not fetched."""
    with Simulator(page_size=7) as sim:
        files = sim.offer_export(export(20))
        mirror(sim, tmp_path)
        inode = (tmp_path / "tiles/001.glb").stat().st_ino
        changed = files | {"tiles/007.glb": glb(b"new"), "extra.glb": files["tiles/002.glb"]}
        offer_next_export(sim, changed)
        run = mirror(sim, tmp_path)
        assert fetched_names(sim) == {"tiles/007.glb"}
    assert run.error is None
    assert (run.stats.fetched, run.stats.reused) == (1, len(files))
    assert files_at(tmp_path) == changed
    assert (tmp_path / "tiles/001.glb").stat().st_ino == inode
    assert verify(tmp_path).error is None


def test_swapped_contents_are_not_fetched(tmp_path: Path) -> None:
    """Two files that swapped names, and three that rotated, get the right contents without a fetch."""
    with Simulator() as sim:
        files = sim.offer_export(export(8))
        mirror(sim, tmp_path)
        a, b, c, d, e = (f"tiles/00{number}.glb" for number in range(5))
        turned = files | {a: files[b], b: files[a], c: files[d], d: files[e], e: files[c]}
        offer_next_export(sim, turned)
        run = mirror(sim, tmp_path)
        assert fetched_names(sim) == set()
    assert run.error is None
    assert files_at(tmp_path) == turned
    assert verify(tmp_path).error is None


def test_nothing_is_deleted_by_default(tmp_path: Path) -> None:
    """Stale files stay until deletion is requested; files of others are never deleted."""
    with Simulator() as sim:
        files = sim.offer_export(export(12))
        mirror(sim, tmp_path)
        (tmp_path / "tiles/mine.txt").write_text("mine")
        (tmp_path / "robots.txt").write_text("mine")
        fewer = export(9)
        offer_next_export(sim, fewer)
        assert mirror(sim, tmp_path).stats.deleted == 0
        mine = {"tiles/mine.txt": b"mine", "robots.txt": b"mine"}
        assert files_at(tmp_path) == files | fewer | mine
        sim.clear_requests()
        run = mirror(sim, tmp_path, delete_limit=DEFAULT_DELETE_LIMIT)
        assert len(sim.requests) == 1
    gone = files.keys() - fewer.keys()
    assert run.stats.deleted == len(gone) == 3
    assert {event.name for event in run.events_of(FileDeleted)} == gone
    assert files_at(tmp_path) == fewer | mine
    trashed = read_tree(tmp_path / ".tilesync/trash")
    assert {name.split("/files/")[1]: data for name, data in trashed.items() if "/files/" in name} == {
        name: files[name] for name in gone
    }
    assert mirror_again(tmp_path, fewer).stats.deleted == 0


def mirror_again(dest: Path, files: dict[str, bytes]) -> JobOutcome:
    with Simulator() as sim:
        offer_next_export(sim, files)
        return mirror(sim, dest, delete_limit=DEFAULT_DELETE_LIMIT)


def test_stale_files_are_deleted_in_the_run_that_publishes(tmp_path: Path) -> None:
    """Stale files are deleted right after the new root is in place; empty folders go too."""
    with Simulator() as sim:
        sim.offer_export(export(6) | {"old/deep/a.glb": glb(b"a")})
        mirror(sim, tmp_path)
        offer_next_export(sim, export(6))
        run = mirror(sim, tmp_path, delete_limit=DeleteLimit(1))
    assert run.stats.deleted == 1
    assert files_at(tmp_path) == export(6)
    assert not (tmp_path / "old").exists()
    assert verify(tmp_path).error is None


@pytest.mark.parametrize("most", [DeleteLimit(2), DeleteLimit(percent=10)])
def test_too_many_deletions_stop_the_run(tmp_path: Path, most: DeleteLimit) -> None:
    """Above the limit, nothing is deleted or moved, and the old export stays; a higher limit permits it."""
    with Simulator() as sim:
        files = sim.offer_export(export(12))
        mirror(sim, tmp_path)
        fewer = export(9, seed=3)
        offer_next_export(sim, fewer)
        run = mirror(sim, tmp_path, delete_limit=most)
        assert run.exit_code == 11
        assert "3 of" in str(run.error)
        assert files_at(tmp_path) == files
        assert verify(tmp_path).error is None
        sim.clear_requests()
        again = mirror(sim, tmp_path, delete_limit=DeleteLimit(3))
        assert fetched_names(sim) == set()
    assert again.stats.deleted == 3
    assert files_at(tmp_path) == fewer


def test_modified_stale_file_is_not_deleted(tmp_path: Path) -> None:
    """A file that someone changed stays when the container loses its name."""
    with Simulator() as sim:
        sim.offer_export(export(12))
        mirror(sim, tmp_path)
        (tmp_path / "tiles/010.glb").write_bytes(b"mine now")
        offer_next_export(sim, export(9))
        run = mirror(sim, tmp_path, delete_limit=DEFAULT_DELETE_LIMIT)
    assert run.stats.deleted == 2
    assert (tmp_path / "tiles/010.glb").read_bytes() == b"mine now"


def test_file_in_the_way_is_moved_to_the_trash(tmp_path: Path) -> None:
    """A file of someone else at the name of a mirrored one is replaced, and kept in the trash."""
    with Simulator() as sim:
        (tmp_path / ".tilesync").mkdir()
        (tmp_path / "tiles").mkdir()
        (tmp_path / "tiles/003.glb").write_bytes(b"mine")
        files = sim.offer_export()
        assert mirror(sim, tmp_path).error is None
    assert files_at(tmp_path) == files
    assert b"mine" in read_tree(tmp_path / ".tilesync/trash").values()


def test_filters_protect_excluded_files(tmp_path: Path) -> None:
    """Files that new filters exclude are not deleted, since the container still has them."""
    with Simulator() as sim:
        files = sim.offer_export(export(6) | {"a.png": b"png"})
        mirror(sim, tmp_path)
        run = mirror(sim, tmp_path, globs=Globs(exclude=("*.png",)), delete_limit=DEFAULT_DELETE_LIMIT)
    assert run.error is None
    assert run.stats.deleted == 0
    assert files_at(tmp_path) == files


def test_file_and_folder_can_swap(tmp_path: Path) -> None:
    """Files of an older export that block a newer one go to the trash, with or without deletion."""
    with Simulator() as sim:
        sim.offer_export(export(4) | {"a": glb(b"file"), "b/c/d.glb": glb(b"deep")})
        mirror(sim, tmp_path)
        turned = export(4) | {"a/x.glb": glb(b"x"), "b": glb(b"b")}
        offer_next_export(sim, turned)
        run = mirror(sim, tmp_path)
    assert run.error is None
    assert files_at(tmp_path) == turned
    assert verify(tmp_path).error is None


@pytest.mark.parametrize(("first", "then"), [(Layout.FLAT, Layout.VERSIONED), (Layout.VERSIONED, Layout.FLAT)])
@pytest.mark.parametrize("lost", [False, True])
def test_change_of_layout_is_refused(tmp_path: Path, first: Layout, then: Layout, lost: bool) -> None:
    """Another layout is refused, also without the catalog and in a dry run; nothing is changed."""
    with Simulator() as sim:
        sim.offer_export()
        assert sim.mirror(tmp_path, layout=first).error is None
        if lost:
            (tmp_path / ".tilesync/catalog.sqlite3").unlink()
        before = read_tree(tmp_path)
        for run in (sim.mirror(tmp_path, layout=then), sim.dry_run(tmp_path, layout=then)):
            assert run.exit_code == 8
            assert run.error is not None
            assert first in str(run.error)
            assert f"--layout {first}" in run.error.hint
        assert read_tree(tmp_path) == before


def test_foreign_tileset_is_refused(tmp_path: Path) -> None:
    """A tileset.json that tilesync did not write stays."""
    (tmp_path / "tileset.json").write_text("{}")
    with Simulator() as sim:
        sim.offer_export()
        run = mirror(sim, tmp_path)
    assert run.exit_code == 8
    assert read_tree(tmp_path) == {"tileset.json": b"{}"}


@pytest.mark.parametrize("name", [".tilesync/catalog.sqlite3", ".TileSync/x"])
def test_container_cannot_write_into_the_state(tmp_path: Path, name: str) -> None:
    """A name inside the state folder is refused before anything is written."""
    with Simulator() as sim:
        sim.offer_export(export(3) | {name: b"evil"})
        run = mirror(sim, tmp_path)
        assert run.exit_code == 8
        assert name in str(run.error)
        assert sim.blob_requests() == []
        assert sim.mirror(tmp_path / "versioned").error is None


def test_lost_catalog_costs_a_recheck(tmp_path: Path) -> None:
    """Manifest and files are enough to rebuild the catalog; nothing is fetched."""
    with Simulator() as sim:
        files = sim.offer_export()
        mirror(sim, tmp_path)
        (tmp_path / ".tilesync/catalog.sqlite3").unlink()
        sim.clear_requests()
        run = mirror(sim, tmp_path)
        assert fetched_names(sim) == set()
    assert run.error is None
    assert files_at(tmp_path) == files


def test_mirror_repairs_after_verify(tmp_path: Path) -> None:
    """Bad files, the root tileset included, are fetched again and put in place."""
    with Simulator() as sim:
        files = sim.offer_export()
        mirror(sim, tmp_path)
        (tmp_path / "tiles/003.glb").write_bytes(b"rotten")
        (tmp_path / "tileset.json").unlink()
        assert verify(tmp_path).exit_code == 10
        sim.clear_requests()
        run = mirror(sim, tmp_path)
        assert fetched_names(sim) == {"tiles/003.glb", "tileset.json"}
    assert run.error is None
    assert files_at(tmp_path) == files
    assert verify(tmp_path).error is None


def test_verify_finds_staged_files(tmp_path: Path) -> None:
    """Files that were fetched again but could not be put in place are a finding. Viewers do not find them there."""
    with Simulator() as sim:
        sim.offer_export()
        mirror(sim, tmp_path / "d")
        (tmp_path / "elsewhere").mkdir()
        (tmp_path / "d/tiles").rename(tmp_path / "away")
        (tmp_path / "d/tiles").symlink_to("../elsewhere")
        assert mirror(sim, tmp_path / "d").exit_code == 8
        for quick in (False, True):
            run = verify(tmp_path / "d", quick=quick)
            assert [(event.name, event.problem) for event in run.events_of(Finding)] == [("tileset.json", "pointer")]
        (tmp_path / "d/tiles").unlink()
        assert mirror(sim, tmp_path / "d").error is None
    assert verify(tmp_path / "d").error is None


def test_separate_state_folder(tmp_path: Path) -> None:
    """With a separate state folder, the destination holds only the files of the container."""
    dest, state = tmp_path / "d", tmp_path / "s"
    with Simulator() as sim:
        files = sim.offer_export()
        assert mirror(sim, dest, state_dir=state).error is None
        assert read_tree(dest) == files
        sim.clear_requests()
        assert mirror(sim, dest, state_dir=state).error is None
        assert len(sim.requests) == 1
        assert mirror(sim, dest).exit_code == 8
    assert verify(dest, state_dir=state).error is None


def test_walk(tmp_path: Path) -> None:
    """A walked export is updated and laid out like a listed one."""
    with Simulator() as sim:
        files = {name: data for name, data in export(8).items() if data}
        sim.offer_export(files)
        assert mirror(sim, tmp_path, inventory=Inventory.WALK).error is None
        offer_next_export(sim, files | {"tiles/003.glb": glb(b"new")})
        run = mirror(sim, tmp_path, inventory=Inventory.WALK)
    assert run.error is None
    assert files_at(tmp_path) == files | {"tiles/003.glb": glb(b"new")}


def test_only_one_version_is_kept(tmp_path: Path) -> None:
    """There is one version, and a rollback is refused."""
    with Simulator() as sim:
        sim.offer_export()
        mirror(sim, tmp_path)
        offer_next_export(sim, export(seed=4))
        mirror(sim, tmp_path)
    run = rollback(tmp_path)
    assert run.exit_code == 2
    assert "flat" in str(run.error)
    (only,) = commands.list_versions(Target(tmp_path), JobOutcome())[0]
    assert (only.version.name, only.is_current, only.shared_bytes) == (OTHER_EXPORT, True, 0)


# --- dry run ---


def test_dry_run_lists_deletions(tmp_path: Path) -> None:
    """A dry run names deletions with bytes and reason, and the guard; it changes nothing."""
    with Simulator() as sim:
        files = sim.offer_export(export(12))
        mirror(sim, tmp_path)
        offer_next_export(sim, export(9) | {"tiles/003.glb": glb(b"new")})
        before = read_tree(tmp_path)
        plan = sim.dry_run(tmp_path, layout=Layout.FLAT, delete_limit=DeleteLimit(2))
        assert read_tree(tmp_path) == before
        planned = {event.name: event for event in plan.events_of(Planned)}
        assert {name for name, event in planned.items() if event.action == "delete"} == files.keys() - export(9).keys()
        assert planned["tiles/010.glb"].bytes == len(files["tiles/010.glb"])
        assert planned["tiles/003.glb"].action == "fetch"
        assert planned["tiles/001.glb"].action == "reuse"
        assert any("would stop" in event.message for event in plan.events_of(Warned))
        assert plan.stats.deleted == 3
        real = mirror(sim, tmp_path, delete_limit=DeleteLimit(3))
    assert (real.stats.fetched, real.stats.reused, real.stats.deleted) == (plan.stats.fetched, plan.stats.reused, 3)


# --- order and kills ---


def test_dependencies_come_first(tmp_path: Path) -> None:
    """Contents come first, then subtrees, then tilesets, the deepest first, and the root last."""
    fixture = CatalogFixture(tmp_path)
    fixture.put_all(
        {
            "tileset.json": tileset("z/tileset.json", "a.json"),
            "z/tileset.json": tileset("../m.json", "b.glb"),
            "m.json": tileset("c.glb"),
            "a.json": tileset("m.json"),
            "lonely.json": tileset("c.glb"),
            "z/b.glb": glb(b"b"),
            "c.glb": glb(b"c"),
            "noise.bin": b"noise",
        }
    )
    order = list(list_dependencies_first(fixture.version, fixture.catalog))
    assert len(order) == 8
    place = {name: number for number, name in enumerate(order)}
    assert order[-1] == "tileset.json"
    for source, target, _ in fixture.all_references():
        assert place[target] < place[source], (source, target)


@samples.requires_samples
@pytest.mark.parametrize("name", ["SparseImplicitQuadtree", "TilesetWithExternalResources", "CompositeOfComposite"])
def test_real_tilesets_are_laid_out_in_order(tmp_path: Path, name: str) -> None:
    """No real file is in place before the files that it refers to."""
    fixture = CatalogFixture(tmp_path)
    fixture.put_all(read_tree(samples.sample_folder(name)))
    fixture.count_completeness()
    place = {each: number for number, each in enumerate(list_dependencies_first(fixture.version, fixture.catalog))}
    asks = [(source, target) for source, target, _ in fixture.all_references() if {source, target} <= place.keys()]
    assert asks
    assert [ask for ask in asks if place[ask[1]] > place[ask[0]] and not ask[1].endswith(".subtree")] == []


STEPS = 28
"""Minimum number of renames, unlinks and catalog writes between a finished version and the end of its run."""


def kill_at_step(step: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Kill the process before the nth step."""
    life = CrashAfterCalls(step)

    def begin(self: FlatLayout, *args: Any) -> None:
        for name in ("replace", "rename", "unlink"):
            monkeypatch.setattr(os, name, life.wrap(getattr(os, name)))
        monkeypatch.setattr(Catalog, "transaction", life.wrap(Catalog.transaction))
        monkeypatch.setattr(FlatLayout, "move_into_place", real)
        real(self, *args)

    real = FlatLayout.move_into_place
    monkeypatch.setattr(FlatLayout, "move_into_place", begin)


@pytest.mark.parametrize("then", ["same", "next", "back", "lost"])
@pytest.mark.parametrize("step", range(1, STEPS + 1, 2))
def test_run_after_a_kill_between_renames(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int, then: str
) -> None:
    """After a kill at any step of the move, the next run ends right. It may mirror the same export or the next one."""
    dest = tmp_path / "d"
    with Simulator() as sim:
        files = sim.offer_export(export(10) | {"gone/a.glb": glb(b"a")})
        mirror(sim, dest)
        new = export(14, seed=2) | {"gone": glb(b"file"), "tiles/001.glb": export(10)["tiles/002.glb"]}
        offer_next_export(sim, new)
        with monkeypatch.context() as patch:
            kill_at_step(step, patch)
            with pytest.raises(SimulatedCrash):
                mirror(sim, dest, delete_limit=DeleteLimit(percent=100))
        if then == "next":
            new = export(5, seed=3) | {"gone/b.glb": glb(b"b")}
            offer_next_export(sim, new, THIRD)
        if then == "back":
            sim.delete(OTHER_EXPORT)
            new = files
        if then == "lost":
            (dest / ".tilesync/catalog.sqlite3").unlink()
        run = mirror(sim, dest, delete_limit=DeleteLimit(percent=100), allow_shrink=True)
    assert run.error is None
    if then == "lost":
        assert new.items() <= files_at(dest).items()
    else:
        assert files_at(dest) == new
    assert verify(dest, every=True).error is None
    assert not list((dest / ".tilesync/staged").glob("*"))


def test_failed_export_leaves_the_old_one(tmp_path: Path) -> None:
    """Failed files are exit 3, and nothing of the new export is in place."""
    with Simulator() as sim:
        files = sim.offer_export()
        mirror(sim, tmp_path)
        offer_next_export(sim, export(seed=7))
        fault = sim.add_fault(is_blob, error_response(404, "BlobNotFound"), skip=3)
        run = mirror(sim, tmp_path)
        assert run.exit_code == 3
        assert files_at(tmp_path) == files
        sim.faults.remove(fault)
        assert mirror(sim, tmp_path).error is None
    assert files_at(tmp_path) == export(seed=7)


def test_folder_in_the_way_is_an_error_before_any_move(tmp_path: Path) -> None:
    """A folder of someone else at the name of a file stays, with its content, and so does the old export."""
    with Simulator() as sim:
        files = sim.offer_export()
        mirror(sim, tmp_path)
        offer_next_export(sim, export(seed=7) | {"mine": glb(b"mine")})
        (tmp_path / "mine").mkdir()
        (tmp_path / "mine/document").write_text("mine")
        run = mirror(sim, tmp_path)
        assert run.exit_code == 8
        assert "mine" in str(run.error)
        assert files_at(tmp_path) == files | {"mine/document": b"mine"}
        assert verify(tmp_path).error is None
        (tmp_path / "mine/document").unlink()
        assert mirror(sim, tmp_path).error is None
    assert files_at(tmp_path).items() >= (export(seed=7) | {"mine": glb(b"mine")}).items()


def test_foreign_file_in_the_trash_is_reported(tmp_path: Path) -> None:
    """A replaced file of someone else is reported by name; a file of tilesync is not."""
    with Simulator() as sim:
        (tmp_path / ".tilesync").mkdir()
        (tmp_path / "tiles").mkdir()
        (tmp_path / "tiles/003.glb").write_bytes(b"mine")
        sim.offer_export()
        run = mirror(sim, tmp_path)
        assert ["tiles/003.glb" in event.message for event in run.events_of(Warned)] == [True]
        offer_next_export(sim, export(seed=7))
        assert mirror(sim, tmp_path).events_of(Warned) == []


def test_copied_destination_still_belongs_to_tilesync(tmp_path: Path) -> None:
    """With new inodes and mtimes, the bytes show that a file is unmodified."""
    with Simulator() as sim:
        sim.offer_export(export(12) | {"d": glb(b"d"), "gone/a.glb": glb(b"a")})
        mirror(sim, tmp_path / "old")
        shutil.copytree(tmp_path / "old", tmp_path / "new", copy_function=shutil.copyfile)
        files = export(8, seed=3) | {"d/e.glb": glb(b"e"), "gone": glb(b"g")}
        offer_next_export(sim, files)
        run = mirror(sim, tmp_path / "new", delete_limit=DEFAULT_DELETE_LIMIT)
    assert run.error is None
    assert run.events_of(Warned) == []
    assert files_at(tmp_path / "new") == files


def put_file_for_folder(dest: Path) -> None:
    (dest / "new").write_text("mine")


def put_link_for_folder(dest: Path) -> None:
    (dest.parent / "elsewhere").mkdir()
    (dest / "new").symlink_to("../elsewhere")


def put_link_within_folder(dest: Path) -> None:
    (dest / "x").mkdir()
    (dest / "x/link").symlink_to("../tiles")


@pytest.mark.parametrize("obstruct", [put_file_for_folder, put_link_for_folder, put_link_within_folder])
def test_nothing_moves_if_something_is_in_the_way(tmp_path: Path, obstruct: Callable[[Path], None]) -> None:
    """If anything foreign blocks a file or folder, the old export stays complete."""
    dest = tmp_path / "d"
    with Simulator() as sim:
        files = sim.offer_export(export(6))
        mirror(sim, dest)
        offer_next_export(sim, export(6, seed=3) | {"x": glb(b"x"), "new/q.glb": glb(b"q")})
        obstruct(dest)
        run = mirror(sim, dest)
        assert run.exit_code == 8
        assert files.items() <= files_at(dest).items()
        assert verify(dest).error is None
    assert not (tmp_path / "elsewhere/q.glb").exists()


def test_empty_folders_are_replaced(tmp_path: Path) -> None:
    """Folders without any file, however deep, are removed."""
    with Simulator() as sim:
        sim.offer_export(export(6))
        mirror(sim, tmp_path)
        (tmp_path / "x/y/z").mkdir(parents=True)
        offer_next_export(sim, export(6) | {"x": glb(b"x")})
        assert mirror(sim, tmp_path).error is None
    assert (tmp_path / "x").is_file()


def test_new_state_folder_finds_existing_files(tmp_path: Path) -> None:
    """A new or lost separate state folder is rebuilt from the manifest in the destination. Dry run and run agree."""
    with Simulator() as sim:
        files = sim.offer_export()
        mirror(sim, tmp_path / "d")
        sim.clear_requests()
        plan = sim.dry_run(tmp_path / "d", layout=Layout.FLAT, state_dir=tmp_path / "s")
        run = mirror(sim, tmp_path / "d", state_dir=tmp_path / "s")
        assert fetched_names(sim) == set()
    assert (plan.exit_code, run.exit_code) == (0, 0)
    assert files_at(tmp_path / "d") == files


def test_state_folder_inside_the_destination_is_refused(tmp_path: Path) -> None:
    """The state folder cannot be among the files, however its path is written."""
    with Simulator() as sim:
        sim.offer_export()
        (tmp_path / "d").mkdir()
        assert mirror(sim, tmp_path / "d", state_dir=tmp_path / "d/../d/st").exit_code == 8
