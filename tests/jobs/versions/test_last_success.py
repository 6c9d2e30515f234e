"""Last success: `checked.json`, for monitors."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from tests.support.azure_proxy import AzureFixture
from tests.support.builders import IMODEL, export
from tests.support.faults import error_response, is_api, is_blob
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, read_latest, rollback
from tilesync.events import Warned
from tilesync.model import Layout

LONG_AGO = "2026-01-01T00:00:00Z"


def make_old(path: Path) -> dict[str, Any]:
    """Set the time in the file to a past one; return the old content."""
    document: dict[str, Any] = json.loads(path.read_text())
    path.write_text(json.dumps({**document, "checked": LONG_AGO}))
    return document


def checked(path: Path) -> str:
    moment: str = json.loads(path.read_text())["checked"]
    return moment


@pytest.mark.parametrize("how", [{}, {"publish": False}, {"all_exports": True}, {"layout": Layout.FLAT}])
def test_each_successful_run_is_recorded(tmp_path: Path, how: dict[str, Any]) -> None:
    """A first run and an unchanged one record time and version; no file for viewers changes."""
    place = tmp_path / ".tilesync/checked.json" if "layout" in how else tmp_path / "checked.json"
    with Simulator() as sim:
        sim.offer_export()
        assert sim.mirror(tmp_path, **how).error is None
        document = make_old(place)
        assert document == {
            "checked": document["checked"],
            "owner": IMODEL,
            "version": EXPORT,
            "export": EXPORT,
            "imodel": IMODEL,
            "changeset": document["changeset"],
        }
        leading = [path for path in (tmp_path / "tileset.json", tmp_path / "latest.json") if path.exists()]
        before = [os.stat(path).st_ino for path in leading]
        assert sim.mirror(tmp_path, **how).error is None
    assert checked(place) > LONG_AGO
    assert [os.stat(path).st_ino for path in leading] == before


def test_run_with_a_pinned_pointer_is_recorded(tmp_path: Path) -> None:
    """A run with a pinned pointer records its success too, with the version that is stored."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        sim.offer_export(export(13), export_id=OTHER_EXPORT)
        sim.mirror(tmp_path)
        rollback(tmp_path)
        make_old(tmp_path / "checked.json")
        assert sim.mirror(tmp_path).error is None
    assert read_latest(tmp_path)["version"] == EXPORT
    assert json.loads((tmp_path / "checked.json").read_text())["version"] == OTHER_EXPORT
    assert checked(tmp_path / "checked.json") > LONG_AGO


@pytest.mark.parametrize("all_exports", [False, True])
def test_failed_run_is_not_recorded(tmp_path: Path, all_exports: bool) -> None:
    """Failed files, an unreachable service, a dry run and a rollback record nothing."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        make_old(tmp_path / "checked.json")
        sim.offer_export(export(13, seed=2), export_id=OTHER_EXPORT)
        assert sim.dry_run(tmp_path).error is None
        sim.add_fault(is_blob, error_response(404, "BlobNotFound"))
        assert sim.mirror(tmp_path, all_exports=all_exports).exit_code == 3
        sim.faults.clear()
        sim.add_fault(is_api, error_response(403, "Forbidden"))
        assert sim.mirror(tmp_path, all_exports=all_exports).exit_code == 5
        rollback(tmp_path, latest=True)
    assert checked(tmp_path / "checked.json") == LONG_AGO


def test_unwritable_file_is_a_warning(tmp_path: Path) -> None:
    """If the file cannot be written, the run succeeds with a warning."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        (tmp_path / "checked.json").unlink()
        (tmp_path / "checked.json/x").mkdir(parents=True)
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert [str(event.message).startswith("checked.json could not be written") for event in run.events_of(Warned)] == [
        True
    ]


def test_object_store_needs_one_request(azure_store: AzureFixture, sim: Simulator) -> None:
    """A store needs one PUT per run, with caching disabled."""
    sim.offer_export(export(3))
    assert azure_store.mirror(sim).exit_code == 0
    first = azure_store.read_json("checked.json")["checked"]
    azure_store.clear_requests()
    assert azure_store.mirror(sim).exit_code == 0
    assert azure_store.read_json("checked.json")["checked"] >= first
    put = [
        each.blob
        for each in azure_store.proxy.requests
        if each.method == "PUT" and not each.blob.startswith(".tilesync/")
    ]
    assert put == ["checked.json"]
    served = azure_store.client.get_blob_client("checked.json").get_blob_properties().content_settings
    assert (served.content_type, served.cache_control) == ("application/json", "no-cache")
