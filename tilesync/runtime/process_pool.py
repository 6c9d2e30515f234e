"""Other processes of this machine that run errands: values go in, values come out.

One interpreter uses one core. An errand is a value that can be pickled and called; what it needs for long, such as an
engine with its connections, it finds in the tools of its process. A process of the crew ends with the one that started
it, whatever ends that: nothing is done behind the back of a later run.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import itertools
import os
import pickle
import signal
import struct
import sys
import traceback
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack
from typing import Any, Protocol, TypeVar

from tilesync.runtime.event_loop import loop_factory, tune_garbage_collector

T = TypeVar("T")
R_co = TypeVar("R_co", covariant=True)

_LENGTH_PREFIX = struct.Struct(">I")
_BOOTSTRAP_CODE = """\
import signal
for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
    signal.signal(number, signal.SIG_IGN)  # a service manager sends them to all; who started this decides
from tilesync.runtime.process_pool import serve
serve()
"""
_SHUTDOWN_TIMEOUT_S = 5.0
"""Seconds that a process has to end when it is asked to, and again when it is killed."""

_MAX_SILENCE_S = 20.0
"""Seconds after which a process that has errands, and answers none of them, is killed: it may be stopped, or wait for a
disk that does not answer. Beside them those that the bytes of its errands may take.
"""

_MIN_BYTES_PER_S = 1 << 20
"""Bytes a second that a process gets through at least."""

_WATCH_INTERVAL_S = 1.0

_PR_SET_PDEATHSIG = 1
"""Source: prctl(2)."""


class WorkerLost(Exception):
    """A process ended before its errand did, fell silent, or could not be started."""


class WorkerContext:
    """What errands of one process share."""

    def __init__(self, exit_stack: AsyncExitStack) -> None:
        self._exit_stack = exit_stack
        self._lock = asyncio.Lock()
        self._resources: dict[Callable[[], AbstractAsyncContextManager[Any]], Any] = {}

    async def get_or_create(self, make: Callable[[], AbstractAsyncContextManager[T]]) -> T:
        """What `make` makes: made and entered by the first who asks, given to all others."""
        async with self._lock:
            if make not in self._resources:
                self._resources[make] = await self._exit_stack.enter_async_context(make())
            kept: T = self._resources[make]
            return kept


class WorkerTask(Protocol[R_co]):
    """A piece of work, picklable as its result is."""

    async def __call__(self, context: WorkerContext, /) -> R_co:
        """Do it."""


class ProcessPool:
    """Some processes, started with the first errand."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._workers: list[_Worker] = []
        self._starting: asyncio.Future[list[Any]] | None = None

    @property
    def start_requested(self) -> bool:
        """Whether its processes run, or start."""
        return self._starting is not None

    def request_start(self, task: WorkerTask[object]) -> None:
        """Have every process started, and do the errand as its first. Does nothing the second time."""
        if not self.start_requested:
            self._workers = [_Worker() for _ in range(self.size)]
            self._starting = asyncio.gather(*(one.run(task) for one in self._workers), return_exceptions=True)

    async def start(self, task: WorkerTask[object]) -> None:
        """Return when every process runs and has done the errand, or has failed to."""
        self.request_start(task)
        assert self._starting is not None
        await asyncio.shield(self._starting)

    async def run(self, task: WorkerTask[T], *, payload_bytes: int = 0) -> T:
        """What the errand gives, by the process that has the fewest. `weight`: bytes that it is about. Raises Lost."""
        living = [member for member in self._workers if member.is_alive]
        if not living:
            raise WorkerLost("no process runs")
        result: T = await min(living, key=lambda member: member.task_count).run(task, payload_bytes)
        return result

    async def aclose(self) -> None:
        """Return when every process has ended, or was killed; what they were doing is left undone."""
        await asyncio.gather(*(member.aclose() for member in self._workers))


class _Worker:
    """One process, on this side."""

    def __init__(self) -> None:
        self._pending: dict[int, tuple[asyncio.Future[Any], int]] = {}
        self._task_ids = itertools.count()
        self._process: asyncio.subprocess.Process | None = None
        self._starting = asyncio.create_task(self._start())
        self._reader_task: asyncio.Task[None] | None = None
        self._watchdog_task = asyncio.create_task(self._kill_when_silent())
        self._silent_s = 0.0

    @property
    def is_alive(self) -> bool:
        """Whether it has been started, and has not ended or fallen silent."""
        return self._reader_task is not None and not self._reader_task.done() and not self._watchdog_task.done()

    @property
    def task_count(self) -> int:
        """How many errands it has."""
        return len(self._pending)

    async def _start(self) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _BOOTSTRAP_CODE, str(os.getpid())),
            env={**os.environ, "PYTHONPATH": path},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # a terminal does not reach it, while it loads least of all
        )
        self._reader_task = asyncio.create_task(self._read_results(self._process))

    async def run(self, task: WorkerTask[T], payload_bytes: int = 0) -> T:
        number, answer = next(self._task_ids), asyncio.get_running_loop().create_future()
        self._pending[number] = answer, payload_bytes
        try:
            await asyncio.shield(self._starting)
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(_encode_frame((number, task)))
            await self._process.stdin.drain()
            result: T = await answer
        except OSError as error:
            raise WorkerLost(str(error)) from error
        finally:
            self._pending.pop(number, None)
            if not answer.cancel() and not answer.cancelled():
                answer.exception()  # it may be lost by two causes at once: asyncio reports what nobody looked at
        return result

    async def _read_results(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                number, done, result = pickle.loads(await _read_frame(process.stdout))  # noqa: S301 - from our own process
                self._silent_s = 0.0
                answer, _ = self._pending.get(number, (None, 0))
                if answer is None or answer.done():
                    continue
                if done:
                    answer.set_result(result)
                else:
                    answer.set_exception(WorkerLost(result))
        self._fail_pending("the process ended")

    def _fail_pending(self, reason: str) -> None:
        for answer, _ in self._pending.values():
            if not answer.done():
                answer.set_exception(WorkerLost(reason))

    async def _kill_when_silent(self) -> None:
        """Kill the process when it has been silent for too long. Each tick counts once, however long it took: this
        process may have been stopped itself.
        """
        while self._silent_s < _MAX_SILENCE_S + sum(weight for _, weight in self._pending.values()) / _MIN_BYTES_PER_S:
            await asyncio.sleep(_WATCH_INTERVAL_S)
            self._silent_s = self._silent_s + _WATCH_INTERVAL_S if self._pending else 0.0
        self._kill()
        self._fail_pending("the process fell silent")  # also where it outlives that, in the hands of a disk

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def aclose(self) -> None:
        self._watchdog_task.cancel()
        with contextlib.suppress(OSError):
            await self._starting
        if self._process is None or self._reader_task is None:
            return
        assert self._process.stdin is not None
        self._process.stdin.close()
        for _ in range(2):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_SHUTDOWN_TIMEOUT_S):
                    await self._process.wait()
                    await self._reader_task
                    return
            self._kill()
        self._fail_pending("the process does not end")


def _encode_frame(message: object) -> bytes:
    data = pickle.dumps(message, pickle.HIGHEST_PROTOCOL)
    return _LENGTH_PREFIX.pack(len(data)) + data


async def _read_frame(reader: asyncio.StreamReader) -> bytes:
    return await reader.readexactly(_LENGTH_PREFIX.unpack(await reader.readexactly(_LENGTH_PREFIX.size))[0])


# --- the other side ---


def serve() -> None:
    """Run errands from standard input until that ends, then end at once. Its argument is who started it."""
    _exit_with_parent(int(sys.argv[1]))
    out = os.dup(1)
    os.dup2(2, 1)
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run_tasks(out))


async def _run_tasks(out: int) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    under_way = set[asyncio.Task[None]]()
    tune_garbage_collector()
    async with AsyncExitStack() as closing:
        tools = WorkerContext(closing)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                number, errand = pickle.loads(await _read_frame(reader))  # noqa: S301 - from the process that started this
                task = asyncio.create_task(_run_task(number, errand, tools, out))
                under_way.add(task)
                task.add_done_callback(under_way.discard)
        os._exit(0)


async def _run_task(
    task_id: int, work: Callable[[WorkerContext], Awaitable[Any]], context: WorkerContext, out: int
) -> None:
    try:
        answer = _encode_frame((task_id, True, await work(context)))
    except Exception as error:  # noqa: BLE001 - told to the one who waits, and in the report of a bug
        traceback.print_tb(error.__traceback__)  # not its text, which may hold a signature
        sys.stderr.write(f"{type(error).__name__} in an errand\n")
        answer = _encode_frame((task_id, False, type(error).__name__))
    left = memoryview(answer)
    try:
        while left:
            left = left[os.write(out, left) :]
    except OSError:
        os._exit(0)


def _exit_with_parent(parent: int) -> None:
    """End when the parent does, also where it cannot close the pipe; elsewhere than on Linux the pipe must do."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
