"""Test the answers of a server for files, over real sockets."""

from __future__ import annotations

import asyncio
import gzip
import json
import os
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest

from tests.support.builders import export, glb
from tests.support.simulator import EXPORT
from tests.support.tile_server import RunningServer, mirror_files, running_server
from tilesync.core.http_headers import IMMUTABLE_CACHE_CONTROL, REVALIDATE_CACHE_CONTROL
from tilesync.errors import DestinationError, ExportReplaced, Transient, Unavailable, UsageError
from tilesync.events import Event, RequestServed, Warned
from tilesync.model.storage import ObjectHeaders
from tilesync.serving.access import CorsPolicy, TokenGuard
from tilesync.serving.application import ServedSite, TilesetApplication
from tilesync.serving.tilesets import FileFacts, TilesetKind

NAMED = "ä b+%20/100% #?.png"
PACKED, LARGE = "tiles/packed.glb", "tiles/large.glb"
FILES = export(4) | {
    NAMED: b"\x89PNG\r\n\x1a\n",
    PACKED: gzip.compress(glb(b"x" * 5000)),
    LARGE: glb(os.urandom(1_000_003)),
    "empty": b"",
}


@pytest.fixture(scope="module")
def dest(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return mirror_files(tmp_path_factory.mktemp("served") / "d", FILES)


@pytest.fixture(scope="module")
def server(dest: Path) -> Iterator[RunningServer]:
    with running_server(dest, every_request=True) as running:
        yield running


def path_of(name: str) -> str:
    return f"/versions/{EXPORT}/{quote(name)}"


def test_each_file_is_served_as_it_is_stored(server: RunningServer) -> None:
    """Every file of the version has its bytes, its length and headers that viewers need."""
    for name, data in FILES.items():
        answer = server.request(path_of(name))
        assert (answer.status, answer.body) == (200, data), name
        headers = answer.headers
        assert headers["content-length"] == str(len(data))
        assert headers["cache-control"] == (IMMUTABLE_CACHE_CONTROL if data else REVALIDATE_CACHE_CONTROL)
        assert headers["access-control-allow-origin"] == "*"
        assert headers["accept-ranges"] == "bytes"
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["etag"].startswith('"')
        assert headers["last-modified"].endswith("GMT")
        assert headers.get("content-encoding") == ("gzip" if name == PACKED else None)


def test_head_has_the_headers_of_get(server: RunningServer) -> None:
    """HEAD has the same headers as GET, and no body."""
    for name in (PACKED, LARGE):
        whole, head = server.request(path_of(name)), server.request(path_of(name), "HEAD")
        assert (head.status, head.body) == (200, b"")
        assert {**head.headers, "date": ""} == {**whole.headers, "date": ""}


@pytest.mark.parametrize("name", [PACKED, LARGE])
@pytest.mark.parametrize(
    ("text", "begin", "end"), [("0-0", 0, 1), ("10-", 10, None), ("-7", -7, None), ("40-900001", 40, 900_002)]
)
def test_a_range_has_its_bytes(server: RunningServer, name: str, text: str, begin: int, end: int | None) -> None:
    """A range is a part of the stored bytes, of a small and of a large file."""
    data = FILES[name]
    answer = server.request(path_of(name), Range=f"bytes={text}")
    assert (answer.status, answer.body) == (206, data[begin:end])
    first = begin if begin >= 0 else len(data) + begin
    assert answer.headers["content-range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(data)}"


def test_a_range_outside_of_the_file(server: RunningServer) -> None:
    """416 states the size, and has no body."""
    answer = server.request(path_of(LARGE), Range="bytes=99999999-")
    assert (answer.status, answer.body) == (416, b"")
    assert answer.headers["content-range"] == f"bytes */{len(FILES[LARGE])}"


def test_a_file_that_the_client_has(server: RunningServer) -> None:
    """304 has the validators and no body; a page of another origin may read it too."""
    etag = server.request(path_of(LARGE)).headers["etag"]
    answer = server.request(path_of(LARGE), If_None_Match=etag)
    assert (answer.status, answer.body) == (304, b"")
    assert answer.headers["etag"] == etag
    assert answer.headers["access-control-allow-origin"] == "*"
    assert "content-length" not in answer.headers


def test_documents_that_name_the_current_version(server: RunningServer, dest: Path) -> None:
    """The pointer, `latest.json`, the manifest and what is below `current` must be asked for each time."""
    for path in ("tileset.json", f"manifests/{EXPORT}.jsonl"):
        answer = server.request(f"/{path}")
        assert (answer.status, answer.body) == (200, (dest / path).read_bytes())
        assert answer.headers["cache-control"] == REVALIDATE_CACHE_CONTROL
    answer = server.request("/current/tileset.json")
    assert (answer.status, answer.body) == (200, FILES["tileset.json"])
    assert answer.headers["cache-control"] == REVALIDATE_CACHE_CONTROL


@pytest.mark.parametrize(
    "path",
    [
        "/.tilesync/catalog.sqlite3",
        "/.tilesync/",
        "/.TILESYNC/catalog.sqlite3",
        "/%2etilesync/catalog.sqlite3",
        "/versions/../.tilesync/catalog.sqlite3",
        f"/versions/{EXPORT}/../../.tilesync/catalog.sqlite3",
        f"/versions/{EXPORT}/%2e%2e/%2e%2e/latest.json",
        f"/versions/{EXPORT}/..%2f..%2flatest.json",
        f"/versions/{EXPORT}/..%5c..%5clatest.json",
        f"/versions/{EXPORT}//tileset.json",
        "//.tilesync/catalog.sqlite3",
        "//_tilesync/site.json",
        f"/versions/{EXPORT}/tileset.json%00.png",
        f"/versions/{EXPORT}/tiles",
        f"/versions/{EXPORT}/tiles/",
        f"/versions/{EXPORT}",
        "/versions/",
        "/versions/unknown/tileset.json",
        "/versions/./tileset.json",
        "/manifests/",
        "/manifests/unknown.jsonl",
        "/manifests/../latest.json.jsonl",
        "/checked.json",
        "/Versions/x",
        "/nothing",
        "/favicon.ico",
        "/_tilesync",
        "/_tilesync/",
        "/_tilesync/nothing.js",
        "/_tilesync/../latest.json",
        "/_tilesync/%2e%2e/server.py",
    ],
)
def test_state_and_hidden_files_are_not_served(server: RunningServer, path: str) -> None:
    """State, folders, and paths that leave a folder are not there; a viewer of any origin sees the status."""
    answer = server.request(path)
    assert answer.status == 404
    assert answer.headers["access-control-allow-origin"] == "*"
    assert len(answer.body) < 200


def test_symlinks_are_not_followed(server: RunningServer, dest: Path, tmp_path: Path) -> None:
    """Neither a link to a file nor one to a folder, nor a FIFO, is served."""
    version = dest / "versions" / EXPORT
    (tmp_path / "secret").write_bytes(b"secret")
    links = {"link.glb": tmp_path / "secret", "folder": tmp_path}
    for name, target in links.items():
        (version / name).symlink_to(target)
    os.mkfifo(version / "fifo")
    try:
        for name in ("link.glb", "folder/secret", "fifo"):
            assert server.request(path_of(name)).status == 404
    finally:
        for name in (*links, "fifo"):
            (version / name).unlink()


def test_a_version_without_a_manifest_is_not_there(server: RunningServer, dest: Path) -> None:
    """A version that is still being downloaded is served when its manifest is there."""
    shutil.copytree(dest / "versions" / EXPORT, dest / "versions" / "next")
    try:
        assert server.request("/versions/next/tileset.json").status == 404
        shutil.copy(dest / "manifests" / f"{EXPORT}.jsonl", dest / "manifests" / "next.jsonl")
        assert server.request("/versions/next/tileset.json").body == FILES["tileset.json"]
    finally:
        shutil.rmtree(dest / "versions" / "next")
        (dest / "manifests" / "next.jsonl").unlink()


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "PROPFIND"])
def test_other_methods(server: RunningServer, method: str) -> None:
    """Nothing can be changed: the answer names the possible methods."""
    answer = server.request("/tileset.json", method)
    assert answer.status == 405
    assert answer.headers["allow"] == "GET, HEAD, OPTIONS"


def test_a_preflight(server: RunningServer) -> None:
    """A page may ask whether it may send Range or a token."""
    answer = server.request(
        "/tileset.json",
        "OPTIONS",
        Origin="https://a.example",
        Access_Control_Request_Method="GET",
        Access_Control_Request_Headers="authorization,range",
    )
    assert (answer.status, answer.body) == (204, b"")
    assert answer.headers["access-control-allow-headers"] == "authorization,range"
    assert answer.headers["access-control-allow-origin"] == "*"


def test_each_request_is_an_event(server: RunningServer) -> None:
    """A request is an event with status and bytes, and without its query, which may have a secret."""
    server.request("/latest.json?token=secret")
    event = server.wait_for_event(lambda each: isinstance(each, RequestServed) and each.path == "/latest.json")
    assert isinstance(event, RequestServed)
    assert (event.client, event.method, event.path, event.status) == ("127.0.0.1", "GET", "/latest.json", 200)
    assert event.bytes > 0
    assert "secret" not in repr(event)


def test_a_token_is_needed(dest: Path) -> None:
    """Without the token nothing is served but preflights and the page, which asks for it and moves it to a cookie."""
    with running_server(dest, token="s3cret-1", cors_origin="https://a.example") as server:
        hidden = ("/tileset.json", "/_tilesync/site.json", "/_tilesync/site%2Ejson", "/_tilesync/x/../file.json", "//")
        for path in (*hidden, "/nothing", "/nothing.js", "/_tilesync/diff.jsonl?a=1&x=.js"):
            answer = server.request(path, Origin="https://a.example")
            assert answer.status == 401
            assert answer.headers["access-control-allow-origin"] == "https://a.example"
        refused = [server.request("/_tilesync/site.json"), server.request("/_tilesync/site.json", "POST")]
        assert [(each.status, set(json.loads(each.body))) for each in refused] == [
            (401, {"error", "hint"}),
            (405, {"error", "hint"}),
        ]
        assert server.request("/", "OPTIONS").status == 204
        assert [server.request(path).status for path in ("/", "/_tilesync/viewer.js")] == [200, 200]
        assert server.request("/tileset.json?token=s3cret-1").status == 200
        assert server.request("/tileset.json", Authorization="Bearer s3cret-1").status == 200
        entry = server.request("/?token=s3cret-1&view=1")
        assert (entry.status, entry.headers["location"]) == (303, "/?view=1")
        cookie = entry.headers["set-cookie"].partition(";")[0]
        assert server.request("/", Cookie=cookie).status == 200
        cached = server.request(path_of(LARGE), Cookie=cookie).headers["cache-control"]
        assert cached == "private, max-age=31536000, immutable", "no proxy may keep it for others"
        assert server.request(path_of(LARGE), Cookie=cookie).body == FILES[LARGE]


def test_several_tilesets_are_below_their_names(dest: Path, tmp_path: Path) -> None:
    """Each tileset has the paths of its destination below its name, and none at the root."""
    other = mirror_files(tmp_path / "other", export(2, seed=5))
    with running_server([f"a={dest}", other]) as server:
        assert [url.removeprefix(server.viewer) for url in server.urls] == ["a/tileset.json", "other/tileset.json"]
        assert server.request(f"/a{path_of(LARGE)}").body == FILES[LARGE]
        assert server.request("/other/tileset.json").body == (other / "tileset.json").read_bytes()
        for path in ("/tileset.json", "/a", "/a/", "/b/tileset.json", "/a/other/tileset.json", "/a/../other/x"):
            assert server.request(path).status == 404


class BrokenTileset:
    """Tileset with a bug: opening a file fails, or reading it in the middle."""

    kind = TilesetKind.MIRROR

    def __init__(self, error: BaseException, *, in_the_middle: bool = False) -> None:
        self.error = error
        self.in_the_middle = in_the_middle
        self.closed = 0
        self.facts = FileFacts(1000, '"e"', ObjectHeaders("model/gltf-binary"))
        self.body = self.cache = None

    async def open(self, path: str) -> BrokenTileset:
        if not self.in_the_middle:
            raise self.error
        return self

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        yield b"x" * 10
        raise self.error

    async def aclose(self) -> None:
        self.closed += 1


async def ask(tileset: Any, events: list[Event], messages: list[Any] | None = None) -> list[Any]:
    """Return the messages of the answer to a request for a file; they are added to `messages`."""
    messages = [] if messages is None else messages

    async def send(message: Any) -> None:
        messages.append(message)

    async def receive() -> Any:
        return await asyncio.Event().wait()

    async def site(scope: Any, receive: Any, send: Any) -> None:
        raise AssertionError

    application = TilesetApplication(
        ServedSite({"a": tileset}),
        site,
        guard=TokenGuard(),
        cors=CorsPolicy(),
        observe=events.append,
        every_request=True,
    )
    scope = {"type": "http", "method": "GET", "raw_path": b"/a.glb", "query_string": b"", "headers": []}
    await application(scope, receive, send)
    return messages


@pytest.mark.parametrize(
    ("error", "status"),
    [
        (Unavailable("the store is away"), 503),
        (Transient("busy", retry_after=7.2), 503),
        (ExportReplaced("it is gone"), 410),
        (UsageError("no such version"), 404),
        (DestinationError("the disk is broken", hint="mend it"), 502),
        (ZeroDivisionError("by zero"), 500),
    ],
)
def test_a_place_that_fails(error: Exception, status: int) -> None:
    """Each kind of error has its status, with a sentence, and headers that let pages of all origins read it."""
    events: list[Event] = []
    start, body = asyncio.run(ask(BrokenTileset(error), events))
    headers = dict(start["headers"])
    assert start["status"] == status
    assert headers[b"access-control-allow-origin"] == b"*"
    assert headers.get(b"retry-after") == {503: b"8" if "busy" in str(error) else b"2"}.get(status)
    assert (str(error) in body["body"].decode()) is (status != 500)
    assert [each.message for each in events if isinstance(each, Warned)] == (
        ["the answer to /a.glb failed: ZeroDivisionError: by zero; please report this bug in tilesync"]
        if status == 500
        else []
    )
    (served,) = (each for each in events if isinstance(each, RequestServed))
    assert (served.status, str(error) in served.failure) == (status, True)


@pytest.mark.parametrize("error", [Unavailable("the store is away"), ZeroDivisionError("a bug")])
def test_a_place_that_fails_in_the_middle(error: Exception) -> None:
    """An answer that breaks off does not end: the server closes the connection, and the file is closed."""
    events: list[Event] = []
    tileset = BrokenTileset(error, in_the_middle=True)
    start, body = asyncio.run(ask(tileset, events))
    assert (start["status"], body["more_body"], tileset.closed) == (200, True, 1)
    (served,) = (each for each in events if isinstance(each, RequestServed))
    assert str(error) in served.failure


@pytest.mark.parametrize("in_the_middle", [False, True])
def test_an_answer_that_is_cancelled(in_the_middle: bool) -> None:
    """A server that stops answers 503 if nothing was sent; the event has the status that was sent, and the reason."""
    events: list[Event] = []
    messages: list[Any] = []
    tileset = BrokenTileset(asyncio.CancelledError(), in_the_middle=in_the_middle)
    with pytest.raises(asyncio.CancelledError):
        asyncio.run(ask(tileset, events, messages))
    status = 200 if in_the_middle else 503
    assert messages[0]["status"] == status
    assert (messages[-1]["body"], messages[-1]["more_body"]) == (
        (b"x" * 10, True) if in_the_middle else (b"the server is stopping\n", False)
    )
    (served,) = (each for each in events if isinstance(each, RequestServed))
    assert (served.status, served.failure) == (status, "the server is stopping")


def test_a_page_among_the_files_has_no_rights(tmp_path: Path) -> None:
    """HTML that a mirror or package has among its files may run no script on the origin of the viewer page."""
    files = {**export(1), "evil.html": b"<script>fetch('/_tilesync/site.json')</script>"}
    with running_server(mirror_files(tmp_path / "d", files, allow_missing=True)) as server:
        answer = server.request("/current/evil.html")
    assert answer.status == 200
    assert answer.headers["content-security-policy"] == "sandbox; default-src 'none'"
