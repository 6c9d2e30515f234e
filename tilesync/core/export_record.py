"""The service's record of an export: the fields that are kept in the catalog and told in the manifest.

A manifest is served to everyone, so nothing passes that is not known: what the service adds later, a link among it,
does not. Source: "Get Exports", schemas Export, StartExport and ExportStatsDisplay; recorded answers for the fields of
exporters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from tilesync.core.foreign_json import mapping, number, text
from tilesync.core.masking import masked

LONGEST: Final = 4096
"""Letters of a text in a record that are kept: names and messages have a few hundred."""

Kept: TypeAlias = "Callable[[Any], Any] | Mapping[str, Kept]"


def _flag(said: Any) -> bool:
    if not isinstance(said, bool):
        raise ValueError("it is no flag")
    return said


_ERROR: Final[Mapping[str, Kept]] = {"code": text, "message": text, "target": text}

_REQUEST: Final[Mapping[str, Kept]] = {
    **dict.fromkeys(("iModelId", "changesetId", "exportType", "lastModified", "contextId", "iTwinId"), text),
    **dict.fromkeys(("exporterVersion", "exportTypeVersion", "currentExporterVersion"), text),
}

_STATS: Final[Mapping[str, Kept]] = {
    **dict.fromkeys(("iModelSize", "compressedSize", "rawSize", "duration"), number),
    "startTime": text,
    "useNewExporter": _flag,
    "metrics": dict.fromkeys(("numTiles", "numLeafTiles", "tilesetSize", "tileSizeMax"), number),
}

FIELDS: Final[Mapping[str, Kept]] = {
    **dict.fromkeys(("id", "displayName", "name", "status", "lastModified", "type"), text),
    "request": _REQUEST,
    "stats": _STATS,
}


def record_of(row: Mapping[str, Any], secrets: Iterable[str] = ()) -> dict[str, Any]:
    """What is kept of a record. A field of another type is left out; texts are masked."""
    kept = _kept(row, FIELDS, tuple(secrets))
    error = row.get("error")
    said = _kept({"error": error}, {"error": text if isinstance(error, str) else _ERROR}, tuple(secrets))
    return {**kept, **said}


def _kept(said: Mapping[str, Any], fields: Mapping[str, Kept], secrets: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, read in fields.items():
        try:
            value = mapping(said[name]) if isinstance(read, Mapping) else read(said[name])
        except (KeyError, ValueError):
            continue
        if isinstance(read, Mapping):
            if inner := _kept(value, read, secrets):
                found[name] = inner
        else:
            found[name] = masked(value, secrets)[:LONGEST] if isinstance(value, str) else value
    return found
