"""`tilesync config`: the values of options, and where they come from."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.commandline import run_tilesync
from tests.support.sample_secrets import LINK, SIG

TEXT = 'retry-for = "15m"\n\n[mirror]\nkeep-versions = 3\n'


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Write a config file."""
    path = tmp_path / "config.toml"
    path.write_text(TEXT)
    return path


def test_values_and_origins(config: Path) -> None:
    """The table has each option that the file or a variable sets, with its line or variable and its commands."""
    done = run_tilesync("config", TILESYNC_CONFIG=str(config), TILESYNC_LAYOUT="flat")
    rows = [line.split() for line in done.stdout.splitlines()]
    assert rows[0] == ["config", "file:", str(config)]
    assert ["--layout", "flat", "TILESYNC_LAYOUT", "mirror"] in rows
    assert ["--keep-versions", "3", "config.toml:4", "mirror"] in rows
    assert [
        "--retry-for",
        "15m",
        "config.toml:1",
        "mirror,",
        "view,",
        "serve,",
        "exports,",
        "diff,",
        "link,",
        "doctor",
    ] in rows
    assert done.exit_code == 0


def test_one_command(config: Path) -> None:
    """With COMMAND only its options are listed, and with --all also those that have their default."""
    some = run_tilesync("config", "exports", TILESYNC_CONFIG=str(config)).stdout
    assert "--retry-for" in some
    assert "--keep-versions" not in some
    everything = run_tilesync("config", "exports", "--all", TILESYNC_CONFIG=str(config)).stdout
    assert ["--quiet", "false", "default"] in [line.split() for line in everything.splitlines()]


def test_json_lines(config: Path) -> None:
    """--json prints a line for the file, one for each option, and the last line of every command."""
    done = run_tilesync("config", "mirror", "--json", TILESYNC_CONFIG=str(config))
    assert done.last_line["exit"] == 0
    assert done.lines[0] == {"kind": "config", "path": str(config), "read": True}
    assert done.lines_of_kind("option")[-1] == {
        "kind": "option",
        "name": "--retry-for",
        "value": "15m",
        "origin": "config",
        "place": f"{config}:1",
        "commands": "mirror",
    }


def test_secrets_are_not_shown(config: Path) -> None:
    """Tokens and links in variables are shown as `set`."""
    for words in ([], ["--json"], ["mirror", "--all"]):
        done = run_tilesync("config", *words, TILESYNC_TOKEN="opaque-token", TILESYNC_SOURCE=LINK, TILESYNC_DEST=LINK)
        assert done.exit_code == 0
        assert "TILESYNC_TOKEN" in done.stdout
        assert not [secret for secret in ("opaque-token", SIG, "sig=") if secret in done.stdout + done.stderr]


def test_the_place_of_a_file_that_does_not_exist(tmp_path: Path) -> None:
    """Without a config file the command says where it would be, and without a place that there is none."""
    path = tmp_path / "tilesync/config.toml"
    assert f"{path} (does not exist)" in run_tilesync("config", XDG_CONFIG_HOME=str(tmp_path)).stdout
    assert "no config file" in run_tilesync("config", TILESYNC_CONFIG="").stdout


def test_mistakes(config: Path) -> None:
    """A mistake in the file and an unknown command end with a usage error that names it."""
    done = run_tilesync("config", "mirorr", "--json", TILESYNC_CONFIG=str(config))
    assert "did you mean mirror?" in done.last_line["message"]
    config.write_text("retry-for = true\n")
    done = run_tilesync("config", "--json", TILESYNC_CONFIG=str(config))
    assert (done.last_line["exit"], f"{config}:1: retry-for:" in done.last_line["message"]) == (2, True)
