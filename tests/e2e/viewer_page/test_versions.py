"""Test the viewer page with several versions: choice, border, changes, and versions that are published meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.city_editions import (
    ADDED_DISTRICT,
    MOVED_TO,
    REMOVED_DISTRICT,
    edited_city,
    mirror_editions,
    small_city,
    without_district,
)
from tests.support.simulator import Simulator
from tests.support.tile_server import server_process
from tests.support.viewer_page import PHONE_PX, ViewerPage, open_viewer, share_of
from tests.support.viewers import Browser, Pixels, mean_difference
from tilesync.model import Layout


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Serve two editions of the city, with the districts that differ."""
    dest = tmp_path_factory.mktemp("editions") / "city"
    mirror_editions(dest, edited_city)
    with server_process(dest) as server:
        yield server.url


def choose(viewer: ViewerPage, selector: str, value: str) -> None:
    """Choose an entry of a list."""
    viewer.page.run(
        f"(() => {{ const e = document.querySelector({selector!r}); e.value = {value!r};"
        " e.dispatchEvent(new Event('change')); })"
    )


def test_another_version_is_shown_from_the_same_place(browser: Browser, address: str) -> None:
    """The newest version is shown first; another one that is chosen is seen by the same camera."""
    with open_viewer(browser, address) as viewer:
        viewer.press("ArrowLeft")
        newer, picture = viewer.state(), viewer.picture()
        choose(viewer, "#version", "older")
        older = viewer.state()
        assert (newer["version"], older["version"]) == ("newer", "older")
        assert older["position"] == pytest.approx(newer["position"])
        assert any(name.startswith(REMOVED_DISTRICT) for name in older["names"])
        assert mean_difference(viewer.picture(), picture) > 0.1


def test_a_border_divides_two_versions(browser: Browser, address: str) -> None:
    """Side by side, each version is drawn on its side of the border, which the mouse and keys move."""
    with open_viewer(browser, address) as viewer:
        newer = viewer.picture()
        choose(viewer, "#version", "older")
        older = viewer.picture()
        choose(viewer, "#version", "newer")
        viewer.press("2")
        assert viewer.state()["compare"] == "older"
        assert mean_difference(move_border(viewer, 1.0), older) < 0.05
        viewer.page.run("(() => { document.getElementById('swipe').style.visibility = 'hidden'; })")
        both = move_border(viewer, 0.5)
        viewer.page.run("(() => { document.getElementById('swipe').style.visibility = ''; })")
        apart = [mean_difference(both, newer), mean_difference(both, older)]
        assert min(apart) > 0.05
        assert sum(apart) == pytest.approx(mean_difference(newer, older), abs=0.01), "each pixel is of one of them"
        border = viewer.page.run("(() => document.getElementById('swipe').getBoundingClientRect().toJSON())")
        y = border["y"] + border["height"] / 2
        viewer.drag((border["x"] + border["width"] / 2, y), (300, y))
        assert viewer.state()["swipe"] == pytest.approx(300 / viewer.canvas_box()[2], abs=0.01)
        before = viewer.state()["swipe"]
        viewer.press("ArrowRight")
        assert viewer.state()["swipe"] == pytest.approx(before + 0.02)
        viewer.press("[")
        link = viewer.state()["link"]
    with open_viewer(browser, f"{address}{link}") as viewer:
        again = viewer.state()
        assert (again["mode"], again["compare"], again["link"]) == ("swipe", "older", link)


def move_border(viewer: ViewerPage, share: float) -> Pixels:
    """Move the border and return the picture."""
    viewer.page.run(f"(() => tilesyncViewer.app.setOptions({{ swipe: {share} }}))")
    return viewer.picture()


def test_a_finger_moves_the_border(browser: Browser, address: str) -> None:
    """On a phone, the border follows a finger, and the camera stays."""
    with open_viewer(browser, f"{address}#mode=swipe", PHONE_PX) as viewer:
        before = viewer.state()
        _, top, right, bottom = viewer.canvas_box()
        y = (top + bottom) / 2
        viewer.touch([(right / 2, y)], [(150, y)], [(100, y)])
        after = viewer.state()
    assert after["swipe"] == pytest.approx(100 / right, abs=0.02)
    assert after["position"] == pytest.approx(before["position"])


def test_changes_are_coloured(browser: Browser, address: str) -> None:
    """Tiles have the colour of their change, those that are gone are boxes, and the legend counts files."""
    with open_viewer(browser, address) as viewer:
        viewer.press("3")
        state = viewer.state()
        picture = viewer.picture()
        legend = viewer.text("#legend")
    counts = state["counts"]
    assert all(counts[kind] > 0 for kind in ("added", "changed", "moved", "removed", "same")), counts
    for kind in ("added", "changed", "moved", "removed"):
        assert str(counts[kind]) in legend
    assert state["removedBoxes"] > 3
    assert any(name.startswith(MOVED_TO) for name in state["names"])
    assert any(name.startswith(ADDED_DISTRICT) for name in state["names"])
    assert share_of(picture, is_green) > 0.001
    assert share_of(picture, is_blue) > 0.001
    assert share_of(picture, is_amber) > 0.001
    assert share_of(picture, is_red) > 0.001


def is_green(red: int, green: int, blue: int) -> bool:
    """Tell if a colour is that of an added tile, lit or in shadow."""
    return green > red + 50 and green > blue + 15 and red < 60


def is_blue(red: int, green: int, blue: int) -> bool:
    """Tell if a colour is that of a moved tile."""
    return blue > green + 45 and blue > red + 60


def is_amber(red: int, green: int, blue: int) -> bool:
    """Tell if a colour is that of a changed tile."""
    return red > green + 20 and green > blue + 50


def is_red(red: int, green: int, blue: int) -> bool:
    """Tell if a colour is that of a box of a removed tile."""
    return red > green + 50 and blue > green + 5


def test_a_removed_tile_is_named(browser: Browser, address: str) -> None:
    """A click on a box names the file that is gone."""
    with open_viewer(browser, f"{address}#mode=changes") as viewer:
        viewer.idle()
        name = viewer.page.run("(() => tilesyncViewer.app.view.removedBoxes.boxes[0].name)")
        viewer.click(*viewer.page.run(_PLACE_OF_FIRST_BOX))
        assert viewer.text("#tile .tile-name").startswith(REMOVED_DISTRICT)
        assert name.startswith(REMOVED_DISTRICT)


_PLACE_OF_FIRST_BOX = """(() => {
  const { stage, removedBoxes } = tilesyncViewer.app.view;
  const point = stage.camera.position.clone().setFromMatrixPosition(removedBoxes.boxes[0].matrix).project(stage.camera);
  const area = stage.canvas.getBoundingClientRect();
  return [area.left + (point.x + 1) / 2 * area.width, area.top + (1 - point.y) / 2 * area.height];
})"""


def mirror_edition(service: Simulator, dest: Path, edition: int, layout: Layout = Layout.VERSIONED) -> None:
    """Mirror an edition of the small city as the version `edition-1`, or as `edition-2`, without a district."""
    files = small_city(edition=edition)
    files = files if edition == 1 else without_district(files, "district-04")
    service.offer_export(files, export_id=f"edition-{edition}", lastModified=f"2026-03-0{edition}T08:30:00Z")
    assert service.mirror(dest, layout=layout).error is None


def test_a_new_version_is_announced(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    """While a version is mirrored and published, the page goes on; then it offers the new one."""
    mirror_edition(sim, tmp_path, 1)
    with server_process(tmp_path) as server, open_viewer(browser, server.url) as viewer:
        first = viewer.state()
        mirror_edition(sim, tmp_path, 2)
        viewer.poll_until("tilesyncViewer.state().news")  # the server reads its list anew once a second
        announced = viewer.state()
        assert "A new version was published" in viewer.text("#notices")
        viewer.page.run("(() => document.querySelector('#notices button').click())")
        shown = viewer.state()
        failed = viewer.assert_own_server_only()
    assert (first["version"], announced["version"], announced["news"]) == ("edition-1", "edition-1", "edition-2")
    assert (shown["version"], shown["news"]) == ("edition-2", None)
    assert shown["position"] == pytest.approx(first["position"])
    assert shown["problems"] == []
    assert failed == []


def test_a_new_version_is_followed(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    """With `follow`, the page takes a new version up by itself, keeps the camera, and is never empty meanwhile."""
    mirror_edition(sim, tmp_path, 1)
    with server_process(tmp_path) as server, open_viewer(browser, f"{server.url}#follow=1") as viewer:
        viewer.press("ArrowRight")
        first = viewer.state()
        viewer.page.run("(() => { window.fewest = Infinity; requestAnimationFrame(function count() {"
                        " window.fewest = Math.min(window.fewest, tilesyncViewer.app.view.tiles.visibleTiles.size);"
                        " requestAnimationFrame(count); }); })")  # fmt: skip
        mirror_edition(sim, tmp_path, 2)
        viewer.poll_until("tilesyncViewer.state().version === 'edition-2'")
        followed = viewer.state()
        fewest = viewer.page.run("(() => window.fewest)")
        failed = viewer.assert_own_server_only()
    assert first["version"] == "edition-1"
    assert followed["position"] == pytest.approx(first["position"])
    assert followed["totals"]["visible"] > 2
    assert fewest > 2
    assert failed == []


def test_a_new_export_in_the_flat_layout_is_shown(browser: Browser, sim: Simulator, tmp_path: Path) -> None:
    """Where an export replaces the last one at the same address, the page shows it and keeps the camera."""
    mirror_edition(sim, tmp_path, 1, Layout.FLAT)
    with server_process(tmp_path) as server, open_viewer(browser, server.url) as viewer:
        viewer.press("ArrowLeft")
        first, picture = viewer.state(), viewer.picture()
        mirror_edition(sim, tmp_path, 2, Layout.FLAT)
        viewer.poll_until("tilesyncViewer.state().version === 'edition-2'")
        second = viewer.state()
        changed = mean_difference(viewer.picture(), picture)
    assert first["version"] == "edition-1"
    assert second["position"] == pytest.approx(first["position"])
    assert changed > 0.1
