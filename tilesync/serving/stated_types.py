"""Facts that a manifest states, in little memory: types and encodings of an ending, with exceptions; hidden names."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

from tilesync.serving.name_set import NameSet


class StatedType(NamedTuple):
    """Media type and encoding of a file as its container states them; None for what it does not."""

    content_type: str | None = None
    content_encoding: str | None = None


def is_hidden(name: str) -> bool:
    """Return whether a segment of a name begins with a dot."""
    return name.startswith(".") or "/." in name


class StatedTypes:
    """Stated types of the files of a version. `hidden_names`: its names that are hidden. `names`: all, if wanted."""

    def __init__(self, lines: Iterable[Mapping[str, Any]], *, with_names: bool = False) -> None:
        """Collect them from the lines of files of a manifest."""
        self._by_ending: dict[str, StatedType] = {}
        self._exceptions: dict[str, StatedType] = {}
        self._hidden = set[str]()
        names = self._collect(lines)
        self.names = NameSet(names if with_names else ())
        for _ in names:
            pass  # the rest of the lines
        self.hidden_names = frozenset(self._hidden)

    def _collect(self, lines: Iterable[Mapping[str, Any]]) -> Iterator[str]:
        """Collect the types of each line, and yield its name."""
        for line in lines:
            name = str(line.get("name", ""))
            stated = StatedType(_read_value(line.get("content_type")), _read_value(line.get("content_encoding")))
            if self._by_ending.setdefault(_ending(name), stated) != stated:
                self._exceptions[name] = stated
            if is_hidden(name):
                self._hidden.add(name)
            yield name

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
