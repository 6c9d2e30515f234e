"""Test worker processes: runs and audits large enough for them."""

from __future__ import annotations

import asyncio
import hashlib
import os
import random
import signal
import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.builders import export, glb, make_stored_blobs, md5_base64, read_tree, tileset
from tests.support.faults import (
    blob_name,
    call_before,
    error_response,
    first_request_of_each_blob,
    flip_last_bit,
    halve_body,
    is_blob,
    is_blob_named,
    is_listing,
    replace_headers,
    truncate_body,
    wait_for,
)
from tests.support.local_destination import open_destination
from tests.support.simulator import EXPORT, OTHER_EXPORT, Simulator, verify
from tests.support.store_contract import SAMPLE_VERSION
from tests.support.worker_processes import (
    LATE,
    TILES,
    is_from_worker,
    list_worker_pids,
    record_worker_pids,
    wait_for_slow_batches,
)
from tilesync.app import shared
from tilesync.app.worker_tasks import BATCH_TIMEOUT, FetchBatch, FetchedBatch
from tilesync.app.workers import PoolWorkers
from tilesync.azure.sas import parse_sas_link
from tilesync.demo.faults import Effect
from tilesync.demo.loopback_server import FakeRequest
from tilesync.errors import Incomplete, NotAuthorised, VerifyFailed
from tilesync.events import FileStored, Finding
from tilesync.jobs.versions.file_check import FileVerifier
from tilesync.model import Blob, FileResult, StoredFile, Version
from tilesync.protocols import MirrorWorkerSource
from tilesync.runtime import process_pool
from tilesync.runtime.task_pool import WorkerContext
from tilesync.stores.azure.direct_put import AzureWorkerStore
from tilesync.stores.local.directory_handles import DirectoryTree
from tilesync.stores.local.put_target import LocalPutTarget
from tilesync.stores.local.reader import SafePathResolver
from tilesync.stores.worker_target import WorkerStore
from tilesync.tiles.validator import check_whole


@pytest.fixture(autouse=True)
def two_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared, "count_cores", lambda: 2)


def test_workers_transfer_a_large_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every file is correct, requested once and reported once; the workers end with the run."""
    seen: list[int] = []
    wait_for_slow_batches(monkeypatch)
    with Simulator() as sim:
        files = sim.offer_export(export(TILES))
        record_worker_pids(sim, seen)
        run = sim.mirror(tmp_path, every_file=True)
        assert (run.exit_code, run.stats.fetched, run.stats.verified) == (0, len(files), len(files))
        assert Counter(blob_name(request) for request in sim.blob_requests()) == Counter(files.keys())
        assert all(request.headers.get("if-match") for request in sim.blob_requests())
    assert len(seen) == 2
    assert list_worker_pids() == []
    assert Counter(event.name for event in run.events_of(FileStored)) == Counter(files.keys())
    assert run.stats.transferred_bytes == sum(map(len, files.values()))
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert verify(tmp_path).exit_code == 0
    assert list((tmp_path / ".tilesync/parts").iterdir()) == []


def mirror_without_workers(tmp_path: Path, **changes: Any) -> None:
    """Assert that a run starts no workers and succeeds."""
    seen: list[int] = []
    with Simulator() as sim:
        files = sim.offer_export(export(TILES))
        record_worker_pids(sim, seen)
        assert sim.mirror(tmp_path, **changes).exit_code == 0
    assert seen == []
    assert read_tree(tmp_path / "versions" / EXPORT) == files


@pytest.mark.scale
@pytest.mark.parametrize("changes", [{"bwlimit": 1e9}, {"transfers": 4}])
def test_no_workers_with_few_transfers_or_a_rate_limit(tmp_path: Path, changes: dict[str, Any]) -> None:
    """With a bandwidth limit, or few transfers, no workers start."""
    mirror_without_workers(tmp_path, **changes)


@pytest.mark.scale
@pytest.mark.parametrize("variable", ["HTTPS_PROXY", "http_proxy", "ALL_PROXY"])
def test_no_workers_with_a_proxy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, variable: str) -> None:
    """With a proxy set, even for other hosts, no workers start: they do not support proxies."""
    monkeypatch.setenv(variable, "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    mirror_without_workers(tmp_path)


@pytest.mark.scale
def test_no_workers_on_one_core(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On one core no workers start."""
    monkeypatch.setattr(shared, "count_cores", lambda: 1)
    mirror_without_workers(tmp_path)


@pytest.mark.scale
@pytest.mark.parametrize("large", [True, False])
def test_workers_start_during_the_first_listing(tmp_path: Path, large: bool) -> None:
    """For a large first export the workers start during the listing; for the next export they wait for its end,
    and if only one file is new, no worker starts.
    """
    seen: list[int] = []
    with Simulator(page_size=80, delay_s=0.1) as sim:
        files = sim.offer_export(export(TILES), stats={"compressedSize": 60_000_000 if large else 60_000})
        sim.run_before_request(3, is_listing, lambda: seen.extend(list_worker_pids()))
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(seen) == (2 if large else 0)
        seen.clear()
        sim.faults.clear()
        sim.offer_export(
            {**files, "tiles/new.glb": glb(b"new")}, export_id=OTHER_EXPORT, stats={"compressedSize": 60_000_000}
        )
        sim.run_before_request(1, is_blob_named("tiles/new.glb"), lambda: seen.extend(list_worker_pids()))
        run = sim.mirror(tmp_path)
        assert (run.exit_code, run.stats.fetched, seen) == (0, 1, [])


@pytest.mark.scale
@pytest.mark.parametrize(
    ("effect", "times"),
    [
        (error_response(503, "ServerBusy", Retry_After="0"), 40),
        (error_response(500, "InternalError"), 40),
        (error_response(403, "AuthenticationFailed"), 3),
        (truncate_body(100), 40),
        (truncate_body(0), 40),
        (halve_body, 5),
        (flip_last_bit, 5),
    ],
)
def test_blobs_that_fail_in_a_worker_are_fetched_again(tmp_path: Path, effect: Effect, times: int) -> None:
    """After faults of some blobs in the middle, every byte is correct in the end."""
    with Simulator() as sim:
        files = sim.offer_export(export(TILES))
        sim.add_fault(first_request_of_each_blob(), effect, times=times, skip=LATE)
        run = sim.mirror(tmp_path)
        assert (run.exit_code, run.stats.fetched) == (0, len(files))
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert verify(tmp_path).exit_code == 0


@pytest.mark.scale
def test_links_that_expire_during_the_run(tmp_path: Path) -> None:
    """Links that live half a second are renewed, and every byte is correct."""
    from datetime import timedelta

    with Simulator(link_lifetime=timedelta(seconds=0.5), delay_s=0.05) as sim:
        files = sim.offer_export(export(TILES))
        run = sim.mirror(tmp_path)
        assert run.exit_code == 0
        assert run.stats.renewals >= 1
    assert read_tree(tmp_path / "versions" / EXPORT) == files


@pytest.mark.scale
def test_a_link_that_cannot_be_renewed_ends_the_run(tmp_path: Path) -> None:
    """If the link is refused and none can be fetched, the run fails, and the next one continues."""
    with Simulator() as sim:
        files = sim.offer_export(export(TILES))

        def refuse() -> None:
            sim.revoke_links()
            sim.token = "another"

        sim.run_before_request(LATE, is_blob, refuse)
        run = sim.mirror(tmp_path)
        assert isinstance(run.error, NotAuthorised)
        assert list_worker_pids() == []
        stored_count = len(read_tree(tmp_path / "versions" / EXPORT))
        assert 0 < stored_count < len(files)
        sim.clear_requests()
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.blob_requests()) < len(files)
    assert read_tree(tmp_path / "versions" / EXPORT) == files


@pytest.mark.scale
def test_absolute_uris_are_resolved_against_their_own_container(tmp_path: Path) -> None:
    """Tilesets that a worker reads are resolved against their own container, also if the bytes come from another."""
    with Simulator() as sim:
        files = export(TILES)
        base = f"{sim.url}/{EXPORT}"
        files["tiles/zz.json"] = tileset(f"{base}/tiles/000.glb", "https://elsewhere.invalid/x.glb")
        files["tileset.json"] = tileset("tiles/tileset.json", "tiles/zz.json")
        sim.offer_export(files)
        run = sim.mirror(tmp_path, allow_missing=True)
        assert run.exit_code == 0
        assert run.stats.completeness.unfollowed == 2
        assert any("points back to the original container" in str(event) for event in run.events)


@pytest.mark.scale
def test_a_damaged_blob_fails_alone(tmp_path: Path) -> None:
    """Only the damaged blob fails; nothing is published."""
    with Simulator() as sim:
        files = sim.offer_export(export(TILES))
        # Late in the listing, which is sorted by name: by then the workers run.
        sim.add_fault(is_blob_named(f"tiles/{TILES - 1}.glb"), flip_last_bit, times=None)
        run = sim.mirror(tmp_path)
        assert isinstance(run.error, Incomplete)
        assert (run.stats.failed, run.stats.fetched) == (1, len(files) - 1)
    assert not (tmp_path / "tileset.json").exists()


@pytest.mark.scale
def test_an_export_that_changes_during_the_run(tmp_path: Path) -> None:
    """An export that is regenerated during a run is listed and planned again; only the new one is published."""
    with Simulator() as sim:
        sim.offer_export(export(TILES))
        new = export(TILES, seed=5)
        sim.run_before_request(LATE, is_blob, lambda: sim.regenerate(new))
        assert sim.mirror(tmp_path).exit_code == 0
    assert read_tree(tmp_path / "versions" / EXPORT) == new


@pytest.mark.parametrize("both", [False, True])
def test_killed_workers(tmp_path: Path, both: bool) -> None:
    """A worker that dies costs only time."""
    with Simulator() as sim:
        files = sim.offer_export(export(TILES))

        def kill() -> None:
            for pid in list_worker_pids()[: 2 if both else 1]:
                os.kill(pid, signal.SIGKILL)

        sim.run_before_request(LATE, is_blob, kill)
        run = sim.mirror(tmp_path)
        assert (run.exit_code, run.stats.fetched) == (0, len(files))
    assert read_tree(tmp_path / "versions" / EXPORT) == files
    assert verify(tmp_path).exit_code == 0


@pytest.fixture
def short_silence(monkeypatch: pytest.MonkeyPatch) -> None:
    """Treat a worker that does not respond for five seconds as stuck."""
    monkeypatch.setattr(process_pool, "_MAX_SILENCE_S", 5.0)


@contextmanager
def stop_every_second_worker() -> Iterator[list[int]]:
    """Send SIGSTOP to every second worker when it starts; return the stopped ones."""
    stopped, seen, finished = list[int](), set[int](), threading.Event()

    def stop() -> None:
        while not finished.wait(0.002):
            for pid in set(list_worker_pids()) - seen:
                seen.add(pid)
                if len(seen) % 2:
                    os.kill(pid, signal.SIGSTOP)
                    stopped.append(pid)

    watcher = threading.Thread(target=stop)
    watcher.start()
    try:
        yield stopped
    finally:
        finished.set()
        watcher.join()


@pytest.mark.scale
@pytest.mark.usefixtures("short_silence")
def test_a_worker_that_hangs_in_its_first_task(tmp_path: Path) -> None:
    """Mirror and verify succeed although a worker never becomes ready; none is left behind."""
    with Simulator(delay_s=0.02) as sim, stop_every_second_worker() as stopped:
        files = sim.offer_export(export(TILES))
        run = sim.mirror(tmp_path)
        assert (run.exit_code, run.stats.fetched) == (0, len(files))
        assert len(stopped) == 1
        assert list_worker_pids() == []
        audit = verify(tmp_path)
        assert (audit.exit_code, audit.stats.verified) == (0, len(files))
        assert len(stopped) == 2
    assert list_worker_pids() == []
    assert read_tree(tmp_path / "versions" / EXPORT) == files


@pytest.mark.scale
@pytest.mark.usefixtures("short_silence")
@pytest.mark.parametrize("late", [LATE, TILES], ids=["in the middle", "at the end"])
@pytest.mark.parametrize("both", [False, True])
def test_workers_that_hang(tmp_path: Path, late: int, both: bool) -> None:
    """A worker that hangs, in the middle or at the end, costs only time; none is left behind."""
    with Simulator() as sim:
        files = sim.offer_export(export(TILES))

        def stop() -> None:
            for pid in list_worker_pids()[: 2 if both else 1]:
                os.kill(pid, signal.SIGSTOP)

        sim.run_before_request(late, is_blob, stop)
        run = sim.mirror(tmp_path)
        assert (run.exit_code, run.stats.fetched) == (0, len(files))
    assert list_worker_pids() == []
    assert read_tree(tmp_path / "versions" / EXPORT) == files


@pytest.mark.scale
@pytest.mark.usefixtures("short_silence")
def test_verify_with_workers_that_hang(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files of workers that hang are verified by the main process."""
    files = mirror_files(tmp_path)
    stopped, verify_files = list[int](), FileVerifier.verify_files

    async def stop_workers_and_verify(
        self: FileVerifier, version: Version, files: Sequence[StoredFile]
    ) -> dict[str, Finding | FileResult]:
        assert self._starting is not None
        await asyncio.wait([self._starting])
        for pid in set(list_worker_pids()) - set(stopped):
            os.kill(pid, signal.SIGSTOP)
            stopped.append(pid)
        return await verify_files(self, version, files)

    monkeypatch.setattr(FileVerifier, "verify_files", stop_workers_and_verify)
    run = verify(tmp_path)
    assert len(stopped) == 2
    assert (run.exit_code, run.stats.verified, run.stats.failed) == (0, len(files), 0)
    assert list_worker_pids() == []


@pytest.mark.scale
def test_one_stuck_blob_does_not_delay_its_batch(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A blob without a response is requested again by the main process; the others of its batch are recorded."""
    workers_run, requested_again, stuck, lock = threading.Event(), threading.Event(), list[str](), threading.Lock()
    start = PoolWorkers.start

    async def start_and_report(self: PoolWorkers) -> None:
        await start(self)
        workers_run.set()

    def is_stuck(request: FakeRequest) -> bool:
        """Match the first blob that a worker requests."""
        with lock:
            if is_from_worker(request) and not stuck:
                stuck.append(blob_name(request) or "")
            return blob_name(request) in stuck

    monkeypatch.setattr(PoolWorkers, "start", start_and_report)
    with Simulator() as sim:
        files = sim.offer_export(export(TILES))
        sim.add_fault(is_stuck, call_before(lambda: requested_again.wait(20)))
        sim.run_before_request(1, is_stuck, requested_again.set)
        sim.add_fault(is_blob, wait_for(workers_run, at_most=30), times=None, skip=100)  # leaves blobs to the workers
        run = sim.mirror(tmp_path)
        assert (run.exit_code, run.stats.fetched) == (0, len(files))
        assert len(sim.blob_requests(stuck[0])) == 2
    assert read_tree(tmp_path / "versions" / EXPORT) == files


# --- verify ---


def mirror_files(tmp_path: Path) -> dict[str, bytes]:
    with Simulator() as sim:
        files = sim.offer_export({**export(TILES), "tiles/same.glb": glb(b"same"), "tiles/as.glb": glb(b"same")})
        assert sim.mirror(tmp_path).exit_code == 0
    return files


@pytest.mark.scale
def test_verify_finds_the_same_with_workers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers report every kind of damage with the same words and counts as the main process."""
    mirror_files(tmp_path)
    folder = tmp_path / "versions" / EXPORT / "tiles"
    rng = random.Random(3)
    names = rng.sample(range(TILES), 40)
    for number, name in enumerate(f"{each:03d}.glb" for each in names):
        path = folder / name
        data = path.read_bytes()
        if number % 4 == 0:
            path.unlink()
        elif number % 4 == 1:
            path.write_bytes(data[:-1])
        elif number % 4 == 2:
            path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        else:
            path.unlink()
            path.symlink_to("/etc/passwd")
    findings, stats = [], []
    for cores in (2, 1):
        monkeypatch.setattr(shared, "count_cores", lambda cores=cores: cores)
        run = verify(tmp_path)
        assert isinstance(run.error, VerifyFailed)
        findings.append(
            sorted((each.name, each.problem, each.message, each.asked_by) for each in run.events_of(Finding))
        )
        stats.append((run.stats.listed, run.stats.verified, run.stats.failed, run.stats.transferred_bytes))
    assert findings[0] == findings[1]
    assert stats[0] == stats[1]
    assert {problem for _, problem, *_ in findings[0]} == {"missing", "size", "content"}
    assert len(findings[0]) == 40


@pytest.mark.scale
def test_verify_accepts_two_files_with_the_same_content(tmp_path: Path) -> None:
    """An intact destination passes, and all referenced files are present."""
    files = mirror_files(tmp_path)
    run = verify(tmp_path)
    assert (run.exit_code, run.stats.verified, run.stats.failed) == (0, len(files), 0)
    assert run.stats.completeness.missing == 0


@pytest.mark.scale
def test_verify_reports_a_missing_file_referenced_in_a_worker(tmp_path: Path) -> None:
    """References of a tileset that a worker has read are checked."""
    with Simulator() as sim:
        files = export(TILES)
        files["tiles/extra.json"] = tileset("000.glb", "lost.glb")
        files["tileset.json"] = tileset("tiles/tileset.json", "tiles/extra.json")
        sim.offer_export(files)
        assert sim.mirror(tmp_path, allow_missing=True).exit_code == 0
    run = verify(tmp_path)
    assert run.exit_code == 0
    assert run.stats.completeness.missing == 1
    assert any("lost.glb" in str(event) for event in run.events)


@pytest.mark.scale
@pytest.mark.parametrize("header", ["content_md5", "x_ms_blob_content_md5"])
def test_workers_check_the_md5_of_a_response(tmp_path: Path, header: str) -> None:
    """If only the response has an MD5, bytes that do not match it are fetched again."""
    with Simulator() as sim:
        files = sim.offer_export(export(TILES), md5=False)
        damage = replace_headers(**{header: md5_base64(b"other bytes")})
        fault = sim.add_fault(first_request_of_each_blob(), damage, times=40, skip=LATE)
        assert sim.mirror(tmp_path).exit_code == 0
        assert len(sim.blob_requests()) >= len(files) + fault.hits
    assert read_tree(tmp_path / "versions" / EXPORT) == files


def test_objects_of_a_store_are_verified_by_workers(tmp_path: Path) -> None:
    """Workers read each object once; one that is damaged, missing, refused or unsafe is left to the main process."""
    files = export(8)
    with Simulator() as sim:
        sim.offer_export({f"p/versions/e1/{name}": data for name, data in files.items()} | {"p/versions/file": b"x"})
        link = parse_sas_link(sim.create_link(EXPORT))
        bad = ["tiles/003.glb", "tiles/004.glb", "tiles/005.glb", "tiles/006.glb"]
        sim.containers[EXPORT][f"p/versions/e1/{bad[0]}"] = make_stored_blobs({"x": glb(b"other")})["x"]
        del sim.containers[EXPORT][f"p/versions/e1/{bad[1]}"]
        sim.add_fault(is_blob_named(f"p/versions/e1/{bad[2]}"), error_response(503))
        sim.add_fault(is_blob_named(f"p/versions/e1/{bad[3]}"), truncate_body(3))
        stored = [StoredFile(Blob(n, len(d)), hashlib.sha256(d).digest(), 0) for n, d in files.items()]
        stored.append(StoredFile(Blob("../file", 1), hashlib.sha256(b"x").digest(), 0))

        async def make_store() -> WorkerStore:
            return AzureWorkerStore(link, "p/")

        async def verify_all() -> Sequence[Finding | FileResult | None]:
            pool = process_pool.ProcessPool(2)
            try:
                workers = PoolWorkers(pool, None, make_store=make_store)
                await workers.start()
                return await workers.verify_batch(Version(1, "e1", "e1"), stored)
            finally:
                await pool.aclose()

        found = asyncio.run(verify_all())
        assert all(map(is_from_worker, sim.blob_requests()))
        requested = Counter(blob_name(request) for request in sim.blob_requests())
        assert requested == Counter(f"p/versions/e1/{name}" for name in files)
    failed = [each.blob.name for each, result in zip(stored, found, strict=True) if result is None]
    assert failed == [*sorted(bad, key=list(files).index), "../file"]
    for each, result in zip(stored, found, strict=True):
        if result is not None:
            assert isinstance(result, FileResult)
            assert result.stored == each._replace(mtime_ns=result.stored.mtime_ns)
            assert result.stored.mtime_ns
            whole = check_whole(each.blob, files[each.blob.name], "")[1]
            assert result.content == whole


def test_files_of_a_mirror_are_copied_by_workers(tmp_path: Path) -> None:
    """A worker copies each file of a mirror that is the listed one; all others are left to the main process."""
    tile = glb(b"tile")
    (tmp_path / "copy").mkdir()
    with open_destination(tmp_path / "mirror") as source:
        folder = tmp_path / "mirror/versions" / SAMPLE_VERSION.name
        (folder / "sub").mkdir(parents=True)
        data = {"a.glb": tile, "sub/b.glb": tile, "sub/longer.glb": tile + b"x", "sub/link.glb": tile}
        for name, content in data.items():
            (folder / name).write_bytes(content)
        (folder / "sub/link.glb").rename(tmp_path / "outside")
        (folder / "sub/link.glb").symlink_to(tmp_path / "outside")
        names = [*data, "sub/missing.glb", "sub/../a.glb"]
        digest = hashlib.sha256(tile).digest()
        task = FetchBatch(
            MirrorWorkerSource(source.files, SAMPLE_VERSION),
            LocalPutTarget(SafePathResolver(tmp_path / "copy"), DirectoryTree(tmp_path / "copy")),
            SAMPLE_VERSION.name,
            "",
            tuple(Blob(name, len(tile), sha256=digest) for name in names),
            4,
            BATCH_TIMEOUT,
        )

        async def run() -> FetchedBatch:
            async with AsyncExitStack() as exit_stack:
                return await task(WorkerContext(exit_stack))

        fetched = asyncio.run(run())
    assert [placed is not None for placed in fetched.files] == [True, True, False, False, False, False]
    assert read_tree(tmp_path / "copy/versions" / SAMPLE_VERSION.name) == {"a.glb": tile, "sub/b.glb": tile}
