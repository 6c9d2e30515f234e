"""Test which files of a destination are public: those that a manifest names."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import pytest

from tests.support.builders import export
from tests.support.fake_destination import FakeDestination
from tests.support.simulator import EXPORT, Simulator
from tests.support.tile_server import mirror_files, running_server
from tilesync.core.http_headers import IMMUTABLE_CACHE_CONTROL, REVALIDATE_CACHE_CONTROL
from tilesync.errors import Unavailable
from tilesync.model import Layout
from tilesync.protocols import ReadOnlyPublication
from tilesync.serving.comparisons import ComparedVersions, SharedComparisons
from tilesync.serving.mirror import MAX_KNOWN_VERSIONS, MirrorParts, MirrorTileset

FILES = export(2) | {"tiles/.named.glb": b"glTF-named", "empty.glb": b""}
FOREIGN = ("private.txt", "tiles/private.glb", ".git/config", "tiles/.git/config", ".hidden")


def put_foreign_files(folder: Path) -> None:
    for name in FOREIGN:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"secret")


def test_the_flat_layout_has_the_names_of_its_manifest(tmp_path: Path) -> None:
    """Beside the files of the version nothing is served, hidden or not; a new version brings its names."""
    flat = mirror_files(tmp_path / "d", FILES, layout=Layout.FLAT)
    put_foreign_files(flat)
    with running_server(flat) as server:
        for name, data in FILES.items():
            answer = server.request(f"/{quote(name)}")
            assert (answer.status, answer.body) == (200, data), name
        assert [server.request(f"/{name}").status for name in (*FOREIGN, "new.glb")] == [404] * 6
        more = FILES | {"new.glb": b"glTF-new", "tiles/.new.glb": b"glTF"}
        del more["tiles/.named.glb"]
        with Simulator() as sim:
            sim.offer_export(more, export_id="next", lastModified="2026-03-09T08:30:00Z")
            assert sim.mirror(flat, layout=Layout.FLAT).error is None
        for name in ("new.glb", "tiles/.new.glb"):
            assert server.request(f"/{name}").body == more[name]
        assert server.request("/tiles/.named.glb").status == 404


def test_hidden_files_of_a_version(tmp_path: Path) -> None:
    """Below a version a hidden name is served if the manifest has it, and only then."""
    dest = mirror_files(tmp_path / "d", FILES)
    put_foreign_files(dest / "versions" / EXPORT)
    with running_server(dest) as server:
        for folder in (f"versions/{EXPORT}", "current"):
            assert server.request(f"/{folder}/tiles/.named.glb").body == FILES["tiles/.named.glb"]
            for name in (".git/config", "tiles/.git/config", ".hidden"):
                assert server.request(f"/{folder}/{name}").status == 404


@pytest.mark.parametrize(
    ("name", "expected"), [("empty.glb", REVALIDATE_CACHE_CONTROL), ("tileset.json", IMMUTABLE_CACHE_CONTROL)]
)
def test_an_empty_file_is_asked_for_again(tmp_path: Path, name: str, expected: str) -> None:
    """An empty file may be a damaged one, so caches do not keep it for a year, unlike all others."""
    with running_server(mirror_files(tmp_path / "d", FILES)) as server:
        assert server.request(f"/versions/{EXPORT}/{name}").headers["cache-control"] == expected


class OneFile:
    """File of which only the manifest tells the type."""

    size, etag, last_modified, head, body = 4, '"1"', None, b"text", b"text"

    async def aclose(self) -> None:
        """Nothing is open."""


class PublicFilesOfTest:
    """Files of which each manifest and each file of a version exists."""

    has_other_files = True

    async def open(self, path: str) -> Any:
        """Open a file."""
        return OneFile()


class SlowManifests(FakeDestination):
    """Destination whose manifests are read when the test says so. `readings`: the versions that were read."""

    def __init__(self) -> None:
        super().__init__()
        self.may_read = threading.Event()
        self.readings: list[str] = []
        self.failures: list[Exception] = []
        self.chunks_read = 0

    def manifest_chunks(self, version: str) -> Iterator[bytes]:
        """Wait for the test, and return the bytes of a manifest, or raise the next failure."""
        self.readings.append(version)
        assert self.may_read.wait(30)
        if self.failures:
            raise self.failures.pop()
        for chunk in super().manifest_chunks(version):
            self.chunks_read += 1
            yield chunk


def refuse_to_compare(a: str, b: str) -> ComparedVersions:
    raise AssertionError("no test of this file compares versions")


@contextmanager
def tileset_of(publication: SlowManifests, versions: int) -> Iterator[MirrorTileset]:
    for number in range(versions):
        publication.add_version(f"v{number}", {"a.txt": b"text"})
    parts = MirrorParts("t", PublicFilesOfTest(), cast("ReadOnlyPublication", publication))
    with closing(MirrorTileset(parts, refuse_to_compare, SharedComparisons())) as tileset:
        yield tileset


async def wait_for(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.001)


def test_waiting_requests_share_one_reading_of_a_manifest() -> None:
    """A manifest is read once for all requests, also if the first of them leaves while it is being read."""

    async def work() -> None:
        publication = SlowManifests()
        with tileset_of(publication, 1) as tileset:
            first, *others = [asyncio.ensure_future(tileset.open("versions/v0/a.txt")) for _ in range(8)]
            await wait_for(lambda: bool(publication.readings))
            first.cancel()
            await asyncio.wait({first})
            publication.may_read.set()
            assert all(await asyncio.gather(*others))
            assert await tileset.open("versions/v0/a.txt") is not None
        assert publication.readings == ["v0"]

    asyncio.run(work())


def test_a_failed_reading_is_repeated() -> None:
    """An error of reading a manifest answers the requests that wait, and no later one."""

    async def work() -> None:
        publication = SlowManifests()
        publication.may_read.set()
        publication.failures.append(Unavailable("gone"))
        with tileset_of(publication, 1) as tileset:
            with pytest.raises(Unavailable):
                await tileset.open("versions/v0/a.txt")
            assert await tileset.open("versions/v0/a.txt") is not None
        assert publication.readings == ["v0", "v0"]

    asyncio.run(work())


def test_the_versions_that_were_asked_for_last_stay_in_memory() -> None:
    """What is known of a few versions is kept; the one that was not asked for longest is read again."""

    async def work() -> None:
        publication = SlowManifests()
        publication.may_read.set()
        with tileset_of(publication, MAX_KNOWN_VERSIONS + 1) as tileset:
            for number in (*range(MAX_KNOWN_VERSIONS), 0, MAX_KNOWN_VERSIONS, 0, 1):
                assert await tileset.open(f"versions/v{number}/a.txt") is not None
        numbers = [*range(MAX_KNOWN_VERSIONS), MAX_KNOWN_VERSIONS, 1]
        assert publication.readings == [f"v{number}" for number in numbers]

    asyncio.run(work())


def test_the_end_of_the_server_ends_a_reading() -> None:
    """A manifest that is being read when the server ends is not read to its end."""

    async def work() -> None:
        publication = SlowManifests()
        publication.chunk_bytes = 1000
        publication.add_version("long", {f"{number}.txt": b"text" for number in range(100)})
        with tileset_of(publication, 0) as tileset:
            waiting = asyncio.ensure_future(tileset.open("versions/long/1.txt"))
            await wait_for(lambda: bool(publication.readings))
        with pytest.raises(asyncio.CancelledError):
            await waiting
        publication.may_read.set()
        for thread in threading.enumerate():
            if thread.name.startswith("tilesync-documents"):
                await asyncio.to_thread(thread.join, 30)
        assert publication.chunks_read < 5

    asyncio.run(work())
