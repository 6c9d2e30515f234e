"""Test the viewer page with a live export: links that die while it is open, and a newer export."""

from __future__ import annotations

from datetime import timedelta

from tests.support.builders import IMODEL
from tests.support.city_editions import small_city
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator
from tests.support.tile_server import server_process
from tests.support.viewer_page import drawn_share, most_frequent, open_viewer
from tests.support.viewers import Browser


def test_a_newer_export_is_taken_up(browser: Browser) -> None:
    """The page shows a live export whose links live 2 s, and takes a newer one up by itself, from the same place."""
    with Simulator(link_lifetime=timedelta(seconds=2)) as sim:
        sim.offer_export(small_city())
        with (
            server_process(IMODEL, "--follow", "--poll", "0.2s", sim=sim) as served,
            open_viewer(browser, served.url) as viewer,
        ):
            first, picture = viewer.state(), viewer.picture()
            assert first["version"] == EXPORT
            assert drawn_share(picture, most_frequent(picture)) > 0.1
            sim.offer_export(small_city(edition=2), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
            viewer.poll_until(f"tilesyncViewer.state().version === {OTHER_EXPORT!r}")
            shown = viewer.state()
            failed = viewer.assert_own_server_only()
        assert (shown["problems"], failed) == ([], [])
        assert shown["position"] == first["position"]
        assert sim.blob_requests("tileset.json")
