"""Transfer of blobs: resumption, ranges, damage, budgets, cancellation; with real sockets and a source in memory."""

from __future__ import annotations

import asyncio
import random
import threading
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest

from tests.support.builders import export, glb, md5_base64, read_tree
from tests.support.clock import FakeClock
from tests.support.faults import (
    call_before,
    delay,
    error_response,
    flip_last_bit,
    halve_body,
    ignore_range,
    is_blob,
    is_blob_named,
    redirect,
    truncate_body,
    wait_for,
)
from tests.support.simulator import EXPORT, JobOutcome, Simulator
from tilesync.core import backoff
from tilesync.demo.loopback_server import FakeRequest, FakeResponse
from tilesync.errors import NotAuthorised, Transient, Unavailable
from tilesync.events import FileFailed, Retried
from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer.download import SPILL_BYTES, Download
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.jobs.transfer.transfer import FLUSH_INTERVAL_S, MAX_QUEUED_WHILE_STARTING, Transfer, WorkSignal
from tilesync.model import BatchResult, Blob, Digests, FileResult, Page, SasUrl, Version
from tilesync.protocols import Body, Source
from tilesync.runtime.clock import WallClock
from tilesync.stores.local import writer
from tilesync.stores.local.destination import LocalDestination, open_local
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import write_at
from tilesync.tiles.validator import ContentCheck
from tilesync.transport.blob_client import LARGE_READ_BYTES

BIG = "tiles/big.glb"
MAX_CONCURRENT = 4


def big(size: int = 3_000_000) -> dict[str, bytes]:
    return {**export(3), BIG: glb(random.Random(1).randbytes(size))}


def stored_files(dest: Path) -> dict[str, bytes]:
    return read_tree(dest / "versions" / EXPORT)


# --- over real sockets ---


def test_a_cut_body_is_resumed_at_the_byte_where_it_broke(tmp_path: Path) -> None:
    """The second request for a broken body asks for exactly the missing bytes."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(1_234_567))
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None, "bytes=1234567-"]
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files
    assert run.stats.transferred_bytes == sum(map(len, files.values()))


def test_a_body_that_breaks_often_is_resumed_each_time(tmp_path: Path) -> None:
    """Every request continues where the last one ended; progress renews the whole retry budget."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(600_000), times=4)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=3))
        assert sim.range_headers(BIG) == [None, *(f"bytes={600_000 * n}-" for n in range(1, 5))]
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


def test_each_ranged_request_is_conditional(tmp_path: Path) -> None:
    """Every GET of a blob has If-Match with the listed ETag, and Accept-Encoding identity."""
    with Simulator() as sim:
        sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(500_000))
        sim.mirror(tmp_path)
        for request in sim.blob_requests():
            name = request.path.partition(f"/{EXPORT}/")[2]
            assert request.headers["if-match"].startswith('"0x8D'), name
            assert request.headers["accept-encoding"] == "identity"
        assert len({r.headers["if-match"] for r in sim.blob_requests(BIG)}) == 1


def test_a_body_that_broke_is_resumed_by_the_next_run(tmp_path: Path) -> None:
    """The run ended with half a file: the next one requests only the other half."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        fault = sim.add_fault(is_blob_named(BIG), truncate_body(2_000_000))
        dead = sim.add_fault(is_blob_named(BIG), error_response(500, "InternalError"), times=None)
        first = sim.mirror(tmp_path, retry_for=timedelta(seconds=0.3))
        assert first.exit_code in {3, 6}
        assert fault.hits == 1
        dead.times = 0
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == ["bytes=2000000-"]
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


def test_a_part_of_another_etag_is_never_resumed(tmp_path: Path) -> None:
    """The blob changed between the runs: its part is dropped, the whole new blob is fetched."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(2_000_000))
        dead = sim.add_fault(is_blob_named(BIG), error_response(500, "InternalError"), times=None)
        sim.mirror(tmp_path, retry_for=timedelta(seconds=0.3))
        dead.times = 0
        files[BIG] = glb(random.Random(2).randbytes(3_000_000))
        sim.regenerate(files)
        sim.clear_requests()
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None]
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


def test_an_ignored_range_starts_over(tmp_path: Path) -> None:
    """200 to a Range: the whole body is used from its first byte, and the file is correct."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(700_000))
        sim.add_fault(lambda r: is_blob_named(BIG)(r) and "range" in r.headers, ignore_range, times=None)
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None, "bytes=700000-"]
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


def test_a_refused_range_starts_over(tmp_path: Path) -> None:
    """416 to a Range: the received bytes are dropped, and the next request asks for the whole blob."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(700_000))
        sim.add_fault(lambda r: is_blob_named(BIG)(r) and "range" in r.headers, error_response(416, "InvalidRange"))
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None, "bytes=700000-", None]
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


def test_a_wrong_content_range_starts_over(tmp_path: Path) -> None:
    """206 with another Content-Range: its bytes are not used."""
    with Simulator() as sim:
        files = sim.offer_export(big())
        sim.add_fault(is_blob_named(BIG), truncate_body(700_000))

        def shifted(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            answer.headers["Content-Range"] = "bytes 5-10/11"
            return answer

        sim.add_fault(lambda r: is_blob_named(BIG)(r) and "range" in r.headers, shifted)
        assert sim.mirror(tmp_path).exit_code == 0
        assert sim.range_headers(BIG)[-1] is None
    assert stored_files(tmp_path) == files


def test_a_short_body_is_fetched_again(tmp_path: Path) -> None:
    """Half a body with a matching Content-Length: not placed, fetched again from the start."""
    with Simulator() as sim:
        files = sim.offer_export(md5=False)
        sim.add_fault(is_blob_named("tiles/001.glb"), halve_body)
        sim.add_fault(is_blob_named("data/schema.json"), halve_body)
        run = sim.mirror(tmp_path)
        assert len(sim.blob_requests()) == len(files) + 2
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


def test_a_body_that_is_longer_than_listed_fails_without_md5(tmp_path: Path) -> None:
    """More bytes than listed, twice the same: that file failed, exit 3."""
    with Simulator() as sim:
        sim.offer_export(md5=False)

        def longer(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            answer.body += b"more"
            return answer

        sim.add_fault(is_blob_named("data/schema.json"), longer, times=None)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 3
    assert [failure.error for failure in run.events_of(FileFailed)] == ["BlobDamaged"]
    assert "data/schema.json" not in stored_files(tmp_path)


def test_wrong_bytes_in_a_resumed_body_are_found(tmp_path: Path) -> None:
    """The MD5 covers all bytes of a resumed body, including those of the first piece."""
    with Simulator() as sim:
        files = sim.offer_export(big())

        def broken(request: Any, proceed: Callable[[], Any]) -> Any:
            answer = truncate_body(700_000)(request, proceed)
            answer.body = answer.body[:9999] + b"XXXX" + answer.body[10003:]
            return answer

        sim.add_fault(is_blob_named(BIG), broken)
        run = sim.mirror(tmp_path)
        assert sim.range_headers(BIG) == [None, "bytes=700000-", None]
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


def test_bytes_damaged_differently_each_time_fail(tmp_path: Path) -> None:
    """Different damage at each fetch: the file fails after four, exit 3, and the message says so."""
    with Simulator() as sim:
        sim.offer_export()
        turn = [0]

        def noise(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            turn[0] += 1
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ turn[0]])
            return answer

        fault = sim.add_fault(is_blob_named("tiles/002.glb"), noise, times=None)
        run = sim.mirror(tmp_path)
    assert fault.hits == 4
    assert run.exit_code == 3
    assert "different bytes each time" in run.events_of(FileFailed)[0].message


@pytest.mark.parametrize("status", [500, 503, 429])
def test_storage_errors_are_retried(tmp_path: Path, status: int) -> None:
    """Errors of the storage that end within the budget cost only retries."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob, error_response(status, "ServerBusy", Retry_After="0"), times=10)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert run.stats.retries == len(run.events_of(Retried)) == 10
    assert stored_files(tmp_path) == files


def test_retry_after_of_the_storage_is_obeyed(tmp_path: Path) -> None:
    """A blob is not requested again within the second that Retry-After asks for."""
    with Simulator() as sim:
        sim.offer_export()
        times: list[float] = []
        sim.add_fault(is_blob_named("tiles/001.glb"), error_response(503, "ServerBusy", Retry_After="1"))
        sim.add_fault(is_blob_named("tiles/001.glb"), call_before(lambda: times.append(monotonic())))
        begun = monotonic()
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert times[0] - begun >= 1
    assert [1 <= event.seconds < 1.2 for event in run.events_of(Retried)] == [True]


def test_a_storage_that_keeps_failing_ends_with_6(tmp_path: Path) -> None:
    """Errors until the budget is spent: Unavailable, exit 6, nothing published, in about the time of the budget."""
    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(is_blob, error_response(503, "ServerBusy"), times=None)
        begun = monotonic()
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=1))
    assert isinstance(run.error, Unavailable)
    assert monotonic() - begun < 6
    assert not (tmp_path / "tileset.json").exists()


def test_a_dead_storage_ends_a_run_with_one_transfer(tmp_path: Path) -> None:
    """With `--transfers 1` a dead storage fails the run, not one file after the other."""
    with Simulator() as sim:
        sim.offer_export()
        sim.add_fault(is_blob, error_response(503, "ServerBusy"), times=None, skip=5)
        begun = monotonic()
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=0.5), transfers=1)
        took = monotonic() - begun
    assert isinstance(run.error, Unavailable), run.error
    assert took < 4


def test_one_blob_that_keeps_failing_fails_alone(tmp_path: Path) -> None:
    """One blob fails beyond the budget while others arrive: exit 3 with BlobUnreachable, the rest is stored."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/004.glb"), error_response(500, "InternalError"), times=None)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=1))
    assert run.exit_code == 3
    assert [failure.error for failure in run.events_of(FileFailed)] == ["BlobUnreachable"]
    assert len(stored_files(tmp_path)) == len(files) - 1


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """The signature is sent only to its container: a redirect fails the file and is not requested."""
    with Simulator() as sim, Simulator() as other:
        sim.offer_export()
        sim.add_fault(is_blob_named("tiles/004.glb"), redirect(f"{other.url}/elsewhere"), times=None)
        run = sim.mirror(tmp_path)
        assert other.requests == []
    assert run.exit_code == 3


def test_a_silent_body_times_out_and_is_resumed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that sends nothing within the read timeout is requested again."""
    from tilesync.transport import blob_client

    monkeypatch.setattr(blob_client, "BLOB_READ_TIMEOUT", timedelta(seconds=0.4))
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/004.glb"), delay(1.2))
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files
    assert len(run.events_of(Retried)) == 1


def test_a_trickling_body_fails_in_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes in each attempt are no progress that renews the budget."""
    monkeypatch.setattr(backoff, "PROGRESS_WINDOW", timedelta(seconds=0.2))

    def trickle(request: FakeRequest, proceed: Callable[[], FakeResponse]) -> FakeResponse:
        time.sleep(0.3)
        return truncate_body(40)(request, proceed)

    with Simulator() as sim:
        sim.offer_export({**export(3), BIG: glb(bytes(4000))})
        sim.add_fault(is_blob_named(BIG), trickle, times=None)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=2))
        assert 1 < len(sim.range_headers(BIG)) < 20
    assert run.exit_code == 3
    assert [failure.error for failure in run.events_of(FileFailed)] == ["BlobUnreachable"]


def test_an_incomplete_file_never_has_its_final_name(tmp_path: Path) -> None:
    """While a body arrives, no file has its final name."""
    with Simulator() as sim:
        sim.offer_export(big())
        seen: list[bool] = []
        final = tmp_path / "versions" / EXPORT / BIG
        sim.add_fault(is_blob_named(BIG), truncate_body(1_500_000))
        sim.add_fault(is_blob_named(BIG), call_before(lambda: seen.append(final.exists())))
        sim.mirror(tmp_path)
    assert seen == [False]
    assert final.exists()


def test_many_damaged_bodies_are_fetched_again(tmp_path: Path) -> None:
    """Ten damaged bodies: ten more requests, and the tree is exact."""
    with Simulator() as sim:
        files = sim.offer_export(export(30))
        for number in range(10):
            sim.add_fault(is_blob_named(f"tiles/{number:03d}.glb"), flip_last_bit)
        run = sim.mirror(tmp_path)
        assert len(sim.blob_requests()) == len(files) + 10
    assert run.exit_code == 0
    assert stored_files(tmp_path) == files


# --- with a source in memory ---


class MemoryBody:
    """A body from memory."""

    md5: bytes | None = None

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self.start = start

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), 1000):
            yield self._data[at : at + 1000]

    async def read(self, max_bytes: int) -> bytes:
        return self._data[: max_bytes + 1]

    async def aclose(self) -> None:
        pass


class MemorySource:
    """A source in memory; `on_open` may raise before a blob is opened."""

    has_worker_source = has_link = True

    def __init__(self, files: dict[str, bytes], on_open: Callable[[Blob], None] = lambda _: None) -> None:
        self.files = files
        self.on_open = on_open
        self.opened: list[str] = []
        self.inside = self.max_concurrent = 0

    def blobs(self) -> list[Blob]:
        import base64

        return [Blob(name, len(data), "e", base64.b64decode(md5_base64(data))) for name, data in self.files.items()]

    async def pages(self, marker: str | None) -> AsyncIterator[Page]:
        yield Page(tuple(self.blobs()), None)

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1) -> Body:
        self.opened.append(blob.name)
        self.inside += 1
        self.max_concurrent = max(self.max_concurrent, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        self.on_open(blob)
        return MemoryBody(self.files[blob.name][offset:], offset)


def transfer(
    destination: LocalDestination, source: MemorySource, run: JobOutcome, **changes: Any
) -> tuple[Transfer, Version]:
    version = destination.catalog.add_version(Version(0, "v", "v"))
    destination.catalog.add_page(version, [(blob, None) for blob in source.blobs()], ())
    destination.catalog.finish_listing(version)
    clock = changes.pop("clock", WallClock())
    limiter = changes.pop("limiter", ConcurrencyLimiter(clock, fixed_limit=MAX_CONCURRENT))
    shared = RunContext(clock, run, run.stats, limiter, timedelta(seconds=5), workers=changes.pop("workers", None))
    return Transfer(version, cast(Source, source), destination, shared, **changes), version


def test_a_run_error_is_not_grouped(tmp_path: Path) -> None:
    """A RunError of one worker ends the transfer as itself, not as an ExceptionGroup."""

    def on_open(blob: Blob) -> None:
        if blob.name == "tiles/003.glb":
            raise NotAuthorised("no")

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            job, version = transfer(destination, MemorySource(export(), on_open), JobOutcome())
            with pytest.raises(NotAuthorised):
                await job.run(WorkSignal(complete=True), None)
            recorded = {stored.blob.name for _, stored in destination.catalog.list_stored(version, limit=1000)}
            placed = set(read_tree(tmp_path / "versions" / "v"))
            assert recorded <= placed
            assert len(placed - recorded) < MAX_CONCURRENT

    asyncio.run(work())


def test_a_listing_error_is_not_grouped(tmp_path: Path) -> None:
    """A RunError of the concurrent listing ends the transfer as itself."""

    async def listing() -> None:
        raise Unavailable("no listing")

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            job, _ = transfer(destination, MemorySource(export()), JobOutcome())
            with pytest.raises(Unavailable):
                await job.run(WorkSignal(), listing())

    asyncio.run(work())


def test_an_internal_error_is_not_grouped(tmp_path: Path) -> None:
    """An error of another class is not hidden in a group either."""

    def on_open(_: Blob) -> None:
        raise ZeroDivisionError

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            job, _ = transfer(destination, MemorySource(export(), on_open), JobOutcome())
            with pytest.raises(ZeroDivisionError):
                await job.run(WorkSignal(complete=True), None)

    asyncio.run(work())


def test_a_cancelled_transfer_records_placed_files(tmp_path: Path) -> None:
    """Cancelled in the middle: the catalog has the placed files, except those being placed at that moment."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            source = MemorySource(export(60))
            job, version = transfer(destination, source, JobOutcome())
            running = asyncio.create_task(job.run(WorkSignal(complete=True), None))
            while len(source.opened) < 20:
                await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            names = {stored.blob.name for _, stored in destination.catalog.list_stored(version, limit=1000)}
            placed = set(read_tree(tmp_path / "versions" / "v"))
            assert names <= placed
            assert len(placed - names) <= MAX_CONCURRENT
            assert len(placed) < len(source.files)

    asyncio.run(work())


def test_transfers_respect_the_concurrency_limit(tmp_path: Path) -> None:
    """The number of concurrent requests never exceeds the limit."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            source, clock = MemorySource(export(40)), WallClock()
            job, _ = transfer(destination, source, JobOutcome(), limiter=ConcurrencyLimiter(clock, fixed_limit=3))
            await job.run(WorkSignal(complete=True), None)
            assert 1 <= source.max_concurrent <= 3
            assert sorted(source.opened) == sorted(set(source.opened)) == sorted(source.files)

    asyncio.run(work())


def test_files_listed_later_are_transferred_too(tmp_path: Path) -> None:
    """The transfer starts while the listing still runs, and ends after it."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            run, source, work_signal = JobOutcome(), MemorySource(export(9)), WorkSignal()
            version = destination.catalog.add_version(Version(0, "v", "v"))
            first, *rest = source.blobs()

            async def listing() -> None:
                destination.catalog.add_page(version, [(first, None)], ())
                work_signal.notify()
                while not source.opened:
                    await asyncio.sleep(0)
                destination.catalog.add_page(version, [(blob, None) for blob in rest], ())
                destination.catalog.finish_listing(version)
                work_signal.notify(complete=True)

            clock = WallClock()
            shared = RunContext(clock, run, run.stats, ConcurrencyLimiter(clock, fixed_limit=4), timedelta(seconds=5))
            job = Transfer(version, cast(Source, source), destination, shared)
            async with asyncio.timeout(10):
                await job.run(work_signal, listing())
            assert read_tree(tmp_path / "versions" / "v") == source.files

    asyncio.run(work())


def test_waits_grow_and_end_with_the_budget(tmp_path: Path) -> None:
    """A single failing blob is retried until the budget is spent: the waits add up to no more than it."""
    clock = FakeClock()

    def on_open(blob: Blob) -> None:
        raise Transient("no")

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            run = JobOutcome()
            job, _ = transfer(
                destination,
                MemorySource({"a": b"a"}, on_open),
                run,
                clock=clock,
                limiter=ConcurrencyLimiter(clock, fixed_limit=1),
            )
            with pytest.raises(Unavailable):
                await job.run(WorkSignal(complete=True), None)
            waits = [event.seconds for event in run.events_of(Retried)]
            assert len(waits) >= 3
            assert sum(waits) <= 5

    asyncio.run(work())


def test_salvage_keeps_existing_files(tmp_path: Path) -> None:
    """`salvage`: correct bytes by size and MD5 are kept without a fetch, wrong ones are fetched."""
    files = export(5)
    folder = tmp_path / "versions" / "v"
    for name in ("tiles/001.glb", "tiles/002.glb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(files[name])
    (folder / "tiles/002.glb").write_bytes(b"x" * len(files["tiles/002.glb"]))

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            source = MemorySource(files)
            job, _ = transfer(destination, source, JobOutcome(), salvage=True)
            await job.run(WorkSignal(complete=True), None)
            assert set(source.opened) == set(files) - {"tiles/001.glb"}

    asyncio.run(work())
    assert read_tree(folder) == files


def test_the_last_catalog_write_is_not_lost(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog write that is running when the transfer ends is completed."""
    merge, begun = Reuse.deduplicate, threading.Event()

    def slow(self: Reuse, arrivals: Sequence[FileResult]) -> list[FileResult]:
        begun.set()
        time.sleep(0.3)
        return merge(self, arrivals)

    monkeypatch.setattr(Reuse, "deduplicate", slow)
    with Simulator() as sim:
        files = sim.offer_export(export(3))
        sim.add_fault(is_blob_named("tiles/002.glb"), wait_for(begun))
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert read_tree(tmp_path / "versions" / EXPORT) == files


def test_files_listed_during_a_catalog_write_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A catalog write that outlasts the listing does not overwrite the counts of the listing."""
    merge, begun, counted = Reuse.deduplicate, threading.Event(), threading.Event()

    def late_merge(self: Reuse, arrivals: Sequence[FileResult]) -> list[FileResult]:
        begun.set()
        assert counted.wait(10)
        return merge(self, arrivals)

    monkeypatch.setattr(Reuse, "deduplicate", late_merge)

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            run, source, work_signal = JobOutcome(), MemorySource(export(9)), WorkSignal()
            job, _ = transfer(destination, source, run)

            async def listing() -> None:
                while not begun.is_set():
                    await asyncio.sleep(0.01)
                run.stats.listed += 9
                counted.set()
                work_signal.notify(complete=True)

            await job.run(work_signal, listing())
            assert run.stats.listed == 9

    asyncio.run(work())


class FakeWorkers:
    """A source that waits for `released`, and workers that are ready from then on: they store files from memory."""

    def __init__(self, source: MemorySource, destination: LocalDestination) -> None:
        self.released = asyncio.Event()
        self.start_requested = True
        self.fetched = 0
        self._source = source
        self._files = destination.files

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1) -> Body:
        body = await self._source.open(blob, offset, prefetch_bytes=prefetch_bytes)
        await self.released.wait()
        return body

    async def worker_source(self) -> SasUrl:
        return await self.link()

    async def link(self) -> SasUrl:
        return SasUrl("https://a/c", "sig=x", None)

    async def start(self) -> None:
        await self.released.wait()

    async def fetch_batch(
        self,
        version: Version,
        worker_source: SasUrl,
        blobs_by_number: Sequence[tuple[int, Blob]],
        *,
        max_concurrent: int,
    ) -> BatchResult:
        arrivals = []
        for number, item in blobs_by_number:
            check = ContentCheck(item)

            def prove(data: bytes, check: ContentCheck = check) -> Digests:
                check.feed(data)
                return check.finish()

            stored = await self._files.put(version, item, self._source.files[item.name], prove)
            arrivals.append(FileResult(number, stored, check.drain()))
        self.fetched += len(blobs_by_number)
        return BatchResult(tuple(arrivals), (), 0.01)


def test_few_blobs_take_the_default_path_while_workers_start(tmp_path: Path) -> None:
    """Only a few blobs wait on the default path until the workers are ready; the workers fetch all others."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            memory = MemorySource(export(900))
            workers = FakeWorkers(memory, destination)
            job, _ = transfer(
                destination,
                memory,
                JobOutcome(),
                limiter=ConcurrencyLimiter(WallClock(), fixed_limit=300),
                workers=workers,
            )
            job._context = replace(job._context, source=cast(Source, workers))
            job._worker_lane._source = cast(Source, workers)
            running = asyncio.create_task(job.run(WorkSignal(complete=True), None))
            async with asyncio.timeout(20):
                while len(memory.opened) < MAX_QUEUED_WHILE_STARTING:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(2 * FLUSH_INTERVAL_S)  # long enough to wake waiting tasks
                assert len(memory.opened) == MAX_QUEUED_WHILE_STARTING
                workers.released.set()
                await running
            assert len(memory.opened) + workers.fetched == len(memory.files)
            assert [
                name for name in memory.opened[MAX_QUEUED_WHILE_STARTING + 1 :] if memory.files[name]
            ] == []  # no helper carries nothing
            assert read_tree(tmp_path / "versions" / "v") == memory.files

    asyncio.run(work())


def test_a_slow_disk_limits_buffered_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If bytes arrive faster than the disk writes, each transfer buffers only a piece or two in memory."""
    add, write, fetches, most = Download._add, write_at, set[Download](), [0]

    def watched(self: Download, chunk: bytes) -> None:
        add(self, chunk)
        fetches.add(self)
        most[0] = max(most[0], sum(each._received - each._spilled for each in fetches if each._draft is not None))

    def slow(part: Entry, offset: int, data: bytes) -> None:
        time.sleep(0.02)
        write(part, offset, data)

    monkeypatch.setattr(Download, "_add", watched)
    monkeypatch.setattr(writer, "write_at", slow)
    with Simulator() as sim:
        files = sim.offer_export({**export(3), **{f"tiles/large-{n}.bin": bytes([n]) * 12_000_000 for n in range(8)}})
        assert sim.mirror(tmp_path, transfers=4).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert 0 < most[0] <= 4 * (SPILL_BYTES + 2 * LARGE_READ_BYTES)


def test_a_small_body_that_breaks_is_resumed(tmp_path: Path) -> None:
    """A body read with one call is lost with the break; after it the body is streamed, and resumed where it broke."""
    with Simulator() as sim:
        files = sim.offer_export({**export(3), "tiles/small.bin": bytes(200_000)})
        sim.add_fault(is_blob_named("tiles/small.bin"), truncate_body(150_000), times=None)
        assert sim.mirror(tmp_path).exit_code == 0
        assert sim.range_headers("tiles/small.bin") == [None, None, "bytes=150000-"]
    assert read_tree(tmp_path / "versions" / EXPORT) == files
