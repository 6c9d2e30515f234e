"""Mirror and verify through a real Dask cluster: a scheduler and workers, each a process of its own."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from time import monotonic, sleep

import pytest

from tests.support.azure_proxy import AzureFixture
from tests.support.builders import IMODEL, export, read_tree
from tests.support.cluster import DaskCluster, RaiseError, dask_cluster, make_tls_settings
from tests.support.commandline import CommandResult, run_tilesync, start_tilesync
from tests.support.faults import call_before, is_blob, wait_for
from tests.support.s3 import SECRET, BucketFixture, BucketServer, ignore_event
from tests.support.simulator import EXPORT, Simulator, run_program
from tests.support.worker_processes import is_from_worker
from tilesync import __version__
from tilesync.cluster.address import parse_cluster_address
from tilesync.cluster.client import DaskClient, open_cluster
from tilesync.cluster.pool import ClusterPool
from tilesync.cluster.worker_side import PYTHON_VERSION, WorkerFacts
from tilesync.demo.loopback_server import FakeRequest
from tilesync.runtime.task_pool import WorkerLost

TILES = 900

pytestmark = [pytest.mark.e2e, pytest.mark.scale]


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[DaskCluster]:
    with dask_cluster(tmp_path / "cluster") as running:
        yield running


def mirror(sim: Simulator, dest: object, cluster: str, *options: str, **env: str) -> CommandResult:
    return run_tilesync("mirror", IMODEL, dest, "--json", "--cluster", cluster, *options, sim=sim, **env)


def is_not_from_worker(request: FakeRequest) -> bool:
    return is_blob(request) and not is_from_worker(request)


def count_worker_requests(sim: Simulator) -> int:
    return sum(map(is_from_worker, sim.blob_requests()))


def test_a_folder_is_filled_and_verified_by_a_cluster(tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """The workers fetch most files, and verify all; every byte is right, and each worker had a part."""
    files, dest = sim.offer_export(export(TILES)), tmp_path / "dest"
    run = mirror(sim, dest, cluster.address)
    assert (run.exit_code, run.last_line["fetched"], run.last_line["published"]) == (0, len(files), True), run.stderr
    assert read_tree(dest / "versions" / EXPORT) == files
    assert count_worker_requests(sim) > TILES // 2
    audit = run_tilesync("verify", dest, "--json", "--cluster", cluster.address)
    assert (audit.exit_code, audit.last_line["verified"], audit.last_line["failed"]) == (0, len(files), 0), audit.stderr
    assert [path.name for path in dest.iterdir() if "cluster" in path.name] == []


def test_a_cluster_on_this_machine(tmp_path: Path, sim: Simulator) -> None:
    """`local:2` starts a cluster, and ends it."""
    files, dest, workers_run = sim.offer_export(export(TILES)), tmp_path / "dest", threading.Event()
    sim.run_before_request(1, is_from_worker, workers_run.set)
    sim.add_fault(is_not_from_worker, wait_for(workers_run, at_most=60), times=None, skip=200)
    run = mirror(sim, dest, "local:2")
    assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
    assert read_tree(dest / "versions" / EXPORT) == files
    assert count_worker_requests(sim) > TILES // 2


def test_a_killed_worker_loses_nothing(tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """A worker that is killed in a batch: another one does it again."""
    files, dest = sim.offer_export(export(TILES)), tmp_path / "dest"
    sim.add_fault(is_from_worker, call_before(lambda: cluster.signal_worker("worker0", signal.SIGKILL)), skip=100)
    run = mirror(sim, dest, cluster.address)
    assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
    assert read_tree(dest / "versions" / EXPORT) == files
    assert cluster.workers["worker0"].wait(10) == -signal.SIGKILL


def test_a_stopped_worker_loses_nothing(tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """A worker that is stopped in a batch sends no heartbeat: another one does its work, and a warning says so."""
    files, dest = sim.offer_export(export(TILES)), tmp_path / "dest"
    sim.add_fault(is_from_worker, call_before(lambda: cluster.signal_worker("worker0", signal.SIGSTOP)), skip=100)
    run = mirror(sim, dest, cluster.address)
    assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
    assert read_tree(dest / "versions" / EXPORT) == files


def test_a_dead_scheduler_ends_the_run_with_6(tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """A scheduler that dies ends the run; the next run, without a cluster, continues."""
    files, dest = sim.offer_export(export(TILES)), tmp_path / "dest"
    killed = threading.Event()

    def kill() -> None:
        assert cluster.scheduler is not None
        cluster.scheduler.kill()
        killed.set()

    sim.add_fault(is_from_worker, call_before(kill), skip=100)
    run = mirror(sim, dest, cluster.address)
    assert killed.is_set()
    run.assert_failed(6, "Unavailable")
    assert not (dest / "tileset.json").exists()
    again = run_tilesync("mirror", IMODEL, dest, "--json", sim=sim)
    assert again.exit_code == 0, again.stderr
    assert read_tree(dest / "versions" / EXPORT) == files


def test_a_container_is_filled_over_tls(azure_store: AzureFixture, tmp_path: Path, sim: Simulator) -> None:
    """Scheduler, workers and coordinator speak TLS with each other; the workers upload, and verify the container."""
    files = sim.offer_export(export(TILES))
    with dask_cluster(tmp_path / "cluster", env=make_tls_settings(tmp_path)) as cluster:
        assert "tls://" in Path(cluster.address).read_text()
        run = azure_store.mirror(sim, "--cluster", cluster.address, **cluster.tls_env)
        assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
        words = ("verify", azure_store.destination_url, "--cluster", cluster.address)
        audit = run_program(*words, env={**azure_store.env, **cluster.tls_env})
        assert audit.exit_code == 0, audit.stderr
    assert count_worker_requests(sim) > TILES // 2


def test_a_bucket_is_filled(bucket_server: BucketServer, tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """The workers upload to a bucket with the key that they get, and no other."""
    files, place = sim.offer_export(export(TILES)), BucketFixture(bucket_server, tmp_path / "state")
    run = place.mirror(sim, "--cluster", cluster.address)
    assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
    place.assert_published(EXPORT, files)
    assert count_worker_requests(sim) > TILES // 2
    for name in ("scheduler", "worker0", "worker1"):
        assert SECRET not in cluster.log_of(name)


def test_workers_that_do_not_fit_are_named(tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """A worker without this tilesync gets nothing, and a warning names it; alone it is an error that names it."""
    files, dest = sim.offer_export(export(TILES)), tmp_path / "dest"
    (tmp_path / "other/tilesync").mkdir(parents=True)
    (tmp_path / "other/tilesync/__init__.py").write_text('__version__ = "0.0.1"')
    cluster.start_worker("stranger", PYTHONPATH=str(tmp_path / "other"))
    run = mirror(sim, dest, cluster.address)
    assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
    assert "these workers cannot take part: stranger has no tilesync" in run.stderr
    for name in ("worker0", "worker1"):
        cluster.workers[name].kill()
        cluster.workers[name].wait()
    last = mirror(sim, tmp_path / "other dest", cluster.address).assert_failed(2, "UsageError")
    assert "stranger has no tilesync" in last["message"]


def test_a_folder_that_a_worker_does_not_see_is_not_its_own(tmp_path: Path, sim: Simulator) -> None:
    """A worker for which the folder is another one, hidden by a mount, gets nothing: it would write to its own."""
    sim.offer_export(export(TILES))
    dest = tmp_path / "dest"
    dest.mkdir()
    hidden = ("unshare", "--map-root-user", "--mount", "sh", "-c", f'mount -t tmpfs none "{dest}" && exec "$@"', "sh")
    if subprocess.run([*hidden, "true"], capture_output=True, check=False).returncode:
        pytest.skip("this machine allows no mounts of one process")
    with dask_cluster(tmp_path / "cluster", workers=0) as cluster:
        cluster.start_worker("elsewhere", within=hidden)
        run = mirror(sim, dest, cluster.address)
        last = run.assert_failed(2, "UsageError")
        assert "elsewhere does not see the folder of the destination" in last["message"]
        cluster.start_worker("here")
        again = mirror(sim, dest, cluster.address)
        assert again.exit_code == 0, again.stderr
        assert "elsewhere does not see" in again.stderr


def test_a_killed_coordinator_leaves_nothing_running(tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """After SIGKILL of the run no worker goes on but with its batch, and the next run continues at once."""
    files, dest = sim.offer_export(export(TILES)), tmp_path / "dest"
    seen = threading.Event()
    sim.run_before_request(100, is_from_worker, seen.set)
    running = start_tilesync("mirror", IMODEL, dest, "--cluster", cluster.address, sim=sim)
    assert seen.wait(60)
    running.kill()
    running.communicate()
    deadline, before = monotonic() + 30, -1
    while before != (before := count_worker_requests(sim)):  # until no worker has asked for a second
        assert monotonic() < deadline
        sleep(1)
    assert before < len(files)
    run = mirror(sim, dest, cluster.address)
    assert (run.exit_code, run.last_line["published"]) == (0, True), run.stderr
    assert read_tree(dest / "versions" / EXPORT) == files


def test_no_secret_reaches_the_logs_of_the_cluster(tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """Neither the token nor a signature is in what scheduler and workers write."""
    sim.offer_export(export(TILES))
    run = mirror(sim, tmp_path / "dest", cluster.address, "--verbose")
    assert run.exit_code == 0, run.stderr
    for name in ("scheduler", "worker0", "worker1"):
        log = cluster.log_of(name)
        assert "sig=" not in log
        assert sim.token not in log


def test_the_error_of_a_task_shows_no_secret(tmp_path: Path) -> None:
    """A task that fails is reported by the class of its error: its text stays out of every log, and of our error."""
    with dask_cluster(tmp_path / "cluster", env={"PYTHONPATH": str(Path(__file__).parents[2])}) as cluster:

        @asynccontextmanager
        async def connect() -> AsyncIterator[tuple[DaskClient, WorkerFacts]]:
            async with open_cluster(parse_cluster_address(cluster.address), ignore_event, token_path="") as client:
                yield client, WorkerFacts(__version__, PYTHON_VERSION, "")

        async def fail() -> str:
            pool = ClusterPool(connect, ignore_event, has_failed=lambda _: False, start_timeout=timedelta(seconds=30))
            try:
                await pool.start(RaiseError(""))
                with pytest.raises(WorkerLost) as lost:
                    await pool.run(RaiseError("https://host/container?sig=the-secret"))
                return str(lost.value)
            finally:
                await pool.aclose()

        assert asyncio.run(fail()) == "ValueError"
        logs = [cluster.log_of(name) for name in ("scheduler", "worker0", "worker1")]
    assert any("ValueError in a task of tilesync" in log for log in logs)
    assert not any("the-secret" in log for log in logs)


def test_a_worker_that_does_not_answer_hides_no_other(tmp_path: Path, cluster: DaskCluster, sim: Simulator) -> None:
    """A worker that was stopped a moment before the run gets no work, and a warning names it; the other works."""
    files, dest = sim.offer_export(export(TILES)), tmp_path / "dest"
    cluster.signal_worker("worker0", signal.SIGSTOP)
    workers_run = threading.Event()
    sim.run_before_request(1, is_from_worker, workers_run.set)
    sim.add_fault(is_not_from_worker, wait_for(workers_run, at_most=60), times=None, skip=200)
    run = mirror(sim, dest, cluster.address)
    assert (run.exit_code, run.last_line["fetched"]) == (0, len(files)), run.stderr
    assert "worker0 has no tilesync, or does not answer" in run.stderr
    assert count_worker_requests(sim) > TILES // 2
