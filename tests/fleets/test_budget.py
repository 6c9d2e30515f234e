"""One budget for all mirrors of a fleet: API calls, connections, bandwidth and places."""

from __future__ import annotations

import threading
import time
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import glb, make_stored_blobs, tileset
from tests.support.faults import delay, is_blob, wait_for
from tests.support.fleet_service import Fleet, FleetModel, fill_fleet, is_for_container
from tests.support.fleets import FleetFolder
from tests.support.simulator import Simulator
from tilesync.demo.api_rate import RateLimit
from tilesync.demo.loopback_server import FakeRequest, FakeResponse
from tilesync.events import Retried
from tilesync.fleets.outcome import MirrorOutcome


@pytest.fixture
def folder(tmp_path: Path, sim: Simulator) -> FleetFolder:
    """Return an empty folder of a fleet of the simulator."""
    return FleetFolder(tmp_path, sim)


def enlarge(sim: Simulator, model: FleetModel, *, tiles: int, size: int = 100) -> None:
    """Give an iModel an export of many tiles."""
    names = [f"{number}.glb" for number in range(tiles)]
    files = {"tileset.json": tileset(*names), **{name: glb(name.encode() * size) for name in names}}
    sim.containers[model.export_id] = make_stored_blobs(files)
    row = next(row for row in sim.exports if row["id"] == model.export_id)
    row["stats"]["compressedSize"] = sum(map(len, files.values()))


class ConcurrencyCounter:
    """Counts the blob requests that the server handles at the same time."""

    def __init__(self, sim: Simulator) -> None:
        self.most = 0
        self._active = 0
        self._lock = threading.Lock()
        sim.add_fault(is_blob, self._count, times=None)

    def _count(self, request: FakeRequest, proceed: object) -> FakeResponse:
        with self._lock:
            self._active += 1
            self.most = max(self.most, self._active)
        time.sleep(0.01)
        response: FakeResponse = proceed()  # type: ignore[operator]  # the function of the normal response
        with self._lock:
            self._active -= 1
        return response


def test_all_mirrors_share_the_connections(folder: FleetFolder, sim: Simulator) -> None:
    """The server never sees more concurrent transfers than `connections`, and one for each mirror beyond its share."""
    fleet = fill_fleet(sim, 6)
    for model in fleet.models:
        enlarge(sim, model, tiles=40)
    counter = ConcurrencyCounter(sim)
    folder.write_models(fleet, settings="connections = 10\njobs = 6")
    assert folder.run().exit_code == 0
    assert 6 <= counter.most <= 10 + 5


def test_all_mirrors_share_the_bandwidth(folder: FleetFolder, sim: Simulator) -> None:
    """With a limit in [defaults], all mirrors together take as long as their bytes need at that rate."""
    fleet = fill_fleet(sim, 4)
    for model in fleet.models:
        enlarge(sim, model, tiles=10, size=2000)
    folder.write_models(fleet, defaults='bwlimit = "200k"')
    night = folder.run()
    assert night.exit_code == 0
    moved = night.monitor.transferred_bytes
    assert moved > 300_000
    assert night.monitor.elapsed_seconds() >= 0.9 * (moved / 200_000 - 0.2)


def test_the_rate_of_calls_is_kept(folder: FleetFolder, sim: Simulator) -> None:
    """All mirrors together keep to the calls per minute, as the server counts them."""
    fleet = fill_fleet(sim, 20)
    folder.write_models(fleet)
    folder.file.write_text(folder.file.read_text().replace("api-rate = 50000", "api-rate = 120"))
    night = folder.run()
    assert night.exit_code == 0
    assert sim.api_calls.total == night.monitor.calls == 20
    assert sim.api_calls.most_calls_in_window(1.0) <= 15, "a bucket of 12 at once, then one call every half second"


def test_a_429_makes_all_mirrors_wait(folder: FleetFolder, sim: Simulator) -> None:
    """A refused call stalls the calls of all mirrors for as long as the service says, and all succeed afterwards."""
    fleet = fill_fleet(sim, 30)
    sim.rate_limit = RateLimit(10, seconds=1.0)
    folder.write_models(fleet, defaults="")
    night = folder.run()
    assert night.exits() == {}
    assert sim.api_calls.refused <= 3 * 16, (
        "only calls that were under way are refused, not one for each mirror and try"
    )
    assert night.events_of(Retried)


def test_a_giant_export_does_not_starve_the_small_ones(folder: FleetFolder, sim: Simulator) -> None:
    """Small mirrors are done while a giant one, which came first and takes all its connections, still runs."""
    fleet = fill_fleet(sim, 12)
    enlarge(sim, fleet.models[0], tiles=60)
    others_are_done = threading.Event()
    in_giant = is_for_container(fleet.models[0].export_id)
    sim.add_fault(
        lambda request: in_giant(request) and is_blob(request), wait_for(others_are_done, at_most=60), times=None
    )
    ended: list[str] = []

    def release_at_last(outcome: MirrorOutcome) -> None:
        ended.append(outcome.name)
        if len(ended) == 11:
            others_are_done.set()

    folder.write_models(fleet, settings="jobs = 2\nconnections = 4")
    assert folder.run(on_outcome=release_at_last).exit_code == 0
    assert ended[-1] == "m0"


def test_large_mirrors_leave_a_place_for_small_ones(folder: FleetFolder, sim: Simulator) -> None:
    """Where all mirrors that are ready are large, one place stays free for a small one that becomes ready later."""
    fleet: Fleet = fill_fleet(sim, 4)
    for model in fleet.models[:3]:
        row = next(row for row in sim.exports if row["id"] == model.export_id)
        row["stats"]["compressedSize"] = 5 << 30
        sim.add_fault(is_for_container(model.export_id), delay(1.0), times=None)
    row = next(row for row in sim.exports if row["id"] == fleet.models[3].export_id)
    row["status"] = "InProgress"

    def finish_late(look: int) -> list[dict[str, Any]]:
        if look > 20:
            row["status"] = "Complete"
        return sim.exports

    sim.list_exports = finish_late
    ended: list[str] = []
    folder.write_models(fleet, settings="jobs = 2", defaults='wait = "60s"\npoll = 0.05')
    assert folder.run(on_outcome=lambda outcome: ended.append(outcome.name)).exit_code == 0
    assert ended[0] == "m3"
