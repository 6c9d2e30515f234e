"""Warnings about file names that a server misreads."""

from __future__ import annotations

from tilesync.events import Event, Warned
from tilesync.stores.object_store.name_warnings import MisreadNameWarner


def warnings_for(characters: str, *pages: list[str], sure: bool = True) -> list[str]:
    """Return the warnings for some pages of names."""
    events: list[Event] = []
    warn_names = MisreadNameWarner(characters, events.append, is_probed=sure)
    for page in pages:
        warn_names(page)
    return [event.message for event in events if isinstance(event, Warned)]


def test_misread_names_are_reported_once() -> None:
    """The first page with such names reports them and the character; a second page reports nothing."""
    (message,) = warnings_for("+~", ["a", "b c"], ["t/a+b.glb", "plain"], ["c+d"])
    assert "t/a+b.glb" in message
    assert "plain" not in message
    assert "'+'" in message
    assert "'~'" not in message


def test_many_names_are_abbreviated() -> None:
    """A few names stand for the rest."""
    (message,) = warnings_for("+", [f"{n}+.glb" for n in range(100)])
    assert "and more" in message
    assert len(message) < 500


def test_an_unprobed_server_gets_a_careful_message() -> None:
    """A dry run does not know yet how the server reads names."""
    (message,) = warnings_for("+", ["a+b"], sure=False)
    assert "may read" in message


def test_a_correct_server_causes_no_warning() -> None:
    """Without misread characters there is no warning."""
    assert warnings_for("", ["a+b c~d"]) == []
