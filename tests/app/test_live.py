"""Live exports against the fake service: links that die, newer exports, commands that print links, bare links."""

from __future__ import annotations

import asyncio
import shlex
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import IMODEL, export
from tests.support.faults import error_response, is_blob_named
from tests.support.live_exports import read, run
from tests.support.simulator import EXPORT, OTHER_EXPORT, JobOutcome, Simulator
from tilesync.app.live import MIN_CACHE_BYTES, LiveRequest, open_live_tileset
from tilesync.app.service import Identity, Service
from tilesync.azure.sas import parse_sas_link
from tilesync.errors import ExportReplaced, NoExport, UsageError
from tilesync.model import Secret, Selector
from tilesync.serving.live.tileset import LiveTileset

POLL = timedelta(seconds=0.2)


def make_request(sim: Simulator, **changes: Any) -> LiveRequest:
    service = Service(sim.url, Identity(token=Secret(sim.token)), retry_for=timedelta(seconds=3))
    return replace(
        LiveRequest(service, Selector(imodel=IMODEL, export_type="3DTiles"), timedelta(minutes=10), POLL, 256_000_000),
        **changes,
    )


@asynccontextmanager
async def serve(request: LiveRequest, outcome: JobOutcome | None = None) -> AsyncIterator[LiveTileset]:
    async with open_live_tileset(request, outcome or JobOutcome()) as tileset:
        yield tileset


async def read_all(tileset: LiveTileset, files: dict[str, bytes], prefix: str = "") -> None:
    """Read all files at once, and compare them."""
    contents = await asyncio.gather(*(read_path(tileset, prefix + name) for name in files))
    assert dict(zip(files, contents, strict=True)) == files


async def read_path(tileset: LiveTileset, path: str) -> bytes:
    return await read(await tileset.open(path))


async def wait_for_version(tileset: LiveTileset, version: str) -> None:
    """Wait until a version is the current one."""
    while (await tileset.describe()).current != version:
        await asyncio.sleep(0.02)


def test_newer_export_is_followed() -> None:
    """With follow the root leads to the newer export once it is Complete; the old one stays readable until deleted."""

    async def work() -> None:
        with Simulator() as sim:
            old = sim.offer_export()
            async with serve(make_request(sim, follow=True)) as tileset:
                new = sim.offer_export(export(seed=7), export_id=OTHER_EXPORT, lastModified="2026-03-02T08:30:00Z")
                await wait_for_version(tileset, OTHER_EXPORT)
                await read_all(tileset, new, f"versions/{OTHER_EXPORT}/")
                await read_all(tileset, old, f"versions/{EXPORT}/")
                assert f"versions/{OTHER_EXPORT}/".encode() in await read_path(tileset, "tileset.json")
                tileset._context.cache.discard_version(EXPORT)
                sim.delete(EXPORT)
                with pytest.raises(ExportReplaced, match="the container is gone"):
                    await tileset.open(f"versions/{EXPORT}/tiles/000.glb")
                await read_all(tileset, {name: new[name] for name in new if name != "tileset.json"})

    run(work)


def test_link_to_another_container_is_a_newer_export(tmp_path: Path) -> None:
    """With --link-command and follow, a link to another container is a newer export."""

    async def work() -> None:
        with Simulator() as sim:
            old, new = sim.offer_export(), sim.offer_export(export(seed=7), export_id=OTHER_EXPORT)
            link = tmp_path / "link"
            link.write_text(sim.create_link(EXPORT))
            command = shlex.join(["cat", str(link)])
            request = make_request(
                sim, link=parse_sas_link(link.read_text()), link_command=command, selector=Selector(), follow=True
            )
            async with serve(request) as tileset:
                await read_all(tileset, old, f"versions/{EXPORT}/")
                link.with_suffix(".new").write_text(sim.create_link(OTHER_EXPORT))
                link.with_suffix(".new").replace(link)
                await wait_for_version(tileset, OTHER_EXPORT)
                await read_all(tileset, new, f"versions/{OTHER_EXPORT}/")

    run(work)


def test_missing_and_gone() -> None:
    """A file that the container lacks is none; a container that is gone without follow says what to do."""

    async def work() -> None:
        with Simulator() as sim:
            sim.offer_export()
            async with serve(make_request(sim)) as tileset:
                assert await tileset.open("none.glb") is None
                sim.delete(EXPORT)
                with pytest.raises(ExportReplaced) as caught:
                    await tileset.open("tiles/000.glb")
                assert "--follow" in caught.value.hint

    run(work)


def test_range_of_a_large_file() -> None:
    """A range of a file that is too large for the cache is a range at the container too."""
    large = b"glTF" + bytes(range(256)) * 40_000

    async def work() -> None:
        with Simulator() as sim:
            sim.offer_export(export() | {"large.glb": large})
            async with serve(make_request(sim, cache_bytes=MIN_CACHE_BYTES)) as tileset:
                opened = await tileset.open("large.glb")
                assert await read(opened, 5_000_000, 5_001_000) == large[5_000_000:5_001_000]
                assert await read(await tileset.open("large.glb")) == large
            ranges = [request.headers.get("range") for request in sim.blob_requests("large.glb")]
            assert ranges[:3] == [None, "bytes=5000000-5000999", "bytes=0-524287"]

    run(work)


def test_gzip_payload() -> None:
    """A gzip payload is sent as it is stored, with the encoding that viewers need."""

    async def work() -> None:
        import gzip

        with Simulator() as sim:
            packed = gzip.compress(b"glTF" + bytes(100), mtime=0)
            sim.offer_export(export() | {"packed.glb": packed})
            async with serve(make_request(sim)) as tileset:
                opened = await tileset.open("packed.glb")
                assert opened is not None
                assert opened.facts.headers.content_encoding == "gzip"
                assert opened.facts.headers.content_type == "model/gltf-binary"
                assert await read(opened) == packed

    run(work)


def test_busy_storage_is_retried() -> None:
    """A storage that is busy for a moment is asked again, and the client sees nothing of it."""

    async def work() -> None:
        with Simulator() as sim:
            files = sim.offer_export()
            sim.add_fault(is_blob_named("tiles/000.glb"), error_response(503, "ServerBusy"), times=2)
            async with serve(make_request(sim)) as tileset:
                assert await read_path(tileset, "tiles/000.glb") == files["tiles/000.glb"]

    run(work)


def test_no_export() -> None:
    """If the service has no export within the wait, the server does not start."""

    async def work() -> None:
        with Simulator() as sim, pytest.raises(NoExport):
            async with serve(make_request(sim, wait=timedelta())):
                raise AssertionError("it runs")

    run(work)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"follow": True, "link": "https://a.blob.core.windows.net/c?sig=x"}, "--follow needs an iModel id"),
        ({"follow": True, "selector": Selector(imodel=IMODEL, export_id="e")}, "--follow and --export-id contradict"),
        ({"cdn": True, "link": "https://a.blob.core.windows.net/c?sig=x"}, "--cdn needs an iModel id"),
        ({"cache_bytes": 1000}, "--cache-size must be at least 16 MB"),
        ({"poll": timedelta()}, "--poll must be longer"),
    ],
)
def test_options_that_contradict(changes: dict[str, Any], message: str) -> None:
    """Options that contradict each other are refused before anything is requested."""
    if "link" in changes:
        changes = {**changes, "link": parse_sas_link(changes["link"])}
    with pytest.raises(UsageError, match=message):
        replace(LiveRequest(Service(), Selector(imodel=IMODEL), timedelta(), POLL, 256_000_000), **changes).check()
