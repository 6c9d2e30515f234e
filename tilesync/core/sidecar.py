"""What is noted of the files of a version beside its manifest, so that nobody has to read them again: a line a file.

A file that asks for very many others has several lines, one behind the other.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from tilesync.core.foreign_json import count, text, texts
from tilesync.model import Kind, Reading, Reference, Remark, Role


class Note(NamedTuple):
    """How a file was left, and a part of what it says; the whole of it, where there is no other line about it."""

    name: str
    trace: int
    reading: Reading


def line(note: Note) -> dict[str, Any]:
    """The line; what is empty is left out."""
    reading = note.reading
    said = {
        "name": note.name,
        "trace": f"{note.trace:x}",
        "kind": reading.kind.value,
        "implicit": reading.implicit,
        "asks": [[each.target, each.role.value] for each in reading.references],
        "remarks": [[each.problem, each.detail] for each in reading.remarks],
    }
    return {key: value for key, value in said.items() if value}


def read_line(said: Mapping[str, Any]) -> Note:
    """The note of a line. Raises KeyError or ValueError for anything else."""
    asks = tuple(Reference(target, Role(role)) for target, role in _pairs(said.get("asks", [])))
    remarks = tuple(Remark(problem, detail) for problem, detail in _pairs(said.get("remarks", [])))
    reading = Reading(Kind(text(said.get("kind", ""))), asks, remarks, implicit=bool(said.get("implicit")))
    return Note(text(said["name"]), count(int(text(said.get("trace", "0")), 16)), reading)


def _pairs(said: Any) -> list[tuple[str, str]]:
    if not isinstance(said, list):
        raise ValueError("they are no list")
    pairs = [texts(each) for each in said]
    return [(first, second) for first, second in pairs]
