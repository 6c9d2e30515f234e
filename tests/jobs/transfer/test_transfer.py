"""Moving blobs: resume, ranges, damage, budgets, cancellation; over real sockets and with a source of the test."""

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

from tests.support.builders import export, glb, md5_of, tree
from tests.support.clock import FakeClock
from tests.support.faults import (
    after,
    any_blob,
    blob,
    cut,
    error,
    held_until,
    ignore_range,
    late,
    redirect,
    torn,
    wrong_bytes,
)
from tests.support.simulator import EXPORT, Run, Simulator
from tilesync.core import backoff as retries
from tilesync.demo.fake_service import Answer, Request
from tilesync.errors import NotAuthorised, Transient, Unavailable
from tilesync.events import Failed, Retried
from tilesync.jobs.run.concurrency import Gate
from tilesync.jobs.run.context import Run as JobRun
from tilesync.jobs.transfer.download import SPILL, Fetch
from tilesync.jobs.transfer.reuse import Reuse
from tilesync.jobs.transfer.transfer import FEW, JOURNAL, Supply, Transfer
from tilesync.model import Arrival, Blob, Brought, Page, Proof, SasUrl, Version
from tilesync.protocols import Body, Source
from tilesync.runtime.clock import WallClock
from tilesync.stores.local import writer as files_of_stores
from tilesync.stores.local.destination import LocalDestination, open_local
from tilesync.stores.local.directory_handles import Entry
from tilesync.stores.local.fs import write_at
from tilesync.tiles.validator import ContentCheck
from tilesync.transport.blob_client import PIECE

BIG = "tiles/big.glb"
AT_ONCE = 4


def big(size: int = 3_000_000) -> dict[str, bytes]:
    return {**export(3), BIG: glb(random.Random(1).randbytes(size))}


def held(dest: Path) -> dict[str, bytes]:
    return tree(dest / "versions" / EXPORT)


# --- over real sockets ---


def test_a_cut_body_is_resumed_at_the_byte_where_it_broke(tmp_path: Path) -> None:
    """The second request for a broken body asks for exactly the bytes that are missing."""
    with Simulator() as sim:
        files = sim.hold(big())
        sim.fault(blob(BIG), cut(1_234_567))
        run = sim.mirror(tmp_path)
        assert sim.ranges(BIG) == [None, "bytes=1234567-"]
    assert run.exit == 0
    assert held(tmp_path) == files
    assert run.tally.bytes == sum(map(len, files.values()))


def test_a_body_that_breaks_often_is_resumed_each_time(tmp_path: Path) -> None:
    """Every break continues where the one before ended; progress gives the whole budget back."""
    with Simulator() as sim:
        files = sim.hold(big())
        sim.fault(blob(BIG), cut(600_000), times=4)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=3))
        assert sim.ranges(BIG) == [None, *(f"bytes={600_000 * n}-" for n in range(1, 5))]
    assert run.exit == 0
    assert held(tmp_path) == files


def test_each_ranged_request_is_conditional(tmp_path: Path) -> None:
    """Every GET of a blob carries If-Match with the listed ETag, and asks for the stored bytes as they are."""
    with Simulator() as sim:
        sim.hold(big())
        sim.fault(blob(BIG), cut(500_000))
        sim.mirror(tmp_path)
        for request in sim.asked():
            name = request.path.partition(f"/{EXPORT}/")[2]
            assert request.headers["if-match"].startswith('"0x8D'), name
            assert request.headers["accept-encoding"] == "identity"
        assert len({r.headers["if-match"] for r in sim.asked(BIG)}) == 1


def test_a_body_that_broke_is_resumed_by_the_next_run(tmp_path: Path) -> None:
    """The run ended with half a file: the next one asks for the other half alone."""
    with Simulator() as sim:
        files = sim.hold(big())
        fault = sim.fault(blob(BIG), cut(2_000_000))
        dead = sim.fault(blob(BIG), error(500, "InternalError"), times=None)
        first = sim.mirror(tmp_path, retry_for=timedelta(seconds=0.3))
        assert first.exit in {3, 6}
        assert fault.hits == 1
        dead.times = 0
        sim.forget()
        run = sim.mirror(tmp_path)
        assert sim.ranges(BIG) == ["bytes=2000000-"]
    assert run.exit == 0
    assert held(tmp_path) == files


def test_a_part_of_another_etag_is_never_resumed(tmp_path: Path) -> None:
    """The blob changed between the runs: its part is forgotten, the whole new blob is fetched."""
    with Simulator() as sim:
        files = sim.hold(big())
        sim.fault(blob(BIG), cut(2_000_000))
        dead = sim.fault(blob(BIG), error(500, "InternalError"), times=None)
        sim.mirror(tmp_path, retry_for=timedelta(seconds=0.3))
        dead.times = 0
        files[BIG] = glb(random.Random(2).randbytes(3_000_000))
        sim.regenerate(files)
        sim.forget()
        run = sim.mirror(tmp_path)
        assert sim.ranges(BIG) == [None]
    assert run.exit == 0
    assert held(tmp_path) == files


def test_an_ignored_range_starts_over(tmp_path: Path) -> None:
    """200 to a Range: the whole body is taken from its first byte, and the file is right."""
    with Simulator() as sim:
        files = sim.hold(big())
        sim.fault(blob(BIG), cut(700_000))
        sim.fault(lambda r: blob(BIG)(r) and "range" in r.headers, ignore_range, times=None)
        run = sim.mirror(tmp_path)
        assert sim.ranges(BIG) == [None, "bytes=700000-"]
    assert run.exit == 0
    assert held(tmp_path) == files


def test_a_refused_range_starts_over(tmp_path: Path) -> None:
    """416 to a Range: what was held is forgotten, the next request asks for everything."""
    with Simulator() as sim:
        files = sim.hold(big())
        sim.fault(blob(BIG), cut(700_000))
        sim.fault(lambda r: blob(BIG)(r) and "range" in r.headers, error(416, "InvalidRange"))
        run = sim.mirror(tmp_path)
        assert sim.ranges(BIG) == [None, "bytes=700000-", None]
    assert run.exit == 0
    assert held(tmp_path) == files


def test_a_range_that_is_another_one_starts_over(tmp_path: Path) -> None:
    """206 with another Content-Range: its bytes are not taken."""
    with Simulator() as sim:
        files = sim.hold(big())
        sim.fault(blob(BIG), cut(700_000))

        def shifted(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            answer.headers["Content-Range"] = "bytes 5-10/11"
            return answer

        sim.fault(lambda r: blob(BIG)(r) and "range" in r.headers, shifted)
        assert sim.mirror(tmp_path).exit == 0
        assert sim.ranges(BIG)[-1] is None
    assert held(tmp_path) == files


def test_a_body_that_ends_early_without_a_break_is_fetched_anew(tmp_path: Path) -> None:
    """Half a body that calls itself whole: not placed, fetched again from the start."""
    with Simulator() as sim:
        files = sim.hold(md5=False)
        sim.fault(blob("tiles/001.glb"), torn)
        sim.fault(blob("data/schema.json"), torn)
        run = sim.mirror(tmp_path)
        assert len(sim.asked()) == len(files) + 2
    assert run.exit == 0
    assert held(tmp_path) == files


def test_a_body_that_is_longer_than_listed_fails_without_md5(tmp_path: Path) -> None:
    """More bytes than the listing says, twice the same: that file failed, exit 3."""
    with Simulator() as sim:
        sim.hold(md5=False)

        def longer(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            answer.body += b"more"
            return answer

        sim.fault(blob("data/schema.json"), longer, times=None)
        run = sim.mirror(tmp_path)
    assert run.exit == 3
    assert [failure.error for failure in run.of(Failed)] == ["BlobDamaged"]
    assert "data/schema.json" not in held(tmp_path)


def test_wrong_bytes_in_a_resumed_body_are_found(tmp_path: Path) -> None:
    """MD5 is over all bytes of a resumed body, those of the first piece included."""
    with Simulator() as sim:
        files = sim.hold(big())

        def broken(request: Any, proceed: Callable[[], Any]) -> Any:
            answer = cut(700_000)(request, proceed)
            answer.body = answer.body[:9999] + b"XXXX" + answer.body[10003:]
            return answer

        sim.fault(blob(BIG), broken)
        run = sim.mirror(tmp_path)
        assert sim.ranges(BIG) == [None, "bytes=700000-", None]
    assert run.exit == 0
    assert held(tmp_path) == files


def test_bytes_that_are_wrong_in_another_way_each_time_end_too(tmp_path: Path) -> None:
    """Other wrong bytes at each fetch: given up after four, exit 3, and the message says so."""
    with Simulator() as sim:
        sim.hold()
        turn = [0]

        def noise(_: Any, proceed: Callable[[], Any]) -> Any:
            answer = proceed()
            turn[0] += 1
            answer.body = answer.body[:-1] + bytes([answer.body[-1] ^ turn[0]])
            return answer

        fault = sim.fault(blob("tiles/002.glb"), noise, times=None)
        run = sim.mirror(tmp_path)
    assert fault.hits == 4
    assert run.exit == 3
    assert "other bytes each time" in run.of(Failed)[0].message


@pytest.mark.parametrize("status", [500, 503, 429])
def test_a_busy_storage_is_borne_with(tmp_path: Path, status: int) -> None:
    """Errors of the storage that pass within the budget cost retries, nothing else."""
    with Simulator() as sim:
        files = sim.hold()
        sim.fault(any_blob, error(status, "ServerBusy", Retry_After="0"), times=10)
        run = sim.mirror(tmp_path)
    assert run.exit == 0
    assert run.tally.retries == len(run.of(Retried)) == 10
    assert held(tmp_path) == files


def test_retry_after_of_the_storage_is_obeyed(tmp_path: Path) -> None:
    """A blob whose answer asks for a second is not asked for within it."""
    with Simulator() as sim:
        sim.hold()
        times: list[float] = []
        sim.fault(blob("tiles/001.glb"), error(503, "ServerBusy", Retry_After="1"))
        sim.fault(blob("tiles/001.glb"), after(lambda: times.append(monotonic())))
        begun = monotonic()
        run = sim.mirror(tmp_path)
    assert run.exit == 0
    assert times[0] - begun >= 1
    assert [1 <= event.seconds < 1.2 for event in run.of(Retried)] == [True]


def test_a_storage_that_keeps_failing_ends_with_6(tmp_path: Path) -> None:
    """Nothing but errors past the budget: Unavailable, exit 6, nothing published, in about the budget's time."""
    with Simulator() as sim:
        sim.hold()
        sim.fault(any_blob, error(503, "ServerBusy"), times=None)
        begun = monotonic()
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=1))
    assert isinstance(run.error, Unavailable)
    assert monotonic() - begun < 6
    assert not (tmp_path / "tileset.json").exists()


def test_a_storage_that_dies_under_one_transfer_at_a_time_ends_with_6(tmp_path: Path) -> None:
    """With `--transfers 1` a storage that is gone for good is the storage's failure, not that of file after file."""
    with Simulator() as sim:
        sim.hold()
        sim.fault(any_blob, error(503, "ServerBusy"), times=None, skip=5)
        begun = monotonic()
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=0.5), transfers=1)
        took = monotonic() - begun
    assert isinstance(run.error, Unavailable), run.error
    assert took < 4


def test_one_blob_that_keeps_failing_is_its_own_failure(tmp_path: Path) -> None:
    """One blob fails past the budget while others arrive: exit 3 with BlobUnreachable, the rest is held."""
    with Simulator() as sim:
        files = sim.hold()
        sim.fault(blob("tiles/004.glb"), error(500, "InternalError"), times=None)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=1))
    assert run.exit == 3
    assert [failure.error for failure in run.of(Failed)] == ["BlobUnreachable"]
    assert len(held(tmp_path)) == len(files) - 1


def test_a_redirect_is_not_followed(tmp_path: Path) -> None:
    """The signature stays at its container: a redirect fails the file and is never requested."""
    with Simulator() as sim, Simulator() as other:
        sim.hold()
        sim.fault(blob("tiles/004.glb"), redirect(f"{other.url}/elsewhere"), times=None)
        run = sim.mirror(tmp_path)
        assert other.requests == []
    assert run.exit == 3


def test_a_silent_body_is_broken_off_and_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A storage that says nothing past the silence limit is asked again."""
    import tilesync.transport.blob_client as module

    monkeypatch.setattr(module, "SILENCE", timedelta(seconds=0.4))
    with Simulator() as sim:
        files = sim.hold()
        sim.fault(blob("tiles/004.glb"), late(1.2))
        run = sim.mirror(tmp_path)
    assert run.exit == 0
    assert held(tmp_path) == files
    assert len(run.of(Retried)) == 1


def test_a_body_that_trickles_is_not_continued_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few bytes an attempt, however often it is continued, are no progress that gives the budget back."""
    monkeypatch.setattr(retries, "WINDOW", timedelta(seconds=0.2))

    def trickle(request: Request, proceed: Callable[[], Answer]) -> Answer:
        time.sleep(0.3)
        return cut(40)(request, proceed)

    with Simulator() as sim:
        sim.hold({**export(3), BIG: glb(bytes(4000))})
        sim.fault(blob(BIG), trickle, times=None)
        run = sim.mirror(tmp_path, retry_for=timedelta(seconds=2))
        assert 1 < len(sim.ranges(BIG)) < 20
    assert run.exit == 3
    assert [failure.error for failure in run.of(Failed)] == ["BlobUnreachable"]


def test_a_small_file_is_never_seen_half(tmp_path: Path) -> None:
    """While a body is on its way nothing of it lies under its final name."""
    with Simulator() as sim:
        sim.hold(big())
        seen: list[bool] = []
        final = tmp_path / "versions" / EXPORT / BIG
        sim.fault(blob(BIG), cut(1_500_000))
        sim.fault(blob(BIG), after(lambda: seen.append(final.exists())))
        sim.mirror(tmp_path)
    assert seen == [False]
    assert final.exists()


def test_wrong_bytes_once_in_many_files_are_all_healed(tmp_path: Path) -> None:
    """Ten wrong bodies: ten fetches more, and the tree is exact."""
    with Simulator() as sim:
        files = sim.hold(export(30))
        for number in range(10):
            sim.fault(blob(f"tiles/{number:03d}.glb"), wrong_bytes)
        run = sim.mirror(tmp_path)
        assert len(sim.asked()) == len(files) + 10
    assert run.exit == 0
    assert held(tmp_path) == files


# --- with a source of the test ---


class Bytes:
    """A body from memory."""

    md5: bytes | None = None

    def __init__(self, data: bytes, start: int) -> None:
        self._data = data
        self.start = start

    async def chunks(self) -> AsyncIterator[bytes]:
        for at in range(0, len(self._data), 1000):
            yield self._data[at : at + 1000]

    async def read(self, most: int) -> bytes:
        return self._data[: most + 1]

    async def aclose(self) -> None:
        pass


class Memory:
    """A source from memory; `meet` may raise before a blob is opened."""

    has_way = has_link = True

    def __init__(self, files: dict[str, bytes], meet: Callable[[Blob], None] = lambda _: None) -> None:
        self.files = files
        self.meet = meet
        self.opened: list[str] = []
        self.inside = self.most = 0

    def blobs(self) -> list[Blob]:
        import base64

        return [Blob(name, len(data), "e", base64.b64decode(md5_of(data))) for name, data in self.files.items()]

    async def pages(self, marker: str | None) -> AsyncIterator[Page]:
        yield Page(tuple(self.blobs()), None)

    async def open(self, blob: Blob, offset: int, *, ahead: int = 1) -> Body:
        self.opened.append(blob.name)
        self.inside += 1
        self.most = max(self.most, self.inside)
        await asyncio.sleep(0)
        self.inside -= 1
        self.meet(blob)
        return Bytes(self.files[blob.name][offset:], offset)


def transfer(destination: LocalDestination, source: Memory, run: Run, **changes: Any) -> tuple[Transfer, Version]:
    version = destination.catalog.begin(Version(0, "v", "v", None, None, "", {}))
    destination.catalog.add_page(version, [(blob, None) for blob in source.blobs()], ())
    destination.catalog.finish_listing(version)
    clock = changes.pop("clock", WallClock())
    gate = changes.pop("gate", Gate(clock, fixed=AT_ONCE))
    shared = JobRun(clock, run, run.tally, gate, timedelta(seconds=5), helpers=changes.pop("helpers", None))
    return Transfer(version, cast(Source, source), destination, shared, **changes), version


def test_the_error_that_ended_the_run_comes_unwrapped(tmp_path: Path) -> None:
    """A RunError of one worker ends the transfer as itself, not as an ExceptionGroup."""

    def meet(blob: Blob) -> None:
        if blob.name == "tiles/003.glb":
            raise NotAuthorised("no")

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            job, version = transfer(destination, Memory(export(), meet), Run())
            with pytest.raises(NotAuthorised):
                await job.run(Supply(complete=True), None)
            recorded = {held.blob.name for _, held in destination.catalog.held(version, limit=1000)}
            placed = set(tree(tmp_path / "versions" / "v"))
            assert recorded <= placed
            assert len(placed - recorded) < AT_ONCE

    asyncio.run(work())


def test_the_error_of_the_listing_comes_unwrapped(tmp_path: Path) -> None:
    """A RunError of the listing beside the transfer ends it as itself."""

    async def listing() -> None:
        raise Unavailable("no listing")

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            job, _ = transfer(destination, Memory(export()), Run())
            with pytest.raises(Unavailable):
                await job.run(Supply(), listing())

    asyncio.run(work())


def test_a_bug_comes_unwrapped_too(tmp_path: Path) -> None:
    """An error that is none of ours is not hidden in a group either."""

    def meet(_: Blob) -> None:
        raise ZeroDivisionError

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            job, _ = transfer(destination, Memory(export(), meet), Run())
            with pytest.raises(ZeroDivisionError):
                await job.run(Supply(complete=True), None)

    asyncio.run(work())


def test_cancelled_it_records_what_is_in_place(tmp_path: Path) -> None:
    """Cancelled in the middle: the catalog has what is in place, but for what was being placed at that moment."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            source = Memory(export(60))
            job, version = transfer(destination, source, Run())
            running = asyncio.create_task(job.run(Supply(complete=True), None))
            while len(source.opened) < 20:
                await asyncio.sleep(0)
            running.cancel()
            with pytest.raises(asyncio.CancelledError):
                await running
            names = {held.blob.name for _, held in destination.catalog.held(version, limit=1000)}
            placed = set(tree(tmp_path / "versions" / "v"))
            assert names <= placed
            assert len(placed - names) <= AT_ONCE
            assert len(placed) < len(source.files)

    asyncio.run(work())


def test_no_more_run_at_once_than_the_gate_lets_in(tmp_path: Path) -> None:
    """The number of bodies asked for at once never passes the gate's limit."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            source, clock = Memory(export(40)), WallClock()
            job, _ = transfer(destination, source, Run(), gate=Gate(clock, fixed=3))
            await job.run(Supply(complete=True), None)
            assert 1 <= source.most <= 3
            assert sorted(source.opened) == sorted(set(source.opened)) == sorted(source.files)

    asyncio.run(work())


def test_what_the_listing_adds_later_is_moved_too(tmp_path: Path) -> None:
    """The transfer starts while the listing still runs, and ends only when the listing has."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            run, source, supply = Run(), Memory(export(9)), Supply()
            version = destination.catalog.begin(Version(0, "v", "v", None, None, "", {}))
            first, *rest = source.blobs()

            async def listing() -> None:
                destination.catalog.add_page(version, [(first, None)], ())
                supply.add()
                while not source.opened:
                    await asyncio.sleep(0)
                destination.catalog.add_page(version, [(blob, None) for blob in rest], ())
                destination.catalog.finish_listing(version)
                supply.add(complete=True)

            clock = WallClock()
            shared = JobRun(clock, run, run.tally, Gate(clock, fixed=4), timedelta(seconds=5))
            job = Transfer(version, cast(Source, source), destination, shared)
            async with asyncio.timeout(10):
                await job.run(supply, listing())
            assert tree(tmp_path / "versions" / "v") == source.files

    asyncio.run(work())


def test_waits_grow_and_end_with_the_budget(tmp_path: Path) -> None:
    """A blob that fails while it is alone is tried until the budget is spent: the waits add up to no more than it."""
    clock = FakeClock()

    def meet(blob: Blob) -> None:
        raise Transient("no")

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            run = Run()
            job, _ = transfer(destination, Memory({"a": b"a"}, meet), run, clock=clock, gate=Gate(clock, fixed=1))
            with pytest.raises(Unavailable):
                await job.run(Supply(complete=True), None)
            waits = [event.seconds for event in run.of(Retried)]
            assert len(waits) >= 3
            assert sum(waits) <= 5

    asyncio.run(work())


def test_a_file_that_lies_there_is_kept_when_the_catalog_was_lost(tmp_path: Path) -> None:
    """`salvage`: the right bytes by size and MD5 are held without a fetch, wrong ones are fetched."""
    files = export(5)
    folder = tmp_path / "versions" / "v"
    for name in ("tiles/001.glb", "tiles/002.glb"):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(files[name])
    (folder / "tiles/002.glb").write_bytes(b"x" * len(files["tiles/002.glb"]))

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            source = Memory(files)
            job, _ = transfer(destination, source, Run(), salvage=True)
            await job.run(Supply(complete=True), None)
            assert set(source.opened) == set(files) - {"tiles/001.glb"}

    asyncio.run(work())
    assert tree(folder) == files


def test_an_entry_under_way_when_the_last_file_arrives_is_made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The journal ends with the transfer, and loses nothing: not what it was about to record either."""
    merge, begun = Reuse.merge, threading.Event()

    def slow(self: Reuse, arrivals: Sequence[Arrival]) -> list[Arrival]:
        begun.set()
        time.sleep(0.3)
        return merge(self, arrivals)

    monkeypatch.setattr(Reuse, "merge", slow)
    with Simulator() as sim:
        files = sim.hold(export(3))
        sim.fault(blob("tiles/002.glb"), held_until(begun))
        run = sim.mirror(tmp_path)
    assert run.error is None
    assert tree(tmp_path / "versions" / EXPORT) == files


def test_what_is_listed_while_an_entry_is_made_is_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An entry in the catalog that outlasts the listing takes nothing back of what the listing counts meanwhile."""
    merge, begun, counted = Reuse.merge, threading.Event(), threading.Event()

    def late_merge(self: Reuse, arrivals: Sequence[Arrival]) -> list[Arrival]:
        begun.set()
        assert counted.wait(10)
        return merge(self, arrivals)

    monkeypatch.setattr(Reuse, "merge", late_merge)

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            run, source, supply = Run(), Memory(export(9)), Supply()
            job, _ = transfer(destination, source, run)

            async def listing() -> None:
                while not begun.is_set():
                    await asyncio.sleep(0.01)
                run.tally.listed += 9
                counted.set()
                supply.add(complete=True)

            await job.run(supply, listing())
            assert run.tally.listed == 9

    asyncio.run(work())


class Helped:
    """A source that answers when it may, and helpers that are there from then on: they bring what is in memory."""

    def __init__(self, source: Memory, destination: LocalDestination) -> None:
        self.may = asyncio.Event()
        self.called = True
        self.brought = 0
        self._source = source
        self._files = destination.files

    async def open(self, blob: Blob, offset: int, *, ahead: int = 1) -> Body:
        body = await self._source.open(blob, offset, ahead=ahead)
        await self.may.wait()
        return body

    async def way(self) -> SasUrl:
        return await self.link()

    async def link(self) -> SasUrl:
        return SasUrl("https://a/c", "sig=x", None)

    async def start(self) -> None:
        await self.may.wait()

    async def bring(self, version: Version, link: SasUrl, some: Sequence[tuple[int, Blob]], *, at_once: int) -> Brought:
        arrivals = []
        for number, item in some:
            check = ContentCheck(item)

            def prove(data: bytes, check: ContentCheck = check) -> Proof:
                check.feed(data)
                return check.finish()

            held = await self._files.put(version, item, self._source.files[item.name], prove)
            arrivals.append(Arrival(number, held, check.take()))
        self.brought += len(some)
        return Brought(tuple(arrivals), (), 0.01)


def test_few_take_the_usual_way_while_helpers_start(tmp_path: Path) -> None:
    """No more than a few blobs wait for the usual way until helpers are there; these bring all the others."""

    async def work() -> None:
        with open_local(tmp_path, state_dir=None) as destination:
            memory = Memory(export(900))
            helped = Helped(memory, destination)
            job, _ = transfer(destination, memory, Run(), gate=Gate(WallClock(), fixed=300), helpers=helped)
            job._road = replace(job._road, source=cast(Source, helped))
            job._express._source = cast(Source, helped)
            running = asyncio.create_task(job.run(Supply(complete=True), None))
            async with asyncio.timeout(20):
                while len(memory.opened) < FEW:
                    await asyncio.sleep(0.01)
                await asyncio.sleep(2 * JOURNAL)  # what wakes who waits
                assert len(memory.opened) == FEW
                helped.may.set()
                await running
            assert len(memory.opened) + helped.brought == len(memory.files)
            assert [name for name in memory.opened[FEW + 1 :] if memory.files[name]] == []  # no helper carries nothing
            assert tree(tmp_path / "versions" / "v") == memory.files

    asyncio.run(work())


def test_a_slow_disk_holds_the_network_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where bytes come faster than the disk takes them, what waits in memory is a piece or two for each transfer."""
    add, write, fetches, most = Fetch._add, write_at, set[Fetch](), [0]

    def watched(self: Fetch, chunk: bytes) -> None:
        add(self, chunk)
        fetches.add(self)
        most[0] = max(most[0], sum(each._received - each._spilled for each in fetches if each._draft is not None))

    def slow(part: Entry, offset: int, data: bytes) -> None:
        time.sleep(0.02)
        write(part, offset, data)

    monkeypatch.setattr(Fetch, "_add", watched)
    monkeypatch.setattr(files_of_stores, "write_at", slow)
    with Simulator() as sim:
        files = sim.hold({**export(3), **{f"tiles/large-{n}.bin": bytes([n]) * 12_000_000 for n in range(8)}})
        assert sim.mirror(tmp_path, transfers=4).exit == 0
    assert tree(tmp_path / "versions" / EXPORT) == files
    assert 0 < most[0] <= 4 * (SPILL + 2 * PIECE)


def test_a_small_body_that_breaks_each_time_is_continued(tmp_path: Path) -> None:
    """Read at once it is lost with the break; from then on it comes as it comes, and goes on where it broke."""
    with Simulator() as sim:
        files = sim.hold({**export(3), "tiles/small.bin": bytes(200_000)})
        sim.fault(blob("tiles/small.bin"), cut(150_000), times=None)
        assert sim.mirror(tmp_path).exit == 0
        assert sim.ranges("tiles/small.bin") == [None, None, "bytes=150000-"]
    assert tree(tmp_path / "versions" / EXPORT) == files
