"""Origins of option values: variables, the config file, and defaults."""

from __future__ import annotations

import pytest

from tests.support.sample_secrets import LINK
from tilesync.cli.config_file import ConfigValue
from tilesync.cli.main import cli
from tilesync.cli.option_origins import OptionOrigin, list_origins, list_secret_variables, merge_commands


def origins_of(
    command: str, config: dict[str, ConfigValue], environ: dict[str, str], *, with_defaults: bool = False
) -> dict[str, tuple[str, str, str]]:
    """Return value, kind and place of each option by its name."""
    found = list_origins(cli.commands[command], config, environ, with_defaults=with_defaults)
    return {each.name: (each.value, each.kind, each.place) for each in found}


def test_the_origin_that_wins() -> None:
    """A variable wins over the config file, an empty one does not, and what nobody sets is left out."""
    config = {
        "retry_for": ConfigValue("15m", "c.toml:1"),
        "layout": ConfigValue("flat", "c.toml:2"),
        "as_json": ConfigValue(True, "c.toml:3"),
        "include": ConfigValue(["a", "b"], "c.toml:4"),
    }
    environ = {
        "TILESYNC_RETRY_FOR": "90s",
        "TILESYNC_LAYOUT": "",
        "ITP_API_URL": "https://host",
        "TILESYNC_DELETE": "1",
    }
    assert origins_of("mirror", config, environ) == {
        "--retry-for": ("90s", "environment", "TILESYNC_RETRY_FOR"),
        "--layout": ("flat", "config", "c.toml:2"),
        "--json": ("true", "config", "c.toml:3"),
        "--include": ("a, b", "config", "c.toml:4"),
        "--api-url": ("https://host", "environment", "ITP_API_URL"),
    }


def test_defaults() -> None:
    """With all options, those that nobody sets have the default that --help shows."""
    found = origins_of("mirror", {}, {}, with_defaults=True)
    assert found["--retry-for"] == ("60s", "default", "")
    assert found["--max-delete"] == ("50%", "default", "")
    assert found["--report"] == ("-", "default", "")
    assert found["--delete"] == ("false", "default", "")
    assert "SOURCE" not in found


@pytest.mark.parametrize(
    ("command", "variable", "name"),
    [
        ("mirror", "TILESYNC_SOURCE", "SOURCE"),
        ("mirror", "TILESYNC_DEST", "DEST"),
        ("exports", "TILESYNC_SOURCE", "IMODEL_ID"),
        ("mirror", "TILESYNC_TOKEN_COMMAND", "--token-command"),
    ],
)
def test_secrets_are_not_shown(command: str, variable: str, name: str) -> None:
    """A link or a command with a secret in a variable is shown as `set`; other texts are shown."""
    assert origins_of(command, {}, {variable: f"print {LINK}"})[name] == ("set", "environment", variable)
    assert origins_of(command, {}, {variable: "print /srv"})[name] == ("print /srv", "environment", variable)


def test_the_url_of_a_ping_is_not_shown() -> None:
    """Who knows the URL of a ping can send it: it is never shown, whoever sets it."""
    environ = {"TILESYNC_PING": "https://hc.example/uuid"}
    assert origins_of("mirror", {}, environ)["--ping"] == ("set", "environment", "TILESYNC_PING")
    config = {"ping": ConfigValue("https://hc.example/uuid", "c.toml:1")}
    assert origins_of("mirror", config, {})["--ping"] == ("set", "config", "c.toml:1")
    assert [*list_secret_variables(environ)] == []


def test_variables_with_secrets() -> None:
    """A variable that is a secret as a whole is listed without its value; the file of one, with its path."""
    environ = {"TILESYNC_TOKEN": "opaque", "TILESYNC_SHARE_KEY": "", "AZURE_STORAGE_KEY_FILE": "/run/secrets/key"}
    assert [(each.name, each.value) for each in list_secret_variables(environ)] == [
        ("TILESYNC_TOKEN", "set"),
        ("AZURE_STORAGE_KEY_FILE", "/run/secrets/key"),
    ]


def test_the_same_value_of_several_commands() -> None:
    """A value that several commands have from the same place is listed once, with these commands."""
    json, quiet = (OptionOrigin(name, "true", "config", "c.toml:1") for name in ("--json", "--quiet"))
    merged = merge_commands({"mirror": [json, quiet], "verify": [json]})
    assert [(each.name, each.commands) for each in merged] == [
        ("--json", ("mirror", "verify")),
        ("--quiet", ("mirror",)),
    ]
