"""Errands in other processes."""

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

from tilesync.runtime import process_pool
from tilesync.runtime.process_pool import ProcessPool, WorkerContext, WorkerLost

T = TypeVar("T")


@dataclass(frozen=True)
class ReturnPid:
    """Says which process did it."""

    async def __call__(self, tools: WorkerContext) -> int:
        return os.getpid()


@dataclass(frozen=True)
class Fail:
    async def __call__(self, tools: WorkerContext) -> None:
        raise ZeroDivisionError


@dataclass(frozen=True)
class Hang:
    seconds: float = 60.0

    async def __call__(self, tools: WorkerContext) -> None:
        await asyncio.sleep(self.seconds)


@dataclass(frozen=True)
class CarryData:
    """Brings much along."""

    data: bytes

    async def __call__(self, tools: WorkerContext) -> int:
        return len(self.data)


@dataclass(frozen=True)
class PrintMuch:
    """Prints, which must not be taken for an answer."""

    async def __call__(self, tools: WorkerContext) -> bytes:
        sys.stdout.write("hello\n")
        os.write(1, b"hello")
        return b"x" * 3_000_000


@asynccontextmanager
async def make_counter() -> AsyncIterator[list[int]]:
    yield []


@dataclass(frozen=True)
class CountUses:
    """How often what is kept was asked for, within this process."""

    async def __call__(self, tools: WorkerContext) -> int:
        kept = await tools.get_or_create(make_counter)
        kept.append(1)
        return len(kept)


def run_with_pool(work: Callable[[ProcessPool], Awaitable[T]], size: int = 2) -> T:
    async def main() -> T:
        crew = ProcessPool(size)
        try:
            async with asyncio.timeout(40):
                await crew.start(ReturnPid())
                return await work(crew)
        finally:
            await crew.aclose()

    return asyncio.run(main())


def list_worker_pids() -> list[int]:
    """The processes of a crew that this one has started."""
    found = []
    for pid in filter(str.isdigit, os.listdir("/proc")):
        try:
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            command = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            continue
        if int(fields[1]) == os.getpid() and b"tilesync.runtime.process_pool" in command:
            found.append(int(pid))
    return found


def has_ended(pid: int) -> bool:
    """Whether a process has ended, or does so in a moment."""
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


def test_errands_are_spread_over_other_processes() -> None:
    """Errands that are under way together are done by all processes, none of them this one; each has its answer."""

    async def work(crew: ProcessPool) -> set[int]:
        return set(await asyncio.gather(*(crew.run(ReturnPid()) for _ in range(20))))

    pids = run_with_pool(work)
    assert len(pids) == 2
    assert os.getpid() not in pids
    assert all(has_ended(pid) for pid in pids)


def test_what_is_kept_is_made_once() -> None:
    """Errands of one process find what an earlier one has made."""

    async def work(crew: ProcessPool) -> list[int]:
        return [await crew.run(CountUses()) for _ in range(3)]

    assert run_with_pool(work, 1) == [1, 2, 3]


def test_what_an_errand_prints_is_no_answer() -> None:
    """Standard output of a process is not what its answers go through; large answers come whole."""

    async def work(crew: ProcessPool) -> bytes:
        return await crew.run(PrintMuch())

    assert run_with_pool(work) == b"x" * 3_000_000


def test_an_errand_that_fails_is_lost_and_harms_no_other(capfd: pytest.CaptureFixture[str]) -> None:
    """A bug in an errand is told by name, with its trace on stderr; the process goes on."""

    async def work(crew: ProcessPool) -> int:
        with pytest.raises(WorkerLost, match="ZeroDivisionError"):
            await crew.run(Fail())
        return await crew.run(CountUses())

    assert run_with_pool(work, 1) == 1
    assert "ZeroDivisionError" in capfd.readouterr().err


def test_a_process_that_is_killed_loses_its_errands_alone() -> None:
    """Those who wait for a killed process hear of it at once; the other one takes what comes then."""

    async def work(crew: ProcessPool) -> set[int]:
        first, second = set(await asyncio.gather(*(crew.run(ReturnPid()) for _ in range(6))))
        hanging = [asyncio.create_task(crew.run(Hang())) for _ in range(2)]
        await asyncio.sleep(0.1)
        os.kill(first, signal.SIGKILL)
        done, _ = await asyncio.wait(hanging, return_when=asyncio.FIRST_COMPLETED)
        assert [type(task.exception()) for task in done] == [WorkerLost]
        left = {await crew.run(ReturnPid()) for _ in range(4)}
        assert left == {second}
        os.kill(second, signal.SIGKILL)
        with suppress(WorkerLost):
            await asyncio.gather(*hanging)
        with pytest.raises(WorkerLost):
            await crew.run(ReturnPid())
        return left

    run_with_pool(work)


@pytest.fixture
def shorten_timeouts(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """From when it is called a process that answers nothing for two seconds is taken for stuck."""
    monkeypatch.setattr(process_pool, "_WATCH_INTERVAL_S", 0.1)
    return lambda: monkeypatch.setattr(process_pool, "_MAX_SILENCE_S", 2.0)


def test_a_process_that_is_stopped_is_killed(shorten_timeouts: Callable[[], None]) -> None:
    """Errands of a process that answers no more are lost after a while, and it is gone; the other one goes on."""

    async def work(crew: ProcessPool) -> tuple[int, int]:
        first, second = set(await asyncio.gather(*(crew.run(ReturnPid()) for _ in range(6))))
        shorten_timeouts()
        os.kill(first, signal.SIGSTOP)
        answers = await asyncio.gather(*(crew.run(ReturnPid()) for _ in range(6)), return_exceptions=True)
        assert sorted(map(str, answers)) == sorted([str(second)] * 3 + ["the process fell silent"] * 3)
        assert {await crew.run(ReturnPid()) for _ in range(4)} == {second}
        return first, second

    assert all(has_ended(pid) for pid in run_with_pool(work))


def test_a_stopped_process_takes_no_more_than_a_pipe_holds(shorten_timeouts: Callable[[], None]) -> None:
    """Also an errand that the process does not even read is lost."""

    async def work(crew: ProcessPool) -> None:
        os.kill(await crew.run(ReturnPid()), signal.SIGSTOP)
        shorten_timeouts()
        with pytest.raises(WorkerLost):
            await crew.run(CarryData(b"x" * 3_000_000))

    run_with_pool(work, 1)


def test_large_errands_have_more_time(shorten_timeouts: Callable[[], None]) -> None:
    """What is about so many bytes that it may take long is waited for."""

    async def work(crew: ProcessPool) -> None:
        shorten_timeouts()
        await crew.run(Hang(3.5), payload_bytes=60 << 20)
        with pytest.raises(WorkerLost):
            await crew.run(Hang(60))

    run_with_pool(work, 1)


def test_one_that_is_stopped_in_its_first_errand_keeps_nobody(shorten_timeouts: Callable[[], None]) -> None:
    """A process that never gets ready is killed, and the crew starts without it."""

    async def main() -> set[int]:
        crew = ProcessPool(2)
        try:
            crew.request_start(ReturnPid())
            while len(started := list_worker_pids()) < 2:
                await asyncio.sleep(0.001)
            os.kill(started[0], signal.SIGSTOP)
            while all(member.task_count for member in crew._workers):
                await asyncio.sleep(0.01)
            shorten_timeouts()
            async with asyncio.timeout(30):
                await crew.start(ReturnPid())
                return {await crew.run(ReturnPid()) for _ in range(4)} - set(started[1:])
        finally:
            await crew.aclose()

    assert asyncio.run(main()) == set()
    assert list_worker_pids() == []


def test_closing_does_not_wait_for_one_that_is_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stopped processes are killed when the crew is closed, all at the same time."""
    monkeypatch.setattr(process_pool, "_SHUTDOWN_TIMEOUT_S", 1.0)

    async def work(crew: ProcessPool) -> float:
        for pid in set(await asyncio.gather(*(crew.run(ReturnPid()) for _ in range(8)))):
            os.kill(pid, signal.SIGSTOP)
        began = time.monotonic()
        await crew.aclose()
        return time.monotonic() - began

    assert run_with_pool(work, 4) < 4
    assert list_worker_pids() == []


def test_closing_leaves_errands_undone() -> None:
    """A crew is closed at once, whatever it is doing."""

    async def work(crew: ProcessPool) -> float:
        hanging = asyncio.create_task(crew.run(Hang()))
        await asyncio.sleep(0.1)
        began = time.monotonic()
        await crew.aclose()
        with pytest.raises(WorkerLost):
            await hanging
        return time.monotonic() - began

    assert run_with_pool(work) < 4


def test_interrupts_are_for_the_one_who_started_them() -> None:
    """SIGINT and SIGTERM, which a terminal or a service manager sends to the whole group, end no process."""

    async def work(crew: ProcessPool) -> int:
        pid = await crew.run(ReturnPid())
        os.kill(pid, signal.SIGINT)
        os.kill(pid, signal.SIGTERM)
        return pid - await crew.run(ReturnPid())

    assert run_with_pool(work, 1) == 0


def test_a_process_that_loads_hears_no_interrupts_of_the_group() -> None:
    """Ctrl-C while the processes start, again and again, ends none of them and writes nothing on stderr."""
    code = """
import asyncio, signal, sys
sys.path.insert(0, sys.argv[1])
from tests.runtime.test_process_pool import ProcessPool, ReturnPid
async def main():
    signal.signal(signal.SIGINT, lambda *_: None)
    crew = ProcessPool(2)
    crew.request_start(ReturnPid())
    await asyncio.gather(*(member._starting for member in crew._workers))
    print("they load", flush=True)
    await crew.start(ReturnPid())
    print(len(set(await asyncio.gather(*(crew.run(ReturnPid()) for _ in range(4))))), flush=True)
    await crew.aclose()
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


def test_an_errand_that_is_lost_twice_is_told_once() -> None:
    """A process that dies while an errand is sent to it ends that errand, and asyncio has nothing left to report."""
    reported = list[str]()

    async def work(crew: ProcessPool) -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _, context: reported.append(str(context)))
        pid = await crew.run(ReturnPid())
        os.kill(pid, signal.SIGSTOP)
        sending = asyncio.create_task(crew.run(CarryData(b"x" * 3_000_000)))
        await asyncio.sleep(0.05)
        os.kill(pid, signal.SIGKILL)
        with pytest.raises(WorkerLost):
            await sending
        del sending
        gc.collect()

    run_with_pool(work, 1)
    gc.collect()
    assert reported == []


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the end of a pipe tells, a moment later")
def test_the_crew_ends_with_a_killed_parent() -> None:
    """Kill -9 of the process that started them ends them too, also in the middle of an errand."""
    code = """
import asyncio, sys
sys.path.insert(0, sys.argv[1])
from tests.runtime.test_process_pool import ProcessPool, Hang, ReturnPid
async def main():
    crew = ProcessPool(2)
    await crew.start(ReturnPid())
    print(*{pid for pid in await asyncio.gather(*(crew.run(ReturnPid()) for _ in range(8)))}, flush=True)
    await asyncio.gather(crew.run(Hang()), crew.run(Hang()))
asyncio.run(main())
"""
    command = [sys.executable, "-c", code, str(Path(__file__).parents[2])]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as running:
        assert running.stdout is not None
        pids = [int(pid) for pid in running.stdout.readline().split()]
        assert len(pids) == 2
        running.kill()
    assert all(has_ended(pid) for pid in pids)
