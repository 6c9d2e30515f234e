"""Small documents beside the versions of a folder: whose it is, and when a run last ended well."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from tilesync.stores.disk import place, read_regular

CHECKED: Final = "checked.json"
OWNERSHIP: Final = "ownership.json"


def read_document(path: Path) -> Mapping[str, Any] | None:
    """What a small JSON document says; None where there is none, or another thing."""
    try:
        said = json.loads(read_regular(str(path)))
    except (OSError, ValueError, RecursionError):
        return None
    return said if isinstance(said, dict) else None


def write_document(temporary: Path, final: Path, said: Mapping[str, Any]) -> None:
    """Put a document in place in one step, durably. Raises OSError."""
    place(temporary, final, [document(said)])


def document(said: Mapping[str, Any]) -> bytes:
    """The bytes of a document, for people too."""
    return json.dumps(said, ensure_ascii=False, indent=2).encode() + b"\n"
