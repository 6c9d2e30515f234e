"""Batching of blocking reads in threads."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import pytest

from tilesync.runtime.batching import ReadBatcher


def test_fast_reads_share_a_thread() -> None:
    """Many fast reads run in one thread, in the order of the calls."""
    done: list[int] = []
    threads: set[int] = set()

    def read(number: int) -> int:
        done.append(number)
        threads.add(threading.get_ident())
        return number

    async def work() -> list[int]:
        batcher = ReadBatcher(fast_read_s=10)
        return await asyncio.gather(*(batcher.run(partial(read, number)) for number in range(100)))

    assert asyncio.run(work()) == done == list(range(100))
    assert len(threads) == 1


def test_slow_reads_run_in_parallel() -> None:
    """Slow reads run at the same time; once reads are fast again, they run one by one."""
    running, peak, lock = 0, 0, threading.Lock()

    def read(seconds: float) -> None:
        nonlocal running, peak
        with lock:
            running += 1
            peak = max(peak, running)
        time.sleep(seconds)
        with lock:
            running -= 1

    async def work() -> None:
        nonlocal peak
        batcher = ReadBatcher(fast_read_s=0.2)
        await batcher.run(partial(read, 0.3))
        await asyncio.gather(*(batcher.run(partial(read, 0.5)) for _ in range(16)))
        assert peak == 16
        for _ in range(3):
            await batcher.run(partial(read, 0))
        peak = 0
        await asyncio.gather(*(batcher.run(partial(read, 0)) for _ in range(16)))
        assert peak == 1

    asyncio.run(work())


def test_errors_reach_their_own_caller() -> None:
    """The error of a read reaches its caller and no other."""

    def read(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number

    async def work() -> None:
        batcher = ReadBatcher()
        results = await asyncio.gather(*(batcher.run(partial(read, n)) for n in range(9)), return_exceptions=True)
        assert [str(each) for each in results] == [str(n) for n in range(9)]
        assert [isinstance(each, ValueError) for each in results] == [bool(n % 2) for n in range(9)]

    asyncio.run(work())


def test_a_cancelled_caller_blocks_no_other() -> None:
    """A read that is cancelled while it runs ends by itself, and the next one starts."""
    started, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        started.set()
        go_on.wait(10)

    async def work() -> None:
        batcher = ReadBatcher()
        waiting = asyncio.create_task(batcher.run(hang))
        await asyncio.to_thread(started.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        following = asyncio.create_task(batcher.run(lambda: "next"))
        await asyncio.sleep(0)
        go_on.set()
        assert await following == "next"

    asyncio.run(work())
