"""Places of mirrors: the smallest first, and large ones leave a place."""

from __future__ import annotations

import asyncio
import random

import pytest

from tests.support.event_loop import in_event_loop
from tilesync.fleets.night.job_places import LARGE_BYTES, JobPlaces


class Jobs:
    """Jobs that take a place each. `started`: names in the order in which they got theirs."""

    def __init__(self, places: int) -> None:
        self.places = JobPlaces(places)
        self.started: list[str] = []
        self.most = 0
        self.running = 0
        self._ends: dict[str, asyncio.Event] = {}
        self.tasks: dict[str, asyncio.Task[None]] = {}

    async def add(self, name: str, size: int) -> None:
        """Add a job, and let it start if it can."""
        self._ends[name] = asyncio.Event()
        self.tasks[name] = asyncio.create_task(self._run(name, size))
        await settle()

    async def end(self, *names: str) -> None:
        """End jobs one after the other, and let others start."""
        for name in names:
            self._ends[name].set()
            await settle()

    async def cancel(self, name: str) -> None:
        """Cancel a job that waits or runs."""
        self.tasks[name].cancel()
        await settle()

    async def _run(self, name: str, size: int) -> None:
        async with self.places.take(size):
            self.started.append(name)
            self.running += 1
            self.most = max(self.most, self.running)
            try:
                await self._ends[name].wait()
            finally:
                self.running -= 1


async def settle() -> None:
    """Let all tasks go on until they wait."""
    for _ in range(5):
        await asyncio.sleep(0)


@in_event_loop
async def test_no_more_than_there_are_places() -> None:
    """As many jobs run as there are places; the others start as places become free."""
    jobs = Jobs(2)
    for name in "abcd":
        await jobs.add(name, 1)
    assert jobs.started == ["a", "b"]
    await jobs.end("b")
    assert jobs.started == ["a", "b", "c"]
    await jobs.end("a", "c", "d")
    assert (jobs.started, jobs.most, jobs.running) == (["a", "b", "c", "d"], 2, 0)


@in_event_loop
async def test_the_smallest_comes_first() -> None:
    """Of those that wait, the one with the least to transfer comes next; of equal ones the first."""
    jobs = Jobs(1)
    for name, size in {"first": 50, "large": LARGE_BYTES, "b": 7, "c": 7, "a": 3}.items():
        await jobs.add(name, size)
    await jobs.end("first", "a", "b", "c", "large")
    assert jobs.started == ["first", "a", "b", "c", "large"]


@in_event_loop
async def test_large_ones_leave_a_place() -> None:
    """Large jobs use all places but one: a small one that comes later starts at once."""
    jobs = Jobs(3)
    for number in range(3):
        await jobs.add(f"large {number}", LARGE_BYTES)
    assert jobs.started == ["large 0", "large 1"]
    await jobs.add("small", LARGE_BYTES - 1)
    assert jobs.started[2:] == ["small"]
    await jobs.end("small")
    assert jobs.running == 2, "the place that is left is for small ones"
    await jobs.end("large 0")
    assert jobs.started[3:] == ["large 2"]


@in_event_loop
async def test_one_place_is_for_large_ones_too() -> None:
    """With a single place, a large job gets it."""
    jobs = Jobs(1)
    await jobs.add("large", LARGE_BYTES)
    assert jobs.started == ["large"]


@in_event_loop
async def test_a_cancelled_job_gives_its_place_back() -> None:
    """A job that is cancelled while it waits takes no place, and one that is cancelled while it runs gives it back."""
    jobs = Jobs(2)
    for name, size in {"large": LARGE_BYTES, "small": 1, "waiting": 2, "large 2": LARGE_BYTES, "last": 3}.items():
        await jobs.add(name, size)
    await jobs.cancel("waiting")
    await jobs.cancel("small")
    assert jobs.started == ["large", "small", "last"]
    await jobs.cancel("large")
    assert jobs.started[3:] == ["large 2"]
    await jobs.end("last")
    await jobs.add("another", LARGE_BYTES)
    assert jobs.running == 1, "large 2 holds the only place for large ones"


@in_event_loop
async def test_a_job_that_is_cancelled_just_as_it_gets_its_place() -> None:
    """A place that was given to a job which is cancelled before it starts is given to the next one."""
    jobs = Jobs(1)
    for name in ("first", "second", "third"):
        await jobs.add(name, 1)
    jobs._ends["first"].set()
    while not jobs.tasks["first"].done():
        await asyncio.sleep(0)
    jobs.tasks["second"].cancel()
    await settle()
    assert jobs.started == ["first", "third"], "second was cancelled before it could start"
    await jobs.end("third")
    assert jobs.running == 0


@pytest.mark.parametrize("seed", range(20))
@in_event_loop
async def test_any_order_of_ends_and_cancellations(seed: int) -> None:
    """Whatever ends or is cancelled, no place is lost, and none is given twice."""
    dice, jobs = random.Random(seed), Jobs(3)
    alive: list[str] = []
    for number in range(60):
        name = str(number)
        await jobs.add(name, dice.choice([1, 5, LARGE_BYTES, LARGE_BYTES + 1]))
        alive.append(name)
        while alive and dice.random() < 0.45:
            chosen = alive.pop(dice.randrange(len(alive)))
            await (jobs.cancel(chosen) if dice.random() < 0.5 else jobs.end(chosen))
        assert jobs.most <= 3
    await jobs.end(*alive)
    assert jobs.running == 0
    assert all(task.done() for task in jobs.tasks.values())
    for number in range(3):
        await jobs.add(f"after {number}", 1)
    assert jobs.running == 3
