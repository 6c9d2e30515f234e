"""Blocking reads beside the loop."""

from __future__ import annotations

import asyncio
import threading
import time
from functools import partial

import pytest

from tilesync.runtime.batching import ReadBatcher


def test_swift_reads_share_a_thread() -> None:
    """Many reads that take no time are done by one thread, in the order in which they were asked for."""
    done: list[int] = []
    threads: set[int] = set()

    def read(number: int) -> int:
        done.append(number)
        threads.add(threading.get_ident())
        return number

    async def work() -> list[int]:
        reading = ReadBatcher(fast_read_s=10)
        return await asyncio.gather(*(reading.run(partial(read, number)) for number in range(100)))

    assert asyncio.run(work()) == done == list(range(100))
    assert len(threads) == 1


def test_slow_reads_wait_side_by_side() -> None:
    """Reads that take long are made at the same time, as many as may be; when they are swift again, one by one."""
    inside, most, lock = 0, 0, threading.Lock()

    def read(seconds: float) -> None:
        nonlocal inside, most
        with lock:
            inside += 1
            most = max(most, inside)
        time.sleep(seconds)
        with lock:
            inside -= 1

    async def work() -> None:
        nonlocal most
        reading = ReadBatcher(fast_read_s=0.2)
        await reading.run(partial(read, 0.3))
        await asyncio.gather(*(reading.run(partial(read, 0.5)) for _ in range(16)))
        assert most == 16
        for _ in range(3):
            await reading.run(partial(read, 0))
        most = 0
        await asyncio.gather(*(reading.run(partial(read, 0)) for _ in range(16)))
        assert most == 1

    asyncio.run(work())


def test_errors_are_those_of_their_read() -> None:
    """What a read raises comes to who asked for it, and to none of the others."""

    def read(number: int) -> int:
        if number % 2:
            raise ValueError(number)
        return number

    async def work() -> None:
        reading = ReadBatcher()
        found = await asyncio.gather(*(reading.run(partial(read, n)) for n in range(9)), return_exceptions=True)
        assert [str(each) for each in found] == [str(n) for n in range(9)]
        assert [isinstance(each, ValueError) for each in found] == [bool(n % 2) for n in range(9)]

    asyncio.run(work())


def test_one_who_goes_away_keeps_none_waiting() -> None:
    """A read that is given up while it is under way ends by itself, and the next one is made."""
    begun, go_on = threading.Event(), threading.Event()

    def hang() -> None:
        begun.set()
        go_on.wait(10)

    async def work() -> None:
        reading = ReadBatcher()
        waiting = asyncio.create_task(reading.run(hang))
        await asyncio.to_thread(begun.wait, 10)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        following = asyncio.create_task(reading.run(lambda: "next"))
        await asyncio.sleep(0)
        go_on.set()
        assert await following == "next"

    asyncio.run(work())
