"""Filters in the mirror job: excluded files are neither fetched nor missing, with each inventory."""

from __future__ import annotations

from pathlib import Path

from tests.support.builders import glb, read_manifest, read_tree, referenced_export, tileset
from tests.support.faults import error_response, is_blob_named
from tests.support.simulator import EXPORT, JobOutcome, Simulator, both_inventories, read_latest, read_version, verify
from tilesync.core.guards import DeleteLimit
from tilesync.errors import GuardTripped
from tilesync.events import Finding, PageListed, Planned
from tilesync.model import EVERYTHING, Globs, Inventory, Layout

SOME_EXCLUDED = Globs(exclude=("tiles/00[3-5].glb",))
EXCLUDED_NAMES = {"tiles/003.glb", "tiles/004.glb", "tiles/005.glb"}


def without(files: dict[str, bytes], names: set[str]) -> dict[str, bytes]:
    return {name: data for name, data in files.items() if name not in names}


def counts_add_up(run: JobOutcome) -> bool:
    stats = run.stats
    return stats.listed == stats.fetched + stats.reused + stats.kept + stats.excluded + stats.failed


@both_inventories
def test_excluded_files_are_not_missing(tmp_path: Path, inventory: Inventory) -> None:
    """Excluded files are never requested, count as excluded, are in the manifest as globs; verify accepts them."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME_EXCLUDED)
        assert not any(sim.blob_requests(name) for name in EXCLUDED_NAMES)
        again = sim.mirror(tmp_path, inventory=inventory, globs=SOME_EXCLUDED)
    assert run.error is None
    assert read_version(tmp_path) == without(files, EXCLUDED_NAMES)
    assert (run.stats.listed, run.stats.excluded) == (len(files), 3)
    if inventory is Inventory.LIST:
        listed = [event for event in run.events_of(PageListed) if event.complete]
        assert listed == [PageListed(len(files), sum(map(len, files.values())), complete=True)]
    assert counts_add_up(run)
    assert run.stats.completeness.missing == 0
    assert run.stats.completeness.referenced == len(files)
    head, rows = read_manifest(tmp_path, EXPORT)
    assert (head["include"], head["exclude"], head["files"]) == ([], list(SOME_EXCLUDED.exclude), len(files) - 3)
    assert rows.keys() == without(files, EXCLUDED_NAMES).keys()
    audit = verify(tmp_path)
    assert audit.error is None
    assert audit.stats.completeness == run.stats.completeness
    assert again.error is None
    assert (again.stats.fetched, again.stats.excluded, again.stats.kept) == (0, 3, len(files) - 3)
    assert counts_add_up(again)


@both_inventories
def test_a_file_missing_in_the_container_is_still_missing(tmp_path: Path, inventory: Inventory) -> None:
    """Of two files that the container does not have one is excluded: the other is missing."""
    with Simulator() as sim:
        sim.offer_export(without(referenced_export(), {"tiles/003.glb", "tiles/006.glb"}))
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME_EXCLUDED)
    assert run.exit_code == 3
    assert run.stats.completeness.missing == 1


def test_references_of_excluded_files_are_orphans(tmp_path: Path) -> None:
    """Nothing references the contents of an external tileset that was excluded."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        run = sim.mirror(tmp_path, globs=Globs(exclude=("tiles/tileset.json",)))
    assert run.error is None
    assert read_version(tmp_path).keys() == files.keys() - {"tiles/tileset.json"}
    assert (run.stats.completeness.missing, run.stats.completeness.orphans) == (0, 8)


@both_inventories
def test_include_excludes_all_other_files(tmp_path: Path, inventory: Inventory) -> None:
    """Everything else is excluded, but never the root."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        run = sim.mirror(tmp_path, inventory=inventory, globs=Globs(include=("tiles/*",), exclude=("*/000.glb",)))
    assert run.error is None
    expected = {"tileset.json", "tiles/tileset.json", *(f"tiles/00{number}.glb" for number in range(1, 8))}
    assert read_version(tmp_path).keys() == expected


@both_inventories
def test_an_interrupted_run_continues_with_other_filters(tmp_path: Path, inventory: Inventory) -> None:
    """Files excluded now are removed, newly wanted ones are fetched, the others are fetched once."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        bad = sim.add_fault(is_blob_named("tiles/007.glb"), error_response(400), times=None)
        first = sim.mirror(tmp_path, inventory=inventory, globs=Globs(exclude=("*/000.glb",)))
        assert first.exit_code == 3
        assert counts_add_up(first)
        bad.times = bad.hits
        sim.clear_requests()
        run = sim.mirror(tmp_path, inventory=inventory, globs=SOME_EXCLUDED)
        requested = {
            request.path.rpartition("/")[2] for request in sim.blob_requests() if "if-none-match" not in request.headers
        }
    assert run.error is None
    assert read_version(tmp_path) == without(files, EXCLUDED_NAMES)
    if inventory is Inventory.LIST:
        assert requested == {"000.glb", "007.glb"}
    assert (run.stats.listed, run.stats.excluded) == (len(files), 3)
    assert verify(tmp_path).error is None


def test_other_filters_make_another_version(tmp_path: Path) -> None:
    """A published version does not change: other filters make another version, and the pointer follows the run."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path, globs=SOME_EXCLUDED).error is None
        assert sim.mirror(tmp_path, globs=EVERYTHING).error is None
        assert read_latest(tmp_path)["version"] == f"{EXPORT}-2"
        assert read_version(tmp_path, f"{EXPORT}-2") == files
        assert read_version(tmp_path) == without(files, EXCLUDED_NAMES)
        sim.clear_requests()
        back = sim.mirror(tmp_path, globs=SOME_EXCLUDED)
        assert not sim.blob_requests()
    assert read_latest(tmp_path)["version"] == EXPORT
    assert back.stats.fetched == 0
    assert verify(tmp_path).error is None


def test_fewer_files_by_filters_are_no_shrinking(tmp_path: Path) -> None:
    """The guard compares exports, not filters."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path).error is None
        assert sim.mirror(tmp_path, globs=Globs(include=("tileset.json",))).error is None
    assert read_version(tmp_path, f"{EXPORT}-2").keys() == {"tileset.json", "tiles/tileset.json"}


def test_an_unstorable_name_can_be_excluded(tmp_path: Path) -> None:
    """A file that is not written need not have a valid name."""
    with Simulator() as sim:
        sim.offer_export({"tileset.json": tileset("a.glb"), "a.glb": glb(b"a"), "x//con.glb": glb(b"c")})
        assert sim.mirror(tmp_path).exit_code == 8
        assert sim.mirror(tmp_path, globs=Globs(exclude=("con.*",))).error is None
    assert read_version(tmp_path).keys() == {"tileset.json", "a.glb"}


def test_filters_survive_a_lost_catalog(tmp_path: Path) -> None:
    """The manifest has the filters: without a catalog the same run fetches nothing."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path, globs=SOME_EXCLUDED).error is None
        for path in (tmp_path / ".tilesync").glob("catalog*"):
            path.unlink()
        sim.clear_requests()
        run = sim.mirror(tmp_path, globs=SOME_EXCLUDED)
        assert not sim.blob_requests()
    assert run.error is None
    assert read_latest(tmp_path)["version"] == EXPORT


@both_inventories
def test_a_dry_run_reports_excluded_files(tmp_path: Path, inventory: Inventory) -> None:
    """--dry-run counts them; by listing it reports each name with the reason."""
    with Simulator() as sim:
        files = sim.offer_export(referenced_export())
        run = sim.dry_run(tmp_path / "dest", inventory=inventory, globs=SOME_EXCLUDED)
    assert run.error is None
    assert (run.stats.listed, run.stats.fetched, run.stats.excluded) == (len(files), len(files) - 3, 3)
    if inventory is Inventory.LIST:
        assert {plan.name for plan in run.events_of(Planned) if plan.action == "exclude"} == EXCLUDED_NAMES


def test_verify_finds_a_lost_file_that_is_not_excluded(tmp_path: Path) -> None:
    """Filters excuse only the files that they match."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path, globs=SOME_EXCLUDED).error is None
    (tmp_path / "versions" / EXPORT / "tiles/006.glb").unlink()
    run = verify(tmp_path)
    assert run.exit_code == 10
    assert [finding.name for finding in run.events_of(Finding)] == ["tiles/006.glb"]


@both_inventories
def test_a_mistyped_include_does_not_replace_a_full_version(tmp_path: Path, inventory: Inventory) -> None:
    """If filters leave only the root of a full export: exit 11, the old version stays, and the plan warns; with
    `allow_shrink` it is published; a run with correct filters continues.
    """
    how = {"inventory": inventory, "globs": Globs(include=("*.glbb",))}
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        assert sim.mirror(tmp_path).error is None
        plan = sim.dry_run(tmp_path, **how)
        assert plan.error is None
        assert any("would stop" in message and "root tileset" in message for message in plan.warnings)
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


def test_a_mistyped_include_does_not_empty_a_flat_folder(tmp_path: Path) -> None:
    """In the flat layout nothing is deleted or placed."""
    with Simulator() as sim:
        sim.offer_export(referenced_export())
        flat = {"layout": Layout.FLAT, "delete_limit": DeleteLimit(percent=100)}
        assert sim.mirror(tmp_path, **flat).error is None
        before = {name: data for name, data in read_tree(tmp_path).items() if not name.startswith(".tilesync")}
        assert sim.mirror(tmp_path, **flat, globs=Globs(include=("*.glbb",))).exit_code == 11
    assert {name: data for name, data in read_tree(tmp_path).items() if not name.startswith(".tilesync")} == before
