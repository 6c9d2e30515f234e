"""Find environment variables that look like options of tilesync but have no effect."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import click

from tilesync.cli.config_file import CONFIG_VARIABLE

TEST_VARIABLES = {"TILESYNC_SAMPLES", "TILESYNC_REQUIRE"}
"""Variables of tilesync's own tests."""


def find_unknown_variables(group: click.Group, environ: Mapping[str, str]) -> Iterator[str]:
    """Yield a warning for each variable that no option reads: misspelled, or of an option without a variable."""
    given = sorted(name for name, value in environ.items() if name.startswith("TILESYNC_") and value)
    if not given:
        return
    read, unread = _collect_variables(group)
    for name in given:
        if name in read | TEST_VARIABLES:
            continue
        if option := unread.get(name):
            yield (f"{name} is ignored: options that delete or override a guard have no variable; use {option}")
            continue
        yield f"{name} is ignored: no option reads it{_suggest_variable(name, read | unread.keys())}"


def _collect_variables(group: click.Group) -> tuple[set[str], dict[str, str]]:
    """Return the variables that any command reads; and by name, the options that read no variable.

    Secrets have variables only: other users can see arguments.
    """
    from tilesync.api.masking import SECRET_VARIABLES

    read, unread = {*SECRET_VARIABLES, CONFIG_VARIABLE}, dict[str, str]()
    for command in group.commands.values():
        for param in command.params:
            variables = [param.envvar] if isinstance(param.envvar, str) else list(param.envvar or ())
            read.update(variables)
            long = next((name for name in param.opts if name.startswith("--")), None)
            if not variables and long is not None:
                unread["TILESYNC_" + long.removeprefix("--").replace("-", "_").upper()] = long
    return read, {name: option for name, option in unread.items() if name not in read}


def _suggest_variable(name: str, known: set[str]) -> str:
    from difflib import get_close_matches

    prefixed = [each for each in known if each.startswith("TILESYNC_")]
    near = get_close_matches(name, prefixed, 1, cutoff=0.8)
    return f"; did you mean {near[0]}?" if near else ""
