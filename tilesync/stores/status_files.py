"""Small documents beside the versions: whose the destination is, and when a run last ended well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, Final

from tilesync.core.foreign_json import loads, mapping
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import place

CHECKED: Final = "checked.json"
OWNERSHIP: Final = "ownership.json"
LONGEST: Final = 1 << 16
"""Bytes of a document at most; it has some hundred."""


def read_document(data: bytes | None) -> Mapping[str, Any] | None:
    """What a document says; None where there is none, or another thing: others can write there."""
    try:
        return mapping(loads(data, most=LONGEST)) if data is not None else None
    except ValueError:
        return None


def write_document(temporary: Entry, final: Entry, said: Mapping[str, Any]) -> None:
    """Put a document in place in one step, durably. Raises OSError."""
    place(temporary, final, [document(said)])


def document(said: Mapping[str, Any]) -> bytes:
    """The bytes of a document, for people too."""
    return json.dumps(said, ensure_ascii=False, indent=2).encode() + b"\n"
