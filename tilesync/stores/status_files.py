"""Small documents beside the versions: whose the destination is, and when a run last ended well."""

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
"""Bytes of a document at most; it has some hundred."""


def parse_document(data: bytes | None) -> Mapping[str, Any] | None:
    """What a document says; None where there is none, or another thing: others can write there."""
    try:
        return read_mapping(parse_json(data, max_bytes=MAX_DOCUMENT_BYTES)) if data is not None else None
    except ValueError:
        return None


def write_document(temporary: Entry, final: Entry, content: Mapping[str, Any]) -> None:
    """Put a document in place in one step, durably. Raises OSError."""
    replace_file_durably(temporary, final, [encode_document(content)])


def encode_document(content: Mapping[str, Any]) -> bytes:
    """The bytes of a document, for people too."""
    return json.dumps(content, ensure_ascii=False, indent=2).encode() + b"\n"
