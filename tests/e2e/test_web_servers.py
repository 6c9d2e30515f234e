"""Test web servers with the configurations of docs/hosting.md."""

from __future__ import annotations

import http.client
import re
import shutil
import threading
from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.support import samples
from tests.support.builders import export, glb, read_tree
from tests.support.city_editions import small_city
from tests.support.simulator import EXPORT, OTHER_EXPORT, JobOutcome, Simulator, read_latest, rollback
from tests.support.viewers import CAMERA_PATH, Browser, CameraPose, view_url
from tests.support.web_servers import WebServer, caddy, nginx, read_configuration, require_program

Serve = Callable[..., AbstractContextManager[WebServer]]


@pytest.fixture(params=[nginx, caddy], ids=["nginx", "caddy"])
def serve(request: pytest.FixtureRequest) -> Serve:
    require_program(request.param.__name__)
    result: Serve = request.param
    return result


@pytest.fixture
def dest(tmp_path: Path) -> Path:
    with Simulator() as sim:
        sim.offer_export(export(4) | {"ä b+%20/t.png": b"\x89PNG\r\n\x1a\n", ".hidden/a.glb": glb(b"h")})
        assert sim.mirror(tmp_path / "d").error is None
    return tmp_path / "d"


def test_types_caching_origins_and_the_state(serve: Serve, dest: Path, tmp_path: Path) -> None:
    """The pointer is revalidated each time, versions are cached; types suit viewers; state files are hidden."""
    with serve(dest, tmp_path / "state") as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        immutable = "public, max-age=31536000, immutable"
        for path, kind, caching in (
            ("/tileset.json", "application/json", "no-cache"),
            ("/latest.json", "application/json", "no-cache"),
            (f"/versions/{EXPORT}/tileset.json", "application/json", immutable),
            (f"/versions/{EXPORT}/tiles/000.glb", "model/gltf-binary", immutable),
            (f"/versions/{EXPORT}/ä%20b+%2520/t.png", "image/png", immutable),
            (f"/versions/{EXPORT}/.hidden/a.glb", "model/gltf-binary", immutable),
            ("/current/tileset.json", "application/json", "no-cache"),
        ):
            answer = client.get(path, headers={"Origin": "https://viewer.example"})
            assert answer.status_code == 200, path
            assert answer.headers["content-type"].split(";")[0] == kind, path
            assert answer.headers["cache-control"] == caching, path
            assert answer.headers["access-control-allow-origin"] == "*", path
        for path in ("/.tilesync/catalog.sqlite3", "/.tilesync/", f"/versions/{EXPORT}/missing.glb"):
            answer = client.get(path)
            assert answer.status_code == 404, path
            assert "immutable" not in answer.headers.get("cache-control", ""), path
            assert answer.headers["access-control-allow-origin"] == "*", path
        whole = (dest / "versions" / EXPORT / "tiles/000.glb").read_bytes()
        part = client.get(f"/versions/{EXPORT}/tiles/000.glb", headers={"Range": "bytes=4-11"})
        assert (part.status_code, part.content) == (206, whole[4:12])


def test_several_destinations_below_one_root(serve: Serve, dest: Path, tmp_path: Path) -> None:
    """With several destinations the state of each is hidden, for any path, and each is cached correctly."""
    root = tmp_path / "root"
    for name in ("bridge", "tunnel", "north/tower"):
        shutil.copytree(dest, root / name, symlinks=True)
    with serve(root, tmp_path / "state") as server:
        for name in ("bridge", "tunnel", "north/tower"):
            for path in (
                "/.tilesync/catalog.sqlite3",
                "/.tilesync/",
                "/.tilesync",
                "/%2Etilesync/catalog.sqlite3",
                "//.tilesync//catalog.sqlite3",
                "/versions/../.tilesync/catalog.sqlite3",
                "/current/../../.tilesync/catalog.sqlite3",
            ):
                assert raw_status(server.url, f"/{name}{path}") in {400, 404}, path
            immutable = "public, max-age=31536000, immutable"
            with httpx.Client(base_url=f"{server.url}/{name}", trust_env=False) as client:
                for path, caching in (
                    ("/tileset.json", "no-cache"),
                    ("/latest.json", "no-cache"),
                    ("/current/tileset.json", "no-cache"),
                    (f"/versions/{EXPORT}/tiles/000.glb", immutable),
                ):
                    answer = client.get(path)
                    assert (answer.status_code, answer.headers["cache-control"]) == (200, caching), path


def raw_status(url: str, path: str) -> int:
    """Return the status for an exact path, which no client normalizes."""
    parts = urlsplit(url)
    connection = http.client.HTTPConnection(str(parts.hostname), parts.port, timeout=20)
    connection.putrequest("GET", path, skip_host=False)
    connection.endheaders()
    status = connection.getresponse().status
    connection.close()
    return status


def test_conditional_requests_distinguish_a_rolled_back_pointer(serve: Serve, dest: Path, tmp_path: Path) -> None:
    """Two pointers of the same length, published within a second, are distinguished by conditional requests."""
    with Simulator() as sim:
        sim.offer_export(export(4), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
        assert sim.mirror(dest).error is None
    with serve(dest, tmp_path / "state") as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        new = client.get("/tileset.json", headers={"Accept-Encoding": "identity"})
        rollback(dest)
        asked = {"If-None-Match": new.headers["etag"], "If-Modified-Since": new.headers["last-modified"]}
        old = client.get("/tileset.json", headers={"Accept-Encoding": "identity", **asked})
        assert old.status_code == 200
        assert EXPORT in old.text
        assert OTHER_EXPORT in new.text
        same = client.get(
            "/tileset.json", headers={"Accept-Encoding": "identity", "If-None-Match": old.headers["etag"]}
        )
        assert same.status_code == 304


def enable_gzip(text: str) -> str:
    """Enable the lines for gzipped exports in a configuration."""
    text = re.sub(r"^.*(gzip on|gzip_types|encode gzip).*\n", "", text, flags=re.MULTILINE)
    text, count = re.subn(r"^(\s*)# (~|@gzipped|header @gzipped)", r"\1\2", text, flags=re.MULTILINE)
    assert count
    return text


@samples.requires_samples
def test_an_export_that_is_stored_gzipped(serve: Serve, tmp_path: Path) -> None:
    """With the gzip lines payloads have Content-Encoding gzip; the pointer does not."""
    files = read_tree(samples.sample_folder("TilesetGzipped"))
    with Simulator() as sim:
        sim.offer_export(files)
        assert sim.mirror(tmp_path / "d").error is None
    serving = serve(tmp_path / "d", tmp_path / "state", enable_gzip)
    with serving as server, httpx.Client(base_url=server.url, trust_env=False) as client:
        pointer = client.get("/tileset.json")
        assert "content-encoding" not in pointer.headers
        assert pointer.json()["root"]["content"]["uri"] == f"versions/{EXPORT}/parent.b3dm"
        tile = client.get(f"/versions/{EXPORT}/ll.b3dm")
        assert tile.headers["content-encoding"] == "gzip"
        assert tile.content.startswith(b"b3dm")


def test_both_configurations_are_in_the_documentation() -> None:
    """The page has one configuration of each server, for the same folder."""
    for language in ("nginx", "caddy"):
        assert "/srv/tiles/bridge" in read_configuration(language)


class PublishDuringFlight:
    """Publishes a second edition of the city during a flight."""

    def __init__(self, sim: Simulator, dest: Path) -> None:
        self._sim = sim
        self._dest = dest
        self._thread = threading.Thread(target=self._mirror)
        self.runs: list[JobOutcome] = []

    def __call__(self, view: CameraPose) -> None:
        """Begin when the camera is about to come near; be through before its last view."""
        if view is CAMERA_PATH[1]:
            self._thread.start()
        if view is CAMERA_PATH[-1]:
            self._thread.join()

    def _mirror(self) -> None:
        self.runs.append(self._sim.mirror(self._dest))


@pytest.mark.long
def test_a_viewer_streams_through_nginx_while_a_version_is_published(browser: Browser, tmp_path: Path) -> None:
    """No request of a viewer fails before, during and after a publication; a viewer that started with the old
    version ends with it, the next one sees the new one.
    """
    require_program("nginx")
    dest = tmp_path / "d"
    dest.mkdir()
    with Simulator() as sim, nginx(dest, tmp_path / "state") as server:
        first = sim.offer_export(small_city())
        assert sim.mirror(dest).error is None
        second = sim.offer_export(small_city(edition=2), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
        sim.delay_s = 0.01
        publishing = PublishDuringFlight(sim, dest)
        before = view_url(browser, "cesium", f"{server.url}/tileset.json", before_view=publishing)
        asked_before = server.requests()
        assert [run.error for run in publishing.runs] == [None]
        assert read_latest(dest)["version"] == OTHER_EXPORT
        after = view_url(browser, "cesium", f"{server.url}/tileset.json")
        asked_after = server.requests()[len(asked_before) :]
    for flight, asked, version, files in (
        (before, asked_before, EXPORT, first),
        (after, asked_after, OTHER_EXPORT, second),
    ):
        assert flight.errors == []
        assert flight.loaded > 0
        assert any(0.01 < share < 0.99 for share in flight.drawn_shares())
        assert {status for _, status in asked} <= {200, 304}
        names = {path.removeprefix(f"/versions/{version}/") for path, _ in asked if path != "/tileset.json"}
        assert names <= files.keys()
        assert len(names) >= 0.9 * (len(files) - 1)
