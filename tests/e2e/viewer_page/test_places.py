"""Test the viewer page with each place that a tileset can be served from: a folder, a package, a bucket."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest

import tilesync as ts
from tests.support.city_editions import small_city
from tests.support.s3 import BucketFixture, BucketServer
from tests.support.simulator import Simulator
from tests.support.tile_server import mirror_files, server_process
from tests.support.viewer_page import drawn_share, most_frequent, open_viewer
from tests.support.viewers import Browser, Pixels, mean_difference

SAME_PICTURE = 0.01
"""Maximum mean difference of the samples of equal pictures: tiles are drawn in the order in which they arrive."""


@pytest.fixture(scope="module")
def city(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Mirror the demo city once."""
    return mirror_files(tmp_path_factory.mktemp("city") / "city", small_city())


@pytest.fixture(scope="module")
def folder_picture(browser: Browser, city: Path) -> Pixels:
    """Take the picture of the city that is served from its folder."""
    return take_picture(browser, city)


def take_picture(browser: Browser, what: object, env: Mapping[str, str] | None = None) -> Pixels:
    """Serve a tileset and take its picture, without a problem or a failed request."""
    with server_process(what, env=env) as server, open_viewer(browser, server.url) as viewer:
        picture = viewer.picture()
        assert viewer.state()["problems"] == []
        assert viewer.assert_own_server_only() == []
    return picture


def test_a_package_looks_like_its_folder(browser: Browser, city: Path, folder_picture: Pixels, tmp_path: Path) -> None:
    """A package that is served in place shows the same picture as the folder that it was packed from."""
    package = tmp_path / "city.3tz"
    ts.pack(city, package)
    assert drawn_share(folder_picture, most_frequent(folder_picture)) > 0.1
    assert mean_difference(take_picture(browser, package), folder_picture) < SAME_PICTURE


def test_a_bucket_looks_like_a_folder(
    browser: Browser, bucket_server: BucketServer, folder_picture: Pixels, tmp_path: Path
) -> None:
    """A mirror in a bucket shows the same picture as one in a folder."""
    bucket = BucketFixture(bucket_server, tmp_path / "state")
    with Simulator() as sim:
        sim.offer_export(small_city())
        assert bucket.mirror(sim).exit_code == 0
    assert mean_difference(take_picture(browser, bucket.url, bucket.env), folder_picture) < SAME_PICTURE
