"""Worker side of a cluster: what runs in a worker process of Dask.

Dask calls a function in a thread of its own; the task itself runs in an event loop that this process keeps, beside the
tasks of its other threads, so that all share connections. Nothing here raises: Dask writes errors, and the arguments of
the function that raised them, to the logs of the worker and of the scheduler. Arguments hold signed links, so they show
nothing in their text either.
"""

from __future__ import annotations

import asyncio
import pickle
import platform
import sys
import threading
import traceback
from concurrent.futures import Future
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from tilesync import __version__
from tilesync.runtime.event_loop import loop_factory
from tilesync.runtime.safe_open import read_small_file
from tilesync.runtime.task_pool import WorkerContext

PYTHON_VERSION: Final = platform.python_version().rpartition(".")[0]
"""Version of this Python, without its last number: values that are sent between two of them are understood."""


class WorkerFacts(NamedTuple):
    """Facts about a worker. `token`: content of the file that it was asked for; None if it has no such file."""

    tilesync: str
    python: str
    token: str | None


def describe_worker(token_path: str) -> tuple[str, ...]:
    """Return the WorkerFacts as a plain tuple, which a worker of another version can make too."""
    try:
        token = read_small_file(Path(token_path)).decode(errors="replace") if token_path else ""
    except OSError:
        return __version__, PYTHON_VERSION
    return __version__, PYTHON_VERSION, token


class TaskPayload:
    """A task as it is sent to a worker, with the seconds that it may take. Its text shows nothing of it."""

    __slots__ = ("data", "time_limit_s")

    def __init__(self, data: bytes, time_limit_s: float) -> None:
        self.data = data
        self.time_limit_s = time_limit_s

    def __repr__(self) -> str:
        return "<task of tilesync>"

    def __reduce__(self) -> tuple[type[TaskPayload], tuple[bytes, float]]:
        return TaskPayload, (self.data, self.time_limit_s)


class TaskOutcome:
    """The result of a task, pickled, or the class of its error; and the address of the worker that ran it."""

    __slots__ = ("error", "result", "worker")

    def __init__(self, worker: str, result: bytes, error: str = "") -> None:
        self.worker = worker
        self.result = result
        self.error = error

    def __repr__(self) -> str:
        return "<result of tilesync>"

    def __reduce__(self) -> tuple[type[TaskOutcome], tuple[str, bytes, str]]:
        return TaskOutcome, (self.worker, self.result, self.error)


def run_task(payload: TaskPayload) -> TaskOutcome:
    """Run a task within its time limit, and return its outcome. A thread of a Dask worker calls this."""
    from distributed import get_worker

    address: str = get_worker().address
    try:
        task = pickle.loads(payload.data)  # noqa: S301 - from the coordinator, whom Dask lets run any code here
        result = _process_loop().run(task, payload.time_limit_s)
        return TaskOutcome(address, pickle.dumps(result, pickle.HIGHEST_PROTOCOL))
    except Exception as error:  # noqa: BLE001 - sent to the coordinator by its class: the text may hold a signature
        traceback.print_tb(error.__traceback__)
        sys.stderr.write(f"{type(error).__name__} in a task of tilesync\n")
        return TaskOutcome(address, b"", type(error).__name__)


class _ProcessLoop:
    """Event loop of this process, in a thread of its own, with the resources that its tasks share."""

    def __init__(self) -> None:
        factory = loop_factory()
        self._loop = factory() if factory is not None else asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="tilesync", daemon=True).start()
        self._context: Future[WorkerContext] = asyncio.run_coroutine_threadsafe(_make_context(), self._loop)

    def run(self, task: Any, time_limit_s: float) -> object:
        """Run a task and wait for its result. Raises TimeoutError after the time limit."""
        context = self._context.result()

        async def limited() -> object:
            async with asyncio.timeout(time_limit_s):
                return await task(context)

        return asyncio.run_coroutine_threadsafe(limited(), self._loop).result()


async def _make_context() -> WorkerContext:
    """Make the context in the loop that it belongs to. Its resources live as long as the process."""
    return WorkerContext(AsyncExitStack())


_loop_lock = threading.Lock()
_loops = list[_ProcessLoop]()


def _process_loop() -> _ProcessLoop:
    """Return the loop of this process; the first task starts it."""
    with _loop_lock:
        if not _loops:
            _loops.append(_ProcessLoop())
        return _loops[0]
