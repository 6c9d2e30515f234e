"""Occupants of a place that is to become a destination: what may lie there already."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from tilesync.model import POINTER

OURS: Final = frozenset({POINTER, "latest.json", "checked.json", "current", "versions", "manifests", ".tilesync"})
"""What tilesync writes at the top of a destination."""

_HARMLESS: Final = frozenset({"lost+found", "system volume information", "$recycle.bin", "desktop.ini", "thumbs.db"})
"""What file systems and desktops leave in every folder; so do names that begin with a dot."""

_NAMED: Final = 3
"""Occupants that a message names."""


def strangers(names: Iterable[str]) -> list[str]:
    """The names at the top of a place that somebody put there on purpose, in order."""
    return sorted(name for name in names if not _is_harmless(name))


def clashing(names: Iterable[str]) -> list[str]:
    """Those that stand where tilesync writes, whatever their case: some file systems and viewers know none."""
    return sorted(name for name in names if name.lower() in OURS)


def listed(names: list[str]) -> str:
    """Some names for a message."""
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(names[:_NAMED]) + more


def _is_harmless(name: str) -> bool:
    lower = name.lower()
    return not name or lower in _HARMLESS or (lower.startswith(".") and lower not in OURS)
