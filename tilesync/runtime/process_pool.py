"""Process pool: worker processes on this machine that run picklable tasks.

One interpreter uses one core; more processes use more. A task is a value that can be pickled and called. It keeps
long-lived resources, such as HTTP clients with their connections, in the context of its process. A worker process ends
when its parent ends, for whatever reason, so it can never disturb a later run.
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
from contextlib import AsyncExitStack
from typing import Any, TypeVar

from tilesync.runtime.event_loop import loop_factory, tune_garbage_collector
from tilesync.runtime.task_pool import WorkerContext, WorkerLost, WorkerTask

T = TypeVar("T")

_LENGTH_PREFIX = struct.Struct(">I")
_BOOTSTRAP_CODE = """\
import signal
for number in {signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)}:
    signal.signal(number, signal.SIG_IGN)  # a service manager signals the whole group; the parent decides
from tilesync.runtime.process_pool import serve
serve()
"""
_SHUTDOWN_TIMEOUT_S = 5.0
"""Seconds that a process has to exit when asked to, and again after it is killed."""

_MAX_SILENCE_S = 20.0
"""Seconds of silence after which a process with pending tasks is killed.

It may be stopped, or blocked by a disk that does not answer. The time for the bytes of its tasks is added
(`_MIN_BYTES_PER_S`).
"""

_MIN_BYTES_PER_S = 1 << 20
"""Minimum bytes per second that a process handles."""

_WATCH_INTERVAL_S = 1.0

_PR_SET_PDEATHSIG = 1
"""Option of prctl: signal this process when its parent dies. Source: prctl(2)."""


class ProcessPool:
    """Pool of worker processes, started with the first task."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._workers: list[_Worker] = []
        self._starting: asyncio.Future[list[Any]] | None = None

    @property
    def start_requested(self) -> bool:
        """True if the processes are running or starting."""
        return self._starting is not None

    @property
    def is_lost(self) -> bool:
        """True if all processes have ended or fallen silent."""
        has_started = self._starting is not None and self._starting.done()
        return has_started and not any(worker.is_alive for worker in self._workers)

    def request_start(self, task: WorkerTask[object]) -> None:
        """Start every process with `task` as its first task, without waiting. Later calls do nothing."""
        if not self.start_requested:
            self._workers = [_Worker() for _ in range(self.size)]
            self._starting = asyncio.gather(*(worker.run(task) for worker in self._workers), return_exceptions=True)

    async def start(self, task: WorkerTask[object]) -> None:
        """Start every process and wait until each has done `task` or failed."""
        self.request_start(task)
        assert self._starting is not None
        await asyncio.shield(self._starting)

    async def run(self, task: WorkerTask[T], *, payload_bytes: int = 0) -> T:
        """Run a task in the least busy process and return its result.

        `payload_bytes`: bytes that the task handles; they extend its timeout. Raises WorkerLost.
        """
        alive = [worker for worker in self._workers if worker.is_alive]
        if not alive:
            raise WorkerLost("no process runs")
        result: T = await min(alive, key=lambda worker: worker.task_count).run(task, payload_bytes)
        return result

    async def aclose(self) -> None:
        """End every process, or kill it, and wait for that. Unfinished tasks are lost."""
        await asyncio.gather(*(worker.aclose() for worker in self._workers))


class _Worker:
    """Parent's handle of one worker process."""

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
        """True if the process was started, and has not ended or fallen silent."""
        return self._reader_task is not None and not self._reader_task.done() and not self._watchdog_task.done()

    @property
    def task_count(self) -> int:
        """Number of pending tasks."""
        return len(self._pending)

    async def _start(self) -> None:
        path = os.pathsep.join(filter(None, sys.path))
        self._process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-P", "-c", _BOOTSTRAP_CODE, str(os.getpid())),
            env={**os.environ, "PYTHONPATH": path},
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            start_new_session=True,  # Ctrl-C in a terminal must not reach it, above all while it loads
        )
        self._reader_task = asyncio.create_task(self._read_results(self._process))

    async def run(self, task: WorkerTask[T], payload_bytes: int = 0) -> T:
        task_id, future = next(self._task_ids), asyncio.get_running_loop().create_future()
        self._pending[task_id] = future, payload_bytes
        try:
            await asyncio.shield(self._starting)
            assert self._process is not None
            assert self._process.stdin is not None
            self._process.stdin.write(_encode_frame((task_id, task)))
            await self._process.stdin.drain()
            result: T = await future
        except OSError as error:
            raise WorkerLost(str(error)) from error
        finally:
            self._pending.pop(task_id, None)
            if not future.cancel() and not future.cancelled():
                future.exception()  # retrieved in any case: asyncio warns of an exception that nobody retrieves
        return result

    async def _read_results(self, process: asyncio.subprocess.Process) -> None:
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError, OSError):
            while True:
                task_id, succeeded, result = pickle.loads(await _read_frame(process.stdout))  # noqa: S301 - from our own process
                self._silent_s = 0.0
                future, _ = self._pending.get(task_id, (None, 0))
                if future is None or future.done():
                    continue
                if succeeded:
                    future.set_result(result)
                else:
                    future.set_exception(WorkerLost(result))
        self._fail_pending("the process ended")

    def _fail_pending(self, reason: str) -> None:
        for future, _ in self._pending.values():
            if not future.done():
                future.set_exception(WorkerLost(reason))

    async def _kill_when_silent(self) -> None:
        """Kill the process after too much silence.

        Each tick counts as one interval, however long it really took: this process may have been stopped itself.
        """
        while (
            self._silent_s < _MAX_SILENCE_S + sum(payload for _, payload in self._pending.values()) / _MIN_BYTES_PER_S
        ):
            await asyncio.sleep(_WATCH_INTERVAL_S)
            self._silent_s = self._silent_s + _WATCH_INTERVAL_S if self._pending else 0.0
        self._kill()
        self._fail_pending("the process fell silent")  # a process blocked by a disk may survive the kill

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


# --- code of the worker process ---


def serve() -> None:
    """Run tasks from standard input until it closes, then exit at once.

    This is the main function of a worker process; its argument is the process id of the parent.
    """
    _exit_with_parent(int(sys.argv[1]))
    result_fd = os.dup(1)
    os.dup2(2, 1)  # prints of a task go to stderr, not between the results
    with asyncio.Runner(loop_factory=loop_factory()) as runner:
        runner.run(_run_tasks(result_fd))


async def _run_tasks(result_fd: int) -> None:
    reader = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    running = set[asyncio.Task[None]]()
    tune_garbage_collector()
    async with AsyncExitStack() as exit_stack:
        context = WorkerContext(exit_stack)
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                task_id, work = pickle.loads(await _read_frame(reader))  # noqa: S301 - from the parent process
                task = asyncio.create_task(_run_task(task_id, work, context, result_fd))
                running.add(task)
                task.add_done_callback(running.discard)
        os._exit(0)  # at once: closing the resources could take long, and the parent is gone or waits


async def _run_task(
    task_id: int, work: Callable[[WorkerContext], Awaitable[Any]], context: WorkerContext, result_fd: int
) -> None:
    try:
        frame = _encode_frame((task_id, True, await work(context)))
    except Exception as error:  # noqa: BLE001 - passed on to the caller and into bug reports
        traceback.print_tb(error.__traceback__)  # without the message, which may hold a signature
        sys.stderr.write(f"{type(error).__name__} in a worker task\n")
        frame = _encode_frame((task_id, False, type(error).__name__))
    unsent = memoryview(frame)
    try:
        while unsent:
            unsent = unsent[os.write(result_fd, unsent) :]
    except OSError:
        os._exit(0)


def _exit_with_parent(parent: int) -> None:
    """Make this process end when its parent does, even if the pipe stays open.

    Only Linux has prctl(2); on other systems the closed pipe ends the process.
    """
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os._exit(0)
