"""A night of a fleet: faults stay with their mirrors, one budget holds for all, and nothing is moved twice."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.support.faults import error_response
from tests.support.fleet_service import FleetModel, fill_fleet, is_for_container, make_small_export
from tests.support.fleets import FleetFolder
from tests.support.killed_runs import assert_pointer_complete
from tests.support.simulator import Simulator
from tilesync.api import mirroring
from tilesync.events import ExportEndangered, ForecastMade, VersionPublished, Waiting, Warned
from tilesync.fleets.night import mirror_run
from tilesync.fleets.outcome import Result
from tilesync.fleets.state import FleetState


@pytest.fixture
def folder(tmp_path: Path, sim: Simulator) -> FleetFolder:
    """Return an empty folder of a fleet of the simulator."""
    return FleetFolder(tmp_path, sim)


def label(model: FleetModel, entry: str = "p0") -> str:
    """Return the label of an iModel of an iTwin."""
    return f"{entry}/{model.name}"


def test_each_imodel_is_mirrored_to_its_place(folder: FleetFolder, sim: Simulator) -> None:
    """The first night mirrors every iModel of every iTwin; each destination is an ordinary one, with its manifest."""
    fleet = fill_fleet(sim, 6, itwins=2)
    folder.write_itwins(fleet)
    night = folder.run()
    assert night.exits() == {}
    assert {outcome.result for outcome in night.monitor.outcomes} == {Result.UPDATED}
    for number, model in enumerate(fleet.models):
        dest = folder.dest(f"p{number % 2}", model.name.replace(" ", "-"))
        assert (dest / "versions" / model.export_id / "0.glb").read_bytes() == make_small_export(number)["0.glb"]
        assert (dest / "latest.json").exists()
        assert_pointer_complete(dest)


def test_an_unchanged_night_costs_one_call_each_and_no_blob_request(folder: FleetFolder, sim: Simulator) -> None:
    """N iModels without a new export cost N calls of the API and no request to the storage."""
    fleet = fill_fleet(sim, 12)
    folder.write_models(fleet)
    assert folder.run().exit_code == 0
    sim.clear_requests()
    night = folder.run()
    assert {outcome.result for outcome in night.monitor.outcomes} == {Result.UNCHANGED}
    assert len(sim.api_requests) == night.monitor.calls == 12
    assert [request for request in sim.requests if not request.is_api] == []
    assert night.events_of(ForecastMade)[0][1].changed == 0


def test_all_exports_cost_one_call_each_too(folder: FleetFolder, sim: Simulator) -> None:
    """A mirror of all exports lists them in one call where nothing is new."""
    folder.write_models(fill_fleet(sim, 3), defaults="all-exports = true")
    assert folder.run().exit_code == 0
    sim.clear_requests()
    assert folder.run().exit_code == 0
    assert len(sim.requests) == 3


def test_new_renamed_and_vanished_imodels(folder: FleetFolder, sim: Simulator) -> None:
    """A new iModel is mirrored, a renamed one keeps its place, a vanished one is reported and nothing of it deleted."""
    fleet = fill_fleet(sim, 3)
    folder.write_itwins(fleet)
    assert folder.run().exit_code == 0
    old_place = folder.dest("p0", "Bridge-0001")
    fleet.rename(1, "Tower")
    gone, new = fleet.remove(2), fleet.add()
    night = folder.run()
    assert night.exits() == {label(gone): 4}
    assert "does not list this iModel any more" in night.outcomes[label(gone)].reason
    assert night.outcomes["p0/Tower"].dest == str(old_place)
    assert night.outcomes["p0/Tower"].result is Result.UNCHANGED
    assert night.outcomes[label(new)].result is Result.UPDATED
    assert (folder.dest("p0", "Bridge-0002") / "tileset.json").exists()
    assert not folder.dest("p0", "Tower").exists()
    third = folder.run()
    assert third.exits() == {label(gone): 4}
    assert third.outcomes[label(gone)].reason == night.outcomes[label(gone)].reason


def test_half_of_a_surrogate_pair_in_a_display_name(folder: FleetFolder, sim: Simulator) -> None:
    """A display name with half of a surrogate pair stops no mirror of its iTwin."""
    fleet = fill_fleet(sim, 2)
    sim.rename_imodel(fleet.models[0].id, "Quay \ud800")
    folder.write_itwins(fleet)
    results = {name: each.result for name, each in folder.run().outcomes.items()}
    assert results == {"p0/Quay \ufffd": Result.UPDATED, label(fleet.models[1]): Result.UPDATED}


def test_of_two_imodels_with_one_name_the_older_keeps_its_place(folder: FleetFolder, sim: Simulator) -> None:
    """A second iModel with the display name of a first one is refused by name, and the first goes on."""
    fleet = fill_fleet(sim, 2)
    folder.write_itwins(fleet)
    assert folder.run().exit_code == 0
    second = fleet.add()
    sim.rename_imodel(second.id, fleet.models[0].name)
    night = folder.run()
    refused = f"p0/Bridge 0000 ({second.id[:8]})"
    assert night.exits() == {refused: 2}
    assert f"with p0/Bridge 0000 ({fleet.models[0].id[:8]})" in night.outcomes[refused].reason


def test_several_destinations_are_filled_by_one_download(folder: FleetFolder, sim: Simulator) -> None:
    """Each blob is fetched once from the service; the other destinations are copies of the first."""
    model = fill_fleet(sim, 1).models[0]
    folder.write(f'[[mirror]]\nname = "a"\nimodel = "{model.id}"\ndest = ["tiles/one", "tiles/two", "tiles/three"]\n')
    night = folder.run()
    assert night.exit_code == 0
    assert set(Counter(request.path for request in sim.blob_requests()).values()) == {1}
    assert [Path(copy.dest).name for copy in night.outcomes["a"].copies] == ["two", "three"]
    for name in ("one", "two", "three"):
        assert (folder.dest(name) / "versions" / model.export_id / "1.glb").exists()
        assert_pointer_complete(folder.dest(name))


def test_a_broken_first_destination_does_not_stop_the_others(folder: FleetFolder, sim: Simulator) -> None:
    """If the first destination cannot be written, the second one downloads, and the mirror still counts as failed."""
    model = fill_fleet(sim, 1).models[0]
    folder.write(f'[[mirror]]\nname = "a"\nimodel = "{model.id}"\ndest = ["file/one", "tiles/two", "tiles/three"]\n')
    (folder.path / "file").write_text("in the way")
    night = folder.run()
    outcome = night.outcomes["a"]
    assert (outcome.exit_code, Path(outcome.dest).name) == (8, "two")
    assert [(Path(copy.dest).name, copy.exit_code) for copy in outcome.copies] == [("one", 8), ("three", 0)]
    assert_pointer_complete(folder.dest("three"))


def test_waiting_for_a_first_export_holds_no_place(folder: FleetFolder, sim: Simulator) -> None:
    """With one place, a mirror that waits for its first export lets the others run, and comes when it is there."""
    fleet = fill_fleet(sim, 3)
    row = next(row for row in sim.exports if row["id"] == fleet.models[0].export_id)
    row["status"] = "InProgress"
    ended: list[str] = []

    def finish_export_at_last(look: int) -> list[dict[str, Any]]:
        if len(ended) == 2:
            row["status"] = "Complete"
        return sim.exports

    sim.list_exports = finish_export_at_last
    folder.write_models(fleet, settings="jobs = 1", defaults='wait = "60s"\npoll = 0.05')
    night = folder.run(on_outcome=lambda outcome: ended.append(outcome.name))
    assert night.exits() == {}
    assert ended[-1] == "m0"
    assert {name for name, _ in night.events_of(Waiting)} == {"m0"}


def test_a_bug_in_one_mirror_does_not_stop_the_others(
    folder: FleetFolder, sim: Simulator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An exception that is no error of tilesync ends one mirror with exit code 1; the others go on."""
    fleet = fill_fleet(sim, 3)
    folder.write_models(fleet)
    real = mirroring.mirror_once

    async def fail_for_one(source: object, *arguments: object, **options: object) -> object:
        if source == fleet.models[1].id:
            raise ZeroDivisionError
        return await real(source, *arguments, **options)  # type: ignore[arg-type]  # passed on as they are

    monkeypatch.setattr(mirror_run, "mirror_once", fail_for_one)
    night = folder.run()
    assert night.exits() == {"m1": 1}
    assert night.outcomes["m1"].line["error"] == "ZeroDivisionError"


def test_endangered_exports_are_named(folder: FleetFolder, sim: Simulator) -> None:
    """An export that the service deletes next and that the destination does not hold is in the outcome."""
    model = fill_fleet(sim, 1).models[0]
    for number in range(1, 5):
        export_id = f"eeeeeeee-0000-4000-8000-00000000000{number}"
        blobs = dict(sim.containers[model.export_id])
        sim.add_export(export_id, model.id, blobs, lastModified=f"2026-03-0{number + 1}T08:30:00Z")
    folder.write(f'[[mirror]]\nname = "a"\nimodel = "{model.id}"\ndest = "tiles/a"\n')
    night = folder.run()
    assert night.outcomes["a"].endangered == (model.export_id,)
    assert [event.export for _, event in night.events_of(ExportEndangered)] == [model.export_id]
    assert len(night.events_of(VersionPublished)) == 1


def test_the_newest_export_invalid_without_waiting(folder: FleetFolder, sim: Simulator) -> None:
    """With `wait = "0s"`, a mirror whose only export is Invalid fails with 4, and the others go on."""
    fleet = fill_fleet(sim, 3)
    fleet.invalidate(1)
    folder.write_models(fleet, defaults='wait = "0s"')
    night = folder.run()
    assert night.exits() == {"m1": 4}
    assert night.exit_code == 4


def test_a_listing_that_fails_leaves_the_known_mirrors(folder: FleetFolder, sim: Simulator) -> None:
    """If an iTwin cannot be listed, the entry fails, and the mirrors known from earlier nights run."""
    fleet = fill_fleet(sim, 2)
    folder.write_itwins(fleet)
    assert folder.run().exit_code == 0
    sim.add_fault(lambda request: request.path.startswith("/imodels"), error_response(503), times=None)
    night = folder.run()
    assert night.outcomes["p0"].exit_code == 6
    assert "2 known from earlier nights are tried" in night.outcomes["p0"].reason
    assert night.outcomes["p0/Bridge 0001"].result is Result.UNCHANGED


def test_the_state_outlives_a_lost_file(folder: FleetFolder, sim: Simulator) -> None:
    """Without its state a fleet finds its destinations again, and mirrors nothing twice."""
    folder.write_itwins(fill_fleet(sim, 2))
    assert folder.run().exit_code == 0
    shutil.rmtree(folder.path / "state")
    night = folder.run()
    assert {outcome.result for outcome in night.monitor.outcomes} == {Result.UNCHANGED}
    with FleetState(folder.path / "state", read_only=True) as state:
        assert sum(bool(mirror.places) for mirror in state.mirrors().values()) == 2


def test_a_failing_container_fails_alone(folder: FleetFolder, sim: Simulator) -> None:
    """A container that answers errors only fails its own mirror."""
    fleet = fill_fleet(sim, 4)
    sim.add_fault(is_for_container(fleet.models[2].export_id), error_response(503), times=None)
    folder.write_models(fleet)
    assert folder.run().exits() == {"m2": 6}


def test_a_renamed_imodel_keeps_its_state_folder(folder: FleetFolder, sim: Simulator) -> None:
    """With `{name}` in `state-dir`, the state of a renamed iModel stays where it is, as its tiles do."""
    fleet = fill_fleet(sim, 1)
    folder.write_itwins(fleet, defaults='state-dir = "states/{name}"')
    assert folder.run().exit_code == 0
    fleet.rename(0, "Tower")
    assert folder.run().exit_code == 0
    assert [path.name for path in (folder.path / "states").iterdir()] == ["Bridge-0000"]


def test_only_a_part_of_a_fleet_whose_lists_fail(folder: FleetFolder, sim: Simulator) -> None:
    """With `--only`, a service that is down is told as such, not as a glob that matches nothing."""
    folder.write_itwins(fill_fleet(sim, 1))
    sim.add_fault(lambda request: request.path.startswith("/imodels"), error_response(503), times=None)
    assert folder.run(only=["Bridge*"]).exits() == {"p0": 6}


def test_two_fleets_with_one_state(folder: FleetFolder, sim: Simulator) -> None:
    """A second fleet file that uses the state of a first one is warned of."""
    fleet = fill_fleet(sim, 1)
    folder.write_models(fleet)
    assert folder.run().events_of(Warned) == []
    (folder.path / "second").mkdir()
    second = FleetFolder(folder.path / "second", sim)
    second.write_models(fleet)
    second.file.write_text(second.file.read_text().replace('"state"', '"../state"'))
    warnings = [event.message for _, event in second.run().events_of(Warned)]
    assert len(warnings) == 1
    assert "give each fleet a state-dir of its own" in warnings[0]
