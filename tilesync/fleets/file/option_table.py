"""Options of `mirror` that a fleet file may set, by their long names, and how each value is read."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from tilesync.api.options import MirrorArguments
from tilesync.core.guards import parse_delete_limit
from tilesync.core.option_values import parse_count_or_word
from tilesync.core.retention import KEEP_ALL_VERSIONS, RetentionPolicy
from tilesync.fleets.file.value_readers import (
    Reader,
    read_choice,
    read_duration,
    read_flag,
    read_optional_command,
    read_rate,
    read_text,
    read_texts,
    read_written,
)

OPTION_READERS: Final[Mapping[str, Reader]] = {
    "adopt": read_flag,
    "all-exports": read_flag,
    "allow-http": read_flag,
    "allow-missing": read_flag,
    "allow-shrink": read_flag,
    "api-url": read_text,
    "azure-endpoint": read_text,
    "bwlimit": read_rate,
    "cache-control": read_text,
    "cdn": read_flag,
    "changeset-id": read_text,
    "content": partial(read_choice, ("stored", "decoded")),
    "create-container": read_flag,
    "delete": read_flag,
    "dest-link-command": read_optional_command,
    "endpoint-url": read_text,
    "exclude": read_texts,
    "export-id": read_text,
    "export-type": read_text,
    "include": read_texts,
    "inventory": partial(read_choice, ("auto", "list", "walk")),
    "itwinjs": read_text,
    "keep-for": read_duration,
    "keep-versions": partial(read_written, partial(parse_count_or_word, word="all", max_count=1_000_000)),
    "layout": partial(read_choice, ("versioned", "flat")),
    "link-command": read_optional_command,
    "max-delete": partial(read_written, parse_delete_limit),
    "no-publish": read_flag,
    "on-publish": read_optional_command,
    "pointer-cache-control": read_text,
    "poll": read_duration,
    "retry-for": read_duration,
    "server-copy": read_flag,
    "state-dir": read_text,
    "tile-version": read_text,
    "transfers": partial(read_written, partial(parse_count_or_word, word="auto", max_count=1000)),
    "wait": read_duration,
}

PATH_OPTIONS: Final = frozenset({"state-dir"})
"""Options whose values are paths; a relative one starts at the folder of the file."""

IDENTITY_OPTIONS: Final = frozenset({"token-command", "token-file"})
"""Options of `mirror` that are read with the other keys of an identity (`entry_reader`)."""

COMMAND_LINE_OPTIONS: Final[Mapping[str, str]] = {
    "cluster": "a fleet runs on one machine; `tilesync mirror --cluster` uses a cluster for one mirror",
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
