"""Filters in the main job: what is left out is neither fetched nor missing, whichever way the files are found."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import export, glb, read_manifest, read_tree, tileset
from tests.support.faults import error_response, is_blob_named
from tests.support.simulator import EXPORT, JobOutcome, Simulator, read_latest, verify
from tilesync.core.guards import DeleteLimit
from tilesync.errors import GuardTripped
from tilesync.events import Finding, PageListed, Planned, Warned
from tilesync.model import EVERYTHING, Globs, Inventory, Layout, Selector

INVENTORIES = pytest.mark.parametrize("inventory", list(Inventory))
SOME = Globs(exclude=("tiles/00[3-5].glb",))
LEFT_OUT = {"tiles/003.glb", "tiles/004.glb", "tiles/005.glb"}


def walkable(tiles: int = 8) -> dict[str, bytes]:
    return {name: data for name, data in export(tiles).items() if data}


def stored_files(dest: Path, version: str = EXPORT) -> dict[str, bytes]:
    return read_tree(dest / "versions" / version)


def without(files: dict[str, bytes], names: set[str]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


def balanced(run: JobOutcome) -> bool:
    tally = run.stats
    return tally.listed == tally.fetched + tally.reused + tally.kept + tally.excluded + tally.failed


@INVENTORIES
def test_what_is_left_out_is_not_missing(tmp_path: Path, inventory: Inventory) -> None:
    """It is never asked for, counts as excluded, stands in the manifest as a wish, and verify knows it."""
    with Simulator() as sim:
        files = sim.offer_export(walkable())
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME)
        assert not any(sim.blob_requests(name) for name in LEFT_OUT)
        again = sim.mirror(tmp_path, inventory=inventory, globs=SOME)
    assert run.error is None
    assert stored_files(tmp_path) == without(files, LEFT_OUT)
    assert (run.stats.listed, run.stats.excluded) == (len(files), 3)
    if inventory is Inventory.LIST:
        listed = [event for event in run.events_of(PageListed) if event.complete]
        assert listed == [PageListed(len(files), sum(map(len, files.values())), complete=True)]
    assert balanced(run)
    assert run.stats.completeness.missing == 0
    assert run.stats.completeness.referenced == len(files)
    head, rows = read_manifest(tmp_path, EXPORT)
    assert (head["include"], head["exclude"], head["files"]) == ([], list(SOME.exclude), len(files) - 3)
    assert rows.keys() == without(files, LEFT_OUT).keys()
    audit = verify(tmp_path)
    assert audit.error is None
    assert audit.stats.completeness == run.stats.completeness
    assert again.error is None
    assert (again.stats.fetched, again.stats.excluded, again.stats.kept) == (0, 3, len(files) - 3)
    assert balanced(again)


@INVENTORIES
def test_what_is_wanted_and_not_there_is_missing_all_the_same(tmp_path: Path, inventory: Inventory) -> None:
    """Of two files that the container does not have one is left out: the other is missing."""
    with Simulator() as sim:
        sim.offer_export(without(walkable(), {"tiles/003.glb", "tiles/006.glb"}))
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME)
    assert run.exit_code == 3
    assert run.stats.completeness.missing == 1


def test_what_a_file_that_is_left_out_asks_for_is_an_orphan(tmp_path: Path) -> None:
    """Nobody is left who asks for the contents of an external tileset that was left out."""
    with Simulator() as sim:
        files = sim.offer_export(walkable())
        run = sim.mirror(tmp_path, globs=Globs(exclude=("tiles/tileset.json",)))
    assert run.error is None
    assert stored_files(tmp_path).keys() == files.keys() - {"tiles/tileset.json"}
    assert (run.stats.completeness.missing, run.stats.completeness.orphans) == (0, 8)


@INVENTORIES
def test_include_names_what_is_wanted(tmp_path: Path, inventory: Inventory) -> None:
    """Everything else is left out, but never the root."""
    with Simulator() as sim:
        sim.offer_export(walkable())
        run = sim.mirror(tmp_path, inventory=inventory, globs=Globs(include=("tiles/*",), exclude=("*/000.glb",)))
    assert run.error is None
    expected = {"tileset.json", "tiles/tileset.json", *(f"tiles/00{number}.glb" for number in range(1, 8))}
    assert stored_files(tmp_path).keys() == expected


@INVENTORIES
def test_an_interrupted_run_goes_on_with_other_wishes(tmp_path: Path, inventory: Inventory) -> None:
    """What is not wanted any more goes, what is wanted now comes, what both want is fetched once."""
    with Simulator() as sim:
        files = sim.offer_export(walkable())
        bad = sim.add_fault(is_blob_named("tiles/007.glb"), error_response(400), times=None)
        first = sim.mirror(tmp_path, inventory=inventory, globs=Globs(exclude=("*/000.glb",)))
        assert first.exit_code == 3
        assert balanced(first)
        bad.times = bad.hits
        sim.clear_requests()
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME)
        asked = {
            request.path.rpartition("/")[2] for request in sim.blob_requests() if "if-none-match" not in request.headers
        }
    assert run.error is None
    assert stored_files(tmp_path) == without(files, LEFT_OUT)
    if inventory is Inventory.LIST:
        assert asked == {"000.glb", "007.glb"}
    assert (run.stats.listed, run.stats.excluded) == (len(files), 3)
    assert verify(tmp_path).error is None


def test_other_wishes_are_another_version(tmp_path: Path) -> None:
    """A published version is not touched: the other wish is a version of its own, and the pointer goes with the run."""
    with Simulator() as sim:
        files = sim.offer_export(walkable())
        assert sim.mirror(tmp_path, globs=SOME).error is None
        assert sim.mirror(tmp_path, globs=EVERYTHING).error is None
        assert read_latest(tmp_path)["version"] == f"{EXPORT}-2"
        assert stored_files(tmp_path, f"{EXPORT}-2") == files
        assert stored_files(tmp_path) == without(files, LEFT_OUT)
        sim.clear_requests()
        back = sim.mirror(tmp_path, globs=SOME)
        assert not sim.blob_requests()
    assert read_latest(tmp_path)["version"] == EXPORT
    assert back.stats.fetched == 0
    assert verify(tmp_path).error is None


def test_fewer_files_by_wish_are_no_shrinking(tmp_path: Path) -> None:
    """The guard compares exports, not wishes."""
    with Simulator() as sim:
        sim.offer_export(walkable())
        assert sim.mirror(tmp_path).error is None
        assert sim.mirror(tmp_path, globs=Globs(include=("tileset.json",))).error is None
    assert stored_files(tmp_path, f"{EXPORT}-2").keys() == {"tileset.json", "tiles/tileset.json"}


def test_a_name_that_no_folder_can_hold_may_be_left_out(tmp_path: Path) -> None:
    """What is not written need not be writable."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb"), "a.glb": glb(b"a"), "x//con.glb": glb(b"c")})
        assert sim.mirror(tmp_path).exit_code == 8
        assert sim.mirror(tmp_path, globs=Globs(exclude=("con.*",))).error is None
    assert stored_files(tmp_path).keys() == {"tileset.json", "a.glb"}


def test_wishes_outlive_the_catalog(tmp_path: Path) -> None:
    """The manifest knows what was wished for: without a catalog the same run moves nothing."""
    with Simulator() as sim:
        sim.offer_export(walkable())
        assert sim.mirror(tmp_path, globs=SOME).error is None
        for path in (tmp_path / ".tilesync").glob("catalog*"):
            path.unlink()
        sim.clear_requests()
        run = sim.mirror(tmp_path, globs=SOME)
        assert not sim.blob_requests()
    assert run.error is None
    assert read_latest(tmp_path)["version"] == EXPORT


@INVENTORIES
def test_a_plan_names_what_is_left_out(tmp_path: Path, inventory: Inventory) -> None:
    """--dry-run counts it, by listing name by name with the reason."""
    with Simulator() as sim:
        files = sim.offer_export(walkable())
        run = sim.dry_run(tmp_path / "dest", inventory=inventory, globs=SOME)
    assert run.error is None
    assert (run.stats.listed, run.stats.fetched, run.stats.excluded) == (len(files), len(files) - 3, 3)
    if inventory is Inventory.LIST:
        assert {plan.name for plan in run.events_of(Planned) if plan.action == "exclude"} == LEFT_OUT


def test_a_file_that_was_wanted_and_is_gone_is_found(tmp_path: Path) -> None:
    """Filters excuse nothing that they do not name."""
    with Simulator() as sim:
        sim.offer_export(walkable())
        assert sim.mirror(tmp_path, globs=SOME).error is None
    (tmp_path / "versions" / EXPORT / "tiles/006.glb").unlink()
    run = verify(tmp_path)
    assert run.exit_code == 10
    assert [finding.name for finding in run.events_of(Finding)] == ["tiles/006.glb"]


# --- globs that match nothing ---


def warned(run: JobOutcome) -> list[str]:
    return [event.message for event in run.events_of(Warned)]


@INVENTORIES
@pytest.mark.parametrize("plan", [False, True])
def test_a_glob_that_matches_no_file_is_told_of(tmp_path: Path, inventory: Inventory, plan: bool) -> None:
    """One warning each, in a run and in its plan, with the number of files that it was held against; a walk says what
    it cannot know. One that matches anything, also what another leaves out, is not mentioned.
    """
    globs = Globs(include=("tiles/*",), exclude=("*.jpg", "*/00[1-3].glb", "*/001.glb"))
    with Simulator() as sim:
        files = sim.offer_export(walkable())
        run = (sim.dry_run if plan else sim.mirror)(tmp_path, inventory=inventory, globs=globs)
    assert run.error is None
    (told,) = warned(run)
    assert told.startswith(f"--exclude '*.jpg' matches none of the {len(files)} files that ")
    assert ("only excluded files reference" in told) is (inventory is Inventory.WALK)
    assert ("textures" in told) is (plan and inventory is Inventory.WALK)


@INVENTORIES
def test_a_mistyped_include_does_not_replace_what_is_published(tmp_path: Path, inventory: Inventory) -> None:
    """Where filters leave only the root of a full export, exit 11 and the old version stands, every time, and its plan
    says so; with `allow_shrink` that is meant; the right filters go on.
    """
    how = {"inventory": inventory, "globs": Globs(include=("*.glbb",))}
    with Simulator() as sim:
        sim.offer_export(walkable())
        assert sim.mirror(tmp_path).error is None
        plan = sim.dry_run(tmp_path, **how)
        assert plan.error is None
        assert any("would stop" in told and "root tileset" in told for told in warned(plan))
        for _ in range(2):
            run = sim.mirror(tmp_path, **how)
            assert isinstance(run.error, GuardTripped), run.error
            assert run.exit_code == 11
            assert "--include" in run.error.hint
            assert read_latest(tmp_path)["version"] == EXPORT
        assert sim.mirror(tmp_path).error is None
        assert verify(tmp_path).error is None
        assert sim.mirror(tmp_path, **how, allow_shrink=True).error is None
    assert read_latest(tmp_path)["version"] == f"{EXPORT}-2"


@INVENTORIES
@pytest.mark.parametrize("layout", list(Layout))
def test_a_first_version_of_the_root_alone_is_warned_of(tmp_path: Path, inventory: Inventory, layout: Layout) -> None:
    """Where nothing is published before, it is published, and told of."""
    with Simulator() as sim:
        sim.offer_export(walkable())
        run = sim.mirror(tmp_path, inventory=inventory, globs=Globs(include=("*.glbb",)), layout=layout)
    assert run.error is None
    assert [("'*.glbb' matches none" in told, "only the root" in told) for told in warned(run)] == [
        (True, False),
        (False, True),
    ]


def test_a_mistyped_include_does_not_empty_a_flat_folder(tmp_path: Path) -> None:
    """In the flat layout nothing is deleted, nor put in place."""
    with Simulator() as sim:
        sim.offer_export(walkable())
        flat = {"layout": Layout.FLAT, "delete": DeleteLimit(percent=100)}
        assert sim.mirror(tmp_path, **flat).error is None
        before = {name: data for name, data in read_tree(tmp_path).items() if not name.startswith(".tilesync")}
        assert sim.mirror(tmp_path, **flat, globs=Globs(include=("*.glbb",))).exit_code == 11
    assert {name: data for name, data in read_tree(tmp_path).items() if not name.startswith(".tilesync")} == before


def test_filters_of_a_copy_are_compared_with_what_it_was_chosen_by(tmp_path: Path) -> None:
    """The same filters for a mirror and for a copy of it: what was left out there is not missed here."""
    some, more = Globs(exclude=("*/001.glb",)), Globs(exclude=("*/001.glb", "*/0x1.glb"))
    with Simulator() as sim:
        sim.offer_export(walkable())
        assert sim.mirror(tmp_path / "one", globs=some).error is None
        for globs, count in ((some, 0), (more, 1)):
            run = sim.mirror(tmp_path / f"copy{count}", held=tmp_path / "one", selector=Selector(), globs=globs)
            assert run.error is None
            assert len(warned(run)) == count
