"""Test `tilesync diff`."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import IMODEL, export
from tests.support.commandline import FAILED_FIELDS, FINISHED_FIELDS, CommandResult, run_tilesync
from tests.support.sequential_exports import CHANGED_FILE, FIRST, SECOND, THIRD, files_of, mirror_each, offer_exports
from tests.support.simulator import Simulator
from tilesync.api.diffing import ChangeKind, FileChange
from tilesync.cli.output.diff_lines import format_change
from tilesync.jobs.diff.records import FileRecord

DIFF_FIELDS = {
    "a", "b", "added", "removed", "changed", "moved", "same", "bytes_added", "bytes_removed", "bytes_changed",
    "bytes_changed_old", "bytes_moved", "bytes_same", "bytes_to_fetch", "bytes_to_drop", "cached", "bytes_cached",
}  # fmt: skip
CONTENTS = sum(name.endswith(".glb") for name in files_of(FIRST))


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two versions that differ in one file, the second one current."""
    return mirror_each(tmp_path_factory.mktemp("diff") / "d", FIRST, SECOND)


def read_changes(done: CommandResult) -> list[tuple[str, str]]:
    return [(line["change"], line["name"]) for line in done.lines_of_kind("file")]


def test_json_lines_name_the_files_that_differ(dest: Path) -> None:
    """There is a line for each file that differs, one for each role, and the last one with the totals, exit 0."""
    done = run_tilesync("diff", dest, FIRST[:4], SECOND, "--json")
    assert (done.exit_code, read_changes(done), done.stderr) == (0, [("changed", CHANGED_FILE)], "")
    last, same = done.last_line, len(files_of(FIRST)) - 1
    assert last.keys() == FINISHED_FIELDS | DIFF_FIELDS
    assert (last["a"], last["b"], last["changed"], last["same"]) == (FIRST, SECOND, 1, same)
    assert last["bytes_to_fetch"] == len(files_of(SECOND)[CHANGED_FILE])
    roles = {line["role"]: (line["changed"], line["same"]) for line in done.lines_of_kind("role")}
    assert roles["content"] == (1, CONTENTS - 1)
    assert sum(changed + unchanged for changed, unchanged in roles.values()) == len(files_of(FIRST))
    stat = run_tilesync("diff", dest, FIRST, SECOND, "--json", "--stat")
    assert [line["kind"] for line in stat.lines] == [*["role"] * len(roles), "finished"]


def test_one_version_is_compared_with_the_current_one(dest: Path) -> None:
    """Without B the current version is meant; --exit-code says by the exit code whether anything differs."""
    done = run_tilesync("diff", dest, FIRST, "--json", "--exit-code")
    assert (done.exit_code, done.last_line["kind"], done.last_line["b"]) == (13, "finished", SECOND)
    done = run_tilesync("diff", dest, "current", "--json", "--exit-code")
    assert (done.exit_code, done.last_line["same"], read_changes(done)) == (0, len(files_of(SECOND)), [])


def test_lines_for_people(dest: Path) -> None:
    """Each file has a mark and a size, then the totals follow; --stat prints a table instead of the files."""
    done = run_tilesync("diff", dest, FIRST)
    first, summary, for_mirror, dropped, for_viewer = done.stdout.splitlines()
    assert first.split() == ["M", str(len(files_of(SECOND)[CHANGED_FILE])), "B", CHANGED_FILE]
    same = len(files_of(FIRST)) - 1
    assert summary == f"{FIRST} -> {SECOND}: 0 added, 0 removed, 1 changed, 0 moved, {same} the same"
    assert for_mirror.startswith(
        f"download for a mirror that has the first version: {len(files_of(SECOND)[CHANGED_FILE])} B of "
    )
    assert dropped == f"only in the first version: {len(files_of(FIRST)[CHANGED_FILE])} B"
    assert for_viewer.startswith("download for a viewer: up to ")
    assert "its cache does not help" in for_viewer
    stat = run_tilesync("diff", dest, FIRST, "--stat")
    rows = {line.split("  ")[0]: line.split()[-5:] for line in stat.stdout.splitlines()}
    assert rows["tile contents"] == ["0", "0", "1", "0", str(CONTENTS - 1)]
    assert CHANGED_FILE not in stat.stdout
    assert "are the same: " in run_tilesync("diff", dest, SECOND).stdout


def test_added_removed_and_moved_files(sim: Simulator, tmp_path: Path) -> None:
    """A moved file names both of its names, and a control character of a name does not reach the terminal."""
    before = export(3)
    after = {"moved/003.glb" if name == "tiles/002.glb" else name: data for name, data in before.items()}
    after = {name: data for name, data in after.items() if name != "tiles/001.glb"} | {"new\u202e.bin": b"\x01" * 2000}
    for number, files in enumerate((before, after)):
        sim.offer_export(files, export_id=(FIRST, SECOND)[number], lastModified=f"2026-03-0{number + 1}T00:00:00Z")
        done = run_tilesync("mirror", IMODEL, tmp_path, "--allow-missing", sim=sim)
        assert done.exit_code == 0, done.stderr
    done = run_tilesync("diff", tmp_path, FIRST)
    moved, added, removed = done.stdout.splitlines()[:3]
    assert (moved[0], moved.endswith("tiles/002.glb -> moved/003.glb")) == ("R", True)
    assert (added.split()[:3], removed[0]) == (["+", "2.0", "kB"], "-")
    assert "\u202e" not in done.stdout
    lines = run_tilesync("diff", tmp_path, FIRST, "--json").lines_of_kind("file")
    assert [line.get("from") for line in lines] == ["tiles/002.glb", None, None]


@pytest.mark.parametrize(
    ("arguments", "exit_code", "error", "message"),
    [
        (["nope"], 2, "UsageError", "no version is named 'nope'"),
        (["current", ""], 2, "UsageError", "no version is named ''"),
        (["latest@x/y", "latest@x/y"], 2, "UsageError", "the folder x/y does not exist"),
        (["https://a.blob.core.windows.net/c?sig=x"], 2, "UsageError", "one of them is a path or a link"),
        (["latest@"], 2, "UsageError", "SOURCE is empty"),
        (["latest@-"], 2, "UsageError", "standard input is empty"),
        (["latest@not-an-id"], 2, "UsageError", "not an iModel id"),
    ],
)
def test_bad_versions_are_refused(dest: Path, arguments: list[str], exit_code: int, error: str, message: str) -> None:
    """The error says what is wrong, and an unknown version lists those that exist."""
    last = run_tilesync("diff", dest, *arguments, "--json").assert_failed(exit_code, error)
    assert message in last["message"]
    assert "no version" not in message or SECOND in last["hint"]


def test_a_folder_without_versions_is_refused(tmp_path: Path) -> None:
    """A folder that is no destination has nothing to compare."""
    last = run_tilesync("diff", tmp_path, "current", "--json").assert_failed(8, "DestinationError")
    assert last.keys() == FAILED_FIELDS


def test_a_damaged_manifest_is_an_error(tmp_path: Path) -> None:
    """A manifest that is cut off, or is no manifest, is named."""
    mirror_each(tmp_path, FIRST, SECOND)
    manifest = tmp_path / "manifests" / f"{FIRST}.jsonl"
    lines = manifest.read_bytes().splitlines(keepends=True)
    for damaged in (b"".join(lines[:-1]), b"".join(lines)[:-20], b"", b"".join([lines[0], b"{}\n", *lines[2:]])):
        manifest.write_bytes(damaged)
        last = run_tilesync("diff", tmp_path, FIRST, "--json").assert_failed(8, "DestinationError")
        assert last["message"].startswith(f"the manifest of version {FIRST} is damaged: ")


def test_the_latest_export_of_a_source_by_its_listing(tmp_path: Path) -> None:
    """`latest@` lists the newest export of an iModel, a link or a mirror, and requests no file of it."""
    dest = mirror_each(tmp_path / "d", FIRST)
    with Simulator() as sim:
        offer_exports(sim, FIRST, SECOND, THIRD)
        done = run_tilesync("diff", dest, "current", f"latest@{IMODEL}", "--json", sim=sim)
        assert (done.exit_code, read_changes(done)) == (0, [("changed", CHANGED_FILE)]), done.stderr
        assert (done.last_line["a"], done.last_line["b"]) == (FIRST, THIRD)
        assert done.last_line["bytes_to_fetch"] == len(files_of(THIRD)[CHANGED_FILE])
        assert sim.blob_requests() == []
        link = run_tilesync(
            "diff", dest, f"latest@{sim.create_link(FIRST)}", "current", "--json", "--exit-code", sim=sim
        )
        assert (link.exit_code, link.last_line["same"]) == (0, len(files_of(FIRST))), link.stdout
        assert "sig=" not in link.stdout + link.stderr
        assert link.lines_of_kind("notice")[0]["message"].startswith("other users of this machine can see the link")
    other = mirror_each(tmp_path / "o", SECOND)
    mirror = run_tilesync("diff", dest, FIRST, f"latest@{other}", "--json", "--exit-code")
    assert (mirror.exit_code, mirror.last_line["b"], read_changes(mirror)) == (13, SECOND, [("changed", CHANGED_FILE)])


def test_quiet_prints_the_list_alone(dest: Path) -> None:
    """With -q there is no sentence, only the list, or with --stat the table; and nothing if nothing differs."""
    quiet = run_tilesync("diff", dest, FIRST, "-q")
    assert (quiet.stdout.count("\n"), quiet.stdout.split()[0], quiet.stderr) == (1, "M", "")
    stat = run_tilesync("diff", dest, FIRST, "-q", "--stat").stdout.splitlines()
    assert stat[-1].startswith("bytes")
    assert run_tilesync("diff", dest, SECOND, "-q").stdout == ""


@pytest.mark.parametrize("way", ["stdin", "variable", "dash in the variable"])
def test_a_link_that_other_users_cannot_see(dest: Path, way: str) -> None:
    """`latest@-` reads the link from standard input, `latest@` the SOURCE of the variable; no notice, no signature."""
    with Simulator() as sim:
        offer_exports(sim, FIRST)
        link = sim.create_link(FIRST)
        side = "latest@-" if way == "stdin" else "latest@"
        variable = {"stdin": {}, "variable": {"TILESYNC_SOURCE": link}}.get(way, {"TILESYNC_SOURCE": "-"})
        stdin = "" if way == "variable" else f"{link}\n"
        done = run_tilesync("diff", dest, FIRST, side, "--json", sim=sim, stdin=stdin, **variable)
    assert (done.exit_code, done.last_line["same"]) == (0, len(files_of(FIRST))), done.stderr
    assert "sig=" not in done.stdout + done.stderr
    assert done.lines_of_kind("notice") == []


def test_a_name_cannot_look_like_another_line() -> None:
    """A manifest that was changed may have any name: line breaks and escape sequences do not reach the terminal."""
    name = "../../x\nM  1 B\ty\x1b[31m"
    line = format_change(FileChange(ChangeKind.ADDED, name, "other", None, FileRecord(5, "", "")))
    assert line == "+      5 B  ../../x\ufffdM  1 B\ufffdy\ufffd[31m"
