"""Test `tilesync link DEST`: viewers open a private container of a real blob service."""

from __future__ import annotations

import re
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from azure.storage.blob import BlobServiceClient, CorsRule

from tests.support.azurite import ACCOUNT, KEY, AzureProxy, Azurite
from tests.support.builders import IMODEL
from tests.support.city_editions import small_city
from tests.support.commandline import run_tilesync
from tests.support.simulator import EXPORT, Simulator
from tests.support.viewers import CAMERA_PATH, PAGES, Browser, view_url
from tests.support.web_servers import DOCS


@dataclass
class PrivateMirror:
    """Make a private container with the demo city below a prefix, and CORS for any page."""

    dest: str
    environment: dict[str, Any]
    prefix: str

    def create_viewer_url(self, proxy: AzureProxy) -> str:
        """Create a viewer URL through the proxy, with a slash in its signature, as half of the signatures have."""
        environment = {**self.environment, "TILESYNC_AZURE_ENDPOINT": f"{proxy.url}/{ACCOUNT}"}
        for seconds in range(3600, 3700):
            done = run_tilesync("link", self.dest, "-q", "--life", f"{seconds}s", **environment)
            assert (done.exit_code, done.stderr) == (0, "")
            if "/" in parse_qs(urlsplit(done.stdout).query)["sig"][0]:
                return done.stdout.strip()
        raise AssertionError("no signature has a slash")


@pytest.fixture(scope="module")
def private_mirror(azurite: Azurite, tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateMirror]:
    name, home = f"v{uuid.uuid4()}", tmp_path_factory.mktemp("home")
    azurite.create_container(name, {})
    environment: dict[str, Any] = {
        "AZURE_STORAGE_KEY": KEY,
        "TILESYNC_AZURE_ENDPOINT": f"{azurite.url}/{ACCOUNT}",
        "XDG_STATE_HOME": str(home),
    }
    there = PrivateMirror(f"az://{ACCOUNT}/{name}/a city", environment, "a city/")
    with Simulator() as sim:
        sim.offer_export(small_city())
        done = run_tilesync("mirror", IMODEL, there.dest, "-q", sim=sim, **environment)
        assert done.exit_code == 0, done.stderr
    credential = {"account_name": ACCOUNT, "account_key": KEY}
    with BlobServiceClient(environment["TILESYNC_AZURE_ENDPOINT"], credential=credential) as account:
        account.set_service_properties(cors=[CorsRule(["*"], ["GET"])])
        yield there
        account.set_service_properties(cors=[])


def test_the_documented_lines_are_in_the_test_page() -> None:
    """The lines of docs/stores.md for 3d-tiles-renderer are in the test page."""
    (shown,) = re.findall(
        r"^```js\n(.*?)^```$", (DOCS / "stores.md").read_text(encoding="utf-8"), re.MULTILINE | re.DOTALL
    )
    page = [line.split(" //")[0].strip() for line in (PAGES / "three.js").read_text().splitlines()]
    lines = [line.split(" //")[0].strip() for line in shown.splitlines()]
    at = page.index(lines[0])
    assert page[at : at + len(lines)] == lines


@pytest.mark.parametrize("viewer", ["cesium", "three?signed"])
def test_a_viewer_opens_a_private_container(
    browser: Browser, azurite: Azurite, private_mirror: PrivateMirror, viewer: str
) -> None:
    """CesiumJS, and 3d-tiles-renderer with the lines of docs/stores.md, draw everything."""
    with AzureProxy(azurite) as proxy:
        flight = view_url(browser, viewer, private_mirror.create_viewer_url(proxy))
        asked = list(proxy.answered)
    assert flight.errors == []
    assert flight.loaded > 0
    assert any(0.01 < share < 0.99 for share in flight.drawn_shares())
    assert {status for _, status in asked} == {200}
    lead = f"{private_mirror.prefix}versions/{EXPORT}/"
    names = {name.removeprefix(lead) for name, _ in asked} - {f"{private_mirror.prefix}tileset.json"}
    assert names <= small_city().keys()
    assert len(names) >= 0.9 * (len(small_city()) - 1)


def test_a_viewer_without_the_documented_lines_loads_no_tile(
    browser: Browser, azurite: Azurite, private_mirror: PrivateMirror
) -> None:
    """3d-tiles-renderer without these lines reads the tileset, but no tile."""
    with AzureProxy(azurite) as proxy:
        flight = view_url(browser, "three", private_mirror.create_viewer_url(proxy), CAMERA_PATH[:1])
        asked = list(proxy.answered)
    assert flight.loaded == 0
    assert flight.errors
    assert (f"{private_mirror.prefix}tileset.json", 200) in asked
    assert {status for name, status in asked if not name.endswith("a city/tileset.json")} == {403}


def test_the_viewer_url_can_only_read(azurite: Azurite, private_mirror: PrivateMirror) -> None:
    """The link can read, but not list or write; it has the requested lifetime; messages go to stderr."""
    done = run_tilesync("link", private_mirror.dest, "--life", "7d", **private_mirror.environment)
    query = parse_qs(urlsplit(done.stdout.strip()).query)
    assert (done.exit_code, query["sp"], query["sr"]) == (0, ["r"], ["c"])
    end = datetime.fromisoformat(query["se"][0])
    assert timedelta(days=6.99) < end - datetime.now(UTC) <= timedelta(days=7)
    assert "whole container" in done.stderr
    assert "CesiumJS" in done.stderr
    assert query["sig"][0] not in done.stderr
    assert done.stdout.count("\n") == 1
    result = run_tilesync("link", private_mirror.dest, "--json", **private_mirror.environment)
    assert [line["kind"] for line in result.lines] == ["link", "finished"]
    assert result.lines[0]["url"].startswith(f"{azurite.url}/{ACCOUNT}/")


def test_a_read_only_link_is_used(azurite: Azurite, private_mirror: PrivateMirror) -> None:
    """A container link with `sp=rl` is used; one that may write is refused, and not printed."""
    container = private_mirror.dest.split("/")[3]
    base = f"{azurite.url}/{ACCOUNT}/{container}/a%20city"
    read = run_tilesync("link", f"{base}?sv=2024-05-04&sp=rl&sig=SECRET")
    assert (read.exit_code, read.stdout.strip()) == (0, f"{base}/tileset.json?sv=2024-05-04&sp=rl&sig=SECRET")
    write = run_tilesync("link", f"{base}?sv=2024-05-04&sp=racwdl&sig=SECRET", "--json")
    assert (write.exit_code, write.last_line["error"]) == (2, "UsageError")
    assert "az://ACCOUNT/CONTAINER" in write.last_line["hint"]
    assert "SECRET" not in write.stdout + write.stderr


@pytest.mark.parametrize(("dest", "word"), [("s3://bucket/prefix", "CDN"), (".", "doctor"), ("some/folder", "doctor")])
def test_destinations_without_a_viewer_url(dest: str, word: str) -> None:
    """A bucket or a folder has no such link: exit 2 with the alternative."""
    done = run_tilesync("link", dest, "--json")
    assert (done.exit_code, done.last_line["error"]) == (2, "UsageError")
    assert word in done.last_line["hint"]


def test_a_bare_name_without_a_folder_is_an_imodel(tmp_path: Path) -> None:
    """A text without a slash that names no folder is an iModel id."""
    assert run_tilesync("link", IMODEL, "--json").last_line["error"] == "NotAuthorised"
