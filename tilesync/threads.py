"""Blocking work beside the loop."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterable
from concurrent.futures import Executor
from contextvars import ContextVar
from typing import Any, Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

STOP: Final[ContextVar[threading.Event | None]] = ContextVar("STOP", default=None)
"""Is set when someone who waits for a thread is cancelled: who waits there for better times need not go on."""


async def in_thread(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """The result of blocking `work`. A cancelled caller still waits for it: nothing is torn down under its feet."""
    return await _outlasting(asyncio.ensure_future(asyncio.to_thread(work, *args, **kwargs)))


async def in_pool(pool: Executor, work: Callable[[], T]) -> T:
    """Likewise, in threads of one's own: for work that waits long, behind which no other may have to wait."""
    return await _outlasting(asyncio.get_running_loop().run_in_executor(pool, work))


async def _outlasting(running: asyncio.Future[T]) -> T:
    try:
        return await asyncio.shield(running)
    except asyncio.CancelledError:
        if (stop := STOP.get()) is not None:
            stop.set()
        await asyncio.wait([running])
        if not running.cancelled():
            running.exception()
        raise


def outcomes(jobs: Iterable[Callable[[], Any]]) -> list[Any]:
    """What each gives, or the error that it raises."""
    return [_outcome(job) for job in jobs]


def _outcome(job: Callable[[], Any]) -> Any:
    try:
        return job()
    except Exception as error:  # noqa: BLE001 - handed to the one who waits for this job
        return error


def tell(waiting: Iterable[asyncio.Future[Any]], told: Iterable[Any]) -> None:
    """Let those who wait have their outcomes, but for those who wait no more."""
    for future, outcome in zip(waiting, told, strict=True):
        if future.done():
            continue
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
