"""Generate the command reference from the click commands."""

from __future__ import annotations

import inspect
from collections.abc import Iterator

import click

from tilesync.cli.help_groups import group_options
from tilesync.cli.main import cli


def build_reference() -> str:
    """Return the reference as Markdown: a section for each command, with lists of its options in groups."""
    return "\n".join(line for name, command in cli.commands.items() for line in _section(name, command))


def _section(name: str, command: click.Command) -> Iterator[str]:
    context = click.Context(command, info_name=f"tilesync {name}")
    yield f"## tilesync {name}\n"
    yield f"```text\n{command.get_usage(context).removeprefix('Usage: ')}\n```\n"
    yield "\n\n".join(map(_paragraph, inspect.cleandoc(command.help or "").split("\n\n"))) + "\n"
    for title, options in group_options(command, context).items():
        items = [_item(option, context) for option in options if option in command.params]
        if items:
            yield from (f"**{title}**\n", *items, "")


def _paragraph(text: str) -> str:
    """Return a paragraph of the help; lines after a backspace are shown as they are, as click does."""
    if text.startswith("\b\n"):
        return f"```text\n{inspect.cleandoc(text[2:])}\n```"
    return text.replace("<", "&lt;")


def _item(option: click.Option, context: click.Context) -> str:
    record = option.get_help_record(context)
    assert record is not None, "no option is hidden"
    names, text = record
    text, _, default = text.partition("  [default: ")
    variables = [option.envvar] if isinstance(option.envvar, str) else option.envvar or []
    facts = [f"`{name}`" for name in variables] + ([f"default `{default.rstrip(']')}`"] if default else [])
    return f"- **`{names}`**" + (f" ({', '.join(facts)})" if facts else "") + f"<br>{text}"
