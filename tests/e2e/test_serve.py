"""Test the server as a viewer meets it: real processes and stores, while versions are published."""

from __future__ import annotations

import gzip
import hashlib
import json
import random
import threading
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote, urljoin, urlsplit

import httpx
import pytest

from tests.support.azure_proxy import AzureFixture
from tests.support.builders import export, glb
from tests.support.commandline import run_tilesync
from tests.support.s3 import BucketFixture
from tests.support.simulator import EXPORT, Simulator
from tests.support.tile_server import mirror_files, running_server, server_process
from tilesync.model import Layout


def find_uris(document: object) -> Iterator[str]:
    """Yield the URIs in a tileset."""
    if isinstance(document, dict):
        for name, value in document.items():
            if name == "uri" and isinstance(value, str):
                yield value
            else:
                yield from find_uris(value)
    elif isinstance(document, list):
        for each in document:
            yield from find_uris(each)


class ViewerClient(threading.Thread):
    """Client that loads the tileset with all that it refers to, until it has loaded a second one; counts statuses."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.page = page
        self.has_begun = threading.Event()
        self.statuses: Counter[int | str] = Counter()
        self.roots: set[bytes] = set()

    def run(self) -> None:
        """Load again and again, for at most a minute."""
        ends_at = time.monotonic() + 60
        with httpx.Client(timeout=20, trust_env=False) as client:
            while len(self.roots) < 2 and time.monotonic() < ends_at:
                self.load(client, urljoin(self.page, "tileset.json"), is_root=True)

    def load(self, client: httpx.Client, url: str, *, is_root: bool = False) -> None:
        """Load a file, and what it refers to."""
        try:
            answer = client.get(url)
            data = answer.content
        except httpx.HTTPError as error:
            self.statuses[type(error).__name__] += 1
            return
        self.statuses[answer.status_code] += 1
        if is_root:
            self.roots.add(data)
            self.has_begun.set()
        if answer.status_code == 200 and urlsplit(url).path.endswith(".json"):
            for uri in find_uris(json.loads(data)):
                self.load(client, urljoin(url, uri))


def test_no_request_fails_while_a_version_is_published(tmp_path: Path) -> None:
    """Clients load a version and then the next one, which another process publishes meanwhile; no request fails."""
    dest = tmp_path / "city"
    assert run_tilesync("demo", dest, "-q").exit_code == 0
    with server_process(dest) as server:
        clients = [ViewerClient(server.url) for _ in range(2)]
        for client in clients:
            client.start()
        for client in clients:
            assert client.has_begun.wait(20)
        try:
            assert run_tilesync("demo", dest, "-q").exit_code == 0
        finally:
            for client in clients:
                client.join()
    for client in clients:
        assert len(client.roots) == 2
        assert set(client.statuses) == {200}
        assert client.statuses[200] > 2 * 400


@pytest.mark.parametrize("layout", ["versioned", "flat"])
def test_doctor_finds_nothing_to_mend(tmp_path: Path, layout: str) -> None:
    """Every check of `tilesync doctor` is ok for a folder that the server serves."""
    files = export(4) | {"ä b+%20/t.png": b"\x89PNG\r\n\x1a\n"}
    with running_server(mirror_files(tmp_path / "d", files, layout=Layout(layout))) as server:
        done = run_tilesync("doctor", tmp_path / "d", "--public-url", server.viewer, "--json")
    skipped = {"caching": "skipped"} if layout == "flat" else {}  # no file of the flat layout is immutable
    assert (done.exit_code, done.failed_checks) == (0, skipped), done.stdout


# --- the same answers from each kind of place ---

FILES = export(4) | {
    "ä b+%20/100% #.png": b"\x89PNG\r\n\x1a\n",
    "tiles/packed.glb": gzip.compress(glb(b"x" * 5000)),
    "tiles/large.glb": glb(random.Random(1).randbytes(1_000_000)),
    "tiles/packed.bin": b"\x8b\x01not really brotli\x03",
    "empty.bin": b"",
}
STATED = {"tiles/packed.bin": {"content_type": "application/x-tile", "content_encoding": "br"}}


@dataclass(frozen=True)
class Place:
    """Place that holds the export: what to serve, the folder of its files in URLs, and the environment for it."""

    what: str
    folder: str
    env: dict[str, str] = field(default_factory=dict)


def offer_files(sim: Simulator) -> None:
    sim.offer_export(FILES)
    for name, stated in STATED.items():
        blob = sim.blob(name)
        blob.content_type, blob.content_encoding = stated["content_type"], stated["content_encoding"]


@pytest.fixture(params=["versioned", "flat", "package", "azure", "s3"])
def place(request: pytest.FixtureRequest, sim: Simulator, tmp_path: Path) -> Place:
    """Mirror the export to a place of each kind."""
    offer_files(sim)
    if request.param in {"versioned", "flat"}:
        assert sim.mirror(tmp_path / "d", layout=Layout(request.param)).error is None
        return Place(str(tmp_path / "d"), f"versions/{EXPORT}/" if request.param == "versioned" else "")
    if request.param == "package":
        assert sim.mirror(tmp_path / "d").error is None
        assert run_tilesync("pack", tmp_path / "d", tmp_path / "bridge.3tz").exit_code == 0
        return Place(str(tmp_path / "bridge.3tz"), "")
    if request.param == "azure":
        azure: AzureFixture = request.getfixturevalue("azure_store")
        assert azure.mirror(sim).exit_code == 0
        return Place(azure.destination_url, f"versions/{EXPORT}/", azure.env)
    bucket = BucketFixture(request.getfixturevalue("bucket_server"), tmp_path / "state")
    assert bucket.mirror(sim).exit_code == 0
    return Place(bucket.url, f"versions/{EXPORT}/", bucket.env)


def test_the_same_answers_from_each_kind_of_place(place: Place) -> None:
    """Files, types, encodings, ranges, validators and what is hidden are the same for a folder and a store."""
    with (
        server_process(place.what, env=place.env) as server,
        httpx.Client(base_url=server.url, trust_env=False) as client,
    ):
        for name, data in FILES.items():
            path = f"/{place.folder}{quote(name)}"
            answer = client.send(
                client.build_request("GET", path, headers={"accept-encoding": "identity"}), stream=True
            )
            assert (answer.status_code, b"".join(answer.iter_raw())) == (200, data), name
            assert answer.headers["content-length"] == str(len(data))
            assert answer.headers["access-control-allow-origin"] == "*"
            head = client.head(path)
            assert (head.status_code, head.headers["etag"]) == (200, answer.headers["etag"])
            again = client.get(path, headers={"if-none-match": answer.headers["etag"]})
            assert again.status_code == 304
            if len(data) > 100:
                part = client.send(client.build_request("GET", path, headers={"range": "bytes=50-98"}), stream=True)
                assert (part.status_code, b"".join(part.iter_raw())) == (206, data[50:99])
                assert part.headers["content-range"] == f"bytes 50-98/{len(data)}"
                assert part.headers["content-type"] == answer.headers["content-type"]
            stated = STATED.get(name, {})
            packed = "gzip" if data[:2] == b"\x1f\x8b" else stated.get("content_encoding")
            assert answer.headers.get("content-encoding") == packed
            if stated:
                assert answer.headers["content-type"] == stated["content_type"]
        tail = client.get(f"/{place.folder}tiles/large.glb", headers={"range": "bytes=-7"})
        assert tail.content == FILES["tiles/large.glb"][-7:]
        late = client.get(f"/{place.folder}tiles/large.glb", headers={"range": "bytes=900000-"})
        assert late.content == FILES["tiles/large.glb"][900_000:]
        assert client.get("/tileset.json").status_code == 200
        for hidden in (".tilesync/ownership.json", ".tilesync/lock", ".tilesync/catalog.sqlite3", "nothing"):
            assert client.get(f"/{hidden}").status_code == 404
        (entry,) = client.get("/_tilesync/site.json").json()["tilesets"]
        (version,) = entry["versions"]
        assert (entry["current"], version["url"]) == (EXPORT, f"{place.folder}tileset.json")
        found = client.get("/_tilesync/file.json", params={"version": EXPORT, "name": "tiles/large.glb"}).json()
        assert found["sha256"] == hashlib.sha256(FILES["tiles/large.glb"]).hexdigest()
