"""Origins of option values: for each option of a command its value, and the variable, line or default it is from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import click

from tilesync.cli.config_file import ConfigValue
from tilesync.core.masking import looks_like_secret
from tilesync.values import dataclass

SET = "set"
"""Shown instead of a secret."""


@dataclass(frozen=True)
class OptionOrigin:
    """Value of an option or argument, and its origin.

    `name`: `--retry-for`, `SOURCE`, or a variable that is no option. `kind`: `environment`, `config` or `default`.
    `place`: the variable, or `FILE:LINE`; empty for a default. `commands`: the commands for which this holds.
    """

    name: str
    value: str
    kind: str
    place: str
    commands: tuple[str, ...] = ()


def list_origins(
    command: click.Command, config: Mapping[str, ConfigValue], environ: Mapping[str, str], *, with_defaults: bool
) -> Iterator[OptionOrigin]:
    """Yield the options and arguments of a command that a variable or the config file sets, or all options."""
    from tilesync.api.masking import SECRET_OPTION_VARIABLES

    context = click.Context(command, info_name=command.name)
    for param in command.params:
        name = param.opts[-1] if isinstance(param, click.Option) else param.make_metavar(context).strip("[].")
        if isinstance(param, click.Option):
            name = next((each for each in param.opts if each.startswith("--")), name)
        variable = next((each for each in _variables_of(param) if environ.get(each)), None)
        hide = (lambda _: SET) if set(_variables_of(param)) & set(SECRET_OPTION_VARIABLES) else _hide_secret
        if variable is not None:
            yield OptionOrigin(name, hide(environ[variable]), "environment", variable)
        elif (found := config.get(param.name or "")) is not None:
            yield OptionOrigin(name, hide(_format_value(found.value)), "config", found.place)
        elif with_defaults and isinstance(param, click.Option):
            yield OptionOrigin(name, _format_default(param, context), "default", "")


def list_secret_variables(environ: Mapping[str, str]) -> Iterator[OptionOrigin]:
    """Yield the variables with secrets that are set, without their values, and those that name their files."""
    from tilesync.api.masking import SECRET_VARIABLES

    for name in SECRET_VARIABLES:
        if environ.get(name):
            yield OptionOrigin(name, SET, "environment", name)
        if path := environ.get(f"{name}_FILE"):
            yield OptionOrigin(f"{name}_FILE", _hide_secret(path), "environment", f"{name}_FILE")


def merge_commands(origins: Mapping[str, list[OptionOrigin]]) -> list[OptionOrigin]:
    """Merge the origins of several commands: the same value from the same place is listed once, with its commands."""
    commands: dict[OptionOrigin, list[str]] = {}
    for name, found in origins.items():
        for origin in found:
            commands.setdefault(origin, []).append(name)
    return [replace(origin, commands=tuple(names)) for origin, names in commands.items()]


def _variables_of(param: click.Parameter) -> list[str]:
    return [param.envvar] if isinstance(param.envvar, str) else list(param.envvar or ())


def _hide_secret(text: str) -> str:
    return SET if looks_like_secret(text) else text


def _format_value(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    return ", ".join(value) if isinstance(value, list) else str(value)


def _format_default(option: click.Option, context: click.Context) -> str:
    """Format the default as --help shows it; `false` for a flag, and `-` for an option that has none."""
    record = option.get_help_record(context)
    shown = re.search(r"\[default: (.*)\]$", record[1] if record is not None else "", re.DOTALL)
    if shown is not None:
        return shown[1]
    return "false" if option.is_flag else "-"
