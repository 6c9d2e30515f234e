"""The config file: defaults of options, for all commands at its top and for one command in a table of its name."""

from __future__ import annotations

import os
from collections import UserDict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.errors import UsageError
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.cli.config_values import Problem
    from tilesync.runtime.toml_file import TomlDocument, TomlPath

CONFIG_VARIABLE = "TILESYNC_CONFIG"
CONFIG_NAME = "config.toml"


@dataclass(frozen=True)
class ConfigFile:
    """The config file of this run. `path` is None if there is none by design; `document`, if it does not exist."""

    path: Path | None
    document: TomlDocument | None = None


@dataclass(frozen=True)
class ConfigValue:
    """Value of an option in the config file, as click takes a default, and its place: `FILE:LINE`."""

    value: Any
    place: str


def default_config_path() -> Path | None:
    """Return the path of the config file without TILESYNC_CONFIG; None if this user has no home folder."""
    from platformdirs import user_config_path

    root = Path()
    with suppress(RuntimeError):  # neither HOME nor the user database has a folder; older versions return `~`
        root = user_config_path("tilesync")
    return root / CONFIG_NAME if root.is_absolute() else None


def read_config(environ: Mapping[str, str]) -> ConfigFile:
    """Read the config file. A missing one is no error, unless TILESYNC_CONFIG names it. Raises UsageError."""
    named = environ.get(CONFIG_VARIABLE)
    path = default_config_path() if named is None else Path(named) if named.strip() else None
    if path is None:
        return ConfigFile(None)
    try:
        path.stat()
    except OSError as error:
        # a service may run without access to home folders: then it has no config file either
        if named is None:
            return ConfigFile(path)
        raise UsageError(
            f"{CONFIG_VARIABLE} names {path}: {error.strerror or error}",
            hint=f"correct the path, or set {CONFIG_VARIABLE} to an empty text for no config file",
        ) from None
    from tilesync.runtime.toml_file import read_toml  # late: most users have no config file

    return ConfigFile(path, read_toml(path))


def check_config(document: TomlDocument, group: click.Group) -> dict[str, dict[str, ConfigValue]]:
    """Check a config file completely; return the values for each command, by the names of parameters.

    Raises UsageError with all unknown keys, wrong values and secrets.
    """
    from tilesync.cli.config_values import REFERENCE_HINT, create_error, find_secrets

    if secrets := list(find_secrets(document)):
        raise create_error(secrets, hint=REFERENCE_HINT)
    problems: list[Problem] = []
    values: dict[str, dict[str, ConfigValue]] = {name: {} for name in group.commands}
    paths = sorted(_iter_keys(document, group), key=len)  # top-level keys first: those of tables replace them
    for path in paths:
        problems += _apply_key(document, path, group, values)
    if problems:
        problems.sort(key=lambda problem: problem.line)
        raise create_error(
            problems, hint="keys are long names of options, without dashes: `tilesync COMMAND --help` lists them"
        )
    return values


def _iter_keys(document: TomlDocument, group: click.Group) -> Iterator[TomlPath]:
    """Yield the path of each key: at the top, and in the tables of commands."""
    for name, value in document.tables.items():
        if isinstance(value, dict) and name in group.commands:
            yield from ((name, key) for key in value)
        else:
            yield (name,)


def _apply_key(
    document: TomlDocument, path: TomlPath, group: click.Group, values: dict[str, dict[str, ConfigValue]]
) -> Iterator[Problem]:
    """Add the value of a key to those of its commands; yield the problem that it has."""
    from tilesync.cli.config_values import Problem, convert_value, format_key, options_by_key

    key = str(path[-1])
    commands = [str(path[0])] if len(path) == 2 else list(group.commands)
    table = document.tables[str(path[0])] if len(path) == 2 else document.tables
    having = {name: option for name in commands if (option := options_by_key(group.commands[name]).get(key))}
    line, place = document.line_of(path) or 0, document.format_place(path)
    if not having:
        yield Problem(place, format_key(path), _explain_unknown(path, table[key], group), line)
    for name, option in having.items():
        try:
            converted = convert_value(table[key], option, group.commands[name])
        except ValueError as error:
            yield Problem(place, format_key(path), str(error), line)
            return
        values[name][option.name or key] = ConfigValue(converted, place)


def _explain_unknown(path: TomlPath, value: Any, group: click.Group) -> str:
    """Return why a key is unknown, with the nearest known one."""
    from tilesync.cli.config_values import options_by_key, suggest

    key = str(path[-1])
    if len(path) == 1 and key in group.commands:
        return f"{key} is a command: write its options in a table [{key}]"
    if isinstance(value, dict) or (isinstance(value, list) and any(isinstance(each, dict) for each in value)):
        return f"there is no command {key}{suggest(key, group.commands)}"
    commands = [str(path[0])] if len(path) == 2 else list(group.commands)
    if variable := _find_argument_variable(key, [group.commands[name] for name in commands]):
        return f"{key} is an argument, which the file cannot set: use the variable {variable}"
    known = {name for each in commands for name in options_by_key(group.commands[each])}
    holders = [name for name, each in group.commands.items() if key in options_by_key(each)]
    if holders:
        return f"{path[0]} has no option --{key}; {' and '.join(holders)} {'has' if len(holders) == 1 else 'have'} it"
    owner = f"{path[0]} has" if len(path) == 2 else "there is"
    return f"{owner} no option --{key}{suggest(key, known)}"


def _find_argument_variable(key: str, commands: list[click.Command]) -> str | None:
    """Return the variable of an argument (SOURCE, DEST) that has this name; None if there is none."""
    for param in (param for command in commands for param in command.params if isinstance(param, click.Argument)):
        if param.name == key and isinstance(param.envvar, str):
            return param.envvar
    return None


class LazyDefaults(UserDict[str, Any]):
    """Defaults of a command from the config file, which is read and checked at the first look-up."""

    def __init__(self, context: click.Context) -> None:
        self._context = context  # without the initialiser of UserDict, which would set `data`

    @cached_property
    def data(self) -> dict[str, Any]:  # type: ignore[override]  # UserDict has a field, read at once
        """Return the values by the names of parameters. Raises UsageError for a mistake in the file."""
        _, values = load_config(self._context)
        return {name: each.value for name, each in values.get(self._context.info_name or "", {}).items()}


def load_config(context: click.Context) -> tuple[ConfigFile, dict[str, dict[str, ConfigValue]]]:
    """Return the config file and its values for each command; it is read once in a run. Raises UsageError."""
    root = context.find_root()
    if _LOADED not in root.meta:
        file = read_config(os.environ)
        document, group = file.document, root.command
        assert isinstance(group, click.Group), "the program is a group of commands"
        root.meta[_LOADED] = (file, {} if document is None else check_config(document, group))
    loaded: tuple[ConfigFile, dict[str, dict[str, ConfigValue]]] = root.meta[_LOADED]
    return loaded


_LOADED = "tilesync.config"
"""Key of the loaded file in the context of the program."""


def read_command_values(group: click.Group, name: str, environ: Mapping[str, str]) -> dict[str, ConfigValue]:
    """Return the values that the config file has for a command. Raises UsageError for a mistake in the file."""
    document = read_config(environ).document
    return {} if document is None else check_config(document, group).get(name, {})
