"""Options of `mirror` in a fleet file: all of them, with the values that the command line takes."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import click
import pytest

from tests.support.fleet_files import GOOD, assert_one, read_fleet
from tilesync.cli.config_values import options_by_key
from tilesync.cli.main import cli
from tilesync.cli.params import FilePathType
from tilesync.core.guards import DeleteLimit
from tilesync.errors import UsageError
from tilesync.fleets.file.option_table import COMMAND_LINE_OPTIONS, IDENTITY_OPTIONS, OPTION_READERS

MIRROR_OPTIONS = options_by_key(cli.commands["mirror"])

BAD_VALUES = {
    "adopt": ("1", "1 is neither true nor false"),
    "all-exports": ('"yes"', "'yes' is neither true nor false"),
    "allow-http": ('"true"', "'true' is neither true nor false"),
    "allow-missing": ("0", "0 is neither true nor false"),
    "allow-shrink": ("[true]", "a list is neither true nor false"),
    "api-url": ("1", "1 is not a text"),
    "azure-endpoint": ("true", "true is not a text"),
    "bwlimit": ('"quick"', "'quick' is not a rate"),
    "cache-control": ("60", "60 is not a text"),
    "cdn": ('"on"', "'on' is neither true nor false"),
    "changeset-id": ("12", "12 is not a text"),
    "content": ('"packed"', "'packed' is not one of stored, decoded"),
    "create-container": ("1", "1 is neither true nor false"),
    "delete": ('"all"', "'all' is neither true nor false"),
    "dest-link-command": ("'echo \"'", "the command of this key cannot be read"),
    "endpoint-url": ("8080", "8080 is not a text"),
    "exclude": ('["*.glb", 3]', "3 is not a text"),
    "export-id": ("{ a = 1 }", "a table is not a text"),
    "export-type": ("3", "3 is not a text"),
    "include": ('""', "it is empty"),
    "inventory": ('"all"', "'all' is not one of auto, list, walk"),
    "itwinjs": ("4.10", "4.1 is not a text: write it in quotes"),
    "keep-for": ('"2 weeks"', "'2 weeks' is not a duration"),
    "keep-versions": ("0", "'0' is neither 'all' nor a number from 1 to 1,000,000"),
    "layout": ('["flat"]', "a list is not one of versioned, flat"),
    "link-command": ("3", "3 is not a text"),
    "max-delete": ('"101%"', "'101%' is neither a number of files nor a percentage"),
    "no-publish": ('"no"', "'no' is neither true nor false"),
    "on-publish": ('"sh -c \'x"', "the command of this key cannot be read"),
    "pointer-cache-control": ("0", "0 is not a text"),
    "poll": ('"often"', "'often' is not a duration"),
    "retry-for": ("true", "true is neither a text nor a number"),
    "server-copy": ("2", "2 is neither true nor false"),
    "state-dir": ('"az://account/container/{name}"', "this must be a local path, not a URL"),
    "tile-version": ("1.0", "1.0 is not a text"),
    "transfers": ('"all"', "'all' is neither 'auto' nor a number from 1 to 1,000"),
    "wait": ("[1]", "a list is neither a text nor a number"),
}


def test_every_option_of_mirror_is_known() -> None:
    """Each long option of `mirror` is read, or refused with a reason: a new one cannot be forgotten."""
    known = {*OPTION_READERS, *IDENTITY_OPTIONS, *COMMAND_LINE_OPTIONS}
    assert known == MIRROR_OPTIONS.keys()
    assert BAD_VALUES.keys() == OPTION_READERS.keys()


@pytest.mark.parametrize("key", OPTION_READERS)
def test_a_bad_value_of_each_option(tmp_path: Path, key: str) -> None:
    """A wrong value of an option is named with its line, in [defaults] and in a mirror."""
    value, message = BAD_VALUES[key]
    assert_one(tmp_path, f"[defaults]\n{key} = {value}\n{GOOD}", f"2: [defaults] {key}: {message}")
    assert_one(tmp_path, f"{GOOD}{key} = {value}\n", f"5: [[mirror]] a {key}: {message}")


@pytest.mark.parametrize("key", COMMAND_LINE_OPTIONS)
def test_options_of_the_run_are_refused(tmp_path: Path, key: str) -> None:
    """An option for the run as a whole is refused in [defaults], and the message says where to give it."""
    found = f"2: [defaults] {key}: not possible here: {COMMAND_LINE_OPTIONS[key]}"
    assert_one(tmp_path, f"[defaults]\n{key} = true\n{GOOD}", found)


PARSED = [
    key
    for key in sorted(OPTION_READERS)
    if not (MIRROR_OPTIONS[key].is_flag or MIRROR_OPTIONS[key].multiple)
    and not isinstance(MIRROR_OPTIONS[key].type, FilePathType | type(click.STRING))
]
"""Options whose values have a parser of their own."""

TEXTS = (
    *("flat", "versioned", "stored", "decoded", "auto", "list", "walk", "Flat", "", " ", "soon", "off", "inf", "nan"),
    *("10", "5%", "100.5", "101%", "all", "ALL", " 7 ", "0", "-1", "1e3", "1001", "1000001"),
    *("90s", "1h30m", "2d", "10M", "1.5Mi", "12", "500kB/s"),
)


@pytest.mark.parametrize("key", PARSED)
def test_texts_are_those_of_the_command_line(key: str) -> None:
    """A text that the type of the command line accepts is accepted here with the same value, and no other."""
    option, context = MIRROR_OPTIONS[key], click.Context(cli.commands["mirror"])
    for text in TEXTS:
        try:
            expected = option.type.convert(text, option, context)
        except (click.UsageError, UsageError):
            with pytest.raises((ValueError, UsageError)):
                OPTION_READERS[key](text)
        else:
            assert OPTION_READERS[key](text) == expected, text


def test_options_override_the_defaults(tmp_path: Path) -> None:
    """A mirror has the options of [defaults] and its own before them; an empty text takes a default back."""
    text = (
        '[defaults]\nkeep-versions = 10\nwait = "0s"\nbwlimit = "5M"\nitwinjs = "4"\nmax-age = "7d"\n'
        f'{GOOD}keep-versions = "all"\nmax-delete = "5%"\ndelete = true\nlayout = "flat"\nitwinjs = ""\n'
    )
    settings = read_fleet(tmp_path, text)
    assert settings.mirrors[0].options == {
        "keep-versions": None, "wait": timedelta(), "max-delete": DeleteLimit(percent=5.0), "delete": True,
        "layout": "flat",
    }  # fmt: skip
    assert (settings.bwlimit, settings.mirrors[0].max_age) == (5e6, timedelta(days=7))
