"""The config file: where it is, what it may contain, and what wins over it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.commandline import CommandResult, make_environment, run_tilesync
from tests.support.sample_secrets import LINK, SIG
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest
from tilesync.cli.config_file import check_config, default_config_path, read_command_values, read_config
from tilesync.cli.main import cli
from tilesync.errors import UsageError
from tilesync.runtime.toml_file import parse_toml

MISTAKES = """\
retry-for = "soon"
keep-version = 3
demo = "x"

[mirror]
quick = true
keep-versions = 0
[mirorr]
json = true
[[verify]]
quick = true
"""


@pytest.fixture
def config(tmp_path: Path) -> Path:
    """Return the path of a config file, which does not exist yet."""
    return tmp_path / "config.toml"


def values_of(text: str, command: str) -> dict[str, object]:
    """Return the values that a config file has for a command."""
    values = check_config(parse_toml(text.encode(), Path("c.toml")), cli)
    return {name: each.value for name, each in values[command].items()}


def test_top_level_keys_apply_to_each_command_that_has_the_option() -> None:
    """A key at the top is a default of every command with this option; other commands are not concerned."""
    text = 'retry-for = "15m"\nkeep-versions = 10\n'
    assert values_of(text, "mirror") == {"retry_for": "15m", "keep_versions": "10"}
    assert values_of(text, "exports") == {"retry_for": "15m"}
    assert values_of(text, "verify") == {}


def test_the_table_of_a_command_wins() -> None:
    """A key in the table of a command wins over the same key at the top, wherever it stands."""
    text = 'json = true\nretry-for = "15m"\n[doctor]\nretry-for = "5s"\njson = false\n'
    assert values_of(text, "doctor") == {"as_json": False, "retry_for": "5s"}
    assert values_of(text, "mirror") == {"as_json": True, "retry_for": "15m"}


def test_a_value_has_its_place() -> None:
    """Each value has the file and line of the key that it comes from."""
    values = check_config(parse_toml(b"json = true\n\n[verify]\njson = true\n", Path("c.toml")), cli)
    assert (values["verify"]["as_json"].place, values["mirror"]["as_json"].place) == ("c.toml:4", "c.toml:1")


def test_all_mistakes_are_listed_at_once() -> None:
    """Unknown keys and tables and wrong values are all listed, in the order of the file, with suggestions."""
    with pytest.raises(UsageError) as caught:
        check_config(parse_toml(MISTAKES.encode(), Path("c.toml")), cli)
    assert str(caught.value).splitlines() == [
        "c.toml:1: retry-for: 'soon' is not a duration: write 90s, 10m or 1h",
        "c.toml:2: keep-version: there is no option --keep-version; did you mean keep-versions?",
        "c.toml:3: demo: demo is a command: write its options in a table [demo]",
        "c.toml:6: [mirror] quick: mirror has no option --quick; verify has it",
        "c.toml:7: [mirror] keep-versions: '0' is neither 'all' nor a number from 1 to 1,000,000",
        "c.toml:8: mirorr: there is no command mirorr; did you mean mirror?",
        "c.toml:10: verify: verify is a command: write its options in a table [verify]",
    ]


def test_arguments_have_variables() -> None:
    """An argument is no key of a command that has it: the message names its variable."""
    assert values_of("source = 'x'\n", "doctor") == {"source": "x"}  # an option there
    with pytest.raises(UsageError, match="source is an argument") as caught:
        values_of("[mirror]\nsource = 'x'\n", "mirror")
    assert "TILESYNC_SOURCE" in str(caught.value)


@pytest.mark.parametrize("key", ["help", "version", "q", "as_json"])
def test_other_names_are_no_keys(key: str) -> None:
    """A key that is no long option of the command is unknown."""
    with pytest.raises(UsageError, match=f"c.toml:2: .mirror. {key}: mirror has no option --{key}"):
        values_of(f"[mirror]\n{key} = true\n", "mirror")


def test_the_default_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TILESYNC_CONFIG the file is in the user's folder for configuration, and may be missing."""
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    path = default_config_path()
    assert path is not None
    assert path.name == "config.toml"
    assert read_config({}).document is None
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("json = true\n")
    assert read_config({}).path == path
    assert read_command_values(cli, "verify", {})["as_json"].value is True


def test_a_default_place_that_may_not_be_searched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A service that may not look into the home folder has no config file, and no error."""
    closed = tmp_path / "closed"
    (closed / "tilesync").mkdir(parents=True)
    (closed / "tilesync/config.toml").write_text("not toml")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(closed))
    closed.chmod(0o000)
    user = os.geteuid()
    try:
        os.seteuid(user or 65534)  # root may look into every folder, so it becomes another user
        assert read_config({}).document is None
    finally:
        os.seteuid(user)
        closed.chmod(0o700)


def run_with(config: Path, text: str, *words: object, sim: Simulator | None = None, **more: str) -> CommandResult:
    """Run tilesync with a config file of this text."""
    config.write_text(text)
    return run_tilesync(*words, sim=sim, TILESYNC_CONFIG=str(config), **more)


def test_flag_environment_config_default(service: Simulator, tmp_path: Path, config: Path) -> None:
    """A flag wins over a variable, a variable over the config file, and the config file over the default."""
    text = 'wait = "0s"\n[mirror]\nexport-type = "X"\njson = true\n'
    right = ("--export-type", "3DTiles")
    words = ("mirror", IMODEL, tmp_path / "d", "--dry-run")
    assert run_with(config, text, *words, sim=service).last_line["exit"] == 4
    assert run_with(config, text, *words, sim=service, TILESYNC_EXPORT_TYPE="3DTiles").last_line["exit"] == 0
    assert run_with(config, text, *words, *right, sim=service, TILESYNC_EXPORT_TYPE="X").last_line["exit"] == 0
    assert run_with(config, "", *words, sim=service).exit_code == 0


def test_a_variable_turns_a_flag_off(service: Simulator, tmp_path: Path, config: Path) -> None:
    """A flag that the config file sets is off where its variable says so."""
    words = ("exports", IMODEL)
    assert run_with(config, "json = true\n", *words, sim=service).lines[0]["id"] == EXPORT
    assert "{" not in run_with(config, "json = true\n", *words, sim=service, TILESYNC_JSON="0").stdout


def test_arrays_of_repeatable_options(service: Simulator, tmp_path: Path, config: Path) -> None:
    """An array sets a repeatable option; a flag or a variable replaces all its values."""
    text = 'json = true\ndry-run = true\ninclude = ["tileset.json", "none"]\n'
    words = ("mirror", IMODEL, tmp_path / "d")
    assert run_with(config, text, *words, sim=service).last_line["excluded"] > 0
    assert run_with(config, text, *words, "--include", "**", sim=service).last_line["excluded"] == 0
    assert run_with(config, text, *words, sim=service, TILESYNC_INCLUDE="**").last_line["excluded"] == 0


def test_options_without_a_variable(service: Simulator, tmp_path: Path, config: Path) -> None:
    """The config file also sets options that delete: it is written for tilesync, a variable may be left over."""
    text = '[mirror]\nkeep-versions = 1\nkeep-for = "0s"\n'
    assert run_with(config, text, "mirror", IMODEL, tmp_path / "d", sim=service).exit_code == 0
    service.offer_changed_export(OTHER_EXPORT, 2)
    done = run_with(config, text, "mirror", IMODEL, tmp_path / "d", "--json", sim=service)
    assert (done.last_line["retired"], read_latest(tmp_path / "d")["version"]) == (1, OTHER_EXPORT)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[mirror]\nkeep-versions = 0\n", ":2: [mirror] keep-versions: '0' is neither"),
        ("json = yes\n", ":1: this is not valid TOML"),
        (f'link-command = "echo {LINK}"\n', ":1: link-command: this looks like a secret"),
        ('token = "x"\n', ":1: token: there is no option --token"),
    ],
)
def test_a_mistake_ends_the_command(config: Path, text: str, message: str) -> None:
    """A mistake in the file is a usage error with file, line and key, before anything is done; no secret is shown."""
    done = run_with(config, text, "verify", "/nonexistent", "--json")
    assert f"{config}{message}" in done.assert_failed(2, "UsageError")["message"]
    assert SIG not in done.stdout + done.stderr


def test_a_named_file_must_exist(config: Path) -> None:
    """A file that TILESYNC_CONFIG names and that does not exist is an error; an empty value is no file."""
    done = run_tilesync("verify", "/nonexistent", "--json", TILESYNC_CONFIG=str(config))
    assert done.assert_failed(2, "UsageError")["message"].startswith(f"TILESYNC_CONFIG names {config}: No such file")
    folder = config.parent / "tilesync"
    folder.mkdir()
    (folder / "config.toml").write_text("no = toml = at all")
    words, home = ("verify", "/nonexistent", "--json"), str(config.parent)
    assert run_tilesync(*words, XDG_CONFIG_HOME=home).last_line["exit"] == 2
    assert run_tilesync(*words, XDG_CONFIG_HOME=home, TILESYNC_CONFIG="").last_line["exit"] == 8


@pytest.mark.parametrize("words", [["--help"], ["--version"], ["mirror", "--help"], ["mirror", "--json", "-h"]])
def test_help_needs_no_config(config: Path, words: list[str]) -> None:
    """Help and version are printed whatever the config file has; they show the defaults of the program."""
    plain = run_tilesync(*words, TILESYNC_CONFIG="")
    for text in ("not toml", 'retry-for = "15m"\n'):
        assert run_with(config, text, *words) == plain
    assert plain.exit_code == 0


def test_the_file_may_be_a_pipe() -> None:
    """The file is read once, so that it may be the output of another program."""
    reader, writer = os.pipe()
    os.write(writer, b'retry-for = "15m"\n')
    os.close(writer)
    command = [sys.executable, "-m", "tilesync", "config", "mirror"]
    environ = {**make_environment(), "TILESYNC_CONFIG": f"/dev/fd/{reader}"}
    done = subprocess.run(command, env=environ, pass_fds=[reader], capture_output=True, text=True, check=False)
    os.close(reader)
    assert ["--retry-for", "15m"] in [line.split()[:2] for line in done.stdout.splitlines()], done.stderr


def test_usage_errors_follow_the_config(config: Path, tmp_path: Path) -> None:
    """A usage error ends with a JSON line and a report if the config file says so, unless a variable says otherwise."""
    text = f'json = true\nreport = "{tmp_path}/r.json"\n'
    done = run_with(config, text, "mirror", "--no-such-option")
    assert done.last_line["error"] == "UsageError"
    assert (tmp_path / "r.json").is_file()
    assert run_with(config, text, "mirror", "--no-such-option", TILESYNC_JSON="0").stdout == ""
