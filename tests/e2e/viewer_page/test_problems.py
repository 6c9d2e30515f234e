"""Test the viewer page when something is wrong: tiles, the server, its token, a tileset."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support import samples
from tests.support.builders import read_tree
from tests.support.city_editions import small_city
from tests.support.tile_server import mirror_files, server_process
from tests.support.viewer_page import drawn_share, most_frequent, open_viewer, share_of
from tests.support.viewers import Browser


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mirror the demo city once."""
    return mirror_files(tmp_path_factory.mktemp("city") / "city", small_city())


@pytest.fixture
def broken(city: Path, tmp_path: Path) -> Path:
    """Copy the city, take one tile away, cut another one off, and empty a third one."""
    dest = shutil.copytree(city, tmp_path / "broken", symlinks=True)
    version = next((dest / "versions").iterdir())
    (version / "district-02" / "coarse.glb").unlink()
    cut = version / "district-04" / "coarse.glb"
    data = cut.read_bytes()
    cut.unlink()  # it may be linked to the copy's original
    cut.write_bytes(data[: len(data) // 2])
    empty = version / "district-05" / "coarse.glb"
    empty.unlink()
    empty.touch()
    return dest


@pytest.fixture
def address(city: Path) -> Iterator[str]:
    """Serve the city."""
    with server_process(city) as server:
        yield server.url


def test_broken_tiles_are_shown_as_such(browser: Browser, broken: Path, city: Path) -> None:
    """Tiles that fail are listed with file and reason and drawn as red boxes; all others are drawn; a retry helps."""
    with server_process(broken) as server, open_viewer(browser, server.url) as viewer:
        state, listed, picture = viewer.state(), viewer.text("#problems"), viewer.picture()
        problems = {each["name"]: each for each in state["problems"] if each["name"]}
        version = next((broken / "versions").iterdir())
        for name in problems:
            shutil.copy(next((city / "versions").iterdir()) / name, version / name)
        viewer.page.run("(() => [...document.querySelectorAll('#problems button')].at(-1).click())")
        healed, after = viewer.state(), viewer.picture()
    assert set(problems) == {f"district-{number}/coarse.glb" for number in ("02", "04", "05")}
    assert problems["district-02/coarse.glb"]["status"] == 404
    assert "cannot be read" in problems["district-04/coarse.glb"]["message"]
    assert problems["district-05/coarse.glb"]["message"] == "The file is empty."
    assert all(name in listed for name in problems)
    assert state["errorBoxes"] == 3
    assert state["totals"]["visible"] > 1
    assert share_of(picture, is_red) > share_of(after, is_red) + 0.001
    assert (healed["problems"], healed["errorBoxes"]) == ([], 0)
    assert healed["totals"]["visible"] > state["totals"]["visible"]


@samples.requires_samples
def test_a_retry_reloads_textures(browser: Browser, tmp_path: Path) -> None:
    """Missing and broken textures are listed; a retry in vain lists them again, one after their repair draws them."""
    files = read_tree(samples.sample_folder("SharedImages"))
    dest = mirror_files(tmp_path / "planes", files)
    missing, cut = sorted(next((dest / "versions").iterdir()).rglob("*.png"))
    whole = {path: path.read_bytes() for path in (missing, cut)}
    missing.unlink()
    cut.unlink()  # it may be linked to another copy
    cut.write_bytes(whole[cut][:20])
    with server_process(dest) as server, open_viewer(browser, f"{server.url}#error=1", (900, 560)) as viewer:
        shown = [(viewer.state()["problems"], viewer.page.run(_COUNT_TEXTURED))]
        for repaired in (False, True):
            for path in whole if repaired else ():
                path.write_bytes(whole[path])
            viewer.page.run("(() => [...document.querySelectorAll('#problems button')].at(-1).click())")
            shown.append((viewer.state()["problems"], viewer.page.run(_COUNT_TEXTURED)))
    for problems, textured in shown[:2]:
        assert {each["name"] for each in problems} == {missing.name, cut.name}
        assert textured == 0
    assert shown[2] == ([], 100)


_COUNT_TEXTURED = """(() => {
  const { visibleTiles } = tilesyncViewer.app.view.tiles;
  return [...visibleTiles].filter((tile) => tile.engineData.materials.some((material) => material.map)).length;
})"""


def is_red(red: int, green: int, blue: int) -> bool:
    """Tell if a colour is that of a box of a broken tile."""
    return red > green + 60 and red > blue + 60


def test_the_page_waits_for_a_server_that_stopped(browser: Browser, city: Path) -> None:
    """Without the server the page says so and keeps its picture; when the server is back, the page goes on."""
    with server_process(city) as server:
        viewer_context = open_viewer(browser, server.url)
        viewer = viewer_context.__enter__()
        picture = viewer.picture()
    try:
        viewer.page.run("tilesyncViewer.poll")
        viewer.wait_until("document.querySelector('.notice.bad')")
        state, notice, kept = viewer.state(), viewer.text("#notices"), viewer.picture()
        viewer.press("+")
        viewer.press("+")
        viewer.idle()
        with server_process(city, port=server.port):
            viewer.page.run("tilesyncViewer.poll")
            viewer.wait_until("!document.querySelector('.notice.bad')")
            after = viewer.state()
            notices = viewer.text("#notices")
    finally:
        viewer_context.__exit__(None, None, None)
    assert state["outage"]["status"] == 0
    assert "The server does not answer" in notice
    assert drawn_share(kept, most_frequent(kept)) == pytest.approx(
        drawn_share(picture, most_frequent(picture)), abs=0.1
    )
    assert (after["outage"], after["problems"], notices) == (None, [], "")


def test_a_page_asks_for_the_token(browser: Browser, city: Path) -> None:
    """A token in the address goes into a cookie and out of the address; a page whose token is no longer right asks."""
    with server_process(city, "--token", "token-one") as server:
        viewer_context = open_viewer(browser, f"{server.url}?token=token-one")
        viewer = viewer_context.__enter__()
        place = viewer.page.run("(() => location.href)")
        shown = viewer.state()["totals"]["visible"]
        link = viewer.state()["link"]
    try:
        with server_process(city, "--token", "token-two", port=server.port):
            viewer.page.run("tilesyncViewer.poll")
            viewer.wait_until("document.querySelector('#token').open")
            asked = viewer.state()["outage"]
            viewer.page.run("(() => { window.isOld = true; document.getElementById('token-value').value = 'token-two';"
                            " document.querySelector('#token .primary').click(); })")  # fmt: skip
            viewer.wait_until("!window.isOld && window.tilesyncViewer?.state().totals.visible")
            again = viewer.state()
    finally:
        viewer_context.__exit__(None, None, None)
    assert "token" not in place
    assert shown > 0
    assert asked["status"] == 401
    assert again["outage"] is None
    assert again["link"] == link, "the view is kept"


def test_a_wrong_token_shows_nothing(browser: Browser, city: Path) -> None:
    """With a wrong token nothing of the tileset is told, and the page or the server says what is missing."""
    with (
        server_process(city, "--token", "right-token") as server,
        open_viewer(browser, f"{server.url}?token=wrong-token", waits=False) as viewer,
    ):
        viewer.wait_until("document.body.innerText.includes('token')")
        text = viewer.page.run("(() => document.body.innerText)")
        answered = viewer.requests()
    assert "token" in text
    assert not any(status == 200 and url.endswith("site.json") for url, status in answered)
