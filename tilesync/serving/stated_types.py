"""Media types and encodings that a manifest states, in little memory: those of an ending, and the exceptions."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple


class StatedType(NamedTuple):
    """Media type and encoding of a file as its container states them; None for what it does not."""

    content_type: str | None = None
    content_encoding: str | None = None


class StatedTypes:
    """Stated types of the files of a version. `hidden_names`: names whose first character is a dot."""

    def __init__(self, lines: Iterable[Mapping[str, Any]]) -> None:
        """Collect them from the lines of files of a manifest."""
        self._by_ending: dict[str, StatedType] = {}
        self._exceptions: dict[str, StatedType] = {}
        hidden = set[str]()
        for line in lines:
            name = str(line.get("name", ""))
            stated = StatedType(_read_value(line.get("content_type")), _read_value(line.get("content_encoding")))
            if self._by_ending.setdefault(_ending(name), stated) != stated:
                self._exceptions[name] = stated
            if name.startswith("."):
                hidden.add(name)
        self.hidden_names = frozenset(hidden)

    def find(self, name: str) -> StatedType:
        """Return the stated type of a file."""
        return self._exceptions.get(name) or self._by_ending.get(_ending(name), StatedType())


def _ending(name: str) -> str:
    """Return the ending of a name, from the last dot on; empty if its last part has none."""
    leaf = name.rpartition("/")[2]
    return leaf[leaf.rfind(".") :].lower() if "." in leaf else ""


def _read_value(value: object) -> str | None:
    """Return a value that is valid in a header, else None: other programs may write manifests."""
    return value if isinstance(value, str) and value and value.isascii() and value.isprintable() else None
