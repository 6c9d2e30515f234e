"""Real tilesets, mirrored: TILESYNC_SAMPLES names the folder that holds them, one folder a tileset."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import pytest
from builders import tree
from simulator import EXPORT, Simulator

from tilesync.rules.tilesets import parse_tileset, sites

FOLDER = os.environ.get("TILESYNC_SAMPLES")
SAMPLES = sorted(path.parent for path in Path(FOLDER).glob("*/tileset.json")) if FOLDER else []


@pytest.mark.skipif(FOLDER is None, reason="TILESYNC_SAMPLES is not set: it names a folder of real tilesets")
def test_there_are_samples() -> None:
    """A folder that is named holds tilesets."""
    assert len(SAMPLES) >= 10


@pytest.mark.parametrize("sample", SAMPLES, ids=lambda path: path.name)
def test_a_real_tileset_is_mirrored_and_its_pointer_leads_to_the_same_files(sample: Path, tmp_path: Path) -> None:
    """The version holds the container's bytes; each URI of the pointer resolves below it to what the root's does."""
    files = tree(sample)
    with Simulator() as service:
        service.hold(files)
        assert service.mirror(tmp_path).error is None
    assert tree(tmp_path / "versions" / EXPORT) == files
    pointer = resolved((tmp_path / "tileset.json").read_bytes(), "http://host/dest/tileset.json")
    assert pointer == resolved(files["tileset.json"], f"http://host/dest/versions/{EXPORT}/tileset.json")


def resolved(document: bytes, base: str) -> list[str]:
    """Every URI of a tileset, resolved (RFC 3986, section 5.2)."""
    tileset: dict[str, Any] = parse_tileset(document)
    return sorted(urljoin(base, node[key]) for node, key in sites(tileset))
