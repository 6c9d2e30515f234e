"""Test mirrors in viewers: CesiumJS and 3d-tiles-renderer in a headless Chromium."""

from __future__ import annotations

import io
import shutil
from collections.abc import Callable
from functools import cache
from pathlib import Path

import pytest
from PIL import Image

from tests.support import samples
from tests.support.builders import read_tree
from tests.support.simulator import Simulator
from tests.support.viewer_walk import closure as closure_of
from tests.support.viewers import BACKGROUND_RGB, CAMERA_PATH, Browser, ViewerResult, view_mirror
from tilesync.demo.city import build_city

VIEWERS = ("cesium", "three")
"""Pages of `tests/viewers/`."""
TILESETS = ("city", "SharedImages", "TilesetWithExternalResources", "SparseImplicitOctree", "SparseImplicitQuadtree")
SHORTENED = {("three", "SharedImages"): (CAMERA_PATH[:1], 0.2)}
"""Views, and the share of the closure to be asked for: it decodes the images for each tile, till its cache is full."""


@pytest.fixture(scope="module")
def mirror_of(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Path]:
    """Mirror the sample of that name, or the demo city, once."""

    @cache
    def mirrored(name: str) -> Path:
        files = build_city() if name == "city" else read_tree(samples.sample_folder(name))
        folder = tmp_path_factory.mktemp(name)
        with Simulator() as service:
            service.offer_export(files)
            assert service.mirror(folder).error is None
        return folder

    return mirrored


def save_screenshots(flight: ViewerResult, folder: Path) -> None:
    """Save the pictures in the folder that pytest keeps."""
    for name, png in flight.screenshots.items():
        (folder / f"{name}.png").write_bytes(png)


@pytest.mark.parametrize(
    ("viewer", "name"),
    [
        *((viewer, name) for name in TILESETS for viewer in VIEWERS),
        ("cesium", "MultipleContents"),  # 3d-tiles-renderer 0.5 knows no `contents`
    ],
)
def test_every_request_of_a_viewer_succeeds(
    browser: Browser, mirror_of: Callable[[str], Path], tmp_path: Path, viewer: str, name: str
) -> None:
    """A flight requests only names of the closure, and most of them; each response is 200, and something is drawn."""
    mirror = mirror_of(name)
    closure = closure_of(mirror)
    views, least = SHORTENED.get((viewer, name), (CAMERA_PATH, 0.9))
    flight = view_mirror(browser, viewer, mirror, views)
    save_screenshots(flight, tmp_path)
    assert flight.problems(closure) == []
    assert len(flight.requested_names) >= least * len(closure)
    assert flight.loaded > 0
    assert any(0.01 < share < 0.99 for share in flight.drawn_shares())


@pytest.mark.parametrize("viewer", VIEWERS)
def test_a_missing_tile_is_reported(
    browser: Browser, mirror_of: Callable[[str], Path], tmp_path: Path, viewer: str
) -> None:
    """A tile that was deleted from the mirror gives 404, and the viewer reports it."""
    mirror = shutil.copytree(mirror_of("city"), tmp_path / "mirror", symlinks=True)
    closure = closure_of(mirror)
    victim = next(name for name in sorted(closure) if name.endswith("/terrain.glb"))
    (mirror / victim).unlink()
    flight = view_mirror(browser, viewer, mirror, CAMERA_PATH[:1])
    save_screenshots(flight, tmp_path)
    faults = flight.problems(closure)
    assert f"answered 404: {victim}" in faults
    assert any(fault.startswith(("tileFailed", "load-error")) and victim in fault for fault in faults)
    assert {status for name, status in flight.requests if name != victim} == {200}


def test_a_request_outside_the_tileset_is_reported() -> None:
    """A request outside the tileset is reported by its name."""
    flight = ViewerResult(requests=[("tileset.json", 200), ("/elsewhere.glb", 200)])
    assert flight.problems({"tileset.json", "a.glb"}) == ["not in the closure: /elsewhere.glb"]


def test_the_drawn_fraction_counts_pixels_unlike_the_background() -> None:
    """The drawn fraction counts pixels that differ from the background."""
    image = Image.new("RGB", (3, 5), BACKGROUND_RGB)
    blank = encode_png(image)
    image.paste((1, 200, 30), (1, 1, 3, 4))
    flight = ViewerResult(screenshots={"some": encode_png(image), "none": blank})
    assert list(flight.drawn_shares()) == [6 / 15, 0.0]


def encode_png(image: Image.Image) -> bytes:
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
