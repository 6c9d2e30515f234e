"""Lines of the sidecar index, written and read."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tilesync.core.manifest import encode_line
from tilesync.core.sidecar import SidecarEntry, encode_entry, make_line, read_line
from tilesync.model import Diagnostic, Kind, ParsedContent, Reference, Role


@pytest.mark.parametrize(
    "entry",
    [
        SidecarEntry("a", 0, ParsedContent()),
        SidecarEntry("ä/b.glb", (1 << 63) - 1, ParsedContent(Kind.GLB)),
        SidecarEntry(
            "t.json",
            5,
            ParsedContent(
                Kind.TILESET,
                (Reference("a", Role.CONTENT), Reference("b", Role.SUBTREE)),
                (Diagnostic("unfollowed", "https://x"),),
                has_implicit_tiling=True,
            ),
        ),
    ],
)
def test_entries_round_trip(entry: SidecarEntry) -> None:
    """An entry that was written as JSON is read back unchanged."""
    assert read_line(json.loads(json.dumps(make_line(entry)))) == entry
    assert read_line(json.loads(encode_entry(entry))) == entry


@pytest.mark.parametrize("name", ["a", 'a"b\\c', "ä\u2028", "a\x01b", "\udc80"])
@pytest.mark.parametrize("stamp", [0, 255])
@pytest.mark.parametrize("content", [ParsedContent(kind) for kind in Kind] + [ParsedContent(has_implicit_tiling=True)])
def test_the_usual_line_is_the_same_byte_for_byte(name: str, stamp: int, content: ParsedContent) -> None:
    """A line that is formatted at once is what the encoder would write."""
    entry = SidecarEntry(name, stamp, content)
    assert encode_entry(entry) == encode_line(make_line(entry))


@pytest.mark.parametrize(
    "document",
    [
        {},
        {"name": "a", "trace": "zz"},
        {"name": "a", "trace": "-1"},
        {"name": "a", "trace": f"{1 << 63:x}"},
        {"name": "a", "kind": "nothing known"},
        {"name": "a", "asks": [["b"]]},
        {"name": "a", "asks": [["b", "no role"]]},
        {"name": "a", "remarks": "x"},
        {"name": "a", "trace": 5},
    ],
)
def test_invalid_lines_are_refused(document: dict[str, Any]) -> None:
    """Others can write to a store, so nothing is guessed."""
    with pytest.raises((KeyError, TypeError, ValueError)):
        read_line(document)
