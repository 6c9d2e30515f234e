"""Pictures of the viewer page for the documentation."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from tests.support.city_editions import mirror_editions
from tests.support.demo_picture import PICTURE, shrink_picture
from tests.support.tile_server import server_process
from tests.support.viewer_page import PHONE_PX, ViewerPage, open_viewer
from tests.support.viewers import Browser

PAGE_PX = (1040, 620)


@dataclass(frozen=True)
class PagePicture:
    """Picture of the page: what its link has, and what is done before it is taken."""

    name: str
    link: str = "#error=4"
    size_px: tuple[int, int] = PAGE_PX
    dark: bool = False
    prepare: Callable[[ViewerPage], object] = lambda viewer: None


def go_closer(viewer: ViewerPage) -> None:
    """Let the city fill the picture."""
    viewer.page.run("(() => { const { stage } = tilesyncViewer.app; stage.zoom(0.52); stage.turn(-0.35, 0.08); })")


def select_tile(viewer: ViewerPage) -> None:
    """Go closer, and click a tower."""
    go_closer(viewer)
    viewer.idle()
    left, top, right, bottom = viewer.canvas_box()
    viewer.click(left + 0.472 * (right - left), top + 0.25 * (bottom - top))


PICTURES = (
    PagePicture("viewer-tile", prepare=select_tile),
    PagePicture("viewer-dark", dark=True, prepare=go_closer),
    PagePicture("viewer-side-by-side", "#error=4&mode=swipe&swipe=0.52", prepare=go_closer),
    PagePicture("viewer-changes", "#error=4&mode=changes", prepare=go_closer),
    PagePicture("viewer-problems", prepare=go_closer),
    PagePicture("viewer-phone", "#error=8&mode=changes", PHONE_PX, prepare=go_closer),
)
BROKEN = "viewer-problems"


def take_viewer_pictures(browser: Browser, folder: Path) -> list[Path]:
    """Serve two editions of the demo city, and write each picture; return the files."""
    mirror_editions(folder / "city")
    shutil.copytree(folder / "city", folder / "broken", symlinks=True)
    version = folder / "broken" / "versions" / "newer"
    for name in ("district-02/block-1.glb", "district-06/coarse.glb", "district-09/block-4.glb"):
        (version / name).unlink()
    written = []
    for picture in PICTURES:
        with server_process(folder / ("broken" if picture.name == BROKEN else "city")) as server:
            path = PICTURE.with_name(f"{picture.name}.png")
            path.write_bytes(take_page_picture(browser, f"{server.url}{picture.link}", picture))
            written.append(path)
    return written


def take_page_picture(browser: Browser, url: str, picture: PagePicture) -> bytes:
    """Return a picture as a small PNG."""
    with open_viewer(browser, url, picture.size_px, dark=picture.dark) as viewer:
        picture.prepare(viewer)
        shot = viewer.screenshot()
    return shrink_picture(shot)
