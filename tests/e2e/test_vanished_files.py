"""Files that vanish from a store: under a run, and from a version that was published long ago."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.test_s3_destination import Bucket
from tests.support.azure_proxy import Away
from tests.support.azurite import Passing, Refusal
from tests.support.builders import export
from tests.support.faults import blob
from tests.support.simulator import EXPORT, Ended, Simulator
from tilesync.jobs.versions.presence import PLACE

LEAD = f"versions/{EXPORT}/"
LAST = "tiles/000.glb"


class Store:
    """A destination in a store, and a client of another make behind its back."""

    def __init__(self, place: Away | Bucket) -> None:
        self._place = place

    def mirror(self, sim: Simulator, *options: str) -> Ended:
        """Run the main job."""
        return self._place.mirror(sim, *options)

    def files(self) -> set[str]:
        """The names of the files of the version."""
        return {name.removeprefix(LEAD) for name in self._place.names() if name.startswith(LEAD)}

    def delete(self, name: str) -> None:
        """Delete a file."""
        if isinstance(self._place, Away):
            self._place.client.delete_blob(LEAD + name)
        else:
            self._client.delete_object(Bucket=self._place.name, Key=self._place.lead + LEAD + name)

    def overwrite(self, name: str, data: bytes) -> None:
        """Put other bytes in the place of a file."""
        if isinstance(self._place, Away):
            self._place.client.upload_blob(LEAD + name, data, overwrite=True)
        else:
            self._client.put_object(Bucket=self._place.name, Key=self._place.lead + LEAD + name, Body=data)

    @property
    def _client(self) -> Any:
        assert isinstance(self._place, Bucket)
        return self._place.server.client

    def holds(self, files: dict[str, bytes]) -> None:
        """The pointer leads to the version, which has these files and no others."""
        self._place.holds(EXPORT, files)


@pytest.fixture(params=["azure", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    if request.param == "azure":
        return Store(request.getfixturevalue("away"))
    return Store(Bucket(request.getfixturevalue("bucket_server"), tmp_path / "state"))


def delete_others(store: Store, count: int) -> Callable[[], None]:
    """Wait until so many files lie there, then delete the tiles among them."""

    def do() -> None:
        until = time.monotonic() + 30
        while len(store.files()) < count:
            assert time.monotonic() < until, store.files()
            time.sleep(0.05)
        for name in store.files():
            if name.endswith(".glb"):
                store.delete(name)

    return do


def test_what_vanishes_from_a_store_under_a_run_is_put_again(store: Store, sim: Simulator) -> None:
    """A listing before publishing finds what was put and is not there any more; it is fetched again."""
    files = sim.hold(export(12))
    sim.on(1, blob(LAST), delete_others(store, len(files) - 1))
    run = store.mirror(sim)
    assert (run.exit, run.last["published"], run.last["looked"]) == (0, True, len(files)), run.said
    assert "11 files of this version vanished or changed under the run; fetching again" in run.said
    store.holds(files)


def test_a_night_finds_what_vanished_from_a_store(store: Store, sim: Simulator) -> None:
    """What was deleted, and what was overwritten, is put again by a run that had nothing else to do."""
    files = sim.hold(export(12))
    assert store.mirror(sim).exit == 0
    store.delete(LAST)
    run = store.mirror(sim)
    assert (run.exit, run.last["fetched"], run.last["published"]) == (0, 1, False), run.said
    assert "1 file is gone or changed" in run.said
    store.holds(files)
    store.overwrite(LAST, b"other bytes")
    run = store.mirror(sim)
    assert (run.exit, run.last["fetched"]) == (0, 1), run.said
    store.holds(files)
    calm = store.mirror(sim)
    assert (calm.last["fetched"], calm.last["looked"]) == (0, len(files))


def test_a_place_that_the_store_does_not_know_any_more(away: Away, sim: Simulator) -> None:
    """A night whose marker is refused begins at the start, and is no failure."""
    files = sim.hold(export(12))
    assert away.mirror(sim).exit == 0
    for catalog in away.state.glob("tilesync/destinations/*/catalog.sqlite3"):
        with closing(sqlite3.connect(catalog)) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '3 nonsense')", (PLACE.format(EXPORT),))
    refused = []

    def gate(passing: Passing) -> Refusal | None:
        if passing.query.get("marker") != "nonsense":
            return None
        refused.append(passing)
        return Refusal(400, "InvalidQueryParameterValue")

    away.road.gate = gate
    run = away.mirror(sim)
    assert (run.exit, run.last["fetched"], run.last["looked"]) == (0, 0, len(files)), run.said
    assert len(refused) == 1
