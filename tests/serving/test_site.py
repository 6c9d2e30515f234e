"""Test the JSON documents and the page of a server."""

from __future__ import annotations

import gzip
import json
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from tests.support.sequential_exports import CHANGED_FILE, FIRST, SECOND, files_of, mirror_each
from tests.support.tile_server import RunningServer, running_server
from tilesync import __version__
from tilesync.errors import Interrupted
from tilesync.events import RequestServed
from tilesync.jobs.diff import job
from tilesync.jobs.diff.collector import ChangeCollector
from tilesync.jobs.diff.job import Diff, compare_sides
from tilesync.jobs.diff.sides import Side
from tilesync.runtime.threads import raise_if_stopped


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_each(tmp_path_factory.mktemp("site") / "bridge", FIRST, SECOND)


@pytest.fixture(scope="module")
def server(dest: Path) -> Iterator[RunningServer]:
    with running_server(dest) as running:
        yield running


def test_the_versions_of_a_destination(server: RunningServer, dest: Path) -> None:
    """`site.json` has the versions, newest first, with URLs that work."""
    document = json.loads(server.request("/_tilesync/site.json").body)
    (entry,) = document["tilesets"]
    assert document["tilesync"] == __version__
    assert (entry["name"], entry["base"], entry["url"], entry["kind"]) == ("bridge", "", "tileset.json", "mirror")
    assert (entry["title"], entry["current"], entry["follow"]) == ("Demo city", SECOND, False)
    assert [each["name"] for each in entry["versions"]] == [SECOND, FIRST]
    assert [each["current"] for each in entry["versions"]] == [True, False]
    assert {each["files"] for each in entry["versions"]} == {len(files_of(FIRST))}
    for each in entry["versions"]:
        assert server.request("/" + each["url"]).status == 200


def test_a_page_asks_again_cheaply(server: RunningServer) -> None:
    """The ETag of `site.json` stays the same until a version comes or goes."""
    answer = server.request("/_tilesync/site.json")
    again = server.request("/_tilesync/site.json", If_None_Match=answer.headers["etag"])
    assert (again.status, again.body) == (304, b"")


def test_a_new_version_appears(tmp_path: Path) -> None:
    """A version that another process publishes is current within a second or two, without a restart."""
    with running_server(mirror_each(tmp_path / "d", FIRST)) as server:
        etag = server.request("/_tilesync/site.json").headers["etag"]
        mirror_each(tmp_path / "d", SECOND)
        answer = server.request("/_tilesync/site.json", If_None_Match=etag)
        while answer.status == 304:
            answer = server.request("/_tilesync/site.json", If_None_Match=etag)
        (entry,) = json.loads(answer.body)["tilesets"]
        assert (entry["current"], len(entry["versions"])) == (SECOND, 2)
        assert SECOND in server.request("/tileset.json").body.decode()


def test_what_is_known_of_a_file(server: RunningServer) -> None:
    """`file.json` has the line of the manifest; without a version that of the current one."""
    found = json.loads(server.request(f"/_tilesync/file.json?version={FIRST}&name={CHANGED_FILE}").body)
    assert (found["name"], found["size"]) == (CHANGED_FILE, len(files_of(FIRST)[CHANGED_FILE]))
    for version in (FIRST[:-1] if not SECOND.startswith(FIRST[:-1]) else FIRST, "current"):
        assert server.request(f"/_tilesync/file.json?version={version}&name={CHANGED_FILE}").status == 200
    current = json.loads(server.request(f"/_tilesync/file.json?tileset=bridge&name={CHANGED_FILE}").body)
    assert current["sha256"] != found["sha256"]
    assert found.keys() == {
        "name", "size", "sha256", "md5", "etag", "content_type", "content_encoding", "last_modified",
    }  # fmt: skip


@pytest.mark.parametrize(
    "path",
    [
        "file.json",
        "file.json?name=unknown",
        "file.json?version=unknown&name=tileset.json",
        "file.json?version=../manifests&name=tileset.json",
        "file.json?tileset=unknown&name=tileset.json",
        "diff.jsonl?tileset=unknown&a=x&b=y",
    ],
)
def test_errors_are_json(server: RunningServer, path: str) -> None:
    """What does not exist is a sentence in JSON, which pages of all origins may read."""
    answer = server.request(f"/_tilesync/{path}")
    assert answer.status == 404
    assert json.loads(answer.body)["error"]
    assert answer.headers["access-control-allow-origin"] == "*"


def test_an_unknown_version_has_a_hint_for_pages(server: RunningServer) -> None:
    """The hint names what a page can ask for, and no command of the terminal."""
    for path in ("file.json?version=unknown&name=a", f"diff.jsonl?a={FIRST}&b=unknown"):
        assert json.loads(server.request(f"/_tilesync/{path}").body)["hint"] == "site.json lists the versions"


def test_the_page(server: RunningServer) -> None:
    """The page loads nothing from other hosts, is packed for browsers, and is asked for each time."""
    plain = server.request("/")
    packed = server.request("/", Accept_Encoding="gzip, br")
    assert gzip.decompress(packed.body) == plain.body
    assert plain.headers["content-type"].startswith("text/html")
    assert "default-src 'none'" in plain.headers["content-security-policy"]
    assert "http" not in plain.headers["content-security-policy"]
    assert "unsafe-eval" not in plain.headers["content-security-policy"].replace("wasm-unsafe-eval", "")
    assert plain.headers["cache-control"] == "no-cache"
    assert plain.headers["vary"] == "Accept-Encoding"
    assert packed.headers["etag"] != plain.headers["etag"]
    assert server.request("/", If_None_Match=plain.headers["etag"]).status == 304
    assert server.request("/?view=1").body == plain.body


def get_diff(server: RunningServer) -> bytes:
    answer = server.request(f"/_tilesync/diff.jsonl?a={FIRST}&b={SECOND}")
    assert (answer.status, answer.headers["content-type"]) == (200, "application/jsonl")
    return answer.body


def test_clients_share_one_comparison(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients at once and a page that is loaded again get identical bytes from one comparison."""
    compared = []

    def compare(*sides: Side, keeps_urls: bool = False) -> Diff:
        compared.append(sides)
        return compare_sides(*sides, keeps_urls=keeps_urls)

    monkeypatch.setattr(job, "compare_sides", compare)
    with running_server(dest) as server:
        with ThreadPoolExecutor(2) as pool:
            bodies = list(pool.map(get_diff, [server, server]))
        bodies.append(get_diff(server))
    assert len(set(bodies)) == 1
    *_, last = map(json.loads, bodies[0].splitlines())
    assert (last["kind"], last["exit"], last["changed"]) == ("finished", 0, 1)
    assert len(compared) == 1


def test_a_client_that_leaves_stops_its_comparison(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A comparison that nobody waits for any more ends, and none of its files stays open; one that is sent ends too."""
    began, stopped, may_end = threading.Event(), threading.Event(), threading.Event()
    closed: list[ChangeCollector] = []

    def compare(*sides: Side, keeps_urls: bool = False) -> Diff:
        began.set()
        try:
            while not may_end.wait(0.01):
                raise_if_stopped("the comparison")
        except Interrupted:
            stopped.set()
            raise
        return compare_sides(*sides, keeps_urls=keeps_urls)

    monkeypatch.setattr(job, "compare_sides", compare)
    monkeypatch.setattr(ChangeCollector, "close", lambda changes: closed.append(changes))
    with running_server(dest) as server:
        with socket.create_connection(server.address) as client:
            client.sendall(f"GET /_tilesync/diff.jsonl?a={FIRST}&b={SECOND} HTTP/1.1\r\nHost: x\r\n\r\n".encode())
            assert began.wait(30)
        assert stopped.wait(30)
        may_end.set()
        assert get_diff(server)
        assert not closed
    assert len(closed) == 1


def test_a_server_that_stops_during_a_comparison(dest: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The client gets 503 with an error in JSON, and the event of the request has this status."""
    began = threading.Event()

    def compare(*_: Side, keeps_urls: bool = False) -> Diff:
        began.set()
        while True:
            time.sleep(0.001)
            raise_if_stopped("the comparison")

    monkeypatch.setattr(job, "compare_sides", compare)
    monkeypatch.setattr("tilesync.serving.server.END_TIMEOUT_S", 0.2)
    with ThreadPoolExecutor(1) as pool:
        with running_server(dest, every_request=True) as server:
            asked = pool.submit(server.request, f"/_tilesync/diff.jsonl?a={FIRST}&b={SECOND}")
            assert began.wait(30)
        answer = asked.result(30)
    assert (answer.status, answer.headers["connection"]) == (503, "close")
    assert json.loads(answer.body) == {"error": "the server is stopping", "hint": ""}
    (event,) = (each for each in server.events if isinstance(each, RequestServed))
    assert (event.status, event.bytes, event.failure) == (503, len(answer.body), "the server is stopping")
