"""Files of a container behind the cache: single flight, bounds, retries and failures."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime, timedelta

import pytest

from tests.support.clock import FakeClock
from tests.support.live_exports import (
    CONTAINER_URL,
    FakeBody,
    FakeContainer,
    ManualClock,
    make_context,
    make_files,
    read,
    run,
)
from tests.support.simulator import JobOutcome
from tilesync.errors import (
    BlobMissing,
    ExportReplaced,
    LinkRefused,
    NotAuthorised,
    TilesyncError,
    Transient,
    Unavailable,
)
from tilesync.events import Notice
from tilesync.model import Blob, SasUrl
from tilesync.runtime.streamed_file import StreamPool
from tilesync.serving.live.container_files import MAX_KEPT_BYTES, MISSING_FOR_S, REFUSED_FOR_S, STREAM_RANGE_BYTES
from tilesync.transport.renewing_link import RenewingLink

FILES = {"tileset.json": b'{"root": {}}', "a.glb": b"glTF" + bytes(5000), "empty": b"", "b.glb": b"glTF2"}


def fail_times(count: int, error: Callable[[], TilesyncError]) -> Callable[[object], None]:
    """Return a hook that raises for the first `count` calls."""
    left = [count]

    def hook(_: object) -> None:
        left[0] -= 1
        if left[0] >= 0:
            raise error()

    return hook


def test_file_is_kept() -> None:
    """A second request is answered from memory, with the facts that the container states."""

    async def work() -> None:
        container, context = FakeContainer(FILES), make_context()
        files = make_files(container, context)
        states = []
        for _ in range(2):
            opened = await files.open("a.glb")
            states.append(opened.cache)
            facts = opened.facts
            assert await read(opened) == FILES["a.glb"]
        assert states == ["miss", "hit"]
        assert container.opened == [("a.glb", 0)]
        assert (facts.size, facts.etag) == (5004, f'"{container.blob("a.glb").etag}"')
        assert (facts.headers.content_type, facts.last_modified) == ("model/gltf-binary", 1_772_353_800)
        assert (context.cache.counts.hits, context.cache.counts.misses) == (1, 1)
        assert await read(await files.open("empty")) == b""

    run(work)


def test_concurrent_requests_share_one_download() -> None:
    """64 requests for one file cause one download, and the ones that are cancelled do not end it."""

    async def work() -> None:
        container, context = FakeContainer(FILES), make_context()
        files = make_files(container, context)
        container.gate.clear()
        tasks = [asyncio.create_task(files.open("a.glb")) for _ in range(64)]
        await asyncio.sleep(0.01)
        for task in tasks[:40]:
            task.cancel()
        await asyncio.sleep(0)
        container.gate.set()
        results = await asyncio.gather(*tasks, return_exceptions=True)
        opened = [result for result in results if not isinstance(result, BaseException)]
        assert len(opened) == 24
        assert {await read(each) for each in opened} == {FILES["a.glb"]}
        assert container.opened == [("a.glb", 0)]
        assert (context.cache.counts.misses, context.cache.counts.joined) == (1, 63)

    run(work)


def test_download_that_nobody_waits_for_is_kept() -> None:
    """If all clients go away, the download still ends in the cache, and pins nothing."""

    async def work() -> None:
        container, context = FakeContainer(FILES), make_context()
        files = make_files(container, context)
        container.gate.clear()
        task = asyncio.create_task(files.open("a.glb"))
        await asyncio.sleep(0.01)
        task.cancel()
        container.gate.set()
        await asyncio.sleep(0.05)
        assert (await files.open("a.glb")).cache == "hit"
        assert len(container.opened) == 1
        assert context.cache.reserve(context.cache.max_bytes - 5004 - 2000)

    run(work)


def test_large_file_is_streamed() -> None:
    """A file over the limit is not kept; a range of it begins at its offset, and other requests need no description."""
    big = b"glTF" + bytes(range(256)) * 1000

    async def work() -> None:
        container, context = FakeContainer({"big.glb": big}), make_context(cache_bytes=8 * 100_000)
        files = make_files(container, context)
        opened = await files.open("big.glb")
        assert (opened.cache, opened.body, opened.facts.size) == ("pass", None, len(big))
        assert opened.facts.headers.content_type == "model/gltf-binary"
        assert await read(opened) == big
        assert await read(await files.open("big.glb"), 200_000, 200_777) == big[200_000:200_777]
        assert container.opened == [("big.glb", 0), ("big.glb", 0), ("big.glb", 200_000)]
        assert container.ends == [len(big), 200_777]
        assert container.open_bodies == 0
        assert context.cache.used_bytes < 10_000

    run(work)


def test_stream_resumes() -> None:
    """A body that breaks off is continued where it stopped."""
    big = bytes(range(256)) * 1000

    async def work() -> None:
        container, context = FakeContainer({"big": big}), make_context(cache_bytes=8 * 100_000)
        files = make_files(container, context)
        opened = await files.open("big")
        breaks = {50_000, 120_000}

        def break_once(at: int) -> None:
            if at in breaks:
                breaks.remove(at)
                raise Transient("the body was cut off")

        container.before_chunk = break_once
        assert await read(opened) == big
        assert [offset for _, offset in container.opened] == [0, 0, 50_000, 120_000]

    run(work)


def test_client_that_does_not_read_holds_no_connection() -> None:
    """A large file is read a range at a time, so that a client that stops reading leaves no body open."""
    big = bytes(range(256)) * 5_000

    async def work() -> None:
        container, context = FakeContainer({"big": big}), make_context(cache_bytes=8 * 100_000)
        opened = await make_files(container, context).open("big")
        chunks = opened.chunks(10, len(big))
        received = await anext(chunks)
        assert container.open_bodies == 0
        assert received + b"".join([chunk async for chunk in chunks]) == big[10:]
        ends = [10 + STREAM_RANGE_BYTES, 10 + 2 * STREAM_RANGE_BYTES, len(big)]
        assert container.ends == ends
        assert [offset for _, offset in container.opened] == [0, 10, *ends[:-1]]

    run(work)


def test_many_clients_read_hardly_more_than_the_file() -> None:
    """While more clients read than streams may be idle, little of what was read ahead is read again."""
    big, clients = bytes(range(256)) * 8_000, 6

    async def work() -> None:
        container = FakeContainer({"big": big})
        context = replace(make_context(cache_bytes=8 * 100_000), streams=StreamPool(max_open=2))
        files = make_files(container, context)
        opened = [await files.open("big") for _ in range(clients)]
        streams = [each.chunks(0, len(big)) for each in opened]
        received = [b""] * clients
        while min(map(len, received)) < len(big):
            for number, stream in enumerate(streams):
                received[number] += await anext(stream, b"")
        assert received == [big] * clients
        ranges = zip(container.opened[1:], container.ends, strict=True)
        assert sum(end - start for (_, start), end in ranges if end) < clients * (len(big) + STREAM_RANGE_BYTES)
        for each in opened:
            await each.aclose()

    run(work)


def test_container_without_ranges() -> None:
    """A container that always sends the whole file serves ranges of it all the same."""
    big = bytes(range(256)) * 1000

    async def work() -> None:
        container = FakeContainer({"big": big})
        container.knows_ranges = False
        opened = await make_files(container, make_context(cache_bytes=8 * 100_000)).open("big")
        assert await read(opened, 123_456, 234_567) == big[123_456:234_567]

    run(work)


def test_memory_is_bounded_by_what_is_sent() -> None:
    """While clients hold all of the cache, further files are streamed instead of kept."""
    files_by_name = {f"{number}.bin": bytes(100_000) for number in range(30)}

    async def work() -> None:
        container, context = FakeContainer(files_by_name), make_context(cache_bytes=1_000_000)
        files = make_files(container, context)
        opened = [await files.open(name) for name in files_by_name]
        assert sum(each.body is not None for each in opened) == 9
        assert context.cache.used_bytes <= 1_000_000
        assert {await read(each) for each in opened} == {bytes(100_000)}
        assert (await files.open("29.bin")).cache == "miss"

    run(work)


def test_missing_file_is_remembered() -> None:
    """A file that the container does not have is requested again only after a while."""

    async def work() -> None:
        clock, container = FakeClock(), FakeContainer(FILES)
        files = make_files(container, make_context(clock=clock))
        for _ in range(3):
            with pytest.raises(BlobMissing):
                await files.open("none")
        assert len(container.opened) == 1
        clock.advance(MISSING_FOR_S)
        container.files = {**FILES, "none": b"now"}
        assert await read(await files.open("none")) == b"now"

    run(work)


def test_transient_failures_are_retried() -> None:
    """A failure that passes is not seen by the client, and one that stays ends within the budget."""

    async def work() -> None:
        outcome = JobOutcome()
        container, context = FakeContainer(FILES), make_context(outcome=outcome)
        files = make_files(container, context)
        container.before_open = fail_times(3, lambda: Transient("the storage answered 503"))
        assert await read(await files.open("a.glb")) == FILES["a.glb"]
        container.before_open = fail_times(1000, lambda: Transient("the storage answered 503"))
        before_s = context.clock.monotonic()
        with pytest.raises(Unavailable, match="the container kept failing: the storage answered 503"):
            await files.open("b.glb")
        assert context.clock.monotonic() - before_s <= 6
        assert len(outcome.events_of(Notice)) == 1
        assert (await files.open("a.glb")).cache == "hit"

    run(work)


def test_damaged_body_is_not_kept() -> None:
    """Bytes that do not have the stated MD5 are requested again."""

    async def work() -> None:
        container, context = FakeContainer(dict(FILES)), make_context()
        files, good = make_files(container, context), container.blob("b.glb")
        container.files["b.glb"] = b"glTF3"
        container.blob = lambda name: good  # type: ignore[method-assign]  # a container that is whole again

        def repair(_: str) -> None:
            if len(container.opened) == 3:
                container.files["b.glb"] = FILES["b.glb"]

        container.before_open = repair
        assert await read(await files.open("b.glb")) == FILES["b.glb"]
        assert len(container.opened) == 3

    run(work)


def test_refusal_answers_all_requests_for_a_while() -> None:
    """A dead link is tried once in REFUSED_FOR_S, not for each file, and is said once."""

    async def work() -> None:
        clock, outcome, container = FakeClock(), JobOutcome(), FakeContainer(FILES)
        files = make_files(container, make_context(clock=clock, outcome=outcome))
        assert await read(await files.open("a.glb")) == FILES["a.glb"]
        container.before_open = fail_times(1, lambda: NotAuthorised("the link has expired", hint="get a fresh one"))
        for name in ("b.glb", "empty", "b.glb"):
            with pytest.raises(NotAuthorised, match="the link has expired") as caught:
                await files.open(name)
            assert caught.value.hint == "get a fresh one"
        assert len(container.opened) == 2
        assert outcome.warnings == ["the link has expired (get a fresh one)"]
        assert (await files.open("a.glb")).cache == "hit"
        clock.advance(REFUSED_FOR_S)
        assert await read(await files.open("b.glb")) == FILES["b.glb"]

    run(work)


def test_replaced_export() -> None:
    """Once the export is gone, only files in the cache are still sent, and its root tileset is not."""

    async def work() -> None:
        container, context = FakeContainer(dict(FILES)), make_context()
        files = make_files(container, context)
        woken: list[int] = []
        files.on_replaced = lambda: woken.append(1)
        assert await files.read_root() == FILES["tileset.json"]
        await files.check_unchanged()
        assert await read(await files.open("a.glb")) == FILES["a.glb"]
        container.files["tileset.json"] = b'{"root": {"other": 1}}'
        with pytest.raises(ExportReplaced):
            await files.check_unchanged()
        assert woken == [1]
        assert (await files.open("a.glb")).cache == "hit"
        for name in ("tileset.json", "b.glb"):
            with pytest.raises(ExportReplaced) as caught:
                await files.open(name)
            assert caught.value.hint == "load it again"

    run(work)


def test_root_that_changed_is_noticed() -> None:
    """A root tileset that is fetched again must be the one of before."""

    async def work() -> None:
        container, context = FakeContainer(dict(FILES)), make_context()
        files = make_files(container, context)
        await files.read_root()
        context.cache.discard(("e1", "tileset.json"))
        container.files["tileset.json"] = b'{"root": {"other": 1}}'
        with pytest.raises(ExportReplaced, match="generated again"):
            await files.read_root()
        await files.aclose()
        assert context.cache.used_bytes == 0

    run(work)


def test_entry_with_digest() -> None:
    """What is known of a file has its SHA-256 if its bytes are at hand."""

    async def work() -> None:
        container, context = FakeContainer({**FILES, "big": bytes(200_000)}), make_context()
        files = make_files(container, context)
        entry = await files.find_entry("a.glb")
        assert entry.sha256 == hashlib.sha256(FILES["a.glb"]).digest()
        assert (await files.find_entry("big")).sha256 is None
        assert context.cache.reserve(context.cache.max_bytes - 20_000)

    run(work)


def test_container_that_does_not_answer() -> None:
    """A request does not wait longer than its limit, and the next one is tried anew."""

    async def work() -> None:
        container = FakeContainer(FILES)
        files = make_files(container, replace(make_context(), open_limit=timedelta(milliseconds=50)))
        container.gate.clear()
        with pytest.raises(Unavailable, match="no answer within"):
            await files.open("a.glb")
        container.gate.set()
        assert await read(await files.open("a.glb")) == FILES["a.glb"]

    run(work)


def test_downloads_are_limited() -> None:
    """No more than 64 downloads run at the same time."""

    async def work() -> None:
        container = FakeContainer({f"{number}": b"x" for number in range(200)})
        files = make_files(container, make_context())
        container.gate.clear()
        tasks = [asyncio.create_task(files.open(name)) for name in container.files]
        await asyncio.sleep(0.05)
        container.gate.set()
        await asyncio.gather(*tasks)
        assert container.max_waiting == 64

    run(work)


def test_limit_of_kept_files() -> None:
    """Files of up to 8 MB are kept by a cache of the default size."""
    assert MAX_KEPT_BYTES == 8 << 20
    assert make_files(FakeContainer({}), make_context(cache_bytes=256 << 20))._max_kept_bytes("a") == MAX_KEPT_BYTES


class SignedContainer(FakeContainer):
    """Container in memory behind a link of the product, whose links live 2 s. `api_calls`: links that were fetched."""

    def __init__(self, files: dict[str, bytes], clock: ManualClock) -> None:
        super().__init__(files)
        self.clock = clock
        self.api_calls = self.refused = 0
        self.link = RenewingLink(self.fetch, clock, JobOutcome())

    async def fetch(self) -> tuple[SasUrl, datetime | None]:
        self.api_calls += 1
        await self.clock.sleep(0.1)
        end = self.clock.now() + timedelta(seconds=2)
        return SasUrl(CONTAINER_URL, f"sig={self.api_calls}", end, self.clock.monotonic()), self.clock.now()

    async def open_by_name(self, name: str) -> tuple[Blob, FakeBody]:
        return await self.link.use(lambda link: self.attempt(link, name))

    async def attempt(self, link: SasUrl, name: str) -> tuple[Blob, FakeBody]:
        await self.clock.sleep(0.05)
        assert link.expires is not None
        if link.expires <= self.clock.now():
            self.refused += 1
            raise LinkRefused("AuthenticationFailed")
        return await super().open_by_name(name)


def test_links_are_renewed_once_for_all_clients() -> None:
    """64 clients for three minutes, with links that live 2 s, cause one API call per link, and no failed request."""
    minutes, clients = 3, 64

    async def work() -> None:
        clock = ManualClock()
        names = {f"{number}.bin": bytes([number]) * 2000 for number in range(clients)}
        container = SignedContainer(names, clock)
        files = make_files(container, make_context(cache_bytes=30_000, clock=clock))
        served = 0

        async def fetch_all(name: str) -> None:
            nonlocal served
            while clock.monotonic() < minutes * 60:
                assert await read(await files.open(name)) == names[name]
                served += 1
                await clock.sleep(1)

        tasks = [asyncio.create_task(fetch_all(name)) for name in names]
        while not all(task.done() for task in tasks):
            clock.advance(0.05)
            for _ in range(12):
                await asyncio.sleep(0)
        await asyncio.gather(*tasks)
        assert served > 5000
        assert minutes * 60 / 3 <= container.api_calls <= minutes * 60 / 1.5

    run(work)
