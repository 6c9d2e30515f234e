"""Values of options in TOML files: find the option of a key, convert and check its value, refuse secrets."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import click

from tilesync.cli.params import CountOrWordType, DeleteLimitType, DurationType, RateType, SizeType
from tilesync.core.masking import looks_like_secret
from tilesync.errors import UsageError
from tilesync.runtime.toml_file import TomlDocument, TomlPath
from tilesync.values import dataclass

NUMBER_TYPES = (
    CountOrWordType, DeleteLimitType, DurationType, RateType, SizeType,
    click.types.IntParamType, click.types.FloatParamType,
)  # fmt: skip
"""Types of options whose value may be a number without quotes. In texts, TOML would change `1.10` to `1.1`."""

REFERENCE_HINT = "a file may only refer to a secret: set an environment variable, --token-file or a --…-command"


@dataclass(frozen=True)
class Problem:
    """One mistake in a file: its place as FILE:LINE, the table and key, the reason, and the line (0: unknown)."""

    place: str
    key: str
    reason: str
    line: int = 0

    def __str__(self) -> str:
        return f"{self.place}: {self.key}: {self.reason}"


def options_by_key(command: click.Command) -> dict[str, click.Option]:
    """Return the options of a command by their keys: the long names without dashes, without --help and secrets."""
    found: dict[str, click.Option] = {}
    for param in command.params:
        if isinstance(param, click.Option) and not getattr(param, "is_secret", False):
            found |= {name.removeprefix("--"): param for name in param.opts if name.startswith("--")}
    return found


def find_secrets(document: TomlDocument) -> Iterator[Problem]:
    """Yield a problem for each text in a file that looks like a secret; it does not show the text."""
    for path, text in _iter_texts(document.tables, ()):
        if looks_like_secret(text):
            yield Problem(document.format_place(path), format_key(path), "this looks like a secret")


def _iter_texts(value: Any, path: TomlPath) -> Iterator[tuple[TomlPath, str]]:
    if isinstance(value, str):
        yield path, value
    items: Iterable[tuple[str | int, Any]] = ()
    if isinstance(value, dict):
        items = value.items()
    elif isinstance(value, list):
        items = enumerate(value)
    for key, inner in items:
        yield from _iter_texts(inner, (*path, key))


def convert_value(value: Any, option: click.Option, command: click.Command) -> Any:
    """Convert a TOML value to the one that click expects as a default: a bool, a text, or a list of texts.

    Raises ValueError if its TOML type is wrong, or if the type of the option refuses it.
    """
    if option.is_flag:
        if not isinstance(value, bool):
            raise ValueError("this must be true or false, without quotes")
        return value
    if option.multiple:
        if not isinstance(value, list):
            raise ValueError('this must be an array of texts: ["…", "…"]')
        converted: Any = [_convert_text(each, option) for each in value]
    else:
        converted = _convert_text(value, option)
    context = click.Context(command, info_name=command.name)
    try:
        option.type_cast_value(context, converted)
    except click.UsageError as error:
        raise ValueError(error.message) from None
    except UsageError as error:
        raise ValueError(str(error)) from None
    return converted


def _convert_text(value: Any, option: click.Option) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and isinstance(option.type, NUMBER_TYPES):
        return str(value)
    expected = "a number or a text" if isinstance(option.type, NUMBER_TYPES) else "a text"
    raise ValueError(f"this must be {expected}" + ("" if expected != "a text" else ' in quotes: "…"'))


def suggest(word: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that suggests the nearest known word; empty if none is near."""
    from difflib import get_close_matches

    near = get_close_matches(word, list(known), 1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else ""


def format_key(path: TomlPath) -> str:
    """Format the path of a key for messages: `[mirror] retry-for`, or `retry-for` at the top."""
    names = [part for part in path if isinstance(part, str)]
    return names[0] if len(names) == 1 else f"[{'.'.join(names[:-1])}] {names[-1]}"


def create_error(problems: Iterable[Problem], *, hint: str) -> UsageError:
    """Create the usage error of a file with these problems: one line each, in the order of the file."""
    lines = [str(problem) for problem in problems]
    return UsageError("\n".join(dict.fromkeys(lines)), hint=hint)
