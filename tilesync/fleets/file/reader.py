"""Fleet file: read a TOML file into settings, and list all its mistakes, each with its line."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

from tilesync.core.masking import looks_like_secret
from tilesync.core.option_values import parse_count_or_word
from tilesync.errors import UsageError
from tilesync.fleets.file.entry_checks import find_entry_mistakes
from tilesync.fleets.file.entry_reader import EntryDefaults, read_defaults, read_entry
from tilesync.fleets.file.mistakes import MistakeCollector
from tilesync.fleets.file.settings import (
    DEFAULT_CALLS_PER_MINUTE,
    DEFAULT_CONNECTIONS,
    FleetSettings,
    MirrorEntry,
)
from tilesync.fleets.file.table_reader import TableReader
from tilesync.fleets.file.value_readers import (
    REFERENCE_HINT,
    read_command,
    read_duration,
    read_number,
    read_path,
    read_ping,
    read_rate,
    read_time_of_day,
    read_written,
)
from tilesync.monitoring.metrics import check_metrics_file
from tilesync.runtime.toml_file import TomlPath, read_toml

MAX_CALLS_PER_MINUTE: Final = 100_000
MAX_TRANSFERS: Final = 4096
MAX_JOBS: Final = 256

FLEET_KEYS: Final = {
    "jobs",
    "api-rate",
    "connections",
    "bwlimit",
    "until",
    "max-duration",
    "state-dir",
    "report",
    "metrics-file",
    "ping",
    "on-failure",
    "on-success",
}
"""Keys of [fleet]."""


def read_fleet_file(path: Path) -> FleetSettings:
    """Read and check a fleet file. Raises UsageError, and InvalidFleetFile with all mistakes; nothing is run."""
    mistakes = MistakeCollector(read_toml(path))
    folder = path.absolute().parent
    _refuse_secrets(mistakes)
    _refuse_unknown_tables(mistakes)
    defaults = read_defaults(TableReader(mistakes, ("defaults",), "[defaults]"), folder)
    mirrors = _read_mirrors(mistakes, defaults, folder)
    settings = _read_fleet_table(mistakes, mirrors, defaults, folder)
    mistakes.raise_if_any()
    return settings


def find_state_dir(path: Path) -> Path | None:
    """Find the state folder that a fleet file names, even if the file has mistakes; None if it cannot be known.

    A pipe is not read: it could not be read again.
    """
    if not os.path.isfile(path):
        return None
    try:
        fleet = read_toml(path).tables.get("fleet")
    except UsageError:
        return None
    value = fleet.get("state-dir") if isinstance(fleet, Mapping) else None
    return path.absolute().parent / value if isinstance(value, str) and value and "\0" not in value else None


def _refuse_unknown_tables(mistakes: MistakeCollector) -> None:
    for key in mistakes.document.tables.keys() - {"fleet", "defaults", "mirror"}:
        mistakes.add(f"there is no table {key}: only [fleet], [defaults] and [[mirror]]", (key,), "the file")


# --- secrets ---


def _refuse_secrets(mistakes: MistakeCollector) -> None:
    """Add a mistake for each text that looks like a secret, without the text."""
    for path, text in _list_texts(mistakes.document.tables, ()):
        if looks_like_secret(text):
            mistakes.secrets.add(path)
            key = next(str(part) for part in reversed(path) if isinstance(part, str))
            title = _format_table(path, mistakes.document.tables)
            mistakes.add(f"this looks like a secret: {REFERENCE_HINT}", path, title, key)


def _list_texts(value: Any, path: TomlPath) -> Iterator[tuple[TomlPath, str]]:
    """Yield all texts of a document with their paths."""
    if isinstance(value, str):
        yield path, value
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _list_texts(inner, (*path, key))
    elif isinstance(value, list):
        for number, inner in enumerate(value):
            yield from _list_texts(inner, (*path, number))


def _format_table(path: TomlPath, tables: Mapping[str, Any]) -> str:
    if len(path) > 1 and path[0] == "mirror" and isinstance(path[1], int):
        entry = tables["mirror"][path[1]]
        name = entry.get("name") if isinstance(entry, dict) else None
        return f"[[mirror]] {name if isinstance(name, str) and not looks_like_secret(name) else path[1] + 1}"
    return f"[{path[0]}]" if len(path) > 1 else "the file"


# --- [[mirror]] ---


def _read_mirrors(mistakes: MistakeCollector, defaults: EntryDefaults, folder: Path) -> list[MirrorEntry]:
    """Read all [[mirror]] tables, and check those that can be read together."""
    found = mistakes.document.tables.get("mirror", [])
    if not isinstance(found, list) or not all(isinstance(entry, dict) for entry in found):
        mistakes.add("write [[mirror]], with two brackets, once for each mirror", ("mirror",), "[[mirror]]")
        return []
    if not found:
        mistakes.add("there is no [[mirror]]", (), "the file")
    tables = [TableReader(mistakes, ("mirror", number), f"[[mirror]] {number + 1}") for number in range(len(found))]
    read = [(table, entry) for table in tables if (entry := read_entry(table, defaults, folder)) is not None]
    entries = [entry for _, entry in read]
    for number, key, message in find_entry_mistakes(entries, folder):
        read[number][0].add(message, key)
    return entries


# --- [fleet] ---


def _read_fleet_table(
    mistakes: MistakeCollector, mirrors: list[MirrorEntry], defaults: EntryDefaults, folder: Path
) -> FleetSettings:
    table = TableReader(mistakes, ("fleet",), "[fleet]")
    path = partial(read_path, folder)
    jobs = partial(read_written, partial(parse_count_or_word, word="auto", max_count=MAX_JOBS))
    settings = FleetSettings(
        mistakes.document.path,
        tuple(mirrors),
        jobs=table.read("jobs", jobs),
        calls_per_minute=table.read(
            "api-rate", partial(read_number, most=MAX_CALLS_PER_MINUTE), DEFAULT_CALLS_PER_MINUTE
        ),
        connections=table.read("connections", partial(read_number, most=MAX_TRANSFERS), DEFAULT_CONNECTIONS),
        bwlimit=table.read("bwlimit", read_rate, defaults.bwlimit),
        until=table.read("until", read_time_of_day),
        max_duration=table.read("max-duration", read_duration),
        state_dir=table.read("state-dir", path),
        report=table.read("report", path),
        metrics_file=table.read("metrics-file", partial(_read_metrics_file, folder)),
        ping=table.read("ping", partial(read_ping, folder)),
        on_failure=table.read("on-failure", read_command),
        on_success=table.read("on-success", read_command),
    )
    table.refuse_unread(FLEET_KEYS)
    return settings


def _read_metrics_file(folder: Path, value: Any) -> Path:
    path = read_path(folder, value)
    check_metrics_file(path)
    return path
