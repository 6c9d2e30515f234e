"""Test files that are deleted from a store, during a run and from a published version."""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_proxy import AzureFixture
from tests.support.azurite import ProxiedRequest, RefusedResponse
from tests.support.builders import export
from tests.support.faults import is_blob_named
from tests.support.s3 import BucketFixture
from tests.support.simulator import EXPORT, ProgramResult, Simulator
from tilesync.jobs.versions.presence import PROGRESS_KEY

VERSION_PREFIX = f"versions/{EXPORT}/"
LAST = "tiles/000.glb"


class VersionStore:
    """Destination in a store, with an independent client that changes it."""

    def __init__(self, place: AzureFixture | BucketFixture) -> None:
        self._destination = place

    def mirror(self, sim: Simulator, *options: str) -> ProgramResult:
        """Run the main job."""
        return self._destination.mirror(sim, *options)

    def files(self) -> set[str]:
        """The names of the files of the version."""
        return {
            name.removeprefix(VERSION_PREFIX)
            for name in self._destination.list_names()
            if name.startswith(VERSION_PREFIX)
        }

    def delete(self, name: str) -> None:
        """Delete a file."""
        if isinstance(self._destination, AzureFixture):
            self._destination.client.delete_blob(VERSION_PREFIX + name)
        else:
            self._client.delete_object(
                Bucket=self._destination.name, Key=self._destination.prefix + VERSION_PREFIX + name
            )

    def overwrite(self, name: str, data: bytes) -> None:
        """Put other bytes in the place of a file."""
        if isinstance(self._destination, AzureFixture):
            self._destination.client.upload_blob(VERSION_PREFIX + name, data, overwrite=True)
        else:
            self._client.put_object(
                Bucket=self._destination.name, Key=self._destination.prefix + VERSION_PREFIX + name, Body=data
            )

    @property
    def _client(self) -> Any:
        assert isinstance(self._destination, BucketFixture)
        return self._destination.server.client

    def assert_version(self, files: dict[str, bytes]) -> None:
        """The pointer leads to the version, which has these files and no others."""
        self._destination.assert_published(EXPORT, files)


@pytest.fixture(params=["azure", "s3"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> VersionStore:
    if request.param == "azure":
        return VersionStore(request.getfixturevalue("azure_store"))
    return VersionStore(BucketFixture(request.getfixturevalue("bucket_server"), tmp_path / "state"))


def delete_others(store: VersionStore, count: int) -> Callable[[], None]:
    """Wait until so many files are stored, then delete the tiles among them."""

    def do() -> None:
        until = time.monotonic() + 30
        while len(store.files()) < count:
            assert time.monotonic() < until, store.files()
            time.sleep(0.05)
        for name in store.files():
            if name.endswith(".glb"):
                store.delete(name)

    return do


def test_objects_deleted_during_a_run_are_fetched_again(store: VersionStore, sim: Simulator) -> None:
    """The listing before publishing finds stored files that were deleted since; they are fetched again."""
    files = sim.offer_export(export(12))
    sim.run_before_request(1, is_blob_named(LAST), delete_others(store, len(files) - 1))
    run = store.mirror(sim)
    assert (run.exit_code, run.last_line["published"], run.last_line["looked"]) == (0, True, len(files)), run.stderr
    assert "11 files of this version vanished or changed during the run; fetching again" in run.stderr
    store.assert_version(files)


def test_a_run_without_changes_replaces_deleted_objects(store: VersionStore, sim: Simulator) -> None:
    """A run without other work replaces deleted and overwritten files."""
    files = sim.offer_export(export(12))
    assert store.mirror(sim).exit_code == 0
    store.delete(LAST)
    run = store.mirror(sim)
    assert (run.exit_code, run.last_line["fetched"], run.last_line["published"]) == (0, 1, False), run.stderr
    assert "1 file is gone or changed" in run.stderr
    store.assert_version(files)
    store.overwrite(LAST, b"other bytes")
    run = store.mirror(sim)
    assert (run.exit_code, run.last_line["fetched"]) == (0, 1), run.stderr
    store.assert_version(files)
    calm = store.mirror(sim)
    assert (calm.last_line["fetched"], calm.last_line["looked"]) == (0, len(files))


def test_a_check_with_a_refused_marker_starts_again(azure_store: AzureFixture, sim: Simulator) -> None:
    """A presence check whose marker is refused starts again, without a failure."""
    files = sim.offer_export(export(12))
    assert azure_store.mirror(sim).exit_code == 0
    for catalog in azure_store.state.glob("tilesync/destinations/*/catalog.sqlite3"):
        with closing(sqlite3.connect(catalog)) as connection, connection:
            connection.execute("INSERT OR REPLACE INTO meta VALUES (?, '3 nonsense')", (PROGRESS_KEY.format(EXPORT),))
    refused = []

    def intercept(passing: ProxiedRequest) -> RefusedResponse | None:
        if passing.query.get("marker") != "nonsense":
            return None
        refused.append(passing)
        return RefusedResponse(400, "InvalidQueryParameterValue")

    azure_store.proxy.intercept = intercept
    run = azure_store.mirror(sim)
    assert (run.exit_code, run.last_line["fetched"], run.last_line["looked"]) == (0, 0, len(files)), run.stderr
    assert len(refused) == 1
