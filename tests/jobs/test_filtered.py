"""Filters in the main job: what is left out is neither fetched nor missing, whichever way the files are found."""

from __future__ import annotations

from pathlib import Path

import pytest
from builders import export, glb, manifest_of, tileset, tree
from faults import blob, error
from simulator import EXPORT, Run, Simulator, latest, verify

from tilesync.events import Finding, PageListed, Planned
from tilesync.model import EVERYTHING, Globs, Inventory

INVENTORIES = pytest.mark.parametrize("inventory", list(Inventory))
SOME = Globs(exclude=("tiles/00[3-5].glb",))
LEFT_OUT = {"tiles/003.glb", "tiles/004.glb", "tiles/005.glb"}


def walkable(tiles: int = 8) -> dict[str, bytes]:
    return {name: data for name, data in export(tiles).items() if data}


def held(dest: Path, version: str = EXPORT) -> dict[str, bytes]:
    return tree(dest / "versions" / version)


def without(files: dict[str, bytes], names: set[str]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


def balanced(run: Run) -> bool:
    tally = run.tally
    return tally.listed == tally.fetched + tally.reused + tally.kept + tally.excluded + tally.failed


@INVENTORIES
def test_what_is_left_out_is_not_missing(tmp_path: Path, inventory: Inventory) -> None:
    """It is never asked for, counts as excluded, stands in the manifest as a wish, and verify knows it."""
    with Simulator() as sim:
        files = sim.hold(walkable())
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME)
        assert not any(sim.asked(name) for name in LEFT_OUT)
        again = sim.mirror(tmp_path, inventory=inventory, globs=SOME)
    assert run.error is None
    assert held(tmp_path) == without(files, LEFT_OUT)
    assert (run.tally.listed, run.tally.excluded) == (len(files), 3)
    if inventory is Inventory.LIST:
        listed = [event for event in run.of(PageListed) if event.complete]
        assert listed == [PageListed(len(files), sum(map(len, files.values())), complete=True)]
    assert balanced(run)
    assert run.tally.completeness.missing == 0
    assert run.tally.completeness.referenced == len(files)
    head, rows = manifest_of(tmp_path, EXPORT)
    assert (head["include"], head["exclude"], head["files"]) == ([], list(SOME.exclude), len(files) - 3)
    assert rows.keys() == without(files, LEFT_OUT).keys()
    audit = verify(tmp_path)
    assert audit.error is None
    assert audit.tally.completeness == run.tally.completeness
    assert again.error is None
    assert (again.tally.fetched, again.tally.excluded, again.tally.kept) == (0, 3, len(files) - 3)
    assert balanced(again)


@INVENTORIES
def test_what_is_wanted_and_not_there_is_missing_all_the_same(tmp_path: Path, inventory: Inventory) -> None:
    """Of two files that the container does not have one is left out: the other is missing."""
    with Simulator() as sim:
        sim.hold(without(walkable(), {"tiles/003.glb", "tiles/006.glb"}))
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME)
    assert run.exit == 3
    assert run.tally.completeness.missing == 1


def test_what_a_file_that_is_left_out_asks_for_is_an_orphan(tmp_path: Path) -> None:
    """Nobody is left who asks for the contents of an external tileset that was left out."""
    with Simulator() as sim:
        files = sim.hold(walkable())
        run = sim.mirror(tmp_path, globs=Globs(exclude=("tiles/tileset.json",)))
    assert run.error is None
    assert held(tmp_path).keys() == files.keys() - {"tiles/tileset.json"}
    assert (run.tally.completeness.missing, run.tally.completeness.orphans) == (0, 8)


@INVENTORIES
def test_include_names_what_is_wanted(tmp_path: Path, inventory: Inventory) -> None:
    """Everything else is left out, but never the root."""
    with Simulator() as sim:
        sim.hold(walkable())
        run = sim.mirror(tmp_path, inventory=inventory, globs=Globs(include=("tiles/*",), exclude=("*/000.glb",)))
    assert run.error is None
    expected = {"tileset.json", "tiles/tileset.json", *(f"tiles/00{number}.glb" for number in range(1, 8))}
    assert held(tmp_path).keys() == expected


@INVENTORIES
def test_an_interrupted_run_goes_on_with_other_wishes(tmp_path: Path, inventory: Inventory) -> None:
    """What is not wanted any more goes, what is wanted now comes, what both want is fetched once."""
    with Simulator() as sim:
        files = sim.hold(walkable())
        bad = sim.fault(blob("tiles/007.glb"), error(400), times=None)
        first = sim.mirror(tmp_path, inventory=inventory, globs=Globs(exclude=("*/000.glb",)))
        assert first.exit == 3
        assert balanced(first)
        bad.times = bad.hits
        sim.forget()
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME)
        asked = {request.path.rpartition("/")[2] for request in sim.asked() if "if-none-match" not in request.headers}
    assert run.error is None
    assert held(tmp_path) == without(files, LEFT_OUT)
    if inventory is Inventory.LIST:
        assert asked == {"000.glb", "007.glb"}
    assert (run.tally.listed, run.tally.excluded) == (len(files), 3)
    assert verify(tmp_path).error is None


def test_other_wishes_are_another_version(tmp_path: Path) -> None:
    """A published version is not touched: the other wish is a version of its own, and the pointer goes with the run."""
    with Simulator() as sim:
        files = sim.hold(walkable())
        assert sim.mirror(tmp_path, globs=SOME).error is None
        assert sim.mirror(tmp_path, globs=EVERYTHING).error is None
        assert latest(tmp_path)["version"] == f"{EXPORT}-2"
        assert held(tmp_path, f"{EXPORT}-2") == files
        assert held(tmp_path) == without(files, LEFT_OUT)
        sim.forget()
        back = sim.mirror(tmp_path, globs=SOME)
        assert not sim.asked()
    assert latest(tmp_path)["version"] == EXPORT
    assert back.tally.fetched == 0
    assert verify(tmp_path).error is None


def test_fewer_files_by_wish_are_no_shrinking(tmp_path: Path) -> None:
    """The guard compares exports, not wishes."""
    with Simulator() as sim:
        sim.hold(walkable())
        assert sim.mirror(tmp_path).error is None
        assert sim.mirror(tmp_path, globs=Globs(include=("tileset.json",))).error is None
    assert held(tmp_path, f"{EXPORT}-2").keys() == {"tileset.json", "tiles/tileset.json"}


def test_a_name_that_no_folder_can_hold_may_be_left_out(tmp_path: Path) -> None:
    """What is not written need not be writable."""
    with Simulator() as sim:
        sim.hold({"tileset.json": tileset("a.glb"), "a.glb": glb(b"a"), "x//con.glb": glb(b"c")})
        assert sim.mirror(tmp_path).exit == 8
        assert sim.mirror(tmp_path, globs=Globs(exclude=("con.*",))).error is None
    assert held(tmp_path).keys() == {"tileset.json", "a.glb"}


def test_wishes_outlive_the_catalog(tmp_path: Path) -> None:
    """The manifest knows what was wished for: without a catalog the same run moves nothing."""
    with Simulator() as sim:
        sim.hold(walkable())
        assert sim.mirror(tmp_path, globs=SOME).error is None
        for path in (tmp_path / ".tilesync").glob("catalog*"):
            path.unlink()
        sim.forget()
        run = sim.mirror(tmp_path, globs=SOME)
        assert not sim.asked()
    assert run.error is None
    assert latest(tmp_path)["version"] == EXPORT


@INVENTORIES
def test_a_plan_names_what_is_left_out(tmp_path: Path, inventory: Inventory) -> None:
    """--dry-run counts it, by listing name by name with the reason."""
    with Simulator() as sim:
        files = sim.hold(walkable())
        run = sim.preview(tmp_path / "dest", inventory=inventory, globs=SOME)
    assert run.error is None
    assert (run.tally.listed, run.tally.fetched, run.tally.excluded) == (len(files), len(files) - 3, 3)
    if inventory is Inventory.LIST:
        assert {plan.name for plan in run.of(Planned) if plan.action == "exclude"} == LEFT_OUT


def test_a_file_that_was_wanted_and_is_gone_is_found(tmp_path: Path) -> None:
    """Filters excuse nothing that they do not name."""
    with Simulator() as sim:
        sim.hold(walkable())
        assert sim.mirror(tmp_path, globs=SOME).error is None
    (tmp_path / "versions" / EXPORT / "tiles/006.glb").unlink()
    run = verify(tmp_path)
    assert run.exit == 10
    assert [finding.name for finding in run.of(Finding)] == ["tiles/006.glb"]
