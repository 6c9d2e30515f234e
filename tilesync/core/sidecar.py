"""Sidecar index of a version: parsed facts about its files, one per line, so that no file must be read again.

A file with very many references has several lines in a row.
"""

from __future__ import annotations

from collections.abc import Mapping
from json.encoder import encode_basestring
from typing import Any, NamedTuple

from tilesync.core.foreign_json import read_count, read_text, read_texts
from tilesync.core.manifest import encode_line
from tilesync.model import Diagnostic, Kind, ParsedContent, Reference, Role


class SidecarEntry(NamedTuple):
    """Stamp of a file and its parsed content, or a part of it if the file has more lines."""

    name: str
    stamp: int
    content: ParsedContent


def encode_entry(entry: SidecarEntry) -> bytes:
    """Encode the line of an entry. That of a file without references, as most are, is formatted at once."""
    name, stamp, (kind, references, diagnostics, has_implicit_tiling) = entry
    if references or diagnostics or has_implicit_tiling or not kind:
        return encode_line(make_line(entry))
    line = f'{{"name":{encode_basestring(name)},"trace":"{stamp:x}","kind":"{kind}"}}\n'
    return line.encode(errors="surrogatepass")


def make_line(entry: SidecarEntry) -> dict[str, Any]:
    """Make the line of an entry; empty fields are left out."""
    content = entry.content
    fields = {
        "name": entry.name,
        "trace": f"{entry.stamp:x}",
        "kind": content.kind.value,
        "implicit": content.has_implicit_tiling,
        "asks": [[each.target, each.role.value] for each in content.references],
        "remarks": [[each.problem, each.detail] for each in content.diagnostics],
    }
    return {key: value for key, value in fields.items() if value}


def read_line(document: Mapping[str, Any]) -> SidecarEntry:
    """Parse a line into an entry. Raises KeyError or ValueError for any other line."""
    references = tuple(Reference(target, Role(role)) for target, role in _read_pairs(document.get("asks", [])))
    diagnostics = tuple(Diagnostic(problem, detail) for problem, detail in _read_pairs(document.get("remarks", [])))
    content = ParsedContent(
        Kind(read_text(document.get("kind", ""))),
        references,
        diagnostics,
        has_implicit_tiling=bool(document.get("implicit")),
    )
    return SidecarEntry(
        read_text(document["name"]), read_count(int(read_text(document.get("trace", "0")), 16)), content
    )


def _read_pairs(value: Any) -> list[tuple[str, str]]:
    if not isinstance(value, list):
        raise ValueError("it is not a list")
    pairs = [read_texts(each) for each in value]
    return [(first, second) for first, second in pairs]
