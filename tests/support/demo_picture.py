"""Picture of the demo city as 3d-tiles-renderer draws it, for the README and the documentation."""

from __future__ import annotations

import io
from pathlib import Path

from PIL import Image

from tests.support.simulator import Simulator
from tests.support.viewers import Browser, CameraPose, StaticSite, view_url
from tilesync.demo.city import build_city

PICTURE = Path(__file__).resolve().parents[2] / "docs" / "images" / "demo-city.png"
SIZE_PX = (1200, 520)
POSE = CameraPose("city", heading=300, pitch=-27, distance=0.66, error=4)
SKY_RGB = (214, 228, 240)
COLOUR_COUNT = 160


def take_picture(browser: Browser, folder: Path) -> bytes:
    """Mirror the demo city into a folder, and return its picture as a PNG. Raises AssertionError."""
    with Simulator() as service:
        service.offer_export(build_city())
        assert service.mirror(folder).error is None
    with StaticSite({"/": folder}) as site:
        url = f"{site.url}/tileset.json"
        result = view_url(browser, "three", url, [POSE], size_px=SIZE_PX, background_rgb=SKY_RGB)
    assert result.errors == []
    return result.screenshots[POSE.name]


def shrink_picture(png: bytes) -> bytes:
    """Return a picture as a PNG with a palette, so that it is small."""
    file = io.BytesIO()
    with Image.open(io.BytesIO(png)) as image:
        image.convert("RGB").quantize(COLOUR_COUNT, dither=Image.Dither.NONE).save(file, "png", optimize=True)
    return file.getvalue()
