"""Status of a fleet, from its file and its state: problems first, and the command that continues each."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from datetime import timedelta
from pathlib import Path

import pytest

import tilesync as ts
from tests.support.commandline import run_tilesync
from tests.support.faults import call_before, error_response
from tests.support.fleet_service import fill_fleet, is_for_container, make_small_export
from tests.support.fleets import FleetFolder
from tests.support.simulator import Simulator
from tilesync.events import ForecastMade
from tilesync.fleets.state import FleetState
from tilesync.model.history import RunRecord


@pytest.fixture
def folder(tmp_path: Path, sim: Simulator) -> FleetFolder:
    """Return an empty folder of a fleet of the simulator."""
    return FleetFolder(tmp_path, sim)


def test_problems_come_first_with_the_command_that_continues_them(folder: FleetFolder, sim: Simulator) -> None:
    """A failed mirror, one that vanished, and one without a place come before the fresh ones; no request is made."""
    fleet = fill_fleet(sim, 5)
    folder.write_itwins(fleet, defaults='wait = "0s"')
    assert folder.run().exit_code == 0
    fleet.invalidate(0)
    fleet.remove(1)
    twin = fleet.add()
    sim.rename_imodel(twin.id, fleet.models[2].name)
    folder.run()
    sim.clear_requests()
    done = run_tilesync("status", folder.file, "--json")
    assert sim.requests == []
    assert done.exit_code == 12
    rows = {row["mirror"]: row for row in done.lines_of_kind("status")}
    assert [row["health"] for row in rows.values()] == ["failing"] * 3 + ["fresh"] * 3
    assert "every matching export is Invalid" in rows["p0/Bridge 0000"]["reason"]
    assert rows["p0/Bridge 0000"]["command"] == f"tilesync fleet {folder.file} --only 'p0/Bridge 0000'"
    assert "does not list this iModel any more" in rows["p0/Bridge 0001"]["reason"]
    assert "it would share" in rows[f"p0/Bridge 0002 ({twin.id[:8]})"]["reason"]


def test_a_fleet_that_never_ran(folder: FleetFolder, sim: Simulator) -> None:
    """Before the first night each mirror of the file is there, and was never mirrored."""
    fleet = fill_fleet(sim, 2)
    folder.write_models(fleet)
    status = ts.fleet_status(folder.file)
    assert [(each.name, str(each.health)) for each in status] == [("m0", "never"), ("m1", "never")]
    assert not status.ok
    assert not (folder.path / "state").exists()


def test_the_limit_of_the_file_wins(folder: FleetFolder, sim: Simulator) -> None:
    """`max_age` is for mirrors to which the file gives none; the page has all mirrors."""
    fleet = fill_fleet(sim, 2)
    tables = [
        f'[[mirror]]\nname = "m{number}"\nimodel = "{model.id}"\ndest = "tiles/{number}"\n{more}'
        for number, (model, more) in enumerate(zip(fleet.models, ("", 'max-age = "9d"\n'), strict=True))
    ]
    folder.write("".join(tables))
    assert folder.run().exit_code == 0
    found = {each.name: each for each in ts.fleet_status(folder.file, max_age=timedelta())}
    assert {name: str(each.health) for name, each in found.items()} == {"m0": "stale", "m1": "fresh"}
    assert "m1" in ts.fleet_status(folder.file).to_html()


def test_an_itwin_that_was_never_listed_or_could_not_be(folder: FleetFolder, sim: Simulator) -> None:
    """A fleet of iTwins is never silently fresh: before its first night, and after a list that failed."""
    fleet = fill_fleet(sim, 2)
    folder.write_itwins(fleet)
    assert [(each.name, str(each.health)) for each in ts.fleet_status(folder.file)] == [("p0", "never")]
    fault = sim.add_fault(lambda request: request.path.startswith("/imodels"), error_response(503), times=None)
    assert folder.run().exit_code == 6
    (status,) = ts.fleet_status(folder.file)
    assert (status.name, str(status.health)) == ("p0", "failing")
    sim.faults.remove(fault)
    assert folder.run().exit_code == 0
    assert {str(each.health) for each in ts.fleet_status(folder.file)} == {"fresh"}
    sim.faults.append(fault)
    assert folder.run().exits() == {"p0": 6}
    assert next((each.name, str(each.health)) for each in ts.fleet_status(folder.file)) == ("p0", "failing")


def test_a_killed_night_is_failing(folder: FleetFolder, sim: Simulator) -> None:
    """Mirrors that ran when the fleet was killed are failing, and --failed runs them; while it runs they are not."""
    fleet = fill_fleet(sim, 3)
    folder.write_models(fleet)
    assert folder.run().exit_code == 0
    sim.regenerate(make_small_export(1, edition=2), export_id=fleet.models[1].export_id)
    released = threading.Event()
    reached = threading.Event()
    in_container = is_for_container(fleet.models[1].export_id)
    sim.add_fault(in_container, call_before(reached.set, lambda: released.wait(20)), times=None)
    running = folder.start_program()
    assert reached.wait(20)
    wait_until(lambda: [run.exit for run in read_last_runs(folder)] == [0, None, 0])
    assert {each.name: str(each.health) for each in ts.fleet_status(folder.file)}["m1"] == "fresh"
    running.kill()
    running.communicate()
    released.set()
    found = {each.name: each for each in ts.fleet_status(folder.file)}
    assert {name: str(each.health) for name, each in found.items()} == {"m0": "fresh", "m1": "failing", "m2": "fresh"}
    assert "killed" in found["m1"].reasons[0]
    assert set(folder.run(failed_only=True).outcomes) == {"m1"}


def read_last_runs(folder: FleetFolder) -> list[RunRecord]:
    """Read the second run of each mirror from the state of a fleet that may be running."""
    with FleetState(folder.path / "state", read_only=True) as state:
        return [mirror.history.runs[1] for mirror in state.mirrors().values() if len(mirror.history.runs) > 1]


def wait_until(condition: Callable[[], bool]) -> None:
    """Wait until a condition holds, for at most 20 seconds."""
    deadline = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_new_place_was_never_mirrored(folder: FleetFolder, sim: Simulator) -> None:
    """After `dest` has changed in the file, the new place counts as never mirrored until a run fills it."""
    fleet = fill_fleet(sim, 1)
    folder.write_models(fleet)
    assert folder.run().exit_code == 0
    folder.file.write_text(folder.file.read_text().replace("tiles/{name}", "elsewhere/{name}"))
    assert [str(each.health) for each in ts.fleet_status(folder.file)] == ["never"]
    night = folder.run()
    assert night.events_of(ForecastMade)[0][1].changed == 1
    assert [str(each.health) for each in ts.fleet_status(folder.file)] == ["fresh"]
