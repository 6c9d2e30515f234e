"""Tileset of a live export: paths, the pointer, switches to newer exports, and facts of files."""

from __future__ import annotations

import asyncio
import hashlib
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict
from datetime import timedelta

import pytest

from tests.support.builders import glb, tileset
from tests.support.live_exports import (
    CONTAINER_URL,
    FakeContainer,
    FakeResolver,
    ManualClock,
    make_context,
    make_resolution,
    run,
)
from tests.support.live_exports import read as read_file
from tests.support.simulator import JobOutcome
from tilesync.errors import ExportReplaced, NoExport, UsageError
from tilesync.events import Notice, Warned
from tilesync.serving.live.tileset import LiveOptions, LiveTileset

OLD = {"tileset.json": tileset("tiles/0.glb"), "tiles/0.glb": glb(b"old"), "versions/own": b"the container's own"}
NEW = {"tileset.json": tileset("tiles/0.glb", f"{CONTAINER_URL}/tiles/1.glb"), "tiles/0.glb": glb(b"new")}
POLL = timedelta(seconds=60)


class LiveFixture:
    """A live tileset of two exports in memory, on a clock that the test moves."""

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.outcome = JobOutcome()
        self.containers = {"e1": FakeContainer(dict(OLD)), "e2": FakeContainer(dict(NEW))}
        self.resolver = FakeResolver(make_resolution("e1", modified="2026-03-01"), self.containers)
        self.context = make_context(clock=self.clock, outcome=self.outcome)

    @asynccontextmanager
    async def serve(self, *, follow: bool = False) -> AsyncIterator[LiveTileset]:
        tileset = LiveTileset(self.resolver, self.context, LiveOptions(follow, POLL, "bridge"))
        async with tileset.running():
            yield tileset

    @asynccontextmanager
    async def passing_time(self) -> AsyncIterator[None]:
        """Let half a second of the clock pass each millisecond."""

        async def move() -> None:
            while True:
                self.clock.advance(0.5)
                await asyncio.sleep(0.001)

        moving = asyncio.create_task(move())
        try:
            yield
        finally:
            moving.cancel()


def messages_of(outcome: JobOutcome) -> list[str]:
    return [event.message for event in outcome.events if isinstance(event, Notice | Warned)]


async def check_for_newer(tileset: LiveTileset) -> None:
    """Look for a newer export now."""
    await tileset._follower.check_for_newer()


async def read(tileset: LiveTileset, path: str) -> bytes:
    return await read_file(await tileset.open(path))


def test_paths_of_the_container() -> None:
    """Without follow the container's own paths are served as they are, and each export at its pinned path too."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve() as tileset:
            for name, content in OLD.items():
                assert await read(tileset, name) == content
                assert await read(tileset, f"versions/e1/{name}") == content
            opened = await tileset.open("tiles/0.glb")
            pinned = await tileset.open("versions/e1/tiles/0.glb")
            assert opened is not None
            assert pinned is not None
            assert opened.facts.headers.cache_control == "no-cache"
            assert pinned.facts.headers.cache_control == "public, max-age=3600"
            for path in (
                "none",
                "versions/e2/tileset.json",
                "versions/e1/",
                "versions",
                "a/../tileset.json",
                "",
                "a\\b",
            ):
                assert await tileset.open(path) is None

    run(work)


def test_root_leads_to_the_version() -> None:
    """With follow the URIs of the root tileset lead to the current export, also those with the container's address."""

    async def work() -> None:
        live = LiveFixture()
        live.resolver.resolution = make_resolution("e2")
        async with live.serve(follow=True) as tileset:
            root = await read(tileset, "tileset.json")
            uris = [child["content"]["uri"] for child in json.loads(root)["root"]["children"]]
            assert uris == ["versions/e2/tiles/0.glb", "versions/e2/tiles/1.glb"]
            assert await read(tileset, "versions/e2/tileset.json") == NEW["tileset.json"]
            assert await read(tileset, "tiles/0.glb") == NEW["tiles/0.glb"]
            opened = await tileset.open("tileset.json")
            assert opened is not None
            assert opened.facts.etag == f'"{hashlib.sha256(root).hexdigest()[:32]}"'
            assert opened.facts.headers.cache_control == "no-cache"

    run(work)


def test_newer_export_is_taken_up() -> None:
    """A newer export is served from the next poll on; the previous one stays at its pinned path, for an hour."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve(follow=True) as tileset:
            await read(tileset, "tileset.json")
            live.resolver.resolution = make_resolution("e2", modified="2026-03-02")
            await check_for_newer(tileset)
            assert b"versions/e2/" in await read(tileset, "tileset.json")
            assert await read(tileset, "versions/e1/tiles/0.glb") == OLD["tiles/0.glb"]
            entry = await tileset.describe()
            assert [(each.name, each.current) for each in entry.versions] == [("e2", True), ("e1", False)]
            live.clock.advance(3600)
            await check_for_newer(tileset)
            with pytest.raises(ExportReplaced, match="export e1 is no longer served"):
                await tileset.open("versions/e1/tiles/0.glb")
            assert [each.name for each in (await tileset.describe()).versions] == ["e2"]
        assert [event.message for event in live.outcome.events_of(Notice)] == [
            "export e2 of 2026-03-02 is served from now on"
        ]
        assert live.context.cache.used_bytes == 0

    run(work)


def test_unfinished_and_invalid_exports_are_said_once() -> None:
    """While the newest export is not Complete the old one stays; each state is said once."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve(follow=True) as tileset:
            for status in ("InProgress", "Invalid"):
                live.resolver.resolution = make_resolution(
                    "e1", modified="2026-03-01", newest="e2", newest_status=status
                )
                await check_for_newer(tileset)
                await check_for_newer(tileset)
            assert (await tileset.describe()).current == "e1"
        assert messages_of(live.outcome) == [
            "the newest export, e2, is InProgress: it is taken up when it is Complete",
            "the newest export, e2, is Invalid: the last finished one stays",
        ]

    run(work)


def test_newer_export_that_cannot_be_read() -> None:
    """A newer export whose root tileset cannot be read does not take the place of the old one, until it can."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve(follow=True) as tileset:
            root = live.containers["e2"].files.pop("tileset.json")
            live.resolver.resolution = make_resolution("e2")
            await check_for_newer(tileset)
            assert (await tileset.describe()).current == "e1"
            assert live.outcome.warnings[0].startswith("export e2 cannot be served yet: ")
            live.containers["e2"].files["tileset.json"] = root
            await check_for_newer(tileset)
            assert (await tileset.describe()).current == "e2"

    run(work)


def test_service_is_down() -> None:
    """A poll that fails is said, changes nothing, and the next one goes on."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve(follow=True) as tileset:
            live.resolver.resolution = ExportReplaced("the service answers 503", hint="wait")
            await check_for_newer(tileset)
            assert live.outcome.warnings == ["no newer export could be looked for: the service answers 503 (wait)"]
            assert await read(tileset, "tiles/0.glb") == OLD["tiles/0.glb"]
            live.resolver.resolution = make_resolution("e2")
            await check_for_newer(tileset)
            assert (await tileset.describe()).current == "e2"

    run(work)


def test_deleted_export_with_follow() -> None:
    """A request that finds the current export gone makes the server look at once, and the root waits for the newer."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve(follow=True) as tileset:

            def gone(_: str) -> None:
                raise ExportReplaced("the container is gone (404 ContainerNotFound)")

            live.containers["e1"].before_open = gone
            live.resolver.resolution = make_resolution("e2")
            with pytest.raises(ExportReplaced, match="the container is gone") as caught:
                await tileset.open("versions/e1/tiles/0.glb")
            assert caught.value.hint == "load tileset.json again: it names the current export"
            async with live.passing_time():
                assert b"versions/e2/" in await read(tileset, "tileset.json")

    run(work)


def test_deleted_export_without_follow() -> None:
    """Without follow the answer says what to do, and the terminal too."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve() as tileset:
            await read(tileset, "tileset.json")
            live.containers["e1"].files["tileset.json"] = b"{}"
            await check_for_newer(tileset)
            with pytest.raises(ExportReplaced, match="generated again, or deleted") as caught:
                await tileset.open("tileset.json")
            assert "--follow" in caught.value.hint
            assert live.resolver.resolve_count == 1
        assert len(live.outcome.warnings) == 1
        assert live.outcome.warnings[0].startswith("export e1: the export was generated again, or deleted (")

    run(work)


def test_export_generated_again() -> None:
    """An export that is generated again under its id is served under a name of its own."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve(follow=True) as tileset:
            live.containers["e1"] = FakeContainer(NEW)
            live.resolver.resolution = make_resolution("e1", modified="2026-03-02")
            await check_for_newer(tileset)
            assert (await tileset.describe()).current == "e1-2"
            assert await read(tileset, "versions/e1-2/tiles/0.glb") == NEW["tiles/0.glb"]

    run(work)


def test_search_that_fails() -> None:
    """If there is no export to begin with, the server does not start."""

    async def work() -> None:
        live = LiveFixture()
        live.resolver.resolution = NoExport("there is no export yet")
        with pytest.raises(NoExport):
            async with live.serve():
                raise AssertionError("it runs")

    run(work)


def test_description_and_facts() -> None:
    """The entry names the export; a file has the facts of its blob; what is unknown is null."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve() as tileset:
            entry = await tileset.describe()
            assert (entry.kind, entry.title, entry.current, entry.follow) == ("live", "City e1", "e1", False)
            assert asdict(entry.versions[0]) == {
                "name": "e1",
                "url": "versions/e1/tileset.json",
                "export": "e1",
                "imodel": "i",
                "display_name": "City e1",
                "changeset": None,
                "modified": "2026-03-01",
                "finished": None,
                "files": None,
                "bytes": None,
                "current": True,
                "missing": 0,
            }
            data = OLD["tiles/0.glb"]
            found = await tileset.find_file("e1", "tiles/0.glb")
            assert found is not None
            assert asdict(found) == {
                "name": "tiles/0.glb",
                "size": len(data),
                "sha256": hashlib.sha256(data).hexdigest(),
                "md5": hashlib.md5(data, usedforsecurity=False).hexdigest(),
                "etag": f'"{live.containers["e1"].blob("tiles/0.glb").etag}"',
                "content_type": "model/gltf-binary",
                "content_encoding": None,
                "last_modified": "2026-03-01T08:30:00+00:00",
            }
            assert await tileset.find_file("", "tiles/0.glb") == found, "without a version: of the current export"
            assert await tileset.find_file("e1", "none") is None
            with pytest.raises(UsageError, match="cannot be compared"):
                await tileset.diff_lines("e1", "e1")

    run(work)


def test_versions_that_file_json_is_asked_for() -> None:
    """A version may be `current` or a unique prefix; an unknown or ambiguous one is an error that names a next step."""

    async def work() -> None:
        live = LiveFixture()
        async with live.serve(follow=True) as tileset:
            pinned = await tileset.find_file("e1", "tiles/0.glb")
            assert pinned is not None
            assert await tileset.find_file("current", "tiles/0.glb") == pinned
            assert await tileset.find_file("e", "tiles/0.glb") == pinned
            live.resolver.resolution = make_resolution("e2", modified="2026-03-02")
            await check_for_newer(tileset)
            assert await tileset.find_file("e1", "tiles/0.glb") == pinned
            newer = await tileset.find_file("e2", "tiles/0.glb")
            assert await tileset.find_file("current", "tiles/0.glb") == newer != pinned
            for version, problem in (("e9", "no version is named"), ("e", "more than one version begins with")):
                with pytest.raises(UsageError, match=problem) as caught:
                    await tileset.find_file(version, "tiles/0.glb")
                assert caught.value.hint == "site.json lists the versions"

    run(work)
