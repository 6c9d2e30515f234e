"""Reports and logs never overwrite files that tilesync keeps or reads; they are refused before a run starts."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path

import pytest

from tests.support.builders import IMODEL, read_tree
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.simulator import EXPORT, Simulator

READ_ONLY = Path("/proc" if os.path.isdir("/proc") else "/")
"""A folder in which not even root can create a file."""


@pytest.fixture
def here(both_layouts: Path, tmp_path: Path) -> Path:
    """Make a folder with both destinations, to be changed."""
    shutil.copytree(both_layouts, tmp_path / "here", symlinks=True)
    return tmp_path / "here"


def assert_usage_error(done: CommandResult, *words: str) -> None:
    """Assert a usage error that is printed once, with these words."""
    assert done.exit_code == 2, (done.stdout, done.stderr)
    assert done.stderr.lower().count("error: ") == 1, done.stderr
    assert all(word in done.stderr for word in words), done.stderr


PROTECTED_NAMES = [
    "v/tileset.json", "v/latest.json", "v/checked.json", "v/current", f"v/versions/{EXPORT}/tileset.json",
    "v/versions/new", f"v/manifests/{EXPORT}.jsonl", "v/.tilesync/catalog.sqlite3", "v/.tilesync/new",
    "v/TILESET.json", "v/current/tileset.json", "v/versions/../tileset.json", "f/tileset.json", "f/.tilesync/new",
]  # fmt: skip


@pytest.mark.parametrize("option", ["--report", "--log-file"])
@pytest.mark.parametrize("name", PROTECTED_NAMES)
def test_output_paths_to_protected_files_are_refused(here: Path, name: str, option: str) -> None:
    """`verify` refuses every path that leads to a protected file, and changes nothing."""
    before = read_tree(here)
    assert_usage_error(run_tilesync("verify", here / name[0], option, here / name), option, "that tilesync keeps")
    assert read_tree(here) == before


@pytest.mark.parametrize("option", ["--report", "--log-file"])
@pytest.mark.parametrize("how", ["symlink", "hard link", "symlink to the folder", "the other way to DEST"])
def test_output_paths_through_links_are_refused_too(here: Path, tmp_path: Path, option: str, how: str) -> None:
    """Links to the pointer or its folder are followed first."""
    dest, named = here / "v", tmp_path / "link"
    match how:
        case "symlink":
            named.symlink_to(dest / "tileset.json")
        case "hard link":
            os.link(dest / "tileset.json", named)
        case "symlink to the folder":
            named.symlink_to(dest)
            named /= "tileset.json"
        case _:
            named.symlink_to(dest)
            named, dest = dest / "tileset.json", named
    before = read_tree(here)
    assert_usage_error(run_tilesync("verify", dest, option, named), "that tilesync keeps")
    assert read_tree(here) == before


@pytest.mark.parametrize("words", [["verify", "v/tileset.json"], ["verify", "v/versions"], ["versions", "f"]])
def test_files_of_other_destinations_are_protected_too(here: Path, words: list[str]) -> None:
    """Files of a destination stay protected if DEST is a path inside it, or another destination."""
    before = read_tree(here)
    assert_usage_error(
        run_tilesync(words[0], here / words[1], "--log-file", here / "v/tileset.json"), "that tilesync keeps"
    )
    if words[0] == "verify":
        assert_usage_error(
            run_tilesync(*words[:1], here / words[1], "--report", here / "v/tileset.json"), "that tilesync keeps"
        )
    assert read_tree(here) == before


@pytest.mark.parametrize("dry", [[], ["-n"]])
def test_files_of_the_source_are_protected_too(here: Path, tmp_path: Path, dry: list[str]) -> None:
    """A mirror from a folder refuses a report over the files of that folder, before DEST is created."""
    before = read_tree(here)
    for name in ("v/tileset.json", "v/versions/r", "f/tileset.json"):
        done = run_tilesync("mirror", here / name[0], tmp_path / "d", *dry, "--report", here / name)
        assert_usage_error(done, "that tilesync keeps")
    assert (read_tree(here), (tmp_path / "d").exists()) == (before, False)


def test_the_state_folder_is_protected(here: Path, tmp_path: Path) -> None:
    """Files in --state-dir, and in the default state folder, are refused."""
    (tmp_path / "s").mkdir()
    done = run_tilesync("verify", here / "v", "--state-dir", tmp_path / "s", "--log-file", tmp_path / "s/log")
    assert_usage_error(done, "the state folder")
    assert list((tmp_path / "s").iterdir()) == []
    usual = tmp_path / "home/tilesync/destinations/one"
    usual.mkdir(parents=True)
    (usual / "catalog.sqlite3").write_bytes(b"kept")
    done = run_tilesync(
        "verify", here / "v", "--report", usual / "catalog.sqlite3", XDG_STATE_HOME=str(tmp_path / "home")
    )
    assert_usage_error(done, "the state folder")
    assert (usual / "catalog.sqlite3").read_bytes() == b"kept"


@pytest.mark.parametrize(
    "command", ["mirror {source} {dest} --bogus", "mirror {source} {dest} --transfers none", "verify {dest} --bogus"]
)
def test_the_report_of_a_usage_error_replaces_no_pointer(here: Path, tmp_path: Path, command: str) -> None:
    """The report of a usage error does not replace the pointer."""
    before = read_tree(here)
    words = command.format(source=IMODEL, dest=here / "v").split()
    done = run_tilesync(*words, "--report", here / "v/tileset.json")
    assert done.exit_code == 2
    assert "that tilesync keeps" in done.stderr
    assert read_tree(here) == before


def test_a_report_in_a_destination_may_be_written_again(here: Path, service: Simulator) -> None:
    """A report or log with its own name may be in the destination, in either layout, run after run."""
    for dest, layout in ((here / "v", "versioned"), (here / "f", "flat")):
        for _ in range(2):
            named = ("--report", dest / "report.json", "--log-file", dest / "log")
            done = run_tilesync("mirror", IMODEL, dest, "--layout", layout, *named, sim=service)
            assert done.exit_code == 0, done.stderr
            assert json.loads((dest / "report.json").read_text())["kind"] == "finished"
            assert len((dest / "log").read_text().splitlines()) > 1


@pytest.mark.parametrize("option", ["--report", "--log-file"])
def test_a_flat_destination_loses_no_file_to_a_report(here: Path, service: Simulator, option: str) -> None:
    """An existing file that is no report, log or page is refused: it may be a file of the export."""
    before = read_tree(here)
    for words in (["mirror", IMODEL, here / "f", "--layout", "flat"], ["verify", here / "f"]):
        done = run_tilesync(*words, option, here / "f/tiles/003.glb", sim=service)
        assert_usage_error(done, "that is no report, log, metrics file or status page")
    assert read_tree(here) == before


def test_one_file_for_report_and_log_is_refused(here: Path, tmp_path: Path) -> None:
    """--report and --log-file with the same file are refused, also through links and variables; the log stays."""
    (tmp_path / "log").write_text("kept\n")
    (tmp_path / "link").symlink_to("log")
    for report, log in (("log", "log"), ("link", "log"), ("x/../new", "new")):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert_usage_error(
            run_tilesync("verify", here / "v", "--report", tmp_path / report, "--log-file", tmp_path / log),
            "the same file",
        )
    done = run_tilesync("verify", here / "v", "--report", tmp_path / "log", TILESYNC_LOG_FILE=str(tmp_path / "log"))
    assert_usage_error(done, "the same file")
    assert (tmp_path / "log").read_text() == "kept\n"
    assert not (tmp_path / "new").exists()
    assert run_tilesync("verify", here / "v", "--report", os.devnull, "--log-file", os.devnull).exit_code == 0


def test_a_report_that_cannot_be_written_is_refused_first(tmp_path: Path, service: Simulator) -> None:
    """A report path that cannot be written (four kinds) is refused once, before any request."""
    (tmp_path / "folder").mkdir(mode=0o500)
    os.mknod(tmp_path / "socket", 0o600 | 0o140000)
    for report, message in (
        (tmp_path / "folder", "a folder where a file is needed"),
        (tmp_path / "none/r.json", "there is no folder for the report"),
        (READ_ONLY / "r.json", "cannot be written"),
        (tmp_path / "socket", "a socket where a file is needed"),
    ):
        assert_usage_error(run_tilesync("mirror", IMODEL, tmp_path / "d", "--report", report, sim=service), message)
    assert service.requests == []
    assert sorted(os.listdir(tmp_path)) == ["folder", "socket"]
