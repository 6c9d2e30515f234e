"""A fleet stops at the end of its window, is told as such, and the next run continues."""

from __future__ import annotations

import asyncio
import shutil
import threading
from datetime import UTC, datetime, time, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import call_before
from tests.support.fleet_service import fill_fleet, is_for_container
from tests.support.fleets import FleetFolder
from tests.support.simulator import Simulator
from tilesync.api import mirroring
from tilesync.events import ForecastMade, Notice, Warned
from tilesync.fleets.night import mirror_run
from tilesync.fleets.outcome import Result
from tilesync.fleets.state import FleetState


class HandMovedClock:
    """Clock whose wall time moves only by hand, from any thread; sleeping ends when the time has come."""

    def __init__(self, start: datetime) -> None:
        self._now = start
        self._moved = threading.Event()

    def now(self) -> datetime:
        """Return the time."""
        return self._now

    def monotonic(self) -> float:
        """Return the seconds of the wall time."""
        return self._now.timestamp()

    def move_to(self, moment: datetime) -> None:
        """Set the time."""
        self._now = moment
        self._moved.set()

    async def sleep(self, seconds: float) -> None:
        """Wait until the time has moved far enough."""
        due = self._now + timedelta(seconds=seconds)
        while self._now < due:
            await asyncio.sleep(0.01)


START = datetime(2026, 11, 30, 1, 0, tzinfo=UTC)


@pytest.fixture
def folder(tmp_path: Path, sim: Simulator, monkeypatch: pytest.MonkeyPatch) -> FleetFolder:
    """Return an empty folder of a fleet of the simulator, in UTC."""
    monkeypatch.setenv("TZ", "UTC")
    return FleetFolder(tmp_path, sim)


@pytest.mark.parametrize("limit", [{"until": time(6, 0, tzinfo=UTC)}, {"max_duration": timedelta(hours=5)}], ids=str)
def test_the_window_ends_while_mirrors_run(folder: FleetFolder, sim: Simulator, limit: dict[str, Any]) -> None:
    """What runs and what waits is stopped with exit 14, what is done stays, and the next run does the rest."""
    fleet = fill_fleet(sim, 6)
    clock = HandMovedClock(START)
    held = fleet.models[3]
    ended: list[str] = []
    released = threading.Event()

    def end_the_window() -> None:
        clock.move_to(START + timedelta(hours=5))
        released.wait(20)

    sim.add_fault(is_for_container(held.export_id), call_before(end_the_window))
    folder.write_models(fleet, settings="jobs = 1")
    try:
        night = folder.run(clock=clock, on_outcome=lambda outcome: ended.append(outcome.name), **limit)
    finally:
        released.set()
    assert "this run stops at 2026-11-30 06:00" in night.events_of(Notice)[0][1].message
    stopped = {name for name, outcome in night.outcomes.items() if outcome.result is Result.STOPPED}
    assert "m3" in stopped
    assert night.exits() == dict.fromkeys(stopped, 14)
    assert night.exit_code == 14
    assert night.outcomes["m3"].line["error"] == "WindowEnded"
    assert "while it ran" in night.outcomes["m3"].reason
    assert all("before its turn" in night.outcomes[name].reason for name in stopped - {"m3"})
    second = folder.run(failed_only=True)
    assert set(second.outcomes) == stopped
    assert second.exits() == {}
    assert folder.run().exits() == {}


def test_a_window_that_is_long_enough_changes_nothing(folder: FleetFolder, sim: Simulator) -> None:
    """A fleet that ends within its window ends well, and at once."""
    folder.write_models(fill_fleet(sim, 3), settings='max-duration = "1h"')
    assert folder.run().exit_code == 0


def test_the_forecast_warns_of_a_window_that_is_too_short(folder: FleetFolder, sim: Simulator) -> None:
    """With the rate of an earlier night, a fleet says at the start that the window will not be long enough."""
    fleet = fill_fleet(sim, 2)
    folder.write_models(fleet)
    with FleetState(folder.path / "state") as state:
        state.store_rate(1000.0)
    row = next(row for row in sim.exports if row["id"] == fleet.models[0].export_id)
    row["stats"]["compressedSize"] = 3_600_000
    night = folder.run(max_duration=timedelta(minutes=30))
    warnings = [event.message for name, event in night.events_of(Warned) if not name]
    assert len(warnings) == 1
    assert "at the rate of earlier nights this takes 1 h" in warnings[0]


def test_the_forecast_warns_of_a_disk_that_is_too_small(folder: FleetFolder, sim: Simulator) -> None:
    """Before anything is stored, a fleet says that the new exports may not fit the disk."""
    fleet = fill_fleet(sim, 2)
    row = next(row for row in sim.exports if row["id"] == fleet.models[1].export_id)
    row["stats"]["compressedSize"] = 1 << 60
    folder.write_models(fleet)
    night = folder.run()
    assert [
        name for name, event in night.events_of(Warned) if "are to be stored on the file system" in event.message
    ] == [""]


def test_a_mirror_that_is_too_old_is_reported_after_a_good_night(folder: FleetFolder, sim: Simulator) -> None:
    """With `max-age`, a mirror whose newest export stays Invalid is stale, though its run ends well."""
    fleet = fill_fleet(sim, 2)
    fleet.add_invalid_newest(0)
    folder.write_models(fleet, defaults='max-age = "7d"')
    first = folder.run(clock=HandMovedClock(datetime(2026, 3, 3, tzinfo=UTC)))
    assert first.exits() == {}
    later = folder.run(clock=HandMovedClock(datetime(2026, 3, 12, tzinfo=UTC)))
    assert later.exits() == {"m0": 12}
    assert later.outcomes["m0"].result is Result.UNCHANGED
    assert later.outcomes["m0"].line["exit"] == 0
    assert "the published export is 10 d 15 h old, and there is a newer one" in later.outcomes["m0"].reason


def test_the_window_ends_while_a_copy_is_made(
    folder: FleetFolder, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A mirror whose download is done and whose copy was stopped says so: the copy is the one with exit 14."""
    model = fill_fleet(sim, 1).models[0]
    folder.write(f'[[mirror]]\nname = "a"\nimodel = "{model.id}"\ndest = ["tiles/one", "tiles/two"]\n')
    clock = HandMovedClock(START)
    real = mirroring.mirror_once

    async def end_the_window_in_the_copy(source: object, *arguments: object, **options: object) -> object:
        if source != model.id:
            clock.move_to(START + timedelta(hours=5))
            await asyncio.Event().wait()
        return await real(source, *arguments, **options)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(mirror_run, "mirror_once", end_the_window_in_the_copy)
    night = folder.run(clock=clock, max_duration=timedelta(hours=1))
    outcome = night.outcomes["a"]
    assert (outcome.result, outcome.exit_code, outcome.line["exit"]) == (Result.STOPPED, 14, 0)
    assert [copy.exit_code for copy in outcome.copies] == [14]


def test_the_window_bounds_the_lists_of_itwins(folder: FleetFolder, sim: Simulator) -> None:
    """A list of iModels that does not come ends with the window too; known mirrors and the iTwin are stopped."""
    fleet = fill_fleet(sim, 2)
    folder.write_itwins(fleet)
    assert folder.run().exit_code == 0
    clock = HandMovedClock(START)
    released = threading.Event()

    def end_the_window() -> None:
        clock.move_to(START + timedelta(hours=5))
        released.wait(20)

    sim.add_fault(lambda request: request.path.startswith("/imodels"), call_before(end_the_window))
    try:
        night = folder.run(clock=clock, max_duration=timedelta(hours=1), time_limit_s=15)
    finally:
        released.set()
    assert night.exits() == {"p0": 14, "p0/Bridge 0000": 14, "p0/Bridge 0001": 14}
    assert {outcome.result for outcome in night.monitor.outcomes} == {Result.STOPPED}


def test_a_forecast_looks_whether_the_tiles_are_there(folder: FleetFolder, sim: Simulator) -> None:
    """A destination that somebody removed counts as one with everything to move."""
    folder.write_models(fill_fleet(sim, 2))
    assert folder.run().exit_code == 0
    shutil.rmtree(folder.path / "tiles" / "m1")
    night = folder.run()
    assert night.events_of(ForecastMade)[0][1].changed == 1
    assert night.outcomes["m1"].result is Result.UPDATED


def test_a_destination_that_cannot_be_looked_at_fails_alone(folder: FleetFolder, sim: Simulator) -> None:
    """A destination whose name no file system can have fails its own mirror, not the one that is forecast last."""
    fleet = fill_fleet(sim, 4)
    folder.write_models(fleet)
    folder.file.write_text(
        folder.file.read_text() + f'[[mirror]]\nname = "long"\nimodel = "{fleet.models[0].id}"\ndest = "{"x" * 300}"\n'
    )
    assert folder.run().exits() == {"long": 8}
