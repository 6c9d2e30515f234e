"""Groups of options and sections of commands in --help, written by cloup; and the class of every command.

cloup is loaded when help is printed: it takes a quarter of the time that click and the commands take to load.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from typing import Any, TypeVar

import click

C = TypeVar("C", bound=Callable[..., Any])


class OptionGroup(StrEnum):
    """Groups of options in --help, in their order. Say `group=OptionGroup.…` where an option is defined."""

    SOURCE = "Source"
    SELECTION = "What to take"
    DESTINATION = "Destination"
    PUBLISHING = "Publishing"
    RETENTION = "Retention"
    SPEED = "Speed"
    OUTPUT = "Output"
    MONITORING = "Monitoring"
    IDENTITY = "Identity"


OWN_OPTIONS = "Options"
"""Title of the options of one command that are in no group."""

HELP_OPTION = "Help"
"""Title of --help, if all other options are in groups."""


class GroupedOption(click.Option):
    """Option of a command, with its group; None for an option that belongs to this command alone.

    `is_secret`: the config file may not set it.
    """

    def __init__(
        self, *arguments: Any, group: OptionGroup | None = None, is_secret: bool = False, **attributes: Any
    ) -> None:
        super().__init__(*arguments, **attributes)
        self.group = group
        self.is_secret = is_secret


class TilesyncCommand(click.Command):
    """Command whose --help shows its options in groups, and whose options have defaults in the config file."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parse the arguments; values that neither they nor variables give are looked up in the config file.

        The file is read at the first such value: --help ends before, and completion needs none.
        """
        from tilesync.cli.config_file import LazyDefaults

        if not ctx.resilient_parsing:
            ctx.default_map = LazyDefaults(ctx)
        return super().parse_args(ctx, args)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help, with the defaults of the program itself: the config file is not read."""
        from cloup import HelpFormatter

        ctx.default_map, ctx.formatter_class = None, HelpFormatter
        return super().get_help(ctx)

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the options in groups."""
        sections = group_options(self, ctx)
        records = {
            title: [record for param in params if (record := param.get_help_record(ctx)) is not None]
            for title, params in sections.items()
        }
        _write_sections(formatter, records)


class SectionedGroup(click.Group):
    """Group of commands whose --help shows them in sections."""

    def __init__(self, *arguments: Any, **attributes: Any) -> None:
        super().__init__(*arguments, **attributes)
        self.sections: dict[str, list[click.Command]] = {}

    def add_section(self, title: str, *commands: click.Command) -> None:
        """Add commands as a section of --help."""
        self.sections.setdefault(title, []).extend(commands)
        for each in commands:
            self.add_command(each)

    def get_help(self, ctx: click.Context) -> str:
        """Return the help."""
        from cloup import HelpFormatter

        ctx.formatter_class = HelpFormatter
        return super().get_help(ctx)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write the commands in sections."""
        rows = {
            title: [(each.name or "", each.get_short_help_str(100)) for each in commands if not each.hidden]
            for title, commands in self.sections.items()
        }
        _write_sections(formatter, rows)


def command(**attributes: Any) -> Callable[[C], TilesyncCommand]:
    """Create a command with groups of options and defaults from the config file: use it instead of click.command."""
    return click.command(cls=TilesyncCommand, **attributes)


def group_options(command: click.Command, ctx: click.Context) -> dict[str, list[click.Option]]:
    """Return the options of a command by the titles of their groups, in the order of --help; no group is empty."""
    groups: dict[str, list[click.Option]] = {OWN_OPTIONS: [], **{group.value: [] for group in OptionGroup}}
    help_option = command.get_help_option(ctx)
    for param in command.get_params(ctx):
        if isinstance(param, click.Option) and param is not help_option:
            group = getattr(param, "group", None)
            groups[OWN_OPTIONS if group is None else group.value].append(param)
    if help_option is not None:
        groups.setdefault(OWN_OPTIONS if groups[OWN_OPTIONS] else HELP_OPTION, []).append(help_option)
    return {title: options for title, options in groups.items() if options}


def _write_sections(formatter: click.HelpFormatter, rows: dict[str, list[tuple[str, str]]]) -> None:
    """Write sections with their second columns aligned."""
    from cloup import HelpFormatter, HelpSection

    assert isinstance(formatter, HelpFormatter), "get_help sets the class of the formatter"
    formatter.write_many_sections([HelpSection(title, lines) for title, lines in rows.items() if lines])
