"""Names that a server reads as others."""

from __future__ import annotations

from tilesync.events import Event, Warned
from tilesync.stores.object_store.name_warnings import MisreadNameWarner


def warnings_for(characters: str, *pages: list[str], sure: bool = True) -> list[str]:
    """What is said of some pages of names."""
    events: list[Event] = []
    look = MisreadNameWarner(characters, events.append, is_probed=sure)
    for page in pages:
        look(page)
    return [event.message for event in events if isinstance(event, Warned)]


def test_names_that_are_read_as_others_are_told_once() -> None:
    """The first page that has any names them, and which character it is; a second one says nothing new."""
    (said,) = warnings_for("+~", ["a", "b c"], ["t/a+b.glb", "plain"], ["c+d"])
    assert "t/a+b.glb" in said
    assert "plain" not in said
    assert "'+'" in said
    assert "'~'" not in said


def test_many_are_not_all_named() -> None:
    """Some stand for the rest."""
    (said,) = warnings_for("+", [f"{n}+.glb" for n in range(100)])
    assert "and more" in said
    assert len(said) < 500


def test_what_was_not_tried_is_said_with_care() -> None:
    """A plan does not know yet what the server does."""
    (said,) = warnings_for("+", ["a+b"], sure=False)
    assert "may read" in said


def test_a_server_that_reads_all_names_is_not_spoken_of() -> None:
    """Nothing is said."""
    assert warnings_for("", ["a+b c~d"]) == []
