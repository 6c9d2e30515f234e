"""How many transfers run at once."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.clock import FakeClock
from tilesync.jobs.run.adaptive_limit import COOLDOWN_S, INITIAL_LIMIT, MAX_LIMIT, MIN_LIMIT, RECOVERY_DIVISOR
from tilesync.jobs.run.concurrency import ConcurrencyLimiter


def test_a_fixed_gate_never_moves() -> None:
    """With `--transfers N` neither success nor pressure changes the number."""
    gate = ConcurrencyLimiter(FakeClock(), fixed_limit=7)
    for _ in range(100):
        gate.record_success()
    gate.back_off()
    assert (gate.limit, gate.max_limit) == (7, 7)


def test_an_adaptive_gate_grows_up_to_its_most() -> None:
    """While all goes well each success raises the limit, and it stops at its most."""
    gate = ConcurrencyLimiter(FakeClock())
    limits = []
    for _ in range(MAX_LIMIT):
        gate.record_success()
        limits.append(gate.limit)
    assert limits == [min(MAX_LIMIT, INITIAL_LIMIT + n) for n in range(1, MAX_LIMIT + 1)]


def test_pressure_lowers_the_limit_once_a_breath() -> None:
    """A fifth fewer at the first word of pressure, half as many where it goes on, a fifth where it comes again later;
    answers already under way do not lower it again.
    """
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    for _ in range(20):
        gate.back_off()
    assert gate.limit == (first := INITIAL_LIMIT * 4 // 5)
    clock.advance(COOLDOWN_S)
    gate.back_off()
    assert gate.limit == first // 2
    clock.advance(2 * COOLDOWN_S)
    gate.back_off()
    assert gate.limit == max(MIN_LIMIT, first // 2 * 4 // 5)


def test_the_limit_never_falls_below_its_least() -> None:
    """However long the pressure lasts some transfers run."""
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    for _ in range(50):
        clock.advance(COOLDOWN_S)
        gate.back_off()
    assert gate.limit == MIN_LIMIT


def test_after_pressure_it_grows_slowly() -> None:
    """After pressure only a full round of successes, and a breath without pressure, raise the limit by a little."""
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    gate.back_off()
    limit = gate.limit
    for _ in range(10 * limit):
        gate.record_success()
    assert gate.limit == limit
    clock.advance(COOLDOWN_S)
    gate.record_success()
    more = limit + 1 + limit // RECOVERY_DIVISOR
    assert gate.limit == more
    clock.advance(COOLDOWN_S)
    for _ in range(more - 1):
        gate.record_success()
    assert gate.limit == more
    gate.record_success()
    assert gate.limit > more


def test_it_lets_no_more_in_than_its_limit() -> None:
    """Of many who come at once never more are inside than the limit, and all get their turn."""

    async def work() -> tuple[int, int]:
        gate, inside, most, served = ConcurrencyLimiter(FakeClock(), fixed_limit=3), 0, 0, 0

        async def visit() -> None:
            nonlocal inside, most, served
            async with gate.slot():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1
                served += 1

        await asyncio.gather(*(visit() for _ in range(30)))
        return most, served

    assert asyncio.run(work()) == (3, 30)


def test_one_who_stops_waiting_leaves_no_place_lost() -> None:
    """Cancelled while waiting, or in the moment of being let in: the place goes to the next one."""

    async def work() -> None:
        gate = ConcurrencyLimiter(FakeClock(), fixed_limit=1)
        inside = gate.slot()
        await inside.__aenter__()

        async def visit() -> str:
            async with gate.slot():
                return "served"

        first, second, third = (asyncio.create_task(visit()) for _ in range(3))
        await asyncio.sleep(0)
        first.cancel()
        await asyncio.sleep(0)
        await inside.__aexit__(None, None, None)
        second.cancel()
        async with asyncio.timeout(5):
            assert await third == "served"

    asyncio.run(work())


def test_a_raised_limit_is_used_by_those_who_wait() -> None:
    """When the limit has grown, one who leaves lets in as many as there is room for."""

    async def work() -> None:
        gate = ConcurrencyLimiter(FakeClock())
        inside = [gate.slot() for _ in range(INITIAL_LIMIT)]
        for each in inside:
            await each.__aenter__()
        entered = []

        async def visit(number: int) -> None:
            async with gate.slot():
                entered.append(number)
                await asyncio.sleep(1000)

        tasks = [asyncio.create_task(visit(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert entered == []
        gate.record_success()
        await inside[0].__aexit__(None, None, None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == [0, 1]
        for task in tasks:
            task.cancel()

    asyncio.run(work())


@pytest.mark.parametrize("fixed", [None, INITIAL_LIMIT])
def test_one_who_waits_outside_makes_room(fixed: int | None) -> None:
    """Who waits to try again leaves the place to another, and is in again without waiting; a fixed number keeps it."""

    async def work() -> list[str]:
        gate, order, go = ConcurrencyLimiter(FakeClock(), fixed_limit=fixed), list[str](), asyncio.Event()

        async def wait_outside() -> None:
            async with gate.slot():
                await gate.wait_without_slot(wait())
                order.append("again")

        async def wait() -> None:
            await go.wait()

        async def visit() -> None:
            async with gate.slot():
                order.append("visitor")

        for _ in range(INITIAL_LIMIT - 1):
            await gate.acquire(1)
        tasks = [asyncio.create_task(wait_outside()), asyncio.create_task(visit())]
        for _ in range(3):
            await asyncio.sleep(0)
        go.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks)
        gate.release(INITIAL_LIMIT - 1)
        assert gate.active == 0
        return order

    assert asyncio.run(work()) == (["visitor", "again"] if fixed is None else ["again", "visitor"])


def test_one_who_is_cancelled_outside_leaves_no_place_lost() -> None:
    """Cancelled while another has the place: in the end all places are free."""

    async def work() -> int:
        gate = ConcurrencyLimiter(FakeClock())

        async def visit() -> None:
            async with gate.slot():
                await gate.wait_without_slot(asyncio.sleep(60))

        task = asyncio.create_task(visit())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return gate.active

    assert asyncio.run(work()) == 0


# --- finding the way ---


def simulate_storage(
    limiter: ConcurrencyLimiter, clock: FakeClock, seconds: float, *, capacity: float, answer: float
) -> list[int]:
    """A storage that answers in `answer` seconds, and gives so many files a second however many are asked for at once.

    The limit after each tenth of a second.
    """
    limits, size, done = list[int](), 30_000, 0.0
    for _ in range(round(seconds * 10)):
        rate = min(limiter.limit / answer, capacity)
        waited = limiter.limit / rate
        done += rate / 10
        clock.advance(0.1)
        while done >= 1:
            done -= 1
            limiter.record_latency(waited)
            limiter.record_bytes(size)
            limiter.record_success()
        limits.append(limiter.limit)
    return limits


def test_it_grows_while_more_is_moved() -> None:
    """A storage that gives more the more is asked of it gets all that may be asked within a second or two."""
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    assert simulate_storage(gate, clock, 2, capacity=1e9, answer=0.03)[-1] == MAX_LIMIT


def test_it_stops_where_no_more_is_moved() -> None:
    """A line that is full is not asked for ever more: the limit stays near what fills it, for minutes."""
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    limits = simulate_storage(gate, clock, 120, capacity=100, answer=0.2)
    assert max(limits[50:]) <= 100  # it was too many for two rounds
    assert min(limits[50:]) >= INITIAL_LIMIT // 2


def test_it_finds_more_room_later() -> None:
    """A line that becomes wider in the middle of a run is used: the limit is tried upwards for the whole run."""
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    narrow = simulate_storage(gate, clock, 30, capacity=100, answer=0.2)[-1]
    wide = simulate_storage(gate, clock, 90, capacity=2000, answer=0.2)[-1]
    assert wide > 3 * narrow


def test_answers_that_wait_in_a_queue_lower_it() -> None:
    """Where each answer takes ever longer and no more is moved, fewer are asked for at once."""
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    before = simulate_storage(gate, clock, 5, capacity=1e9, answer=0.02)[-1]
    assert before == MAX_LIMIT
    after = simulate_storage(gate, clock, 30, capacity=500, answer=0.02)[-1]
    assert after <= MAX_LIMIT // 2
    assert after / 500 < 0.02 * 8


def test_a_storage_that_refuses_is_not_hammered() -> None:
    """One that gives 1,000 files a second and refuses what is more: most of that is had, and little is refused."""
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    given = refused = 0
    for tick in range(1200):
        if tick == 100:
            given = refused = 0
        clock.advance(0.1)
        asked = round(gate.limit / 0.03 / 10)
        for number in range(asked):
            if number < 100:
                given += 1
                gate.record_bytes(30_000)
                gate.record_success()
            else:
                refused += 1
                gate.back_off()
    assert given > 0.75 * 110 * 1000
    assert refused < 0.1 * given


def test_large_bodies_move_it_too() -> None:
    """Bytes count where no file ends for long: the limit of a run with a few large files is no fixed one."""
    clock = FakeClock()
    gate = ConcurrencyLimiter(clock)
    for _ in range(600):
        clock.advance(0.1)
        gate.record_bytes(gate.limit * 1_000_000)
    assert gate.limit > 2 * INITIAL_LIMIT


def test_a_group_takes_as_many_places() -> None:
    """One who enters for several waits until there is room for all of them; more than the limit come in alone."""

    async def work() -> list[str]:
        gate, order = ConcurrencyLimiter(FakeClock(), fixed_limit=4), list[str]()

        async def visit(name: str, count: int) -> None:
            async with gate.slot(count):
                order.append(f"+{name}")
                await asyncio.sleep(0)
                await asyncio.sleep(0)
                order.append(f"-{name}")

        async with asyncio.timeout(5):
            await asyncio.gather(visit("a", 3), visit("b", 3), visit("c", 9), visit("d", 1))
        return order

    order = asyncio.run(work())
    assert order[:4] == ["+a", "-a", "+b", "-b"]
    assert order.index("+c") > order.index("-b")
    assert order.index("+d") > order.index("-c")
