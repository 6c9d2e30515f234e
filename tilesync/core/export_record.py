"""Export record of the service: the fields that are kept in the catalog and written to the manifest.

A manifest is served to everyone, so only known fields pass; a field that the service adds later, perhaps a link, does
not. Source: "Get Exports", schemas Export, StartExport and ExportStatsDisplay; recorded answers for the fields of
exporters.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from tilesync.core.foreign_json import read_mapping, read_number, read_text
from tilesync.core.masking import mask_secrets

MAX_TEXT_CHARS: Final = 4096
"""Maximum characters of a text that are kept; names and messages have a few hundred."""

FieldReader: TypeAlias = "Callable[[Any], Any] | Mapping[str, FieldReader]"


def _read_flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError("it is not a boolean")
    return value


_ERROR_FIELDS: Final[Mapping[str, FieldReader]] = {"code": read_text, "message": read_text, "target": read_text}

_REQUEST_FIELDS: Final[Mapping[str, FieldReader]] = {
    **dict.fromkeys(("iModelId", "changesetId", "exportType", "lastModified", "contextId", "iTwinId"), read_text),
    **dict.fromkeys(("exporterVersion", "exportTypeVersion", "currentExporterVersion"), read_text),
}

_STATS_FIELDS: Final[Mapping[str, FieldReader]] = {
    **dict.fromkeys(("iModelSize", "compressedSize", "rawSize", "duration"), read_number),
    "startTime": read_text,
    "useNewExporter": _read_flag,
    "metrics": dict.fromkeys(("numTiles", "numLeafTiles", "tilesetSize", "tileSizeMax"), read_number),
}

RECORD_FIELDS: Final[Mapping[str, FieldReader]] = {
    **dict.fromkeys(("id", "displayName", "name", "status", "lastModified", "type"), read_text),
    "request": _REQUEST_FIELDS,
    "stats": _STATS_FIELDS,
}


def sanitize_record(row: Mapping[str, Any], secrets: Iterable[str] = ()) -> dict[str, Any]:
    """Return the known fields of a record.

    A field of the wrong type is left out; secrets in texts are masked.
    """
    kept = _select_fields(row, RECORD_FIELDS, tuple(secrets))
    error = row.get("error")
    error_field = _select_fields(
        {"error": error}, {"error": read_text if isinstance(error, str) else _ERROR_FIELDS}, tuple(secrets)
    )
    return {**kept, **error_field}


def _select_fields(
    record: Mapping[str, Any], fields: Mapping[str, FieldReader], secrets: tuple[str, ...]
) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, read in fields.items():
        try:
            value = read_mapping(record[name]) if isinstance(read, Mapping) else read(record[name])
        except (KeyError, ValueError):
            continue
        if isinstance(read, Mapping):
            if inner := _select_fields(value, read, secrets):
                found[name] = inner
        else:
            found[name] = mask_secrets(value, secrets)[:MAX_TEXT_CHARS] if isinstance(value, str) else value
    return found
