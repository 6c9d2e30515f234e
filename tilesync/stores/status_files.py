"""Status files: small JSON documents beside the versions. They name the owner and the last successful run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tilesync.core.foreign_json import parse_json, read_mapping
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import replace_file_durably

CHECKED_FILE: Final = "checked.json"
OWNERSHIP_FILE: Final = "ownership.json"
MAX_DOCUMENT_BYTES: Final = 1 << 16
"""Maximum bytes of a document; a usual one has a few hundred."""


def parse_document(data: bytes | None) -> Mapping[str, Any] | None:
    """Parse a document; None if it is missing or not a JSON object, since other programs can write to that file."""
    try:
        return read_mapping(parse_json(data, max_bytes=MAX_DOCUMENT_BYTES)) if data is not None else None
    except ValueError:
        return None


def write_document(temporary: Entry, final: Entry, content: Mapping[str, Any]) -> None:
    """Replace a document atomically and durably. Raises OSError."""
    replace_file_durably(temporary, final, [encode_document(content)])


def encode_document(content: Mapping[str, Any]) -> bytes:
    """Encode a document as indented JSON, which people can read too."""
    return json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n"
