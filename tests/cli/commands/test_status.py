"""Test `tilesync status`: tables, JSON, exit codes and the page, for each state of a destination."""

from __future__ import annotations

import os
import shutil
import sqlite3
import threading
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

import tilesync as ts
from tests.support.builders import IMODEL, read_tree
from tests.support.commandline import FINISHED_FIELDS, CommandResult, run_tilesync
from tests.support.faults import call_before, is_blob
from tests.support.killed_runs import start_mirror
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator

MISSING_EXPORT = ("--export-id", "99999999-0000-4000-8000-000000000009", "--wait", "0s")
STATUS_FIELDS = {
    "kind", "mirror", "dest", "health", "reason", "hint", "command", "imodel", "version", "export", "modified",
    "published", "files", "bytes", "newest", "newest_modified", "behind_since", "last_success", "last_run", "last_exit",
    "running", "max_age_s",
}  # fmt: skip


def forget_history(dest: Path) -> None:
    """Make the state of a destination one that an older tilesync wrote."""
    with closing(sqlite3.connect(dest / ".tilesync/catalog.sqlite3")) as db, db:
        db.execute("DELETE FROM meta WHERE key='history'")


def status_line(done: CommandResult) -> dict[str, object]:
    """Return the line of the mirror."""
    (line,) = done.lines_of_kind("status")
    return line


def test_a_fresh_mirror_ends_with_0(service: Simulator, tmp_path: Path) -> None:
    """The tables have what is held, and the runs, the latest first; JSON has the same, and a last line as always."""
    for _ in range(2):
        run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    done = run_tilesync("status", tmp_path, "--max-age", "7d")
    assert done.exit_code == 0
    assert done.stderr == f"{tmp_path} is fresh\n"
    mirrors, runs = done.stdout.split("\n\n")
    assert mirrors.splitlines()[0].split()[:4] == ["NAME", "HEALTH", "EXPORT", "EXPORTED"]
    row = mirrors.splitlines()[1].split()
    assert (row[0], row[1], row[2]) == (str(tmp_path), "fresh", EXPORT)
    outcomes = [line.split()[1:3] for line in runs.splitlines()[1:]]
    assert outcomes == [["no", "change"], ["published", str(len(service.containers[EXPORT]))]]
    done = run_tilesync("status", tmp_path, "--json")
    assert done.last_line.keys() == FINISHED_FIELDS
    line = status_line(done)
    assert line.keys() == STATUS_FIELDS
    assert (line["health"], line["reason"], line["hint"], line["running"]) == ("fresh", "", "", False)
    assert (line["export"], line["version"], line["newest"], line["imodel"]) == (EXPORT, EXPORT, EXPORT, IMODEL)
    assert line["files"] == len(service.containers[EXPORT])
    assert line["command"] == f"tilesync mirror {IMODEL} {tmp_path}"
    assert [(run["exit"], run["published"]) for run in done.lines_of_kind("run")] == [(0, True), (0, False)]


def test_a_failing_mirror_ends_with_12(service: Simulator, tmp_path: Path) -> None:
    """After a failed run, the last line says why, what to do, and which command continues; a good run heals it."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    run_tilesync("mirror", IMODEL, tmp_path, *MISSING_EXPORT, sim=service)
    done = run_tilesync("status", tmp_path, "--json")
    last = done.assert_failed(12, "NotFresh")
    assert "is failing: the service lists no export" in last["message"]
    assert f"tilesync mirror {IMODEL} {tmp_path}" in last["hint"]
    line = status_line(done)
    assert (line["health"], line["last_exit"], line["export"]) == ("failing", 4, EXPORT)
    shown = run_tilesync("status", tmp_path)
    assert shown.exit_code == 12
    assert "exit 4" in shown.stdout
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    assert run_tilesync("status", tmp_path).exit_code == 0


def test_a_state_without_history_tells_what_is_held(service: Simulator, tmp_path: Path) -> None:
    """A destination of an older tilesync is fresh or stale by its versions and `checked.json`."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    forget_history(tmp_path)
    line = status_line(run_tilesync("status", tmp_path, "--json"))
    assert (line["health"], line["export"], line["last_run"]) == ("fresh", EXPORT, None)
    assert str(line["last_success"]).endswith("Z")
    checked = tmp_path / "checked.json"
    checked.write_text(checked.read_text().replace(str(line["last_success"]), "2026-01-01T00:00:00Z"))
    done = run_tilesync("status", tmp_path, "--max-age", "7d", "--json")
    done.assert_failed(12, "NotFresh")
    assert status_line(done)["health"] == "stale"
    assert run_tilesync("status", tmp_path).exit_code == 0, "nothing is stale without --max-age"


def test_the_pointer_wins_over_the_history(service: Simulator, tmp_path: Path) -> None:
    """After a rollback the held version is the one that the pointer names."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    service.offer_changed_export(OTHER_EXPORT, 5)
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    assert status_line(run_tilesync("status", tmp_path, "--json"))["export"] == OTHER_EXPORT
    run_tilesync("rollback", tmp_path)
    assert status_line(run_tilesync("status", tmp_path, "--json"))["export"] == EXPORT


def test_a_damaged_version_is_failing(service: Simulator, tmp_path: Path) -> None:
    """Once `verify` found bad files in the published version, the mirror is failing until a run has repaired it."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    (tmp_path / "versions" / EXPORT / "tiles/001.glb").unlink()
    run_tilesync("verify", tmp_path)
    done = run_tilesync("status", tmp_path, "--json")
    assert status_line(done)["reason"] == "`tilesync verify` found bad files in the published version"
    done.assert_failed(12, "NotFresh")
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    assert run_tilesync("status", tmp_path).exit_code == 0


def test_a_run_that_goes_on_and_one_that_was_killed(service: Simulator, tmp_path: Path) -> None:
    """While a run holds the lock the mirror is as before, and running; after kill -9 it is failing."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    service.offer_changed_export(OTHER_EXPORT, 5)
    stuck, release = threading.Event(), threading.Event()
    service.add_fault(is_blob, call_before(stuck.set, lambda: release.wait(60)))
    process = start_mirror(service, tmp_path)
    try:
        assert stuck.wait(30)
        shown = run_tilesync("status", tmp_path)
        assert shown.exit_code == 0
        assert "fresh, running" in shown.stdout
        assert status_line(run_tilesync("status", tmp_path, "--json"))["running"] is True
    finally:
        process.kill()
        process.communicate()
        release.set()
    done = run_tilesync("status", tmp_path, "--json")
    assert str(status_line(done)["reason"]).endswith("was killed")
    assert (done.exit_code, status_line(done)["running"]) == (12, False)
    assert "killed" in run_tilesync("status", tmp_path).stdout


def test_a_destination_that_was_never_filled(service: Simulator, tmp_path: Path) -> None:
    """A folder without a mirror is an error; one whose only run failed is not mirrored yet."""
    run_tilesync("status", tmp_path / "nothing", "--json").assert_failed(8, "DestinationError")
    assert not (tmp_path / "nothing").exists()
    run_tilesync("mirror", IMODEL, tmp_path / "d", *MISSING_EXPORT, sim=service)
    done = run_tilesync("status", tmp_path / "d", "--json")
    done.assert_failed(12, "NotFresh")
    assert status_line(done)["health"] == "failing"


def test_layout_and_state_folder_are_part_of_the_command(service: Simulator, tmp_path: Path) -> None:
    """The command that continues a mirror has what its DEST needs, quoted for a shell."""
    dest, state = tmp_path / "my tiles", tmp_path / "state"
    words = ("--layout", "flat", "--state-dir", state)
    assert run_tilesync("mirror", IMODEL, dest, *words, sim=service).exit_code == 0
    done = run_tilesync("status", dest, "--state-dir", state, "--json")
    assert status_line(done)["command"] == f"tilesync mirror {IMODEL} '{dest}' --layout flat --state-dir {state}"
    without = run_tilesync("status", dest, "--json")
    assert without.exit_code in {0, 8}
    assert [line["kind"] for line in without.lines if line["kind"] == "run"] == []


def test_a_copy_continues_from_its_source(service: Simulator, tmp_path: Path) -> None:
    """The command of a mirror that was filled from a folder names that folder."""
    run_tilesync("mirror", IMODEL, tmp_path / "a", sim=service)
    run_tilesync("mirror", tmp_path / "a", tmp_path / "b")
    line = status_line(run_tilesync("status", tmp_path / "b", "--json"))
    assert line["command"] == f"tilesync mirror {tmp_path / 'a'} {tmp_path / 'b'}"


def test_the_variable_names_the_destination(service: Simulator, tmp_path: Path) -> None:
    """Without an argument, DEST is that of TILESYNC_DEST."""
    run_tilesync("mirror", IMODEL, tmp_path, sim=service)
    assert run_tilesync("status", TILESYNC_DEST=str(tmp_path)).exit_code == 0


def test_the_api_returns_what_the_command_prints(service: Simulator, tmp_path: Path) -> None:
    """A mirror that is not fresh is a result with an error, not an exception."""
    options = {"auth": ts.Token(service.token), "api_url": service.url}
    ts.mirror(IMODEL, tmp_path, **options)  # type: ignore[arg-type]  # options by name
    found = ts.status(tmp_path, max_age=timedelta(days=7))
    assert (found.ok, found.exit_code, len(found)) == (True, 0, 1)
    (mirror,) = found
    assert (mirror.health, mirror.history.runs[0].exit) == (ts.Health.FRESH, 0)
    late = ts.status(tmp_path, max_age=timedelta())
    assert (late.ok, late.exit_code, late.to_dict()["error"]) == (False, 12, "NotFresh")
    assert "The mirror is stale" in late.to_html()
    with pytest.raises(ts.errors.DestinationError):
        ts.status(tmp_path / "nothing")


def test_the_page_is_written_whatever_the_health(service: Simulator, tmp_path: Path) -> None:
    """--page writes a page for a fresh and for a failing mirror, again and again, and leaves nothing else behind."""
    page = tmp_path / "www" / "status.html"
    page.parent.mkdir()
    dest = tmp_path / "d"
    run_tilesync("mirror", IMODEL, dest, sim=service)
    assert run_tilesync("status", dest, "--page", page).exit_code == 0
    assert "<h1>The mirror is fresh</h1>" in page.read_text()
    run_tilesync("mirror", IMODEL, dest, *MISSING_EXPORT, sim=service)
    assert run_tilesync("status", dest, "--page", page).exit_code == 12
    assert "<h1>The mirror is failing</h1>" in page.read_text()
    assert os.listdir(page.parent) == ["status.html"]


PROTECTED_NAMES = ["v/tileset.json", "v/latest.json", "v/.tilesync/new", "f/tileset.json", "f/tiles/003.glb"]


@pytest.mark.parametrize("name", PROTECTED_NAMES)
def test_the_page_replaces_no_file_of_a_destination(both_layouts: Path, tmp_path: Path, name: str) -> None:
    """A page over a file that tilesync keeps is refused, and nothing changes."""
    here = tmp_path / "here"
    shutil.copytree(both_layouts, here, symlinks=True)
    before = read_tree(here)
    done = run_tilesync("status", here / name[0], "--page", here / name, "--json")
    assert "--page" in done.assert_failed(2, "UsageError")["message"]
    assert read_tree(here) == before


def test_a_page_in_a_flat_destination_may_be_written_again(both_layouts: Path, tmp_path: Path) -> None:
    """A page with its own name may be in a destination, also in the flat layout."""
    here = tmp_path / "here"
    shutil.copytree(both_layouts, here, symlinks=True)
    for _ in range(2):
        assert run_tilesync("status", here / "f", "--page", here / "f/status.html").exit_code == 0


def test_a_page_that_cannot_be_written_is_refused_first(both_layouts: Path, tmp_path: Path) -> None:
    """A page without a folder, at the place of a folder, or of the log, is a usage error before anything is read."""
    (tmp_path / "folder").mkdir()
    log = tmp_path / "log"
    for page, message in (
        (tmp_path / "none/p.html", "there is no folder for the page"),
        (tmp_path / "folder", "a folder where a file is needed"),
        (log, "the same file"),
    ):
        done = run_tilesync("status", both_layouts / "v", "--page", page, "--log-file", log, "--json")
        assert message in done.assert_failed(2, "UsageError")["message"]


# --- fleets ---

FLEET_TEXT = f"""
[fleet]
state-dir = "state"
[[mirror]]
name = "a"
imodel = "{IMODEL}"
dest = "tiles/a"
"""


def test_a_fleet_file_may_have_any_name(tmp_path: Path) -> None:
    """A file is a fleet file whatever its name ends with; a folder whose name ends with .toml is a destination."""
    (tmp_path / "no ext").write_text(FLEET_TEXT)
    done = run_tilesync("status", tmp_path / "no ext", "--json")
    assert status_line(done)["mirror"] == "a"
    (tmp_path / "d.toml").mkdir()
    run_tilesync("status", tmp_path / "d.toml", "--json").assert_failed(8, "DestinationError")


@pytest.mark.parametrize("option", ["--page", "--log-file"])
@pytest.mark.parametrize("name", ["f.toml", "state/fleet.sqlite3", "state/page.html"])
def test_outputs_replace_no_file_of_a_fleet(tmp_path: Path, option: str, name: str) -> None:
    """A page or a log over the fleet file, or in its state folder, is refused, and nothing changes."""
    (tmp_path / "f.toml").write_text(FLEET_TEXT)
    (tmp_path / "state").mkdir()
    (tmp_path / "state/fleet.sqlite3").write_bytes(b"state")
    before = read_tree(tmp_path)
    done = run_tilesync("status", tmp_path / "f.toml", option, tmp_path / name, "--json")
    assert option in done.assert_failed(2, "UsageError")["message"]
    assert read_tree(tmp_path) == before


def test_a_state_that_cannot_be_read(tmp_path: Path) -> None:
    """A file in place of the state folder ends with 8 and names the folder, rather than with mirrors that are fresh."""
    (tmp_path / "f.toml").write_text(FLEET_TEXT)
    (tmp_path / "state").write_text("x")
    last = run_tilesync("status", tmp_path / "f.toml", "--json").assert_failed(8, "DestinationError")
    assert str(tmp_path / "state") in last["message"]
    assert "state-dir" in last["hint"]


def test_a_package_has_no_status(tmp_path: Path) -> None:
    """A package is not read as a fleet file: the error says what it is, and which command shows it."""
    (tmp_path / "a.3tz").write_bytes(b"PK\3\4")
    done = run_tilesync("status", tmp_path / "a.3tz", "--json").assert_failed(2, "UsageError")
    assert "is a package" in done["message"]
    assert "tilesync versions" in done["hint"]
