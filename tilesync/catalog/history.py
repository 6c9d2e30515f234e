"""History of a mirror as JSON, stored as one value of a database."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import fields
from typing import TYPE_CHECKING, Any, TypeVar

from tilesync.model.history import MAX_RUNS, HeldVersion, MirrorHistory, RunRecord

if TYPE_CHECKING:
    from tilesync.catalog.sqlite import Database

T = TypeVar("T", HeldVersion, RunRecord)

HISTORY_KEY = "history"


def read_history(database: Database, key: str = HISTORY_KEY) -> MirrorHistory:
    """Read the history; an empty one if there is none, or if it cannot be read."""
    stored = database.get_value(key)
    return MirrorHistory() if stored is None else decode_history(stored)


def write_history(database: Database, history: MirrorHistory, key: str = HISTORY_KEY) -> None:
    """Store the history."""
    database.set_value(key, encode_history(history))


def encode_history(history: MirrorHistory) -> str:
    """Encode a history; fields with their default value are left out.

    Half of a surrogate pair, as in the name of a file that is not UTF-8, becomes a question mark: SQLite refuses it.
    """
    document = {
        "runs": [_encode_fields(run) for run in history.runs],
        "held": None if history.held is None else _encode_fields(history.held),
        **{name: getattr(history, name) for name in _TEXT_FIELDS},
    }
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode(errors="replace").decode()


def decode_history(text: str) -> MirrorHistory:
    """Decode a history. What cannot be read counts as missing: a run works without it."""
    try:
        document = json.loads(text)  # written by this module: the checks of `parse_json` take longer than a small run
    except (ValueError, RecursionError):
        return MirrorHistory()
    if not isinstance(document, dict):
        return MirrorHistory()
    rows = document.get("runs")
    runs = [_decode_fields(RunRecord, row) for row in (rows if isinstance(rows, list) else ())]
    texts = {name: value for name in _TEXT_FIELDS if isinstance(value := document.get(name), str)}
    return MirrorHistory(
        tuple(run for run in runs if run is not None)[-MAX_RUNS:],
        _decode_fields(HeldVersion, document.get("held")),
        **texts,
    )


_TEXT_FIELDS = ("last_success", "behind_since", "newest", "newest_modified")


_DEFAULTS: dict[type, dict[str, Any]] = {
    kind: {each.name: each.default for each in fields(kind)} for kind in (HeldVersion, RunRecord)
}
"""Default of each field: `dataclasses.asdict` takes 3 ms for a history, reading the fields by name 0.1 ms."""

_TYPES: dict[type, dict[str, str]] = {
    kind: {each.name: str(each.type) for each in fields(kind)} for kind in (HeldVersion, RunRecord)
}


def _encode_fields(value: HeldVersion | RunRecord) -> dict[str, Any]:
    defaults = _DEFAULTS[type(value)]
    return {name: content for name, default in defaults.items() if (content := getattr(value, name)) != default}


def _decode_fields(kind: type[T], row: object) -> T | None:
    """Decode one value; None without a field that it must have. Fields of another type are left out."""
    if not isinstance(row, Mapping):
        return None
    types = _TYPES[kind]
    found = {name: content for name, content in row.items() if name in types and _has_type(content, types[name])}
    try:
        return kind(**found)
    except TypeError:
        return None


def _has_type(value: object, annotation: str) -> bool:
    """Return whether a value fits a field whose type is written as `annotation`."""
    if isinstance(value, bool):
        return annotation == "bool"
    if isinstance(value, int | float):
        is_number = annotation == "float" and math.isfinite(value)
        return is_number or (isinstance(value, int) and annotation in {"int", "int | None"})
    return isinstance(value, str) and annotation in {"str", "str | None"}
