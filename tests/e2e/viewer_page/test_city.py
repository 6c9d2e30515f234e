"""Test the viewer page with the demo city: camera, keys, touch, themes, tiles, links."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.support.city_editions import PROJECT_ORIGIN, city_in_project, small_city
from tests.support.tile_server import mirror_files, server_process
from tests.support.viewer_page import PHONE_PX, drawn_share, most_frequent, open_viewer
from tests.support.viewers import Browser, mean_difference

LIGHT_SKY = (230, 235, 241)
DARK_SKY = (27, 34, 42)


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mirror the small city once."""
    return mirror_files(tmp_path_factory.mktemp("city") / "city", small_city())


@pytest.fixture(scope="module")
def address(city: Path) -> Iterator[str]:
    """Serve the small city."""
    with server_process(city) as server:
        yield server.url


def test_the_city_is_on_screen(browser: Browser, address: str) -> None:
    """The page draws the city upright without any input, and the own server answers each request with success."""
    with open_viewer(browser, address) as viewer:
        state = viewer.state()
        picture = viewer.picture()
        failed = viewer.assert_own_server_only()
    assert failed == []
    assert state["totals"]["visible"] > 3
    assert state["problems"] == []
    assert most_frequent(picture) == LIGHT_SKY
    assert 0.2 < drawn_share(picture, LIGHT_SKY) < 0.95
    up, target = state["place"]["up"], state["target"]
    assert sum(map(operator.mul, up, target)) / math.hypot(*target) == pytest.approx(1, abs=0.001), (
        "up is away from the earth"
    )


def test_the_system_decides_on_light_or_dark(browser: Browser, address: str) -> None:
    """The page follows the system, and the switch overrides it until it is pressed again."""
    with open_viewer(browser, address, dark=True) as viewer:
        assert most_frequent(viewer.picture()) == DARK_SKY
        viewer.click_element("#theme")
        assert most_frequent(viewer.picture()) == LIGHT_SKY
        viewer.click_element("#theme")
        assert viewer.state()["theme"] == "dark"
        viewer.set_media(prefers_color_scheme="light")
        assert most_frequent(viewer.picture()) == LIGHT_SKY


def test_keys_move_the_camera(browser: Browser, address: str) -> None:
    """Each of these keys changes the view; F shows all of the city again."""
    with open_viewer(browser, address) as viewer:
        before = viewer.state()
        for key in ("ArrowLeft", "ArrowUp", "w", "d", "q", "+", "-"):
            viewer.press(key)
            assert viewer.state()["position"] != pytest.approx(before["position"], abs=0.01), key
            viewer.press("f")
            after = viewer.state()
            assert after["position"] == pytest.approx(before["position"], abs=0.01), key
            assert after["link"] == before["link"], key


def test_keys_switch_options(browser: Browser, address: str) -> None:
    """B shows bounding boxes, X the wireframe, P hides the panel, and ? lists the keys."""
    with open_viewer(browser, address) as viewer:
        plain = viewer.picture()
        viewer.press("b")
        assert viewer.state()["draw"]["lines"] > 0
        assert mean_difference(viewer.picture(), plain) > 0.1
        viewer.press("b")
        viewer.press("x")
        state = viewer.state()
        assert (state["boxes"], state["wireframe"]) == (False, True)
        assert mean_difference(viewer.picture(), plain) > 0.1
        width = viewer.canvas_box()[2]
        viewer.press("p")
        viewer.idle()
        assert viewer.canvas_box()[2] > width
        viewer.press("?")
        assert "Keys and gestures" in viewer.text("dialog[open]")


def test_the_mouse_turns_moves_and_zooms(browser: Browser, address: str) -> None:
    """A drag turns around what is under the pointer, one with the right button moves, and the wheel goes closer."""
    with open_viewer(browser, address) as viewer:
        left, top, right, bottom = viewer.canvas_box()
        middle = ((left + right) / 2, (top + bottom) / 2)
        start = viewer.state()
        viewer.drag(middle, (middle[0] + 80, middle[1]))
        turned = viewer.state()
        assert distance(turned) == pytest.approx(distance(start), rel=0.2)
        assert turned["position"] != start["position"]
        viewer.drag(middle, (middle[0] + 80, middle[1]), button="right")
        moved = viewer.state()
        assert moved["target"] != turned["target"]
        viewer.page.call("Input.dispatchMouseEvent", type="mouseWheel", x=middle[0], y=middle[1], deltaX=0, deltaY=-400)
        viewer.wait_until(f"tilesyncViewer.state().position[0] !== {moved['position'][0]}")
        assert distance(viewer.state()) < distance(moved)


def test_a_phone_shows_the_city_to_fingers(browser: Browser, address: str) -> None:
    """At 390 pixels nothing is cut off; one finger turns, two fingers go closer, and the panel opens on demand."""
    with open_viewer(browser, address, PHONE_PX) as viewer:
        assert viewer.page.run("(() => document.documentElement.scrollWidth)") <= PHONE_PX[0]
        left, top, right, bottom = viewer.canvas_box()
        assert (left, right, bottom) == (0, *PHONE_PX)
        assert drawn_share(viewer.picture(), LIGHT_SKY) > 0.05
        x, y = (left + right) / 2, (top + bottom) / 2
        start = viewer.state()
        viewer.touch([(x, y)], [(x + 40, y)], [(x + 80, y)])
        turned = viewer.state()
        assert turned["position"] != start["position"]
        viewer.touch([(x - 30, y), (x + 30, y)], [(x - 60, y), (x + 60, y)], [(x - 120, y), (x + 120, y)])
        assert distance(viewer.state()) < 0.8 * distance(turned)
        viewer.click_element("#panel-toggle")
        assert "Tiles visible" in viewer.text("#panel")


def test_a_click_names_the_tile(browser: Browser, address: str, city: Path) -> None:
    """The panel shows file, size and SHA-256 of the tile under the pointer, as the manifest has them."""
    with open_viewer(browser, address) as viewer:
        left, top, right, bottom = viewer.canvas_box()
        plain = viewer.picture()
        viewer.click((left + right) / 2, (top + bottom) / 2)
        selected = viewer.state()["selected"]
        shown = viewer.text("#tile")
        assert mean_difference(viewer.picture(), plain) > 0.1, "the tile is marked"
        viewer.press("Escape")
        assert mean_difference(viewer.picture(), plain) < 0.01
    version = next((city / "versions").iterdir())
    data = (version / selected["name"]).read_bytes()
    digest = hashlib.sha256(data).hexdigest()
    assert (selected["facts"]["size"], selected["facts"]["sha256"]) == (len(data), digest)
    for expected in (selected["name"], f"{len(data):,} B", digest, "Triangles", "Geometric error"):
        assert expected in shown
    manifest = next((city / "manifests").iterdir()).read_text()
    assert digest in manifest


def test_a_link_reproduces_the_view(browser: Browser, address: str) -> None:
    """The address of the page, opened anew, gives the same picture."""
    with open_viewer(browser, address) as viewer:
        for key in ("ArrowLeft", "b"):
            viewer.press(key)
        viewer.page.run(
            "(() => { const e = document.getElementById('error'); e.value = 8; e.dispatchEvent(new Event('input')); })"
        )
        link = viewer.state()["link"]
        viewer.wait_until(f"location.hash === {link!r}")
        picture = viewer.picture()
    with open_viewer(browser, f"{address}{link}") as viewer:
        assert viewer.state()["link"] == link
        assert mean_difference(viewer.picture(), picture) < 0.05


def test_a_link_is_opened_in_the_open_page(browser: Browser, address: str) -> None:
    """A link that is pasted into the address bar changes the view without a reload."""
    with open_viewer(browser, address) as viewer:
        viewer.page.run("(() => { window.isSamePage = true; location.hash = '#error=30&boxes=1'; })")
        viewer.wait_until("tilesyncViewer.state().boxes")
        assert viewer.state()["error"] == 30
        assert viewer.page.run("(() => window.isSamePage)")


def test_a_link_to_nothing_says_so(browser: Browser, address: str) -> None:
    """A link to a tileset and a version that are not there shows the current one, and says so."""
    with open_viewer(browser, f"{address}#tileset=bridge&version={quote('of yesterday')}") as viewer:
        viewer.wait_until("document.querySelectorAll('.notice').length >= 2")
        assert viewer.state()["totals"]["visible"] > 0
        assert "There is no tileset “bridge” here." in viewer.text("#notices")
        assert "of yesterday is no longer here" in viewer.text("#notices")


def test_coordinates_of_a_project_are_shown(browser: Browser, tmp_path: Path) -> None:
    """A city at large projected coordinates is upright, in the middle, and as sharp as on the globe."""
    dest = mirror_files(tmp_path / "project", city_in_project())
    with server_process(dest) as server, open_viewer(browser, server.url) as viewer:
        state = viewer.state()
        picture = viewer.picture()
    assert state["place"]["up"] == [0, 0, 1]
    assert state["target"] == pytest.approx(PROJECT_ORIGIN, abs=3000)
    assert 0.2 < drawn_share(picture, LIGHT_SKY) < 0.95


def test_the_tiles_are_listed(browser: Browser, address: str) -> None:
    """The list of loaded tiles names each of them; one that is chosen there is shown like one that is clicked."""
    with open_viewer(browser, address) as viewer:
        loaded = viewer.state()["totals"]["loaded"]
        viewer.page.run("(() => { document.getElementById('section-tiles').open = true; })")
        viewer.wait_until("document.querySelectorAll('#tiles button').length > 0")
        names = viewer.page.run(
            "(() => [...document.querySelectorAll('#tiles button')].map((e) => e.firstChild.textContent))"
        )
        assert len(names) <= loaded
        assert "terrain.glb" in names
        viewer.page.run("(() => [...document.querySelectorAll('#tiles button')].at(-1).click())")
        assert viewer.state()["selected"]["name"] == names[-1]


def distance(state: dict[str, list[float]]) -> float:
    """Return the distance between camera and pivot."""
    return math.dist(state["position"], state["target"])


def test_the_page_says_who_made_its_parts(address: str) -> None:
    """The notices of the programs that the page contains are served with it."""
    text = httpx.get(f"{address}_tilesync/THIRD_PARTY_NOTICES.txt", trust_env=False).text
    assert all(name in text for name in ("three ", "3d-tiles-renderer ", "Draco", "Basis Universal", "meshoptimizer"))
