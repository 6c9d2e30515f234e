"""What may lie in a place that is to become a destination."""

from __future__ import annotations

from tilesync.core.ownership import find_foreign_entries, find_reserved_names, join_names


def test_what_systems_leave_is_nobodys() -> None:
    """What file systems, desktops and version control leave does not count; a state of tilesync does."""
    assert find_foreign_entries(["lost+found", ".git", ".DS_Store", ".snapshot", "Thumbs.db", "$RECYCLE.BIN", ""]) == []
    assert find_foreign_entries(["x", ".tilesync", "lost+found", "index.html"]) == [".tilesync", "index.html", "x"]


def test_what_clashes_is_what_tilesync_writes() -> None:
    """A name clashes where tilesync writes it at the top, whatever its case."""
    assert find_reserved_names(["Versions", "latest.json", "index.html", "versions.txt"]) == ["Versions", "latest.json"]


def test_a_message_names_some() -> None:
    """A message names three at most, and says how many more there are."""
    assert join_names(["a", "b", "c"]) == "a, b, c"
    assert join_names(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
