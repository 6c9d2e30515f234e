"""Pace of API calls: its rate in any window, its order, its pause, and cancellation; on a fake clock."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

import pytest

from tests.support.clock import FakeClock
from tilesync.demo.api_rate import ApiCallLog
from tilesync.errors import Unavailable
from tilesync.transport.api_pace import WINDOW_S, ApiPace


class SlowClock(FakeClock):
    """Clock whose sleeps end only after the test has released them."""

    def __init__(self) -> None:
        super().__init__()
        self.released = asyncio.Event()

    async def sleep(self, seconds: float) -> None:
        """Wait until the test releases sleeps, then advance the time."""
        await self.released.wait()
        await super().sleep(seconds)


def run(work: Callable[[ApiPace, FakeClock], Awaitable[Any]], *, rate: int = 400, at_once: int = 16) -> FakeClock:
    """Run a coroutine with a new pace; fail if it hangs."""
    clock = FakeClock()

    async def main() -> None:
        async with asyncio.timeout(30):
            await work(ApiPace(rate, clock, at_once=at_once), clock)

    asyncio.run(main())
    return clock


@pytest.mark.parametrize("rate", [1, 2, 7, 10, 400, 2000])
def test_no_window_holds_more_calls_than_the_rate(rate: int) -> None:
    """Callers that never stop make at most the rate in any minute, and at least nine tenths of it in the long run."""

    async def work(pace: ApiPace, clock: FakeClock) -> None:
        log = ApiCallLog(clock.monotonic)

        async def call() -> None:
            await take(pace)
            log.record()

        await asyncio.gather(*(call() for _ in range(rate * 3 + 1)))
        assert log.most_calls_in_window() <= rate
        assert log.most_calls_in_window(WINDOW_S - 0.01) <= rate
        assert pace.calls == rate * 3 + 1
        assert clock.monotonic() <= 3.5 * WINDOW_S

    run(work, rate=rate)


def test_no_window_holds_more_after_idle_times() -> None:
    """Calls that come in groups, with idle times of any length between them, keep the rate too."""
    dice = random.Random(7)

    async def work(pace: ApiPace, clock: FakeClock) -> None:
        log = ApiCallLog(clock.monotonic)
        for _ in range(200):
            clock.advance(dice.choice([0, 0.1, 1, 5, 30, 90]))
            for _ in range(dice.randint(1, 60)):
                await take(pace)
                log.record()
        assert log.most_calls_in_window() <= 100
        assert log.most_calls_in_window() >= 90

    run(work, rate=100)


def test_a_tenth_of_a_minute_may_begin_at_once() -> None:
    """A full bucket gives a tenth of the rate without waiting; the next call waits."""

    async def work(pace: ApiPace, clock: FakeClock) -> None:
        for _ in range(40):
            await take(pace)
        assert clock.sleeps_s == []
        await take(pace)
        assert clock.monotonic() == pytest.approx(WINDOW_S / 361)

    run(work)


async def take(pace: ApiPace, *, urgent: bool = False) -> None:
    """Take a turn for a call that ends at once."""
    async with pace.turn(urgent=urgent):
        pass


async def start(*waits: Coroutine[Any, Any, object]) -> list[asyncio.Task[object]]:
    """Start tasks, each of which waits in the queue before the next one starts."""
    tasks = []
    for wait in waits:
        tasks.append(asyncio.create_task(wait))
        await asyncio.sleep(0)
    return tasks


def test_turns_come_in_order_and_urgent_ones_first() -> None:
    """Who came first goes first; an urgent call passes all others but no urgent one."""
    order: list[str] = []

    async def main() -> None:
        clock = SlowClock()
        pace = ApiPace(400, clock)

        async def call(name: str, *, urgent: bool = False) -> None:
            await take(pace, urgent=urgent)
            order.append(name)

        pace.pause(5)
        tasks = await start(call("a"), call("b"), call("c"), call("x", urgent=True), call("y", urgent=True))
        assert pace.waiting == 5
        clock.released.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*tasks)
        assert pace.waiting == 0

    asyncio.run(main())
    assert order == ["x", "y", "a", "b", "c"]


def test_a_pause_that_is_too_long_refuses_a_turn() -> None:
    """Who may not wait so long is refused at once, also behind another one who may; that one keeps its turn."""

    async def main() -> None:
        clock = SlowClock()
        pace = ApiPace(400, clock)

        async def call(max_pause_s: float) -> None:
            async with pace.turn(max_pause_s=max_pause_s):
                pass

        pace.pause(5)
        patient, *others = await start(call(7200), call(300), call(300))
        assert pace.waiting == 3
        pace.pause(3600)
        async with asyncio.timeout(10):
            for other in others:
                with pytest.raises(Unavailable, match="it asks to wait 3600 s"):
                    await other
            with pytest.raises(Unavailable):
                await call(300)
            assert pace.waiting == 1
            clock.released.set()
            await patient
        assert clock.monotonic() >= 3600

    asyncio.run(main())


def test_a_pause_makes_everybody_wait() -> None:
    """After `pause` nobody calls until it is over, then one after the other; a shorter pause changes nothing."""
    times: list[float] = []

    async def work(pace: ApiPace, clock: FakeClock) -> None:
        async def call(*, urgent: bool = False) -> None:
            await take(pace, urgent=urgent)
            times.append(clock.monotonic())

        await call()
        pace.pause(30)
        pace.pause(10)
        assert pace.paused_s == 30
        await asyncio.gather(call(), call(), call(urgent=True))
        assert pace.paused_s == 0

    run(work)
    assert times == pytest.approx([0, 30, 30 + WINDOW_S / 361, 30 + 2 * WINDOW_S / 361])


def test_a_pause_that_begins_while_others_wait() -> None:
    """Who already waits for a turn waits for the end of a pause that begins meanwhile."""

    async def work(pace: ApiPace, clock: FakeClock) -> None:
        await take(pace)
        (waiting,) = await start(take(pace))
        pace.pause(20)
        await waiting
        assert clock.monotonic() >= 20

    run(work, rate=6)


@pytest.mark.parametrize("cancelled", [0, 1, 2])
def test_a_cancelled_wait_uses_no_turn(cancelled: int) -> None:
    """Whoever is cancelled, the first in the queue or another, the others get their turns in order, none is lost."""
    order: list[int] = []

    async def main() -> None:
        clock = SlowClock()
        pace = ApiPace(1, clock)
        await take(pace)

        async def call(number: int) -> None:
            await take(pace)
            order.append(number)

        tasks = await start(*(call(number) for number in range(3)))
        tasks[cancelled].cancel()
        await asyncio.gather(tasks[cancelled], return_exceptions=True)
        clock.released.set()
        async with asyncio.timeout(10):
            await asyncio.gather(*(task for task in tasks if not task.cancelled()))
        assert pace.calls == 3
        assert pace.waiting == 0

    asyncio.run(main())
    assert order == [number for number in range(3) if number != cancelled]


def test_less_than_one_call_a_minute_is_refused() -> None:
    """A pace that would never let anybody call is a mistake of its caller."""
    for rate, at_once in ((0, 1), (1, 0)):
        with pytest.raises(ValueError, match="at least one call"):
            ApiPace(rate, FakeClock(), at_once=at_once)


def test_only_some_calls_run_at_once() -> None:
    """Whoever comes when `at_once` calls run waits until one of them ends, also by an error; urgent ones go first."""
    order: list[str] = []

    async def work(pace: ApiPace, clock: FakeClock) -> None:
        ended = {name: asyncio.Event() for name in "abcx"}

        async def call(name: str, *, urgent: bool = False) -> None:
            async with pace.turn(urgent=urgent):
                order.append(name)
                await ended[name].wait()
                if name == "a":
                    raise ArithmeticError("a call that fails")

        tasks = await start(call("a"), call("b"), call("c"), call("x", urgent=True))
        await asyncio.sleep(0)
        assert (order, pace.running, pace.waiting) == (["a", "b"], 2, 2)
        for name in "abxc":
            ended[name].set()
            await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        await asyncio.gather(*tasks, return_exceptions=True)
        assert (pace.running, pace.waiting, clock.sleeps_s) == (0, 0, [])

    run(work, at_once=2)
    assert order == ["a", "b", "x", "c"]


def test_a_cancelled_call_ends_its_turn() -> None:
    """A call that is cancelled while it runs lets the next one run."""

    async def work(pace: ApiPace, _: FakeClock) -> None:
        async def hang() -> None:
            async with pace.turn():
                await asyncio.Event().wait()

        (hanging, waiting) = await start(hang(), take(pace))
        await asyncio.sleep(0)
        assert not waiting.done()
        hanging.cancel()
        await waiting
        assert pace.running == 0

    run(work, at_once=1)
