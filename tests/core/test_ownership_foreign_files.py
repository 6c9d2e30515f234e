"""Foreign files in a place that is to become a destination."""

from __future__ import annotations

from tilesync.core.ownership import find_foreign_entries, find_reserved_names, join_names


def test_files_of_the_system_are_ignored() -> None:
    """Files of file systems, desktops and version control do not count; a state folder of tilesync does."""
    assert find_foreign_entries(["lost+found", ".git", ".DS_Store", ".snapshot", "Thumbs.db", "$RECYCLE.BIN", ""]) == []
    assert find_foreign_entries(["x", ".tilesync", "lost+found", "index.html"]) == [".tilesync", "index.html", "x"]


def test_reserved_names_clash() -> None:
    """A name clashes if tilesync writes it at the top, in any case."""
    assert find_reserved_names(["Versions", "latest.json", "index.html", "versions.txt"]) == ["Versions", "latest.json"]


def test_a_message_names_some() -> None:
    """A message names at most three, and the number of further ones."""
    assert join_names(["a", "b", "c"]) == "a, b, c"
    assert join_names(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
