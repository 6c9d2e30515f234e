"""Options of `mirror` that a fleet file may set, by their long names, and how each value is read.

Readers return the parsed value, and raise ValueError with a sentence for a person.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from tilesync.api.options import MirrorArguments
from tilesync.core.guards import parse_delete_limit
from tilesync.core.option_values import parse_count_or_word, parse_duration, parse_rate
from tilesync.core.retention import KEEP_ALL_VERSIONS, RetentionPolicy

Reader = Callable[[Any], Any]


def read_text_value(value: Any) -> str:
    """Read a text."""
    if not isinstance(value, str):
        raise ValueError(f"{value!r} is not a text: write it in quotes")
    return value


def read_required_text(value: Any) -> str:
    """Read a text that is not empty."""
    if not read_text_value(value).strip():
        raise ValueError("it is empty")
    return str(value)


def read_flag(value: Any) -> bool:
    """Read true or false."""
    if not isinstance(value, bool):
        raise ValueError(f"{value!r} is neither true nor false")
    return value


def read_texts(value: Any) -> tuple[str, ...]:
    """Read a list of texts; a single text is a list of one."""
    values = value if isinstance(value, list) else [value]
    return tuple(map(read_required_text, values))


def read_number(value: Any, *, most: int) -> int:
    """Read a whole number from 1 to `most`."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= most:
        raise ValueError(f"{value!r} is not a number from 1 to {most:,}")
    return value


def _read_written(parse: Callable[[str], Any], value: Any) -> Any:
    """Read a value that may be a number or a text, by the parser of the command line."""
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise ValueError(f"{value!r} is neither a text nor a number")
    return parse(str(value))


def _read_choice(choices: tuple[str, ...], value: Any) -> str:
    if value not in choices:
        raise ValueError(f"{value!r} is not one of {', '.join(choices)}")
    return str(value)


read_duration: Final = partial(_read_written, parse_duration)
read_rate: Final = partial(_read_written, parse_rate)

OPTION_READERS: Final[Mapping[str, Reader]] = {
    "adopt": read_flag,
    "all-exports": read_flag,
    "allow-http": read_flag,
    "allow-missing": read_flag,
    "allow-shrink": read_flag,
    "api-url": read_required_text,
    "azure-endpoint": read_required_text,
    "bwlimit": read_rate,
    "cache-control": read_required_text,
    "cdn": read_flag,
    "changeset-id": read_required_text,
    "content": partial(_read_choice, ("stored", "decoded")),
    "create-container": read_flag,
    "delete": read_flag,
    "dest-link-command": read_required_text,
    "endpoint-url": read_required_text,
    "exclude": read_texts,
    "export-id": read_required_text,
    "export-type": read_required_text,
    "include": read_texts,
    "inventory": partial(_read_choice, ("auto", "list", "walk")),
    "itwinjs": read_required_text,
    "keep-for": read_duration,
    "keep-versions": partial(_read_written, partial(parse_count_or_word, word="all", max_count=1_000_000)),
    "layout": partial(_read_choice, ("versioned", "flat")),
    "link-command": read_required_text,
    "max-delete": partial(_read_written, parse_delete_limit),
    "no-publish": read_flag,
    "on-publish": read_required_text,
    "pointer-cache-control": read_required_text,
    "poll": read_duration,
    "retry-for": read_duration,
    "server-copy": read_flag,
    "state-dir": read_required_text,
    "tile-version": read_required_text,
    "transfers": partial(_read_written, partial(parse_count_or_word, word="auto", max_count=1000)),
    "wait": read_duration,
}

PATH_OPTIONS: Final = frozenset({"state-dir"})
"""Options whose values are paths, which start at the folder of the file."""

COMMAND_LINE_OPTIONS: Final[Mapping[str, str]] = {
    "dry-run": "give --dry-run on the command line of `tilesync fleet`",
    "json": "give --json on the command line of `tilesync fleet`",
    "log-file": "give --log-file on the command line of `tilesync fleet`",
    "metrics-file": "write it into [fleet]: one file has the metrics of all mirrors",
    "name": "the name of a mirror is its label",
    "no-progress": "give --no-progress on the command line of `tilesync fleet`",
    "on-failure": "write it into [fleet]: the report of the fleet has every mirror",
    "on-success": "write it into [fleet]: the report of the fleet has every mirror",
    "ping": "write it into [fleet]: the fleet pings once",
    "quiet": "give --quiet on the command line of `tilesync fleet`",
    "report": "write it into [fleet]: the report of the fleet has every mirror",
    "verbose": "give --verbose on the command line of `tilesync fleet`",
}
"""Options of `mirror` that belong to the run of the whole fleet, and where to give them instead."""


def make_mirror_arguments(options: Mapping[str, Any]) -> MirrorArguments:
    """Make the arguments of the Python API from options by their long names."""
    keywords: dict[str, Any] = {}
    for name, value in options.items():
        if name in {"keep-versions", "keep-for", "on-publish"}:
            continue
        if name == "no-publish":
            keywords["publish"] = not value
        else:
            keywords[name.replace("-", "_")] = value
    if {"keep-versions", "keep-for"} & options.keys():
        keywords["retention"] = RetentionPolicy(
            options.get("keep-versions"), options.get("keep-for", KEEP_ALL_VERSIONS.keep_for)
        )
    arguments: MirrorArguments = keywords  # type: ignore[assignment]  # the names are those of the table
    return arguments


def resolve_path(text: str, folder: Path) -> Path:
    """Return a path of the file; a relative one starts at the folder of the file."""
    return folder / text
