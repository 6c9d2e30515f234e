"""What is noted of the files of a version beside its manifest, so that nobody has to read them again: a line a file.

A file that asks for very many others has several lines, one behind the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tilesync.core.foreign_json import read_count, read_text, read_texts
from tilesync.model import Diagnostic, Kind, ParsedContent, Reference, Role


class SidecarEntry(NamedTuple):
    """How a file was left, and a part of what it says; the whole of it, where there is no other line about it."""

    name: str
    stamp: int
    content: ParsedContent


def make_line(entry: SidecarEntry) -> dict[str, Any]:
    """The line; what is empty is left out."""
    reading = entry.content
    said = {
        "name": entry.name,
        "trace": f"{entry.stamp:x}",
        "kind": reading.kind.value,
        "implicit": reading.has_implicit_tiling,
        "asks": [[each.target, each.role.value] for each in reading.references],
        "remarks": [[each.problem, each.detail] for each in reading.diagnostics],
    }
    return {key: value for key, value in said.items() if value}


def read_line(document: Mapping[str, Any]) -> SidecarEntry:
    """The note of a line. Raises KeyError or ValueError for anything else."""
    asks = tuple(Reference(target, Role(role)) for target, role in _read_pairs(document.get("asks", [])))
    remarks = tuple(Diagnostic(problem, detail) for problem, detail in _read_pairs(document.get("remarks", [])))
    reading = ParsedContent(
        Kind(read_text(document.get("kind", ""))), asks, remarks, has_implicit_tiling=bool(document.get("implicit"))
    )
    return SidecarEntry(
        read_text(document["name"]), read_count(int(read_text(document.get("trace", "0")), 16)), reading
    )


def _read_pairs(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise ValueError("they are no list")
    pairs = [read_texts(each) for each in value]
    return [(first, second) for first, second in pairs]
