"""Blocking work in threads, beside the event loop."""

from __future__ import annotations

import asyncio
import threading
from contextvars import ContextVar

import pytest

from tilesync.runtime.threads import (
    STOP_EVENT,
    map_in_threads,
    own_thread_pool,
    run_all,
    run_in_thread,
    set_outcomes,
    without_retries,
)

SETTING: ContextVar[str] = ContextVar("SETTING", default="unset")


def test_results_and_errors_are_returned_to_the_caller() -> None:
    """Work in a thread gets its arguments and the context of its caller; its error is raised."""

    async def main() -> str:
        SETTING.set("set")
        with pytest.raises(ZeroDivisionError):
            await run_in_thread(divmod, 1, 0)
        return await run_in_thread(lambda text: text + SETTING.get(), "is ")

    assert asyncio.run(main()) == "is set"


def test_a_cancelled_caller_waits_for_its_work() -> None:
    """The stop event tells the work that its result is not wanted; the caller ends after it."""
    started, ended = threading.Event(), threading.Event()

    def work() -> None:
        started.set()
        stop = STOP_EVENT.get()
        assert stop is not None
        assert stop.wait(10)
        ended.set()

    async def main() -> None:
        running = asyncio.create_task(run_in_thread(work))
        await asyncio.get_running_loop().run_in_executor(None, started.wait, 10)
        running.cancel()
        with pytest.raises(asyncio.CancelledError):
            await running
        assert ended.is_set()

    asyncio.run(main())


def test_work_without_retries_has_a_set_stop_event() -> None:
    """The stop event is set from the start, and there is none outside such work."""

    def is_stopped() -> bool:
        stop = STOP_EVENT.get()
        return stop is not None and stop.is_set()

    assert asyncio.run(without_retries(is_stopped))
    assert STOP_EVENT.get() is None


def test_a_run_has_its_own_threads() -> None:
    """Work within `own_thread_pool` runs in its threads, and outside in those of the loop."""

    async def main() -> tuple[str, str]:
        with own_thread_pool(1):
            inside = await run_in_thread(lambda: threading.current_thread().name)
        return inside, await run_in_thread(lambda: threading.current_thread().name)

    inside, outside = asyncio.run(main())
    assert inside.startswith("tilesync")
    assert not outside.startswith("tilesync")


def test_items_are_mapped_in_order() -> None:
    """Results have the order of the items, no items need no thread, and the first error is raised at the end."""
    assert map_in_threads(lambda number: number * 2, range(50), max_threads=8) == list(range(0, 100, 2))
    assert map_in_threads(lambda number: number, [], max_threads=8) == []
    done: list[int] = []

    def fail_at_two(number: int) -> None:
        if number == 2:
            raise ValueError(number)
        done.append(number)

    with pytest.raises(ValueError, match="2"):
        map_in_threads(fail_at_two, range(5), max_threads=2)
    assert sorted(done) == [0, 1, 3, 4]


def test_outcomes_go_to_their_futures() -> None:
    """Each job gives its result or its error to its future; a cancelled future stays cancelled."""

    async def main() -> None:
        futures = [asyncio.get_running_loop().create_future() for _ in range(3)]
        futures[2].cancel()
        set_outcomes(futures, run_all([lambda: 1, lambda: 1 // 0, lambda: 3]))
        assert await futures[0] == 1
        with pytest.raises(ZeroDivisionError):
            await futures[1]
        assert futures[2].cancelled()

    asyncio.run(main())
