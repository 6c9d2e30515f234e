"""Pointer and latest.json: what they contain, and how a run restores them."""

from __future__ import annotations

import json
import os
from pathlib import Path

import pytest

from tests.support.builders import IMODEL
from tests.support.simulator import EXPORT, Simulator, read_latest, read_version


def test_latest_json_and_current_point_to_the_version(tmp_path: Path) -> None:
    """latest.json has the documented fields, and `current` is a relative symlink to the version."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
    latest = read_latest(tmp_path)
    assert latest.keys() == {"version", "export", "imodel", "owner", "changeset", "finished", "tileset", "manifest"}
    assert (latest["version"], latest["export"], latest["imodel"]) == (EXPORT, EXPORT, IMODEL)
    assert (tmp_path / latest["tileset"]).is_file()
    assert (tmp_path / latest["manifest"]).is_file()
    assert os.readlink(tmp_path / "current") == f"versions/{EXPORT}"


def test_the_pointer_is_the_root_with_its_uris_rebased(tmp_path: Path) -> None:
    """The pointer is the root document; its relative URIs lead to existing files in the folder of the version."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
    pointer, root = (
        json.loads((tmp_path / "tileset.json").read_bytes()),
        json.loads(read_version(tmp_path)["tileset.json"]),
    )
    assert pointer["schemaUri"] == f"versions/{EXPORT}/data/schema.json"
    uris = [child["content"]["uri"] for child in pointer["root"]["children"]]
    assert uris == [f"versions/{EXPORT}/{child['content']['uri']}" for child in root["root"]["children"]]
    assert (tmp_path / uris[0]).is_file()
    for child in pointer["root"]["children"]:
        child["content"]["uri"] = child["content"]["uri"].removeprefix(f"versions/{EXPORT}/")
    pointer["schemaUri"] = "data/schema.json"
    assert pointer == root


@pytest.mark.parametrize("lost", ["tileset.json", "current"])
def test_a_lost_pointer_is_restored(tmp_path: Path, lost: str) -> None:
    """The pointer files are restored by an unchanged run, without requests to the storage."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        pointer = (tmp_path / "tileset.json").read_bytes()
        (tmp_path / lost).unlink()
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.requests) == 1
    assert (tmp_path / "tileset.json").read_bytes() == pointer
    assert (tmp_path / "current/tileset.json").is_file()


def test_a_lost_latest_json_is_restored(tmp_path: Path) -> None:
    """Without latest.json the catalog still knows this destination, and an unchanged run restores the file."""
    with Simulator() as sim:
        sim.offer_export()
        sim.mirror(tmp_path)
        (tmp_path / "latest.json").unlink()
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert read_latest(tmp_path)["version"] == EXPORT
