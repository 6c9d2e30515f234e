"""Fleets of the simulator: what the tests of fleets rely on."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.fleet_service import FleetModel, FleetProcess, fill_fleet, make_id
from tests.support.simulator import JobOutcome, Simulator, read_latest
from tilesync.demo.api_rate import RateLimit
from tilesync.errors import NoExport, NotAuthorised
from tilesync.model import Selector


def mirror(sim: Simulator, model: FleetModel, dest: Path, **changes: Any) -> JobOutcome:
    return sim.mirror(dest, selector=Selector(imodel=model.id, export_type="3DTiles"), **changes)


def list_names(sim: Simulator, itwin: str) -> list[str]:
    """List the display names of an iTwin's iModels, in one page."""
    request = urllib.request.Request(
        f"{sim.url}/imodels/?iTwinId={itwin}&$top=1000", headers={"Authorization": f"Bearer {sim.token}"}
    )
    with urllib.request.urlopen(request) as response:
        return [row["displayName"] for row in json.load(response)["iModels"]]


def test_a_fleet_is_the_same_each_time() -> None:
    """Ids, names and contents depend only on the numbers."""
    with Simulator() as one, Simulator() as other:
        assert fill_fleet(one, 5, itwins=2).models == fill_fleet(other, 5, itwins=2).models
        assert [b["tileset.json"].data for b in one.containers.values()] == [
            b["tileset.json"].data for b in other.containers.values()
        ]
        assert len({blobs["0.glb"].data for blobs in one.containers.values()}) == 5


def test_each_imodel_of_a_fleet_can_be_mirrored(tmp_path: Path) -> None:
    """An iModel without a fault gives a complete mirror of its own export."""
    with Simulator() as sim:
        fleet = fill_fleet(sim, 3, itwins=2)
        for model in fleet.models:
            assert mirror(sim, model, tmp_path / model.id).exit_code == 0
            assert read_latest(tmp_path / model.id)["version"] == model.export_id


def test_faults_of_the_service(tmp_path: Path) -> None:
    """A refused iTwin, an Invalid export and a removed iModel fail as the service makes them fail; others do not."""
    with Simulator() as sim:
        fleet = fill_fleet(sim, 6, itwins=2)
        refused = fleet.refuse_itwin(1)
        assert [model.itwin for model in refused] == [fleet.itwins[1]] * 3
        outcomes = {
            "refused": mirror(sim, refused[0], tmp_path / "refused"),
            "invalid": mirror(sim, fleet.invalidate(0), tmp_path / "invalid"),
            "removed": mirror(sim, fleet.remove(2), tmp_path / "removed", wait=timedelta()),
            "behind": mirror(sim, fleet.add_invalid_newest(4), tmp_path / "behind"),
        }
        errors = {name: type(outcome.error) for name, outcome in outcomes.items()}
        assert errors == {"refused": NotAuthorised, "invalid": NoExport, "removed": NoExport, "behind": type(None)}


def test_names_of_the_service() -> None:
    """Display names can be equal and can change; a new iModel is listed."""
    with Simulator() as sim:
        fleet = fill_fleet(sim, 3)
        fleet.give_same_name(0, 1)
        fleet.rename(2, "Tunnel / \u00e4")
        fleet.add()
        assert list_names(sim, fleet.itwins[0]) == ["Bridge 0000", "Bridge 0000", "Tunnel / \u00e4", "Bridge 0003"]


def test_an_export_that_is_regenerated_under_the_run(tmp_path: Path) -> None:
    """The content changes just before a blob is read; the mirror ends with the new content whole."""
    with Simulator() as sim:
        fleet = fill_fleet(sim, 1)
        fault = fleet.regenerate_under_run(0, blob=2)
        outcome = mirror(sim, fleet.models[0], tmp_path / "dest")
        assert fault.hits == 1
        outcome = outcome if outcome.exit_code == 0 else mirror(sim, fleet.models[0], tmp_path / "dest")
        assert outcome.exit_code == 0


def test_a_hanging_container_waits_until_it_is_released(tmp_path: Path) -> None:
    """Requests for one container wait, those for others do not; released, the run goes on."""
    with Simulator() as sim:
        fleet = fill_fleet(sim, 2)
        hanging = fleet.hang_container(0)
        outcomes: list[JobOutcome] = []
        thread = threading.Thread(target=lambda: outcomes.append(mirror(sim, hanging, tmp_path / "hanging")))
        thread.start()
        assert mirror(sim, fleet.models[1], tmp_path / "other").exit_code == 0
        thread.join(0.2)
        assert thread.is_alive()
        fleet.release_hanging()
        thread.join(30)
        assert [outcome.exit_code for outcome in outcomes] == [0]


def test_a_service_in_its_own_process() -> None:
    """The process serves the same fleet, counts its calls, enforces its limit, and ends with the `with` block."""
    with FleetProcess(3, limit=RateLimit(2)) as service:
        url = f"{service.url}/mesh-export/?iModelId={make_id('imodel', 2)}"
        request = urllib.request.Request(url, headers={"Authorization": f"Bearer {service.token}"})
        with urllib.request.urlopen(request) as response:
            assert [row["id"] for row in json.load(response)["exports"]] == [make_id("export", 2)]
        with urllib.request.urlopen(request), pytest.raises(urllib.error.HTTPError, match="429"):
            urllib.request.urlopen(request)
        assert service.counts() == {"api_calls": 3, "most_calls_in_window": 3, "refused": 1, "storage_requests": 0}
        service.clear()
        assert service.counts()["api_calls"] == 0
    assert service._process.returncode == 0
