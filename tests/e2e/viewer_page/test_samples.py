"""Test the viewer page with real tilesets: one of each kind."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import samples
from tests.support.builders import read_tree
from tests.support.simulator import Simulator
from tests.support.tile_server import server_process
from tests.support.viewer_page import drawn_share, most_frequent, open_viewer
from tests.support.viewers import Browser
from tilesync.model import ROOT

pytestmark = samples.requires_samples

ENTRIES = {"ImplicitTileMetadata": "tileset_1.1.json", "CyclicExternalTilesets": "tilesetWithCycleA.json"}
DRAWN = {
    "BatchedWithContentDataUri": {"triangles"},
    "CompositeOfComposite": {"triangles"},
    "InstancedWithUri": {"triangles"},
    "MultipleContents": {"triangles", "points"},
    "PropertyAttributesPointCloud": {"points"},
    "SharedImages": {"triangles"},
    "SparseImplicitOctree": {"triangles"},
    "SparseImplicitQuadtree": {"triangles"},
    "TilesetGzipped": {"triangles"},
    "TilesetWithExternalResources": {"triangles"},
}
"""Samples whose every tile is drawn, and what their contents consist of."""
FAILING = {"FullQuadtree": 21, "ImplicitTileMetadata": 1, "CyclicExternalTilesets": 1}
"""Samples with tiles that no viewer can draw, and how many."""


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve all samples as one site."""
    places = [f"{name}={_mirror(name, tmp_path_factory.mktemp(name) / 'd')}" for name in (*DRAWN, *FAILING)]
    with server_process(*places) as server:
        yield server.url


def _mirror(name: str, dest: Path) -> Path:
    files = read_tree(samples.sample_folder(name))
    entry = files[ENTRIES.get(name, ROOT)]
    with Simulator() as service:
        service.offer_export({**files, ROOT: entry})
        assert service.mirror(dest, allow_missing=name == "ImplicitTileMetadata").error is None
    return dest


@pytest.mark.parametrize("name", DRAWN)
def test_a_sample_is_drawn(browser: Browser, address: str, name: str) -> None:
    """The whole tileset is loaded, each kind of its contents is seen, and nothing fails or comes from elsewhere."""
    with open_viewer(browser, f"{address}#tileset={name}&error=1", (900, 560)) as viewer:
        state, picture = viewer.state(), viewer.picture()
        failed = viewer.assert_own_server_only()
    assert state["tileset"] == name
    assert (state["problems"], state["notes"], failed) == ([], [], [])
    assert {kind for kind in ("triangles", "points") if state["draw"][kind]} == DRAWN[name]
    assert 0.005 < drawn_share(picture, most_frequent(picture)) < 1


@pytest.mark.parametrize("name", FAILING)
def test_tiles_that_cannot_be_drawn_are_reported(browser: Browser, address: str, name: str) -> None:
    """Missing, unreadable and endless content is listed, and the page comes to rest."""
    with open_viewer(browser, f"{address}#tileset={name}&error=1", (900, 560)) as viewer:
        state = viewer.state()
        shown = viewer.text("#problems")
    assert len(state["problems"]) == FAILING[name]
    assert all(each["name"] in shown for each in state["problems"])


def test_shared_images_are_fetched_once(browser: Browser, address: str) -> None:
    """A hundred tiles with the same two images are all drawn, and each image is requested and kept once."""
    with open_viewer(browser, f"{address}#tileset=SharedImages&error=1", (900, 560)) as viewer:
        state = viewer.state()
        asked = [url for url, _ in viewer.requests() if url.endswith(".png")]
        sources = viewer.page.run("(() => tilesyncViewer.app.stage.renderer.info.memory.textures)")
    assert state["totals"]["visible"] == 100
    assert len(asked) == len(set(asked)) == 2
    assert 2 <= sources <= 3, "one for each image, and one that three.js has for its materials"


def test_another_tileset_is_chosen(browser: Browser, address: str) -> None:
    """The list of tilesets has them all, also those of one title; the camera is fitted to the one that is chosen."""
    with open_viewer(browser, f"{address}#tileset=MultipleContents", (900, 560)) as viewer:
        names = viewer.page.run("(() => [...document.querySelectorAll('#tileset option')].map((e) => e.value))")
        listed = viewer.page.run("(() => [...document.querySelectorAll('#tileset option')].map((e) => e.label))")
        viewer.page.run("(() => { const e = document.querySelector('#tileset'); e.value = 'SparseImplicitOctree';"
                        " e.dispatchEvent(new Event('change')); })")  # fmt: skip
        state, picture = viewer.state(), viewer.picture()
        heading = viewer.page.run("(() => document.title)")
    assert listed == [f"Demo city ({name})" for name in names]
    assert heading == "Demo city (SparseImplicitOctree) · tilesync"
    assert names == [*DRAWN, *FAILING]
    assert (state["tileset"], state["problems"]) == ("SparseImplicitOctree", [])
    assert 0.005 < drawn_share(picture, most_frequent(picture)) < 1
