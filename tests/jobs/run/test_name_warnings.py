"""Warning about names that Windows cannot store."""

from __future__ import annotations

from tilesync.events import Event, Warned
from tilesync.jobs.run.name_warnings import WindowsNameWarner


def warnings_for(*batches: list[str]) -> list[str]:
    """Check names batch by batch, warn after each batch, and return the messages."""
    events: list[Event] = []
    warner = WindowsNameWarner()
    for batch in batches:
        warner.check(batch)
        warner.warn(events.append)
    return [event.message for event in events if isinstance(event, Warned)]


def test_names_for_every_system_give_no_warning() -> None:
    """Names that every system can store are not mentioned."""
    assert warnings_for(["tileset.json", "tiles/000.glb"], []) == []


def test_a_run_warns_once() -> None:
    """The names found by the first warning are counted, each once; later ones are not mentioned."""
    (message,) = warnings_for(["ok"], ["a:b", "con/x", "a:b"], ["d?e"])
    assert message.startswith("2 names that Windows cannot store: ")
    assert "a:b" in message
    assert "--exclude" in message
    assert "d?e" not in message


def test_a_warning_shows_three_names() -> None:
    """Of many names the first three are shown, and that there are more."""
    (message,) = warnings_for([f"{number}:x" for number in range(9)])
    assert "9 names" in message
    assert "2:x" in message
    assert "3:x" not in message
    assert ", …;" in message
