"""Status of a fleet, from its file and its state: problems first, and the command that continues each."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

import tilesync as ts
from tests.support.commandline import run_tilesync
from tests.support.fleet_service import fill_fleet
from tests.support.fleets import FleetFolder
from tests.support.simulator import Simulator


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
