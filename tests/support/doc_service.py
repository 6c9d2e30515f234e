"""What the commands of a documentation page run against: a fake service, folders, object stores and a web server."""

from __future__ import annotations

import functools
import json
import os
import random
import socket
import uuid
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import pytest

from tests.support.azurite import ACCOUNT, KEY
from tests.support.builders import glb, make_stored_blobs, tileset
from tests.support.doc_pages import ShellSession
from tests.support.fleet_service import make_id
from tests.support.s3 import ENVIRONMENT
from tests.support.simulator import Simulator
from tests.support.web_servers import nginx, require_program
from tilesync.demo.city import build_city
from tilesync.demo.loopback_server import FakeResponse
from tilesync.demo.scenario import IMODEL, make_blobs, make_export_id

TOKEN = "eyJhbGci..."
"""The token that the pages show."""

FOLDERS = ("srv/tiles", "srv/www", "mnt/disk", "run/secrets", "var/log", "var/lib/node_exporter")
"""Folders that the pages name, below the root."""

EXPORTS_AT_START = 2

ITWIN = "2f9c1d3e-7a40-4b5a-8c51-0d3e5c6b3f0e"
"""The iTwin of the fleet that the pages show."""

MODELS_AT_START = ("Bridge / north", "Bridge / south", "Office", "Tunnel")

FLEET_FILE = f"""\
[defaults]
wait = "0s"
max-age = "7d"

[[mirror]]
name = "harbour"
itwin = "{ITWIN}"
dest = "/srv/tiles/harbour/{{name}}"
"""
"""The fleet file of pages that do not write one."""

WRITES_FLEET_FILE = "fleet.md"

RUNS_INSTALLED_PROGRAM = "README.md"
"""The page whose commands run the program that pip installs, as a new user does; those of others run by forks."""


class PageService(Simulator):
    """Service of the pages: an iModel with exports of the demo city, and an issuer of tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.token = TOKEN
        self._editions = 0
        granted = {"access_token": TOKEN, "expires_in": 3600, "token_type": "Bearer"}
        self.token_answer = lambda request: FakeResponse(200, json.dumps(granted).encode())

    def add_fleet(self) -> None:
        """Add the iTwin of the fleet with its first iModels."""
        self.add_itwin(ITWIN, "Harbour")
        for name in MODELS_AT_START:
            self.add_model(name)

    def add_model(self, name: str) -> None:
        """Add an iModel of the fleet with a finished export."""
        number = len(self.directory.imodels)
        self.add_imodel(make_id("imodel", number), ITWIN, name)
        payloads = random.Random(number)
        tiles = {f"tiles/{tile}.glb": glb(payloads.randbytes(20_000)) for tile in range(20 + 10 * number)}
        blobs = make_stored_blobs({"tileset.json": tileset(*tiles), **tiles})
        self.add_export(make_id("export", number), make_id("imodel", number), blobs, displayName=name)

    def change_fleet(self) -> None:
        """Rename an iModel, remove one, and add one."""
        self.rename_imodel(make_id("imodel", MODELS_AT_START.index("Office")), "Head office")
        self.add_model("Quay 7")
        self.remove_imodel(make_id("imodel", MODELS_AT_START.index("Bridge / south")))

    def add_city(self) -> None:
        """Add the next edition of the city as the newest export."""
        self._editions += 1
        edition = self._editions
        blobs = make_blobs(_build_city_once(edition))
        self.add_export(make_export_id(edition), IMODEL, blobs, lastModified=f"2026-03-{edition:02d}T08:30:00Z")


class PageRun:
    """Run of one page: its shell, and the steps that the reader does not see."""

    def __init__(self, page: Path, folder: Path, request: pytest.FixtureRequest, stack: ExitStack) -> None:
        self.folder = folder
        self.service = stack.enter_context(PageService())
        for _ in range(EXPORTS_AT_START):
            self.service.add_city()
        self.service.add_fleet()
        for name in FOLDERS:
            (folder / name).mkdir(parents=True)
        self._places = {f"/{name}": f"{folder}/{name}" for name in FOLDERS}
        self._shown: dict[str, str] = {}
        self._environment = {
            "HOME": str(folder),
            "TILESYNC_API_URL": self.service.url,
            "ITP_ISSUER_URL": self.service.url,
            "TILESYNC_TOKEN": TOKEN,
        }
        if page.name == "stores.md":
            self._add_stores(request)
        if page.name == "serving.md":
            port = stack.enter_context(_reserved_port())
            self._places |= {":8080": f":{port}", "--port 8080": f"--port {port}"}
        if page.name == "hosting.md":
            require_program("nginx")
            (folder / "srv/tiles/bridge").mkdir()
            server = stack.enter_context(nginx(folder / "srv/tiles/bridge", folder / "nginx", _remove_allow_origin))
            self._places["http://localhost:8080"] = server.url
        for edition in range(1, 6):
            container = make_export_id(edition)
            self._places[f"https://account.blob.core.windows.net/{container}"] = f"{self.service.url}/{container}"
        self._places["https://api.bentley.com"] = self.service.url
        self._places["api.bentley.com"] = self.service.url.removeprefix("http://")
        (folder / "page").mkdir()
        if page.name != WRITES_FLEET_FILE:
            text = FLEET_FILE.replace("/srv/tiles", f"{folder}/srv/tiles")
            (folder / "page/fleet.toml").write_text(text, encoding="utf-8")
        session = ShellSession(
            folder / "page",
            self._environment,
            self._places,
            self._shown,
            by_forks=page.name != RUNS_INSTALLED_PROGRAM,
        )
        self.shell = stack.enter_context(session)

    def _add_stores(self, request: pytest.FixtureRequest) -> None:
        azurite, bucket_server = request.getfixturevalue("azurite"), request.getfixturevalue("bucket_server")
        container = f"d{uuid.uuid4()}"
        self._places |= {
            "az://account/tiles": f"az://{ACCOUNT}/{container}",
            "s3://bucket": f"s3://{bucket_server.new_bucket()}",
            "https://account.blob.core.windows.net/": f"{azurite.url}/{ACCOUNT}/",
            "AZURE_STORAGE_KEY=...": f"AZURE_STORAGE_KEY={KEY}",
        }
        self._shown = {ACCOUNT: "account", container: "tiles"}
        self._environment |= {
            "TILESYNC_AZURE_ENDPOINT": f"{azurite.url}/{ACCOUNT}",
            "AWS_ENDPOINT_URL": bucket_server.url,
        }
        self._environment |= ENVIRONMENT

    def step(self, name: str) -> None:
        """Do what a step of the page says."""
        {
            "new export": self.service.add_city,
            "damage a file": self._damage_file,
            "changes of the iTwin": self.service.change_fleet,
        }[name]()

    def _damage_file(self) -> None:
        """Change a byte of a tile of the first version, but neither its size nor its time."""
        tile = min((self.folder / "srv").glob("**/versions/*/**/terrain.glb"))
        status, data = tile.stat(), bytearray(tile.read_bytes())
        data[-1] ^= 1
        tile.write_bytes(data)
        os.utime(tile, ns=(status.st_atime_ns, status.st_mtime_ns))


@functools.cache
def _build_city_once(edition: int) -> dict[str, bytes]:
    """Build an edition of the city, once for all pages of a process."""
    return build_city(edition=edition)


@contextmanager
def _reserved_port() -> Iterator[int]:
    """Reserve a port for the servers of a page: the system gives it to no connection and no other server meanwhile.

    The socket that holds it does not listen, so that a server which sets SO_REUSEADDR can.
    """
    with socket.socket() as held:
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        held.bind(("127.0.0.1", 0))
        yield int(held.getsockname()[1])


def _remove_allow_origin(configuration: str) -> str:
    """Remove the header from the configuration that the page's output misses."""
    lines = configuration.splitlines(keepends=True)
    return "".join(line for line in lines if "Access-Control-Allow-Origin" not in line)
