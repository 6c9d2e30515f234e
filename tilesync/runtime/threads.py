"""Blocking work in threads, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar, copy_context
from functools import partial
from typing import Any, Final, ParamSpec, TypeVar

from tilesync.errors import Interrupted

P = ParamSpec("P")
T = TypeVar("T")
U = TypeVar("U")

MAX_DISK_THREADS: Final = 32
"""Threads of a server for the blocking reads of one folder or package: a disk that hangs holds up no other place."""

STOP_EVENT: Final[ContextVar[threading.Event | None]] = ContextVar("STOP_EVENT", default=None)
"""Event that is set when the caller no longer wants the result; None outside such work.

Blocking code that waits for a retry should check it and give up.
"""


def raise_if_stopped(work: str) -> None:
    """Raise Interrupted if the caller of this work, which is named in the message, no longer wants the result."""
    stop = STOP_EVENT.get()
    if stop is not None and stop.is_set():
        raise Interrupted(f"{work} was stopped")


THREAD_POOL: Final[ContextVar[Executor | None]] = ContextVar("THREAD_POOL", default=None)
"""Thread pool of a run, which `own_thread_pool` sets; None means that of the event loop."""


@contextmanager
def own_thread_pool(max_threads: int | None = None) -> Iterator[None]:
    """Run the `with` block with its own thread pool, so that it does not use up the threads of the event loop."""
    with ThreadPoolExecutor(max_threads, thread_name_prefix="tilesync") as pool:
        token = THREAD_POOL.set(pool)
        try:
            yield
        finally:
            THREAD_POOL.reset(token)


async def run_in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Run blocking `work` in a thread and return its result.

    A cancelled caller still waits for it to end, so nothing that it uses is closed too early.
    """
    return await run_in_executor(None, partial(work, *args, **kwargs))


async def run_in_executor(pool: Executor | None, work: Callable[[], T]) -> T:
    """Run blocking `work` in the threads of `pool`.

    A separate pool is for long waits, which must not block other work.
    """
    return await _run_to_completion(pool, work, threading.Event())


async def run_abandonable(pool: Executor, work: Callable[[], T]) -> T:
    """Run blocking `work` in the threads of `pool`. A cancelled caller does not wait: the work may hang for long.

    Its stop event is set then, and its result is lost. `work` must not need what the caller closes after it.
    """
    stop, context = threading.Event(), copy_context()
    context.run(STOP_EVENT.set, stop)
    running = asyncio.get_running_loop().run_in_executor(pool, context.run, work)
    running.add_done_callback(lambda done: done.cancelled() or done.exception())
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        raise


async def without_retries(work: Callable[[], T]) -> T:
    """Run blocking `work` in a thread with the stop event already set, so it does not wait for retries."""
    stop = threading.Event()
    stop.set()
    return await _run_to_completion(None, work, stop)


async def _run_to_completion(pool: Executor | None, work: Callable[[], T], stop: threading.Event) -> T:
    context = copy_context()
    context.run(STOP_EVENT.set, stop)
    running = asyncio.get_running_loop().run_in_executor(pool or THREAD_POOL.get(), context.run, work)
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        stop.set()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        raise


def map_in_threads(work: Callable[[U], T], items: Sequence[U], *, max_threads: int) -> list[T]:
    """Apply `work` to each item in up to `max_threads` threads; blocks.

    Raises the first error after all items are done.
    """
    if not items:
        return []
    with ThreadPoolExecutor(min(max_threads, len(items))) as pool:
        running = [pool.submit(copy_context().run, work, item) for item in items]
    return [each.result() for each in running]


def run_all(jobs: Iterable[Callable[[], Any]]) -> list[Any]:
    """Run each job; return its result or the error that it raised."""
    return [_run_catching(job) for job in jobs]


def _run_catching(job: Callable[[], Any]) -> Any:
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - passed on to the caller of this job
        return error


def set_outcomes(futures: Iterable[asyncio.Future[Any]], results: Iterable[Any]) -> None:
    """Set the result or error of each future, except those that were cancelled."""
    for future, outcome in zip(futures, results, strict=True):
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
