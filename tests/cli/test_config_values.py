"""Values of options in TOML files: converted, checked, and without secrets."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click
import pytest

from tests.support.sample_secrets import LINK, SIG
from tilesync.cli.config_values import convert_value, find_secrets, format_key, options_by_key, suggest
from tilesync.cli.main import cli
from tilesync.runtime.toml_file import parse_toml


def convert(key: str, value: object, command: str = "mirror") -> Any:
    """Convert a TOML value for an option."""
    return convert_value(value, options_by_key(cli.commands[command])[key], cli.commands[command])


@pytest.mark.parametrize(
    ("key", "value", "expected"),
    [
        ("json", True, True),
        ("delete", False, False),
        ("retry-for", "15m", "15m"),
        ("retry-for", 90, "90"),
        ("retry-for", 1.5, "1.5"),
        ("keep-versions", 10, "10"),
        ("keep-versions", "all", "all"),
        ("bwlimit", 10_000_000, "10000000"),
        ("max-delete", "5%", "5%"),
        ("max-delete", 100, "100"),
        ("include", ["*.glb", "a/**"], ["*.glb", "a/**"]),
        ("include", [], []),
        ("layout", "flat", "flat"),
        ("report", "/var/log/r.json", "/var/log/r.json"),
        ("itwinjs", "4.10", "4.10"),
    ],
)
def test_values_are_converted(key: str, value: object, expected: object) -> None:
    """A value of the right TOML type becomes the text or flag that click takes as a default."""
    assert convert(key, value) == expected


@pytest.mark.parametrize(
    ("key", "value", "reason"),
    [
        ("json", "true", "true or false, without quotes"),
        ("json", 1, "true or false, without quotes"),
        ("retry-for", True, "a number or a text"),
        ("retry-for", "soon", "'soon' is not a duration"),
        ("keep-versions", 0, "'0' is neither 'all' nor a number from 1"),
        ("keep-versions", [1], "a number or a text"),
        ("bwlimit", 10.0, "below the minimum"),
        ("itwinjs", 4.10, "a text in quotes"),
        ("include", "*.glb", "an array of texts"),
        ("include", ["*.glb", 3], "a text in quotes"),
        ("layout", "deep", "'deep' is not one of 'versioned', 'flat'"),
        ("report", "https://host/x", "a local path, not a URL"),
        ("cache-control", {"a": 1}, "a text in quotes"),
        ("max-delete", "101%", "neither a number of files nor a percentage"),
    ],
)
def test_wrong_values_are_refused(key: str, value: object, reason: str) -> None:
    """A value of a wrong TOML type, or one that the option refuses, is refused with the reason."""
    with pytest.raises(ValueError, match=reason.replace("(", r"\(")):
        convert(key, value)


def test_the_destination_of_an_option_is_checked() -> None:
    """An option that names a destination is checked by the parser of destinations."""
    assert convert("held", "/srv/tiles", "exports") == "/srv/tiles"
    with pytest.raises(ValueError, match="the container is missing"):
        convert("held", "az://account", "exports")


def test_keys_of_options() -> None:
    """The keys are the long names without dashes; arguments, short names and --help have none."""
    keys = options_by_key(cli.commands["mirror"])
    assert {"json", "quiet", "keep-versions", "dry-run"} <= keys.keys()
    assert not {"help", "source", "dest", "q", "as_json"} & keys.keys()


def test_secrets_are_found_anywhere() -> None:
    """A secret in any text of a file is a problem with its line and key, which does not show it."""
    text = f'a = "x"\n[mirror]\nlink-command = "echo {LINK}"\n[other]\nlist = [\n"x",\n"sig={SIG}",\n]\n'
    problems = list(find_secrets(parse_toml(text.encode(), Path("c.toml"))))
    assert [(problem.place, problem.key) for problem in problems] == [
        ("c.toml:3", "[mirror] link-command"),
        ("c.toml:7", "[other] list"),
    ]
    assert SIG not in "".join(map(str, problems))


def test_keys_in_messages() -> None:
    """A key is shown with its table, and an unknown one with the nearest known."""
    assert format_key(("json",)) == "json"
    assert format_key(("mirror", 2, "keep-for")) == "[mirror] keep-for"
    assert suggest("keep-version", ["keep-for", "keep-versions"]) == "; did you mean keep-versions?"
    assert suggest("zzz", ["keep-for"]) == ""


def test_an_option_of_another_kind() -> None:
    """A count option of click's own types takes a number, too."""
    command = click.Command("x", params=[click.Option(["--level"], type=int)])
    assert convert_value(3, options_by_key(command)["level"], command) == "3"
