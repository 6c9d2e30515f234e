"""Groups of options and sections of commands in --help."""

from __future__ import annotations

import re
import subprocess
import sys
from collections import Counter

import click
import pytest

from tests.support.commandline import make_environment, run_tilesync
from tilesync.cli.help_groups import (
    HELP_OPTION,
    OWN_OPTIONS,
    GroupedOption,
    OptionGroup,
    TilesyncCommand,
    group_options,
)
from tilesync.cli.main import cli

WITHOUT_OPTIONS = {"completion"}
"""Commands that have no options and need no config file."""


def list_groups(name: str) -> dict[str, list[str]]:
    """Return the last names of the options of a command by the titles of their groups."""
    command = cli.commands[name]
    groups = group_options(command, click.Context(command, info_name=name))
    return {title: [option.opts[-1] for option in options] for title, options in groups.items()}


def test_every_option_of_mirror_is_in_a_group() -> None:
    """Each option of `mirror` is in exactly one of the groups, and --help is apart."""
    groups = list_groups("mirror")
    assert list(groups) == [*(group.value for group in OptionGroup), HELP_OPTION]
    assert groups.pop(HELP_OPTION) == ["--help"]
    options = [param.opts[-1] for param in cli.commands["mirror"].params if isinstance(param, click.Option)]
    assert Counter(name for names in groups.values() for name in names) == Counter(options)


@pytest.mark.parametrize("name", sorted(cli.commands.keys() - WITHOUT_OPTIONS))
def test_commands_agree_on_groups(name: str) -> None:
    """Every command shows groups, and an option that `mirror` has too is in the same group."""
    assert isinstance(cli.commands[name], TilesyncCommand)
    groups = {
        param.opts[-1]: param.group for param in cli.commands["mirror"].params if isinstance(param, GroupedOption)
    }
    for param in cli.commands[name].params:
        if isinstance(param, click.Option):
            assert isinstance(param, GroupedOption), param.opts
            assert param.opts[-1] not in groups or param.group == groups[param.opts[-1]], param.opts


def test_own_options_come_first() -> None:
    """Options that belong to one command alone are in the first group, with --help; empty groups are not shown."""
    groups = list_groups("verify")
    assert next(iter(groups)) == OWN_OPTIONS
    assert groups[OWN_OPTIONS] == ["--quick", "--all", "--help"]
    assert OptionGroup.RETENTION not in groups


def test_help_shows_the_groups() -> None:
    """--help of a command has each group as a heading, with its options below it, in aligned columns."""
    text = run_tilesync("mirror", "--help").stdout
    headings = re.findall(r"^(\S.*):$", text, re.MULTILINE)
    assert headings == [*(group.value for group in OptionGroup), HELP_OPTION]
    retention = text[text.index("Retention:") : text.index("Speed:")]
    assert re.findall(r"^  (--[\w-]+)", retention, re.MULTILINE) == [
        "--keep-versions",
        "--keep-for",
        "--delete",
        "--max-delete",
    ]
    rows = [row for row in text.splitlines() if re.match(r"  -\S.*?  +\S", row)]
    assert len(rows) > len(OptionGroup)
    assert len({len(match[0]) for row in rows if (match := re.match(r"  -\S.*?  +(?=\S)", row))}) == 1


def test_help_shows_the_sections() -> None:
    """--help of the program shows every command in one section."""
    text = run_tilesync("--help").stdout
    assert re.findall(r"^(\S.*):$", text, re.MULTILINE) == ["Options", *cli.sections]
    shown = re.findall(r"^  ([a-z]+)  ", text[text.index("Mirror:") :], re.MULTILINE)
    assert sorted(shown) == sorted(cli.commands)


def test_cloup_is_loaded_for_help_alone() -> None:
    """A command that prints no help does not load cloup."""
    code = "import sys, tilesync.cli.main as m\ntry: m.main(sys.argv[1:])\nfinally: print('cloup' in sys.modules)"
    for words, expected in ((["mirror", "--help"], "True"), (["versions", "/nonexistent"], "False")):
        done = subprocess.run(
            [sys.executable, "-c", code, *words], capture_output=True, text=True, env=make_environment(), check=False
        )
        assert done.stdout.splitlines()[-1] == expected, done.stderr


def test_help_loads_little() -> None:
    """--help loads click, cloup and the options of the commands, and nothing that moves files."""
    program = (
        "import sys; from tilesync.__main__ import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)"
    )
    loaded = subprocess.run(
        [sys.executable, "-c", program, "mirror", "--help"],
        capture_output=True,
        text=True,
        env=make_environment(),
        check=True,
    ).stderr.split()
    assert len(loaded) < 280
    assert not {"asyncio", "httpx", "sqlite3", "ssl", "tilesync.app", "tilesync.jobs"} & set(loaded)


def test_modules_load_with_a_tuned_garbage_collector() -> None:
    """The collector runs rarely already while the command line loads, which creates thousands of values to keep."""
    program = (
        "import gc, sys, tilesync.__main__ as m\n"
        "class Finder:\n"
        "    def find_spec(self, name, *_):\n"
        "        if name == 'tilesync.cli.main': print('threshold', gc.get_threshold()[0])\n"
        "sys.meta_path.insert(0, Finder())\n"
        "m.main()"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, "--version"], capture_output=True, text=True, env=make_environment(), check=True
    )
    assert "threshold 50000" in done.stdout
