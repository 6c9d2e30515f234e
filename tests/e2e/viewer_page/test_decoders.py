"""Test the decoders of the viewer page: compressed meshes and textures, under the policy that the server sends.

The GLBs are a sheet of 50 triangles with a checked texture, written with glTF-Transform and ktx2-encoder.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.tile_server import mirror_files, server_process
from tests.support.viewer_page import open_viewer, share_of
from tests.support.viewers import Browser

GLBS = Path(__file__).parent / "glbs"
DECODER_FILES = {
    "draco": {"draco_wasm_wrapper.js", "draco_decoder.wasm"},
    "ktx2": {"basis_transcoder.wasm"},  # and the script of its worker, which is no request of the page
    "meshopt": set[str](),
}
"""Files beside the page that each format needs; that of meshopt is in the page itself."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve a tileset of one tile for each format."""
    folder = tmp_path_factory.mktemp("formats")
    for name in DECODER_FILES:
        box = [25, 25, 0, 30, 0, 0, 0, 30, 0, 0, 0, 6]
        root = {"boundingVolume": {"box": box}, "geometricError": 0, "content": {"uri": f"{name}.glb"}}
        tileset = {"asset": {"version": "1.1"}, "geometricError": 100, "root": root}
        glb = (GLBS / f"{name}.glb").read_bytes()
        mirror_files(folder / name, {"tileset.json": json.dumps(tileset).encode(), f"{name}.glb": glb})
    with server_process(*(f"{name}={folder / name}" for name in DECODER_FILES)) as server:
        yield server.url


@pytest.mark.parametrize("name", DECODER_FILES)
def test_compressed_tiles_are_drawn(browser: Browser, address: str, name: str) -> None:
    """A compressed tile is drawn with both colours of its texture, and only the files that it needs are loaded."""
    with open_viewer(browser, f"{address}#tileset={name}", (900, 560)) as viewer:
        state, picture = viewer.state(), viewer.picture()
        asked = {url.rpartition("/")[2] for url, _ in viewer.requests()}
    assert state["problems"] == []
    assert state["draw"]["triangles"] == 50
    assert share_of(picture, lambda red, green, blue: red > 90 and red > 2 * blue) > 0.02
    assert share_of(picture, lambda red, green, blue: blue > 90 and blue > 2 * red) > 0.02
    every = set[str]().union(*DECODER_FILES.values())
    assert asked & every == DECODER_FILES[name]
