"""`tilesync config`: show the values of options, and where they come from."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from tilesync.cli.help_groups import command
from tilesync.cli.options import OUTPUT_OPTIONS, option
from tilesync.cli.parse import create_session
from tilesync.errors import UsageError

if TYPE_CHECKING:
    from click.shell_completion import CompletionItem

    from tilesync.cli.config_file import ConfigFile
    from tilesync.cli.option_origins import OptionOrigin
    from tilesync.cli.session import Session


def complete_command(context: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    """Complete the name of a command."""
    from click.shell_completion import CompletionItem

    return [
        CompletionItem(name, help=each.get_short_help_str())
        for name, each in _find_group(context).commands.items()
        if name.startswith(incomplete)
    ]


@command(short_help="Show the values of options, and where they come from.")
@click.argument("of", metavar="[COMMAND]", required=False, shell_complete=complete_command)
@option("--all", "every", is_flag=True, envvar=None, help="Show every option, also those that have their default.")
@OUTPUT_OPTIONS
@click.pass_context
def config(context: click.Context, /, of: str | None, *, every: bool, **options: Any) -> int:
    """Show the config file, and the options that it or a variable sets, for COMMAND or for all commands.

    A command line wins over a variable, a variable over the config file, and the config file over the default. Secrets
    are shown as `set`.
    """
    from tilesync.cli.config_file import load_config
    from tilesync.cli.config_values import suggest
    from tilesync.cli.option_origins import list_origins, list_secret_variables, merge_commands

    group = _find_group(context)
    if of is not None and of not in group.commands:
        raise UsageError(f"there is no command {of}{suggest(of, group.commands)}", hint="`tilesync --help` lists them")
    session = create_session(options)

    async def work() -> None:
        file, values = load_config(context)
        names = [of] if of is not None else [name for name in group.commands if name != context.info_name]
        found = {
            name: list(list_origins(group.commands[name], values.get(name, {}), os.environ, with_defaults=every))
            for name in names
        }
        origins = [*merge_commands(found), *list_secret_variables(os.environ)]
        if options["as_json"]:
            _write_json(session, file, origins)
        else:
            session.print_output(_format_file(file))
            if origins:
                session.print_output(_format_origins(origins, has_commands=of is None, width=session.width))

    return session.run(work)


def _find_group(context: click.Context) -> click.Group:
    group = context.find_root().command
    assert isinstance(group, click.Group), "the program is a group of commands"
    return group


def _write_json(session: Session, file: ConfigFile, origins: list[OptionOrigin]) -> None:
    path = None if file.path is None else str(file.path)
    session.write_json_line({"kind": "config", "path": path, "read": file.document is not None})
    for origin in origins:
        session.write_json_line(
            {
                "kind": "option",
                "name": origin.name,
                "value": origin.value,
                "origin": origin.kind,
                "place": origin.place,
                "commands": " ".join(origin.commands),
            }
        )


def _format_file(file: ConfigFile) -> str:
    if file.path is None:
        return "no config file: TILESYNC_CONFIG is empty, or this user has no home folder"
    return f"config file: {file.path}" + ("" if file.document is not None else " (does not exist)")


def _format_origins(origins: list[OptionOrigin], *, has_commands: bool, width: int | None) -> str:
    from tilesync.cli.output.table import format_table

    head = ["OPTION", "VALUE", "FROM", *(["COMMANDS"] if has_commands else [])]
    rows = [
        [origin.name, origin.value, _format_place(origin), *([", ".join(origin.commands)] if has_commands else [])]
        for origin in origins
    ]
    return format_table(head, rows, width=width, truncated={"VALUE", "COMMANDS"})


def _format_place(origin: OptionOrigin) -> str:
    """Format the origin for people: the variable, the line of the file, or `default`."""
    if origin.kind != "config":
        return origin.place or origin.kind
    path, _, line = origin.place.rpartition(":")
    return f"{Path(path).name}:{line}" if line.isdigit() else Path(origin.place).name
