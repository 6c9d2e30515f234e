"""Test that a server follows its path: a folder or a package that was deleted, replaced, or linked elsewhere."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, cast

import pytest

import tilesync as ts
from tests.support.builders import export, glb
from tests.support.simulator import EXPORT
from tests.support.tile_server import Answer, RunningServer, mirror_files, running_server
from tilesync.core.http_headers import CachePolicy
from tilesync.errors import DamagedPackage, DestinationError, Unavailable
from tilesync.events import Event, Notice, Warned
from tilesync.serving.comparisons import DiffLines
from tilesync.serving.reopening import CHECK_INTERVAL_S, ReopenedTileset
from tilesync.serving.tilesets import FileFacts, FileRow, TilesetEntry, TilesetKind

FILES, OTHER = export(2), export(3, seed=7)
LARGE = glb(bytes(30_000_000))


def ask_until(server: RunningServer, path: str, matches: Callable[[Answer], bool]) -> Answer:
    """Request a path until the answer matches: the server checks the path once a second."""
    for _ in range(10_000):
        if matches(answer := server.request(path)):
            return answer
    raise AssertionError(answer)


def read_entry(server: RunningServer) -> dict[str, Any]:
    """Return the only tileset of `site.json`."""
    (entry,) = json.loads(server.request("/_tilesync/site.json").body)["tilesets"]
    return cast("dict[str, Any]", entry)


def read_versions(server: RunningServer) -> list[str]:
    return [each["name"] for each in read_entry(server)["versions"]]


def test_a_folder_that_is_deleted_and_mirrored_again(tmp_path: Path) -> None:
    """While the folder is away the answers are 503 with a sentence; then it is served again, each time."""
    dest, path = tmp_path / "bridge", f"/versions/{EXPORT}/tileset.json"
    mirror_files(dest, FILES)
    with running_server(dest) as server:
        for files in (OTHER, FILES):
            assert server.request(path).status == 200
            shutil.rmtree(dest)
            gone = ask_until(server, path, lambda answer: answer.status == 503)
            assert b"bridge is not there" in gone.body
            assert str(tmp_path).encode() not in gone.body
            (tmp_path / "bridge").mkdir()
            mirror_files(dest, files)
            found = ask_until(server, path, lambda answer: answer.status != 503)
            assert (found.status, found.body) == (200, files["tileset.json"])
            assert read_versions(server) == [EXPORT]
            assert server.request("/tileset.json").status == 200
    assert any("is gone" in each.message for each in server.events if isinstance(each, Warned))


def test_a_link_that_leads_elsewhere(tmp_path: Path) -> None:
    """A WHAT that is a symlink is served from where it leads now; an answer under way ends with the old file."""
    first = mirror_files(tmp_path / "first", FILES | {"large.glb": LARGE})
    second = mirror_files(tmp_path / "second", OTHER)
    link = tmp_path / "link"
    link.symlink_to(first)
    with running_server(link) as server, socket.create_connection(server.address) as client:
        client.sendall(f"GET /versions/{EXPORT}/large.glb HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
        received = bytearray(client.recv(1000))
        (tmp_path / "new").symlink_to(second)
        (tmp_path / "new").rename(link)
        path = f"/versions/{EXPORT}/tileset.json"
        ask_until(server, path, lambda answer: answer.body == OTHER["tileset.json"])
        while data := client.recv(1 << 20):
            received += data
        assert bytes(received.partition(b"\r\n\r\n")[2]) == LARGE


@pytest.mark.parametrize("suffix", [".3tz", ".zip"])
def test_a_package_that_is_replaced(tmp_path: Path, suffix: str) -> None:
    """A package that is written again under its name is served as it is now."""
    package = tmp_path / f"bridge{suffix}"
    ts.pack(mirror_files(tmp_path / "first", FILES), package)
    second = mirror_files(tmp_path / "second", OTHER)
    with running_server(package) as server:
        assert server.request("/tileset.json").body == FILES["tileset.json"]
        ts.pack(second, package, overwrite=True)
        ask_until(server, "/tileset.json", lambda answer: answer.body == OTHER["tileset.json"])


@pytest.mark.parametrize("suffix", [".3tz", ".tar"])
def test_a_package_that_is_replaced_by_a_damaged_one(tmp_path: Path, suffix: str) -> None:
    """The answers are 502 with the reason, without the folders of the machine; 503 if it is gone; then all is well."""
    package, spare = tmp_path / f"rep{suffix}", tmp_path / f"spare{suffix}"
    ts.pack(mirror_files(tmp_path / "first", FILES), package)
    ts.pack(mirror_files(tmp_path / "second", OTHER), spare)
    with running_server(package) as server:
        cut_off = tmp_path / "new"
        cut_off.write_bytes(package.read_bytes()[:-600])
        cut_off.rename(package)
        damaged = ask_until(server, "/tileset.json", lambda answer: answer.status != 200)
        sentence, hint = damaged.body.decode().splitlines()
        assert damaged.status == 502
        assert re.match(rf"the package rep{suffix} is cut off: \w", sentence)
        assert "as soon as a whole package is there" in hint
        assert read_entry(server)["error"] == sentence
        package.unlink()
        gone = ask_until(server, "/tileset.json", lambda answer: answer.status != 502)
        assert (gone.status, read_entry(server)["error"]) == (503, f"rep{suffix} is not there at the moment")
        spare.rename(package)
        assert ask_until(server, "/tileset.json", lambda answer: answer.status == 200).body == OTHER["tileset.json"]
        assert "error" not in read_entry(server)
        assert len([each for each in server.events if isinstance(each, Warned)]) == 1


class _File:
    """File that is read piece by piece."""

    body = cache = None
    facts = FileFacts(3, '"e"', CachePolicy().document_headers())

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        yield b"abc"

    async def aclose(self) -> None:
        """Do nothing."""


class _Tileset:
    """Tileset that records when it is closed."""

    kind = TilesetKind.PACKAGE

    def __init__(self) -> None:
        self.is_closed = False

    async def open(self, path: str) -> _File | None:
        return _File() if path == "a" else None

    async def describe(self) -> TilesetEntry:
        return TilesetEntry(title="t", kind=self.kind, current=None)

    async def find_file(self, version: str, name: str) -> FileRow | None:
        return None

    async def diff_lines(self, a: str, b: str) -> DiffLines:
        return DiffLines(iter([b"finished"]), lambda: None)


class _Place:
    """Path whose tilesets are counted; `problem` is raised by the next opening."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.now = 0.0
        self.events: list[Event] = []
        self.opened: list[_Tileset] = []
        self.problem: Exception | None = None
        self.tileset = ReopenedTileset("name", [path], self.open, self.events.append, clock=lambda: self.now)

    @asynccontextmanager
    async def open(self) -> AsyncIterator[_Tileset]:
        if self.problem is not None:
            raise self.problem
        tileset = _Tileset()
        self.opened.append(tileset)
        try:
            yield tileset
        finally:
            tileset.is_closed = True

    def replace(self) -> None:
        """Put another file at the path, and let the time of the next check come."""
        self.path.with_suffix(".new").write_bytes(b"x")
        self.path.with_suffix(".new").rename(self.path)
        self.now += CHECK_INTERVAL_S


def test_what_is_in_use_is_closed_last(tmp_path: Path) -> None:
    """A tileset that was replaced is closed when its last file has ended, not before; comparisons do not need it."""
    place = _Place(tmp_path / "a.3tz")
    place.path.write_bytes(b"x")

    async def work() -> None:
        async with place.tileset.running():
            file, lines = await place.tileset.open("a"), await place.tileset.diff_lines("a", "b")
            assert file is not None
            place.replace()
            assert await place.tileset.open("none") is None
            assert [each.is_closed for each in place.opened] == [False, False]
            await file.aclose()
            await file.aclose()
            while not place.opened[0].is_closed:
                await asyncio.sleep(0)
            assert not place.opened[1].is_closed
            assert await lines.read() == b"finished"
        assert place.opened[1].is_closed

    asyncio.run(asyncio.wait_for(work(), 30))
    assert len(place.opened) == 2
    assert [type(each) for each in place.events] == [Notice]


def test_what_cannot_be_opened_is_tried_again(tmp_path: Path) -> None:
    """A new file that is no package is a 503 and one warning, and is tried again each second."""
    place = _Place(tmp_path / "a.3tz")
    place.path.write_bytes(b"x")

    async def work() -> None:
        async with place.tileset.running():
            place.problem = DestinationError("it is damaged")
            place.replace()
            for _ in range(2):
                place.now += CHECK_INTERVAL_S
                with pytest.raises(Unavailable, match="name is not there"):
                    await place.tileset.open("a")
            place.problem = None
            with pytest.raises(Unavailable):  # the second is not over
                await place.tileset.open("a")
            place.now += CHECK_INTERVAL_S
            assert await place.tileset.open("a") is not None

    asyncio.run(asyncio.wait_for(work(), 30))
    assert [each.message for each in place.events if isinstance(each, Warned)] == [
        "it is damaged: requests for name are refused until a tileset is there again"
    ]


def test_a_damaged_package_after_a_missing_one(tmp_path: Path) -> None:
    """A package that comes back damaged is a warning of its own, once; each request raises its reason."""
    place = _Place(tmp_path / "a.3tz")
    place.path.write_bytes(b"x")

    async def work() -> None:
        async with place.tileset.running():
            place.path.unlink()
            place.now += CHECK_INTERVAL_S
            with pytest.raises(Unavailable):
                await place.tileset.open("a")
            place.problem = DamagedPackage(f"the package {place.path} is cut off")
            place.replace()
            for _ in range(2):
                place.now += CHECK_INTERVAL_S
                with pytest.raises(DamagedPackage, match=r"^the package a\.3tz is cut off$"):
                    await place.tileset.open("a")
            place.problem = None
            place.now += CHECK_INTERVAL_S
            assert await place.tileset.open("a") is not None

    asyncio.run(asyncio.wait_for(work(), 30))
    more = ": requests for name are refused until a tileset is there again"
    assert [each.message for each in place.events if isinstance(each, Warned)] == [
        f"{place.path} is gone{more}",
        f"the package {place.path} is cut off{more}",
    ]
