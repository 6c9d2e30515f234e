"""Run a coroutine from blocking code, also inside a running event loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import FIRST_COMPLETED, Future, wait
from contextvars import copy_context
from functools import wraps
from typing import Any, ParamSpec, TypeVar

from tilesync.runtime.event_loop import loop_factory

P = ParamSpec("P")
T = TypeVar("T")


def make_blocking(function: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Make a blocking function of a coroutine function, with the same arguments, result and docstring."""

    @wraps(function)
    def call(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_blocking(lambda: function(*args, **kwargs))

    return call


def run_blocking(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    """Run the coroutine that `make` returns in a new event loop, and return its result.

    If a loop is already running, as in a notebook, the coroutine runs in a new thread, and that loop is blocked until
    it ends. Ctrl-C cancels the coroutine; KeyboardInterrupt is raised after it has ended.
    """
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return _run(make)
    outcome: Future[T] = Future()
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]] = Future()

    def work() -> None:
        try:
            outcome.set_result(_run(lambda: _run_as_task(make, started)))
        except BaseException as error:  # noqa: BLE001 - raised again by the caller
            outcome.set_exception(error)

    thread = threading.Thread(target=copy_context().run, args=(work,), name="tilesync")
    thread.start()
    try:
        return outcome.result()
    except KeyboardInterrupt:
        either: list[Future[Any]] = [started, outcome]
        wait(either, return_when=FIRST_COMPLETED)  # the thread may not have created its task yet
        if not outcome.done():
            loop, task = started.result()
            loop.call_soon_threadsafe(task.cancel)
        raise
    finally:
        thread.join()


def _run(make: Callable[[], Coroutine[Any, Any, T]]) -> T:
    factory = loop_factory() or asyncio.new_event_loop  # explicit: the current loop of the thread is not replaced
    with asyncio.Runner(loop_factory=factory) as runner:
        return runner.run(make())


async def _run_as_task(
    make: Callable[[], Coroutine[Any, Any, T]],
    started: Future[tuple[asyncio.AbstractEventLoop, asyncio.Task[T]]],
) -> T:
    task = asyncio.ensure_future(make())
    started.set_result((asyncio.get_running_loop(), task))
    return await task
