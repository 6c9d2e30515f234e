"""Journal of a fleet: histories are stored in the background, together, and all of them in the end."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import pytest

from tests.support.event_loop import in_event_loop
from tilesync.errors import DestinationError
from tilesync.events import Event, Warned
from tilesync.fleets.night import journal as journals
from tilesync.fleets.night.journal import HistoryJournal
from tilesync.fleets.state import FleetState, KnownMirror
from tilesync.model.history import MirrorHistory

KEYS = ("a", "b", "c")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Make a state with three mirrors."""
    with FleetState(tmp_path) as state:
        state.save([KnownMirror(key, key, key, ()) for key in KEYS])
    return tmp_path


def read_newest(folder: Path) -> list[str | None]:
    """Return a fact of the stored history of each mirror."""
    with FleetState(folder, read_only=True) as state:
        return [mirror.history.newest for mirror in state.mirrors().values()]


def ignore(event: Event) -> None:
    """Take an event that the test does not need."""


def history(newest: str) -> MirrorHistory:
    return MirrorHistory(newest=newest)


@in_event_loop
async def test_what_is_left_is_stored_in_the_end(folder: Path) -> None:
    """On leaving the block all histories are stored, the last of each mirror; also if the block is cancelled."""
    with FleetState(folder) as state:
        async with HistoryJournal(state, ignore, is_enabled=True) as journal:
            journal.add("a", history("old"))
            journal.add("a", history("new"))
            journal.add("b", history("new"))
            assert read_newest(folder) == [None, None, None]
        assert read_newest(folder) == ["new", "new", None]
        task = asyncio.create_task(_add_and_wait(state))
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    assert read_newest(folder) == ["new", "new", "late"]


async def _add_and_wait(state: FleetState) -> None:
    async with HistoryJournal(state, ignore, is_enabled=True) as journal:
        journal.add("c", history("late"))
        await asyncio.Event().wait()


@in_event_loop
async def test_histories_are_stored_while_the_night_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Histories are stored in the background within the interval, together in one transaction."""
    monkeypatch.setattr(journals, "FLUSH_INTERVAL_S", 0.01)
    stored: list[int] = []
    with FleetState(folder) as state:
        save = state.save_histories

        def save_and_count(rows: list[tuple[str, MirrorHistory]]) -> None:
            save(rows)
            stored.append(len(rows))

        monkeypatch.setattr(state, "save_histories", save_and_count)
        async with HistoryJournal(state, ignore, is_enabled=True) as journal:
            for key in KEYS:
                journal.add(key, history("x"))
            while not stored:
                await asyncio.sleep(0.005)
            assert read_newest(folder) == ["x", "x", "x"]
    assert stored == [3]


@in_event_loop
async def test_a_dry_run_stores_nothing(folder: Path) -> None:
    """A journal that is not enabled forgets what it gets."""
    with FleetState(folder, read_only=True) as state:
        async with HistoryJournal(state, ignore, is_enabled=False) as journal:
            journal.add("a", history("x"))
    assert read_newest(folder) == [None, None, None]


@in_event_loop
async def test_a_store_that_fails_for_a_while(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction that fails is one warning, and loses nothing: its histories are stored with the next one."""
    monkeypatch.setattr(journals, "FLUSH_INTERVAL_S", 0.01)
    failures = [DestinationError("the state of the fleet cannot be used (locked)")] * 3
    events: list[Event] = []
    with FleetState(folder) as state:
        save = state.save_histories

        def save_sometimes(rows: list[tuple[str, MirrorHistory]]) -> None:
            if failures:
                raise failures.pop()
            save(rows)

        monkeypatch.setattr(state, "save_histories", save_sometimes)
        async with HistoryJournal(state, events.append, is_enabled=True) as journal:
            journal.add("a", history("first"))
            journal.add("c", history("old"))
            while failures:
                await asyncio.sleep(0.005)
                journal.add("c", history("new"))
            journal.add("b", history("second"))
    assert read_newest(folder) == ["first", "second", "new"]
    (warning,) = events
    assert isinstance(warning, Warned)
    assert "cannot be stored for `tilesync status`: the state of the fleet cannot be used" in warning.message


@in_event_loop
async def test_a_store_that_fails_in_the_end(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the last transaction fails, that is a warning too: the mirrors are good."""
    events: list[Event] = []

    def fail(rows: object) -> None:
        raise DestinationError("the state of the fleet cannot be written")

    with FleetState(folder) as state:
        monkeypatch.setattr(state, "save_histories", fail)
        async with HistoryJournal(state, events.append, is_enabled=True) as journal:
            journal.add("a", history("x"))
    assert [event.kind for event in events] == ["warning"]


@in_event_loop
async def test_a_transaction_that_fails_at_the_end_is_repeated(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transaction under way when the block is left is awaited; what it could not store is stored again."""
    monkeypatch.setattr(journals, "FLUSH_INTERVAL_S", 0.001)
    begun, release = asyncio.Event(), threading.Event()
    loop = asyncio.get_running_loop()
    with FleetState(folder) as state:
        save = state.save_histories

        def fail_first(rows: list[tuple[str, MirrorHistory]]) -> None:
            if not begun.is_set():
                loop.call_soon_threadsafe(begun.set)
                assert release.wait(30)
                raise DestinationError("the state of the fleet cannot be used (locked)")
            save(rows)

        monkeypatch.setattr(state, "save_histories", fail_first)
        async with HistoryJournal(state, ignore, is_enabled=True) as journal:
            journal.add("a", history("first"))
            await begun.wait()
            loop.call_soon(release.set)  # once the block is being left
        assert read_newest(folder) == ["first", None, None]
