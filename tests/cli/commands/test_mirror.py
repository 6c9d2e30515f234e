"""Test `tilesync mirror`: results, dry runs, missing and selected files, layouts, and links."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.builders import IMODEL, glb, read_tree, tileset
from tests.support.commandline import (
    FINISHED_FIELDS,
    RUN_FIELDS,
    run_tilesync,
)
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator


def test_last_lines_of_a_first_and_an_unchanged_run(service: Simulator, tmp_path: Path) -> None:
    """Exit 0 and the exact last line, for a run that publishes and for one with nothing to do."""
    files = service.containers[EXPORT]
    total = sum(len(item.data) for item in files.values())
    last = run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service).last_line
    assert last.keys() == FINISHED_FIELDS
    assert isinstance(last.pop("seconds"), float)
    about = {key: last.pop(key) for key in RUN_FIELDS}
    assert (about["source"], about["dest"]) == (IMODEL, str(tmp_path))
    assert last == {
        "kind": "finished", "exit": 0, "owner": IMODEL,
        "imodel": IMODEL, "export": EXPORT, "version": EXPORT, "newest": EXPORT,
        "behind": False,
        "listed": len(files), "fetched": len(files), "reused": 0, "reused_bytes": 0, "kept": 0, "excluded": 0,
        "failed": 0, "deleted": 0, "retired": 0, "gzip_files": 0,
        "referenced": len(files) - 1, "missing": 0, "orphans": 1, "unfollowed": 0,
        "verified": len(files), "looked": len(files), "bytes": total, "renewals": 0, "retries": 0, "published": True,
    }  # fmt: skip
    assert list(read_tree(tmp_path / "versions" / EXPORT)) != []
    again = run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service).last_line
    assert again.keys() == FINISHED_FIELDS
    assert (again["exit"], again["fetched"], again["kept"], again["published"]) == (0, 0, len(files), False)


def test_a_mirror_of_an_older_export_is_reported_as_behind(service: Simulator, tmp_path: Path) -> None:
    """If the newest export is not finished, the older one is mirrored and `behind` is true."""
    service.offer_export(export_id=OTHER_EXPORT, status="InProgress")
    last = run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service).last_line
    assert (last["export"], last["newest"], last["behind"]) == (EXPORT, OTHER_EXPORT, True)


def test_a_dry_run_writes_nothing(service: Simulator, tmp_path: Path) -> None:
    """-n: prints the plan with reasons, ends with 0, does not create DEST and requests no blob."""
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", "-n", sim=service)
    assert done.exit_code == 0
    assert all(name in done.stdout for name in service.containers[EXPORT])
    assert "not stored yet" in done.stdout
    assert not (tmp_path / "d").exists()
    assert service.blob_requests() == []
    last = run_tilesync("mirror", IMODEL, tmp_path / "d", "-n", "--json", sim=service).last_line
    assert last.keys() == FINISHED_FIELDS | {"dry_run"}
    assert (last["exit"], last["published"], last["bytes"]) == (0, False, 0)


def test_a_link_on_the_command_line_works_with_a_hint(service: Simulator, tmp_path: Path) -> None:
    """A link as argument is visible to other users: one warning, and none for `-` and TILESYNC_SOURCE."""
    link = service.create_link(EXPORT)
    done = run_tilesync("mirror", link, tmp_path / "a", sim=service)
    assert done.exit_code == 0
    assert "other users" in done.stderr
    for run in (
        run_tilesync("mirror", "-", tmp_path / "b", sim=service, stdin=link + "\n"),
        run_tilesync("mirror", sim=service, TILESYNC_SOURCE=link, TILESYNC_DEST=str(tmp_path / "c")),
    ):
        assert run.exit_code == 0, run.stderr
        assert "other users" not in run.stderr
    assert read_tree(tmp_path / "b/versions") == read_tree(tmp_path / "c/versions") != {}


def test_missing_files_are_named_and_allowed(service: Simulator, tmp_path: Path) -> None:
    """A missing referenced file: exit 3 with the referring file; with --allow-missing exit 0 and the count."""
    service.offer_export({"tileset.json": tileset("a.glb", "gone.glb"), "a.glb": glb(b"a")}, export_id=OTHER_EXPORT)
    report = tmp_path / "report.json"
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", "--report", report, sim=service)
    assert done.exit_code == 3
    assert "gone.glb is not there; tileset.json refers to it" in done.stderr
    assert "--allow-missing" in done.stderr
    written = json.loads(report.read_text())
    assert (written["missing"], [failure["name"] for failure in written["failures"]]) == (1, ["gone.glb"])
    done = run_tilesync("mirror", IMODEL, tmp_path / "d", "--allow-missing", sim=service)
    assert done.exit_code == 0
    assert "the tilesets ask for 3 files, and 1 is missing" in done.stderr


def test_globs_select_the_files(service: Simulator, tmp_path: Path) -> None:
    """--include and --exclude can be repeated or come from the environment; an invalid glob is a usage error."""
    service.offer_export(
        {"tileset.json": tileset("a.glb", "b.glb"), "a.glb": glb(b"a"), "b.glb": glb(b"b")}, export_id=OTHER_EXPORT
    )
    done = run_tilesync("mirror", IMODEL, tmp_path / "a", "--exclude", "a.*", "--exclude", "no such", sim=service)
    assert done.exit_code == 0
    assert "listed 3 files" in done.stderr
    assert "fetched 2 files" in done.stderr
    assert "1 left out" in done.stderr
    assert "the tilesets ask for 3 files, 1 is left out and all others are there" in done.stderr
    assert done.stderr.rstrip().endswith("2 files")
    plan = run_tilesync("mirror", IMODEL, tmp_path / "b", "-n", sim=service, TILESYNC_INCLUDE="tileset.json b.glb")
    assert "a.glb  (excluded by --include or --exclude)" in plan.stdout
    assert "leave out 1 file;" in plan.stderr
    done = run_tilesync("mirror", IMODEL, tmp_path / "c", "--include", "[z-a]", sim=service)
    assert done.exit_code == 2
    assert "[z-a]" in done.stderr


def test_an_option_selects_the_inventory_mode(service: Simulator, tmp_path: Path) -> None:
    """--inventory and TILESYNC_INVENTORY take only their words; another word is a usage error."""
    assert run_tilesync("mirror", IMODEL, tmp_path / "a", "--inventory", "walk", sim=service).exit_code == 0
    assert run_tilesync("mirror", IMODEL, tmp_path / "b", sim=service, TILESYNC_INVENTORY="walk").exit_code == 0
    assert not service.listing_requests
    assert run_tilesync("mirror", IMODEL, tmp_path / "c", "--inventory", "guess", sim=service).exit_code == 2


def test_unfollowed_references_are_listed(service: Simulator, tmp_path: Path) -> None:
    """References that leave the container: one line each with --json or -v, otherwise a count."""
    service.offer_export(
        {"tileset.json": tileset("https://elsewhere.invalid/x.glb?sig=s3cret")}, export_id=OTHER_EXPORT
    )
    options = ("--json", "--allow-shrink", "--allow-missing")
    done = run_tilesync("mirror", IMODEL, tmp_path, *options, sim=service)
    lines = [json.loads(line) for line in done.stdout.splitlines()]
    (diagnostic,) = [line for line in lines if line["kind"] == "remark"]
    assert (diagnostic["problem"], diagnostic["name"]) == ("leads away", "tileset.json")
    assert "elsewhere.invalid" in diagnostic["message"]
    assert lines[-1]["unfollowed"] == 1
    assert "s3cret" not in done.stdout + done.stderr


def test_a_flat_mirror(service: Simulator, tmp_path: Path) -> None:
    """The flat layout: files at the container's paths, deletions by option and with a guard, no change of layout."""
    flat = ("mirror", IMODEL, tmp_path, "--layout", "flat", "--json")
    assert run_tilesync(*flat, sim=service).last_line["published"] is True
    service.offer_changed_export(OTHER_EXPORT, 2)
    for name in ("tiles/004.glb", "tiles/005.glb"):
        service.blob("tiles/tileset.json", OTHER_EXPORT).data = service.blob(
            "tiles/tileset.json", OTHER_EXPORT
        ).data.replace(name.removeprefix("tiles/").encode(), b"003.glb")
        del service.containers[OTHER_EXPORT][name]
    service.blob("tiles/tileset.json", OTHER_EXPORT).md5 = ""
    stopped = run_tilesync(*flat, "--delete", "--max-delete", "1", sim=service)
    stopped.assert_failed(11, "GuardTripped")
    done = run_tilesync(*flat, "--delete", "--max-delete", "50%", "-v", sim=service)
    assert done.last_line["deleted"] == 2
    assert {row["name"] for row in done.lines_of_kind("deleted")} == {"tiles/004.glb", "tiles/005.glb"}
    assert not (tmp_path / "tiles/004.glb").exists()
    run_tilesync("mirror", IMODEL, tmp_path, "--json", sim=service).assert_failed(8, "DestinationError")
    run_tilesync("rollback", tmp_path, "--json").assert_failed(2, "UsageError")
