"""Process pool: tasks in worker processes, lost and stopped workers, shutdown."""

from __future__ import annotations

import asyncio
import gc
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from tests.support.worker_processes import list_worker_pids
from tilesync.runtime import process_pool
from tilesync.runtime.process_pool import ProcessPool
from tilesync.runtime.task_pool import WorkerContext, WorkerLost

pytestmark = pytest.mark.scale
"""Each test starts processes, and many wait for one that is stopped."""

T = TypeVar("T")


@dataclass(frozen=True)
class ReturnPid:
    """Return the id of the worker process."""

    async def __call__(self, context: WorkerContext) -> int:
        return os.getpid()


@dataclass(frozen=True)
class Fail:
    async def __call__(self, context: WorkerContext) -> None:
        raise ZeroDivisionError


@dataclass(frozen=True)
class Hang:
    seconds: float = 60.0

    async def __call__(self, context: WorkerContext) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class CarryData:
    """Send much data to the worker."""

    data: bytes

    async def __call__(self, context: WorkerContext) -> int:
        return len(self.data)


@dataclass(frozen=True)
class PrintMuch:
    """Print on standard output, which must not corrupt the result."""

    async def __call__(self, context: WorkerContext) -> bytes:
        sys.stdout.write("hello\n")
        os.write(1, b"hello")
        return b"x" * 3_000_000


@asynccontextmanager
async def make_counter() -> AsyncIterator[list[int]]:
    yield []


@dataclass(frozen=True)
class CountUses:
    """Count the uses of a shared resource in one process."""

    async def __call__(self, context: WorkerContext) -> int:
        uses = await context.get_or_create(make_counter)
        uses.append(1)
        return len(uses)


def run_with_pool(work: Callable[[ProcessPool], Awaitable[T]], size: int = 2) -> T:
    async def main() -> T:
        pool = ProcessPool(size)
        try:
            async with asyncio.timeout(40):
                await pool.start(ReturnPid())
                return await work(pool)
        finally:
            await pool.aclose()

    return asyncio.run(main())


async def wait_for_tasks(pool: ProcessPool, count: int) -> None:
    """Return when the workers have this many tasks."""
    while sum(worker.task_count for worker in pool._workers) < count:
        await asyncio.sleep(0.01)


def has_ended(pid: int) -> bool:
    """Return whether a process ends within ten seconds."""
    end = time.monotonic() + 10
    while time.monotonic() < end:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return True
        if state == "Z":
            return True
        time.sleep(0.01)
    return False


def test_tasks_are_spread_over_other_processes() -> None:
    """Concurrent tasks run in all worker processes, none of them this one, and each returns its result."""

    async def work(pool: ProcessPool) -> set[int]:
        return set(await asyncio.gather(*(pool.run(ReturnPid()) for _ in range(20))))

    pids = run_with_pool(work)
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert all(has_ended(pid) for pid in pids)


def test_a_resource_is_created_once() -> None:
    """Tasks of one process share the resource that an earlier task created."""

    async def work(pool: ProcessPool) -> list[int]:
        return [await pool.run(CountUses()) for _ in range(3)]

    assert run_with_pool(work, 1) == [1, 2, 3]


def test_prints_of_a_task_are_no_result() -> None:
    """Results do not go through the standard output of the process; large results arrive whole."""

    async def work(pool: ProcessPool) -> bytes:
        return await pool.run(PrintMuch())

    assert run_with_pool(work) == b"x" * 3_000_000


def test_a_failed_task_is_lost_and_harms_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    """A bug in a task raises WorkerLost with the error's name, prints the traceback on stderr, and leaves the process
    running.
    """

    async def work(pool: ProcessPool) -> int:
        with pytest.raises(WorkerLost, match="ZeroDivisionError"):
            await pool.run(Fail())
        return await pool.run(CountUses())

    assert run_with_pool(work, 1) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_killed_process_loses_only_its_own_tasks() -> None:
    """Callers of a killed process get WorkerLost at once; the other process takes all later tasks."""

    async def work(pool: ProcessPool) -> set[int]:
        first, second = set(await asyncio.gather(*(pool.run(ReturnPid()) for _ in range(6))))
        hanging = [asyncio.create_task(pool.run(Hang())) for _ in range(2)]
        await wait_for_tasks(pool, 2)
        os.kill(first, signal.SIGKILL)
        done, _ = await asyncio.wait(hanging, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in done] == [WorkerLost]
        remaining = {await pool.run(ReturnPid()) for _ in range(4)}
        assert remaining == {second}
        os.kill(second, signal.SIGKILL)
        with suppress(WorkerLost):
            await asyncio.gather(*hanging)
        with pytest.raises(WorkerLost):
            await pool.run(ReturnPid())
        return remaining

    run_with_pool(work)


@pytest.fixture
def shorten_timeouts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """After a call, a process that is silent for two seconds is killed."""
    monkeypatch.setattr(process_pool, "_WATCH_INTERVAL_S", 0.1)
    return lambda: monkeypatch.setattr(process_pool, "_MAX_SILENCE_S", 2.0)


def test_a_stopped_process_is_killed(shorten_timeouts: Callable[[], None]) -> None:
    """Tasks of a stopped process are lost after a while, and it is killed; the other one goes on."""

    async def work(pool: ProcessPool) -> tuple[int, int]:
        first, second = set(await asyncio.gather(*(pool.run(ReturnPid()) for _ in range(6))))
        shorten_timeouts()
        os.kill(first, signal.SIGSTOP)
        answers = await asyncio.gather(*(pool.run(ReturnPid()) for _ in range(6)), return_exceptions=True)
        assert sorted(map(str, answers)) == sorted([str(second)] * 3 + ["the process fell silent"] * 3)
        assert {await pool.run(ReturnPid()) for _ in range(4)} == {second}
        return first, second

    assert all(has_ended(pid) for pid in run_with_pool(work))


def test_a_stopped_process_loses_tasks_that_fill_the_pipe(shorten_timeouts: Callable[[], None]) -> None:
    """A task that the stopped process never reads is lost too."""

    async def work(pool: ProcessPool) -> None:
        os.kill(await pool.run(ReturnPid()), signal.SIGSTOP)
        shorten_timeouts()
        with pytest.raises(WorkerLost):
            await pool.run(CarryData(b"x" * 3_000_000))

    run_with_pool(work, 1)


@pytest.mark.scale
def test_large_tasks_have_more_time(shorten_timeouts: Callable[[], None]) -> None:
    """The bytes of a task extend its timeout."""

    async def work(pool: ProcessPool) -> None:
        shorten_timeouts()
        await pool.run(Hang(3.5), payload_bytes=60 << 20)
        with pytest.raises(WorkerLost):
            await pool.run(Hang(60))

    run_with_pool(work, 1)


def test_a_process_stopped_in_its_first_task_does_not_block_the_start(shorten_timeouts: Callable[[], None]) -> None:
    """A process that never gets ready is killed, and the pool starts without it."""

    async def main() -> set[int]:
        pool = ProcessPool(2)
        try:
            pool.request_start(ReturnPid())
            while len(started := list_worker_pids()) < 2:
                await asyncio.sleep(0.001)
            os.kill(started[0], signal.SIGSTOP)
            while all(worker.task_count for worker in pool._workers):
                await asyncio.sleep(0.01)
            shorten_timeouts()
            async with asyncio.timeout(30):
                await pool.start(ReturnPid())
                return {await pool.run(ReturnPid()) for _ in range(4)} - set(started[1:])
        finally:
            await pool.aclose()

    assert asyncio.run(main()) == set()
    assert list_worker_pids() == []


def test_closing_does_not_wait_for_stopped_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped processes are killed when the pool is closed, all at the same time."""
    monkeypatch.setattr(process_pool, "_SHUTDOWN_TIMEOUT_S", 2.0)

    async def work(pool: ProcessPool) -> float:
        for pid in set(await asyncio.gather(*(pool.run(ReturnPid()) for _ in range(8)))):
            os.kill(pid, signal.SIGSTOP)
        started_at = time.monotonic()
        await pool.aclose()
        return time.monotonic() - started_at

    assert run_with_pool(work, 4) < 4 * 2
    assert list_worker_pids() == []


def test_closing_cancels_running_tasks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A pool closes at once, whatever it is doing."""

    async def work(pool: ProcessPool) -> float:
        hanging = asyncio.create_task(pool.run(Hang()))
        await wait_for_tasks(pool, 1)
        started_at = time.monotonic()
        await pool.aclose()
        with pytest.raises(WorkerLost):
            await hanging
        return time.monotonic() - started_at

    monkeypatch.setattr(process_pool, "_SHUTDOWN_TIMEOUT_S", 60.0)
    assert run_with_pool(work) < 30


def test_workers_ignore_interrupts() -> None:
    """SIGINT and SIGTERM, which a terminal or a service manager sends to the whole group, end no worker."""

    async def work(pool: ProcessPool) -> int:
        pid = await pool.run(ReturnPid())
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        return pid - await pool.run(ReturnPid())

    assert run_with_pool(work, 1) == 0


def test_a_loading_worker_is_not_reached_by_group_signals() -> None:
    """Repeated Ctrl-C while the processes start ends none of them and prints nothing on stderr."""
    code = """
import asyncio, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.runtime.test_process_pool import ProcessPool, ReturnPid
async def main():
    signal.signal(signal.SIGINT, lambda *_: None)
    pool = ProcessPool(2)
    pool.request_start(ReturnPid())
    await asyncio.gather(*(worker._starting for worker in pool._workers))
    print("they load", flush=True)
    await pool.start(ReturnPid())
    print(len(set(await asyncio.gather(*(pool.run(ReturnPid()) for _ in range(4))))), flush=True)
    await pool.aclose()
asyncio.run(main())
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2])]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True
    ) as running:
        assert running.stdout is not None
        assert running.stdout.readline() == "they load\n"
        while not select.select([running.stdout], [], [], 0.002)[0]:
            os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate()
    assert (running.returncode, out, err) == (0, "2\n", "")


def test_a_task_lost_twice_is_reported_once() -> None:
    """A process that dies while a task is sent to it fails that task once, and asyncio reports nothing."""
    reported = list[str]()

    async def work(pool: ProcessPool) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context)))
        pid = await pool.run(ReturnPid())
        os.kill(pid, signal.SIGSTOP)
        sending = asyncio.create_task(pool.run(CarryData(b"x" * 3_000_000)))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await sending
        del sending
        gc.collect()

    run_with_pool(work, 1)
    gc.collect()
    assert reported == []


@pytest.mark.skipif(sys.platform != "linux", reason="on other systems the end of the pipe ends them, a moment later")
def test_the_pool_ends_with_a_killed_parent() -> None:
    """Kill -9 of the parent ends the workers too, even in the middle of a task."""
    code = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.runtime.test_process_pool import ProcessPool, Hang, ReturnPid
async def main():
    pool = ProcessPool(2)
    await pool.start(ReturnPid())
    print(*{pid for pid in await asyncio.gather(*(pool.run(ReturnPid()) for _ in range(8)))}, flush=True)
    await asyncio.gather(pool.run(Hang()), pool.run(Hang()))
asyncio.run(main())
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        pids = [int(pid) for pid in running.stdout.readline().split()]
        assert len(pids) == 2
        running.kill()
    assert all(has_ended(pid) for pid in pids)
