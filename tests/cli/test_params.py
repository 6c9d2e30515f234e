"""Test parameter types: empty words, folders below the home folder, and links where none belongs."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.builders import IMODEL, read_tree
from tests.support.commandline import (
    run_tilesync,
)
from tests.support.simulator import Simulator
from tilesync.cli.params import replace_control_characters


@pytest.mark.parametrize("command", ["link", "exports", "mirror"])
@pytest.mark.parametrize(
    "link", ["https://account/c?sig=TOPSECRET", "http:/account/c?sig=TOPSECRET", "c?sig=TOPSECRET"]
)
def test_a_link_in_the_wrong_place_is_refused_and_not_shown(tmp_path: Path, command: str, link: str) -> None:
    """A link instead of an iModel id or DEST ends with 2, and its signature is in no message."""
    arguments = [command, IMODEL, link] if command == "mirror" else [command, link]
    done = run_tilesync(*arguments, "--json", TILESYNC_TOKEN="t")
    assert done.exit_code == 2
    assert "TOPSECRET" not in done.stdout + done.stderr


@pytest.mark.parametrize("empty", ["", " "])
@pytest.mark.parametrize(
    "words",
    [
        "mirror {} d",
        "link {}",
        "exports {}",
        "demo {}",
        "doctor --source {}",
        "verify {}",
        "versions {}",
        "mirror x {}",
    ],
)
def test_an_empty_source_or_folder_is_a_usage_error(tmp_path: Path, words: str, empty: str) -> None:
    """An empty SOURCE or DEST, as from an unset variable in a script, is a usage error; nothing is written."""
    before = read_tree(tmp_path)
    done = run_tilesync(*(word.replace("{}", empty) for word in words.split(" ")), "--json", cwd=tmp_path)
    assert "empty" in done.assert_failed(2, "UsageError")["message"]
    assert read_tree(tmp_path) == before
    assert not list(tmp_path.iterdir())


def test_an_empty_variable_is_none(service: Simulator, tmp_path: Path) -> None:
    """TILESYNC_SOURCE may be empty if no SOURCE is needed."""
    assert run_tilesync("exports", "--json", sim=service, TILESYNC_SOURCE="").exit_code == 0
    failed = run_tilesync("mirror", "--json", TILESYNC_SOURCE="").assert_failed(2, "UsageError")
    assert "missing" in failed["message"].lower()


@pytest.mark.parametrize(
    ("words", "more", "instead"),
    [
        (["mirror", IMODEL], {"TILESYNC_DEST": "~/tiles"}, "$HOME/tiles, here {home}/tiles"),
        (["mirror", IMODEL, "~"], {}, "$HOME/, here {home}"),
        (["mirror", IMODEL, "d"], {"TILESYNC_STATE_DIR": "~/state"}, "$HOME/state"),
        (["mirror", IMODEL, "~nobody-of-that-name/tiles"], {}, "the whole path ("),
        (["demo", "~/demo"], {}, "$HOME/demo"),
        (["versions", "~/tiles"], {}, "$HOME/tiles"),
    ],
)
def test_an_unexpanded_tilde_is_a_usage_error(
    service: Simulator, tmp_path: Path, words: list[str], more: dict[str, str], instead: str
) -> None:
    """An unexpanded `~` (environment files, quotes) is refused with a hint what to write; no folder `~` is made."""
    home = tmp_path / "home"
    done = run_tilesync(*words, "--json", sim=service, cwd=tmp_path, **more, HOME=str(home))
    assert instead.format(home=home) in done.assert_failed(2, "UsageError")["message"]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("dest", ["./~/tiles", "~/tiles", "~old/tiles"])
def test_a_folder_whose_name_begins_with_a_tilde_is_accepted(service: Simulator, tmp_path: Path, dest: str) -> None:
    """An existing folder named `~` is accepted, and so is `./~`."""
    if not dest.startswith("."):
        (tmp_path / dest).parent.mkdir()
    done = run_tilesync("mirror", IMODEL, dest, "--json", sim=service, cwd=tmp_path)
    assert done.exit_code == 0, done.stderr
    assert (tmp_path / dest / "tileset.json").is_file()


def test_a_source_below_home_is_found(service: Simulator, tmp_path: Path) -> None:
    """The `~` of a SOURCE is the home folder of the user: a SOURCE is only read."""
    assert run_tilesync("mirror", IMODEL, tmp_path / "one", sim=service).exit_code == 0
    done = run_tilesync("mirror", tmp_path / "copy", TILESYNC_SOURCE="~/one", HOME=str(tmp_path))
    assert done.exit_code == 2  # one word is SOURCE, whatever the variable says
    assert run_tilesync("mirror", "~/one", tmp_path / "copy", HOME=str(tmp_path)).exit_code == 0


def test_control_characters_are_replaced() -> None:
    """Escape sequences, and controls that turn around the direction of text, do not reach the terminal."""
    controls = "\x1b\x07\x9b\u061c\u200e\u200f\u202a\u202e\u2066\u2069"
    assert replace_control_characters(f"a\tb\n{controls}\u05d0") == f"a\tb\n{len(controls) * chr(0xFFFD)}\u05d0"
