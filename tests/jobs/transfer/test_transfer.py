"""Transfer of blobs: resumption, ranges, damage, budgets, cancellation; with real sockets and a source in memory."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from time import monotonic
from typing import Any, cast

import pytest

from tests.support.builders import export, read_tree
from tests.support.clock import FakeClock
from tests.support.faults import (
    call_before,
    error_response,
    flip_last_bit,
    is_blob,
    is_blob_named,
    wait_for,
)
from tests.support.memory_source import MAX_CONCURRENT, MemorySource, transfer
from tests.support.simulator import EXPORT, JobOutcome, Simulator, read_version
from tilesync.errors import NotAuthorised, Transient, Unavailable
from tilesync.events import FileFailed, Retried
from tilesync.jobs.run.concurrency import ConcurrencyLimiter
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.transfer import transfer as transfer_module
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.jobs.transfer.transfer import LARGE, Transfer, WorkSignal
from tilesync.model import Blob, FileResult, Version
from tilesync.protocols import Body, Source
from tilesync.runtime.clock import WallClock
from tilesync.stores.local.destination import open_local
from tilesync.stores.local.publication import LocalPublication

# --- over real sockets ---


@pytest.mark.parametrize("status", [500, 503, 429])
def test_storage_errors_are_retried(tmp_path: Path, status: int) -> None:
    """Errors of the storage that end within the budget cost only retries."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob, error_response(status, "ServerBusy", Retry_After="0"), times=10)
        run = sim.mirror(tmp_path)
    assert run.exit_code == 0
    assert run.stats.retries == len(run.events_of(Retried)) == 10
    assert read_version(tmp_path) == files


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
    assert monotonic() - begun < 30
    assert not (tmp_path / "tileset.json").exists()


def test_a_dead_storage_ends_a_run_with_one_transfer(tmp_path: Path) -> None:
    """With `--transfers 1` a dead storage fails the run, not one file after the other."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob, error_response(503, "ServerBusy"), times=None, skip=5)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=0.5), transfers=1)
        tried = {request.path for request in sim.blob_requests()}
    assert isinstance(run.error, Unavailable), run.error
    assert 6 <= len(tried) < len(files)


def test_one_blob_that_keeps_failing_fails_alone(tmp_path: Path) -> None:
    """One blob fails beyond the budget while others arrive: exit 3 with BlobUnreachable, the rest is stored."""
    with Simulator() as sim:
        files = sim.offer_export()
        sim.add_fault(is_blob_named("tiles/004.glb"), error_response(500, "InternalError"), times=None)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=1))
    assert run.exit_code == 3
    assert [failure.error for failure in run.events_of(FileFailed)] == ["BlobUnreachable"]
    assert len(read_version(tmp_path)) == len(files) - 1


def test_many_damaged_bodies_are_fetched_again(tmp_path: Path) -> None:
    """Ten damaged bodies: ten more requests, and the tree is exact."""
    with Simulator() as sim:
        files = sim.offer_export(export(30))
        for number in range(10):
            sim.add_fault(is_blob_named(f"tiles/{number:03d}.glb"), flip_last_bit)
        run = sim.mirror(tmp_path)
        assert len(sim.blob_requests()) == len(files) + 10
    assert run.exit_code == 0
    assert read_version(tmp_path) == files


# --- with a source in memory ---


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


def test_large_files_do_not_wait_for_the_small_ones(tmp_path: Path) -> None:
    """A large file that is listed last is begun while hundreds of small ones still wait, and each is fetched once."""
    files = {f"{number:04}": b"small" for number in range(2000)} | {"large": bytes(LARGE.start)}

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            source = MemorySource(files)
            job, _ = transfer(destination, source, JobOutcome())
            await job.run(WorkSignal(complete=True), None)
            assert source.opened.index("large") < 1500
            assert sorted(source.opened) == sorted(files)

    asyncio.run(work())


def test_a_signal_wakes_every_query_before_it() -> None:
    """Two readers that took the event before their queries both see the next signal, however slow one of them is."""

    async def work() -> None:
        signal = WorkSignal()
        fast, slow = signal.available, signal.available
        signal.notify()
        await fast.wait()
        fast = signal.available  # the fast reader has begun its next query
        async with asyncio.timeout(5):
            await slow.wait()
        signal.notify(complete=True)
        assert fast.is_set()
        assert signal.complete

    asyncio.run(work())


def test_files_become_durable_before_the_last_one_arrives(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When little is left to fetch, what has arrived is synced, once; the last file waits for that here."""
    monkeypatch.setattr(transfer_module, "EARLY_SYNC_BYTES", 100)
    synced, syncs = threading.Event(), list[int]()

    def note_sync(publication: LocalPublication) -> None:
        syncs.append(1)
        synced.set()

    monkeypatch.setattr(LocalPublication, "sync_files", note_sync)

    def on_open(blob: Blob) -> None:
        if blob.name == "9":
            assert not synced.is_set()

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            run = JobOutcome()
            source = MemorySource({str(number): bytes(50) for number in range(10)}, on_open)
            job, _ = transfer(destination, source, run, limiter=ConcurrencyLimiter(WallClock(), fixed_limit=1))
            opened = source.open

            async def open_slowly(blob: Blob, *args: Any, **how: Any) -> Body:
                body = await opened(blob, *args, **how)
                if blob.name == "9":
                    run.stats.inventory_complete = True
                    await asyncio.to_thread(synced.wait, 10)
                return body

            monkeypatch.setattr(source, "open", open_slowly)
            await job.run(WorkSignal(complete=True), None)
        assert synced.is_set()
        assert len(syncs) == 1

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

    def slow(self: Reuse, results: Sequence[FileResult]) -> list[FileResult]:
        begun.set()
        time.sleep(0.3)
        return merge(self, results)

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

    def late_merge(self: Reuse, results: Sequence[FileResult]) -> list[FileResult]:
        begun.set()
        assert counted.wait(10)
        return merge(self, results)

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
