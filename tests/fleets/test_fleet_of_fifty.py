"""A fleet of fifty with faults spread over it: each fault stays with its mirror, and the exit code is the gravest."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.fleet_service import Fleet, fill_fleet, make_small_export
from tests.support.fleets import FleetFolder
from tests.support.killed_runs import assert_pointer_complete
from tests.support.simulator import Simulator, read_latest
from tests.support.small_disk import fill_disk, mounted_small_disk
from tilesync.fleets.outcome import MirrorOutcome, Result

FAULTY = 8
"""Numbers of iModels below this one have a fault of their own."""

REFUSED = "99999999-0000-4000-8000-000000000001"


def write_file(folder: FleetFolder, fleet: Fleet) -> None:
    """Write a fleet file for two iTwins with the iModels of a fleet, one that is refused, and a broken place."""
    tables = [
        f'[[mirror]]\nname = "p{number}"\nitwin = "{itwin}"\ndest = "tiles/p{number}/{{name}}"\n'
        for number, itwin in enumerate((*fleet.itwins, REFUSED))
    ]
    broken = f'[[mirror]]\nname = "broken place"\nimodel = "{fleet.models[7].id}"\ndest = "file/tiles"\n'
    folder.write("".join(tables) + broken, defaults='wait = "0s"')


def change_export(sim: Simulator, fleet: Fleet, number: int, *, edition: int = 2) -> None:
    """Give an iModel other content under the same export."""
    sim.regenerate(make_small_export(number, edition=edition), export_id=fleet.models[number].export_id)


def test_fifty_mirrors_with_faults(tmp_path: Path) -> None:
    """Each fault stays with its mirror: a refused iTwin, an Invalid export, a hanging container, an export regenerated
    under the run, two iModels with one name, one renamed, one gone, and a destination that cannot be written.
    """
    with Simulator() as sim:
        fleet, folder = fill_fleet(sim, 49, itwins=2), FleetFolder(tmp_path, sim)
        sim.add_itwin(REFUSED, "Refused")
        sim.forbid(REFUSED, 401)
        (tmp_path / "file").write_text("in the way")
        write_file(folder, fleet)
        assert folder.run().exits() == {"p2": 5, "broken place": 8}

        for number in range(2, 49):
            change_export(sim, fleet, number)
        fleet.invalidate(0)
        change_export(sim, fleet, 1)
        fleet.hang_container(1)
        change_export(sim, fleet, 2, edition=3)
        fleet.regenerate_under_run(2)
        fleet.rename(3, "Renamed")
        gone = fleet.remove(4)
        twin = fleet.add(1)
        sim.rename_imodel(twin.id, fleet.models[5].name)
        ended: list[str] = []

        def release_at_last(outcome: MirrorOutcome) -> None:
            ended.append(outcome.name)
            if len(ended) == night_size:
                fleet.release_hanging()

        night_size = 24 + 24 + 2  # the iModels of two iTwins but the hanging one, the refused iTwin, the broken place
        night = folder.run(on_outcome=release_at_last)

    twin_label = f"p1/Bridge 0005 ({twin.id[:8]})"
    assert ended[-1] == "p1/Bridge 0001", "nobody waits for the hanging container"
    assert night.exits() == {"p2": 5, "broken place": 8, "p0/Bridge 0000": 4, "p0/Bridge 0004": 4, twin_label: 2}
    assert night.exit_code == 8, "the gravest by the written order"
    assert gone.name in "p0/Bridge 0004"
    outcomes = night.outcomes
    assert outcomes["p1/Renamed"].dest.endswith("Bridge-0003")
    good = [name for name in outcomes if name not in night.exits()]
    assert {outcomes[name].result for name in good} == {Result.UPDATED}
    assert len(good) == 46
    for number in (1, 2, *range(FAULTY, 49)):
        model = fleet.models[number]
        dest = folder.dest(f"p{number % 2}", model.name.replace(" ", "-"))
        assert_pointer_complete(dest)
        version = dest / "versions" / read_latest(dest)["version"]
        assert (version / "1.glb").read_bytes() == make_small_export(number, edition=2)["1.glb"]


def test_a_full_disk_fails_alone(tmp_path: Path, sim: Simulator) -> None:
    """A destination on a full disk fails with 8; the others are mirrored."""
    fleet, folder = fill_fleet(sim, 4), FleetFolder(tmp_path, sim)
    with mounted_small_disk(tmp_path / "disk") as disk:
        fill_disk(disk, free_bytes=0)
        tables = [
            f'[[mirror]]\nname = "m{number}"\nimodel = "{model.id}"\n'
            f'dest = "{"disk/tiles" if number == 1 else f"tiles/{number}"}"\n'
            for number, model in enumerate(fleet.models)
        ]
        folder.write("".join(tables))
        night = folder.run()
    assert night.exits() == {"m1": 8}


@pytest.mark.parametrize("status", [401, 403])
def test_an_identity_that_sees_an_itwin_no_more(tmp_path: Path, sim: Simulator, status: int) -> None:
    """If the identity loses an iTwin, its mirrors fail with 5 each, their tiles stay, and the other iTwin goes on."""
    fleet, folder = fill_fleet(sim, 4, itwins=2), FleetFolder(tmp_path, sim)
    folder.write_itwins(fleet)
    assert folder.run().exit_code == 0
    fleet.refuse_itwin(1, status=403 if status == 403 else 401)
    night = folder.run()
    assert night.exits() == {"p1": 5, "p1/Bridge 0001": 5, "p1/Bridge 0003": 5}
    assert_pointer_complete(folder.dest("p1", "Bridge-0001"))
