"""What may lie in a place that is to become a destination."""

from __future__ import annotations

from tilesync.core.ownership import clashing, listed, strangers


def test_what_systems_leave_is_nobodys() -> None:
    """What file systems, desktops and version control leave does not count; a state of tilesync does."""
    assert strangers(["lost+found", ".git", ".DS_Store", ".snapshot", "Thumbs.db", "$RECYCLE.BIN", ""]) == []
    assert strangers(["x", ".tilesync", "lost+found", "index.html"]) == [".tilesync", "index.html", "x"]


def test_what_clashes_is_what_tilesync_writes() -> None:
    """A name clashes where tilesync writes it at the top, whatever its case."""
    assert clashing(["Versions", "latest.json", "index.html", "versions.txt"]) == ["Versions", "latest.json"]


def test_a_message_names_some() -> None:
    """A message names three at most, and says how many more there are."""
    assert listed(["a", "b", "c"]) == "a, b, c"
    assert listed(["a", "b", "c", "d", "e"]) == "a, b, c and 2 more"
