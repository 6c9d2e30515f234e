"""Reports and logs never stand on what tilesync keeps or reads, and are refused before anything is done."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.builders import IMODEL, read_tree
from tests.support.commandline import CommandResult, run_tilesync
from tests.support.simulator import EXPORT, Simulator

READ_ONLY = Path("/proc" if os.path.isdir("/proc") else "/")
"""A folder that takes no file, from root neither."""


@pytest.fixture
def here(kept: Path, tmp_path: Path) -> Path:
    """Both of them, to be used up."""
    shutil.copytree(kept, tmp_path / "here", symlinks=True)
    return tmp_path / "here"


@pytest.fixture
def service() -> Iterator[Simulator]:
    """A simulator with the export that both hold."""
    with Simulator() as sim:
        sim.offer_export()
        yield sim


def assert_usage_error(done: CommandResult, *words: str) -> None:
    """A usage error that is told once, in these words."""
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
def test_what_a_destination_keeps_is_no_output_file(here: Path, name: str, option: str) -> None:
    """Whatever leads to it, `verify` refuses to write there, and nothing is changed."""
    before = read_tree(here)
    assert_usage_error(run_tilesync("verify", here / name[0], option, here / name), option, "what tilesync keeps")
    assert read_tree(here) == before


@pytest.mark.parametrize("option", ["--report", "--log-file"])
@pytest.mark.parametrize("how", ["symlink", "hard link", "symlink to the folder", "the other way to DEST"])
def test_links_do_not_hide_what_is_kept(here: Path, tmp_path: Path, option: str, how: str) -> None:
    """A link to the pointer, or to the folder it is in, is followed first."""
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
    assert_usage_error(run_tilesync("verify", dest, option, named), "what tilesync keeps")
    assert read_tree(here) == before


@pytest.mark.parametrize("words", [["verify", "v/tileset.json"], ["verify", "v/versions"], ["versions", "f"]])
def test_a_destination_that_the_command_is_not_about_is_kept_too(here: Path, words: list[str]) -> None:
    """A DEST that is a file or a folder of a destination, or another one, does not open that to reports and logs."""
    before = read_tree(here)
    assert_usage_error(
        run_tilesync(words[0], here / words[1], "--log-file", here / "v/tileset.json"), "what tilesync keeps"
    )
    if words[0] == "verify":
        assert_usage_error(
            run_tilesync(*words[:1], here / words[1], "--report", here / "v/tileset.json"), "what tilesync keeps"
        )
    assert read_tree(here) == before


@pytest.mark.parametrize("dry", [[], ["-n"]])
def test_a_source_that_is_read_is_kept_too(here: Path, tmp_path: Path, dry: list[str]) -> None:
    """A mirror of a folder writes no report on what that folder keeps, and makes no DEST before it says so."""
    before = read_tree(here)
    for name in ("v/tileset.json", "v/versions/r", "f/tileset.json"):
        done = run_tilesync("mirror", here / name[0], tmp_path / "d", *dry, "--report", here / name)
        assert_usage_error(done, "what tilesync keeps")
    assert (read_tree(here), (tmp_path / "d").exists()) == (before, False)


def test_the_state_folder_is_kept(here: Path, tmp_path: Path) -> None:
    """Nothing in --state-dir is an output file, nor in the folder of the states of object stores."""
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
def test_an_early_error_writes_no_report_there_either(here: Path, tmp_path: Path, command: str) -> None:
    """The report of a command line that cannot be read does not replace the pointer."""
    before = read_tree(here)
    words = command.format(source=IMODEL, dest=here / "v").split()
    done = run_tilesync(*words, "--report", here / "v/tileset.json")
    assert done.exit_code == 2
    assert "what tilesync keeps" in done.stderr
    assert read_tree(here) == before


def test_a_report_in_a_destination_may_be_written_again(here: Path, service: Simulator) -> None:
    """Under a name of its own, night after night, in either layout, and so may a log."""
    for dest, layout in ((here / "v", "versioned"), (here / "f", "flat")):
        for _ in range(2):
            named = ("--report", dest / "report.json", "--log-file", dest / "log")
            done = run_tilesync("mirror", IMODEL, dest, "--layout", layout, *named, sim=service)
            assert done.exit_code == 0, done.stderr
            assert json.loads((dest / "report.json").read_text())["kind"] == "finished"
            assert len((dest / "log").read_text().splitlines()) > 1


@pytest.mark.parametrize("option", ["--report", "--log-file"])
def test_a_flat_destination_loses_no_file_to_a_report(here: Path, service: Simulator, option: str) -> None:
    """What stands there and is no earlier report or log may be a file of the export."""
    before = read_tree(here)
    for words in (["mirror", IMODEL, here / "f", "--layout", "flat"], ["verify", here / "f"]):
        done = run_tilesync(*words, option, here / "f/tiles/003.glb", sim=service)
        assert_usage_error(done, "no earlier report or log")
    assert read_tree(here) == before


def test_one_file_for_both_is_refused(here: Path, tmp_path: Path) -> None:
    """Neither the log nor the report would be whole; links and variables do not hide it, and the log stays."""
    (tmp_path / "log").write_text("kept\n")
    (tmp_path / "link").symlink_to("log")
    for report, log in (("log", "log"), ("link", "log"), ("x/../new", "new")):
        (tmp_path / "x").mkdir(exist_ok=True)
        assert_usage_error(
            run_tilesync("verify", here / "v", "--report", tmp_path / report, "--log-file", tmp_path / log), "one file"
        )
    done = run_tilesync("verify", here / "v", "--report", tmp_path / "log", TILESYNC_LOG_FILE=str(tmp_path / "log"))
    assert_usage_error(done, "one file")
    assert (tmp_path / "log").read_text() == "kept\n"
    assert not (tmp_path / "new").exists()
    assert run_tilesync("verify", here / "v", "--report", os.devnull, "--log-file", os.devnull).exit_code == 0


def test_a_report_that_cannot_be_written_is_refused_first(tmp_path: Path, service: Simulator) -> None:
    """A folder, one that is not there, one that takes no file, and a socket are told once, before anything is asked."""
    (tmp_path / "folder").mkdir(mode=0o500)
    os.mknod(tmp_path / "socket", 0o600 | 0o140000)
    for report, said in (
        (tmp_path / "folder", "a folder where a file is needed"),
        (tmp_path / "none/r.json", "there is no folder for the report"),
        (READ_ONLY / "r.json", "cannot be written"),
        (tmp_path / "socket", "a socket where a file is needed"),
    ):
        assert_usage_error(run_tilesync("mirror", IMODEL, tmp_path / "d", "--report", report, sim=service), said)
    assert service.requests == []
    assert sorted(os.listdir(tmp_path)) == ["folder", "socket"]
