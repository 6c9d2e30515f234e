"""Concurrency limiter: slots, waiting, and the adaptive limit behind it."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.clock import FakeClock
from tilesync.jobs.run.adaptive_limit import COOLDOWN_S, INITIAL_LIMIT, MAX_LIMIT, MIN_LIMIT, RECOVERY_DIVISOR
from tilesync.jobs.run.concurrency import ConcurrencyLimiter, SharedLimit


def test_fixed_limit_never_changes() -> None:
    """With `--transfers N`, neither successes nor refusals change the limit."""
    limiter = ConcurrencyLimiter(FakeClock(), fixed_limit=7)
    for _ in range(100):
        limiter.record_success()
    limiter.back_off()
    assert (limiter.limit, limiter.max_limit) == (7, 7)


def test_adaptive_limit_grows_to_its_maximum() -> None:
    """Each success raises the limit by one, up to the maximum."""
    limiter = ConcurrencyLimiter(FakeClock())
    limits = []
    for _ in range(MAX_LIMIT):
        limiter.record_success()
        limits.append(limiter.limit)
    assert limits == [min(MAX_LIMIT, INITIAL_LIMIT + n) for n in range(1, MAX_LIMIT + 1)]


def test_refusals_lower_the_limit_once_per_cooldown() -> None:
    """The first refusal lowers the limit by a fifth, further ones by half, a later one by a fifth again.

    Refusals already in flight do not lower it again.
    """
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    for _ in range(20):
        limiter.back_off()
    assert limiter.limit == (first := INITIAL_LIMIT * 4 // 5)
    clock.advance(COOLDOWN_S)
    limiter.back_off()
    assert limiter.limit == first // 2
    clock.advance(2 * COOLDOWN_S)
    limiter.back_off()
    assert limiter.limit == max(MIN_LIMIT, first // 2 * 4 // 5)


def test_limit_never_falls_below_its_minimum() -> None:
    """Some transfers run, however long refusals last."""
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    for _ in range(50):
        clock.advance(COOLDOWN_S)
        limiter.back_off()
    assert limiter.limit == MIN_LIMIT


def test_limit_recovers_slowly_after_refusals() -> None:
    """After a refusal, only a full round of successes and a cooldown raise the limit, and only by a little."""
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    limiter.back_off()
    limit = limiter.limit
    for _ in range(10 * limit):
        limiter.record_success()
    assert limiter.limit == limit
    clock.advance(COOLDOWN_S)
    limiter.record_success()
    more = limit + 1 + limit // RECOVERY_DIVISOR
    assert limiter.limit == more
    clock.advance(COOLDOWN_S)
    for _ in range(more - 1):
        limiter.record_success()
    assert limiter.limit == more
    limiter.record_success()
    assert limiter.limit > more


def test_active_transfers_never_exceed_the_limit() -> None:
    """If many arrive at once, never more than the limit are active, and all are served."""

    async def work() -> tuple[int, int]:
        limiter, inside, most, served = ConcurrencyLimiter(FakeClock(), fixed_limit=3), 0, 0, 0

        async def visit() -> None:
            nonlocal inside, most, served
            async with limiter.slot():
                inside += 1
                most = max(most, inside)
                await asyncio.sleep(0)
                inside -= 1
                served += 1

        await asyncio.gather(*(visit() for _ in range(30)))
        return most, served

    assert asyncio.run(work()) == (3, 30)


def test_cancelled_waiter_loses_no_slot() -> None:
    """A waiter that is cancelled, even while it is admitted, passes its slot on."""

    async def work() -> None:
        limiter = ConcurrencyLimiter(FakeClock(), fixed_limit=1)
        inside = limiter.slot()
        await inside.__aenter__()

        async def visit() -> str:
            async with limiter.slot():
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


def test_waiters_use_a_raised_limit() -> None:
    """After the limit has grown, a released slot admits as many waiters as fit."""

    async def work() -> None:
        limiter = ConcurrencyLimiter(FakeClock())
        inside = [limiter.slot() for _ in range(INITIAL_LIMIT)]
        for each in inside:
            await each.__aenter__()
        entered = []

        async def visit(number: int) -> None:
            async with limiter.slot():
                entered.append(number)
                await asyncio.sleep(1000)

        tasks = [asyncio.create_task(visit(number)) for number in range(3)]
        await asyncio.sleep(0)
        assert entered == []
        limiter.record_success()
        await inside[0].__aexit__(None, None, None)
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        assert entered == [0, 1]
        for task in tasks:
            task.cancel()

    asyncio.run(work())


@pytest.mark.parametrize("fixed", [None, INITIAL_LIMIT])
def test_waiting_for_a_retry_frees_the_slot(fixed: int | None) -> None:
    """A transfer that waits for a retry frees its slot, and takes it back at once; with a fixed limit it keeps it."""

    async def work() -> list[str]:
        limiter, order, go = ConcurrencyLimiter(FakeClock(), fixed_limit=fixed), list[str](), asyncio.Event()

        async def wait_outside() -> None:
            async with limiter.slot():
                await limiter.wait_without_slot(wait())
                order.append("again")

        async def wait() -> None:
            await go.wait()

        async def visit() -> None:
            async with limiter.slot():
                order.append("visitor")

        for _ in range(INITIAL_LIMIT - 1):
            await limiter.acquire(1)
        tasks = [asyncio.create_task(wait_outside()), asyncio.create_task(visit())]
        for _ in range(3):
            await asyncio.sleep(0)
        go.set()
        async with asyncio.timeout(5):
            await asyncio.gather(*tasks)
        limiter.release(INITIAL_LIMIT - 1)
        assert limiter.active == 0
        return order

    assert asyncio.run(work()) == (["visitor", "again"] if fixed is None else ["again", "visitor"])


def test_cancelled_wait_without_slot_loses_no_slot() -> None:
    """After a cancelled wait without a slot, all slots are free."""

    async def work() -> int:
        limiter = ConcurrencyLimiter(FakeClock())

        async def visit() -> None:
            async with limiter.slot():
                await limiter.wait_without_slot(asyncio.sleep(60))

        task = asyncio.create_task(visit())
        await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait([task])
        return limiter.active

    assert asyncio.run(work()) == 0


def simulate_storage(
    limiter: ConcurrencyLimiter, clock: FakeClock, seconds: float, *, capacity: float, answer: float
) -> list[int]:
    """Simulate storage with a fixed response time and a maximum of files per second.

    Return the limit after each tenth of a second.
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


def test_limit_grows_while_throughput_grows() -> None:
    """Storage that scales gets the maximum limit within two seconds."""
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    assert simulate_storage(limiter, clock, 2, capacity=1e9, answer=0.03)[-1] == MAX_LIMIT


def test_limit_stays_where_throughput_stops_growing() -> None:
    """On a full connection the limit stays near what fills it, for minutes."""
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    limits = simulate_storage(limiter, clock, 120, capacity=100, answer=0.2)
    assert max(limits[50:]) <= 100  # two rounds were above it
    assert min(limits[50:]) >= INITIAL_LIMIT // 2


def test_limit_follows_a_faster_connection() -> None:
    """A connection that becomes faster during a run is used: the limit is probed for the whole run."""
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    narrow = simulate_storage(limiter, clock, 30, capacity=100, answer=0.2)[-1]
    wide = simulate_storage(limiter, clock, 90, capacity=2000, answer=0.2)[-1]
    assert wide > 3 * narrow


def test_queued_responses_lower_the_limit() -> None:
    """If responses wait in a queue and throughput does not grow, the limit falls."""
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    before = simulate_storage(limiter, clock, 5, capacity=1e9, answer=0.02)[-1]
    assert before == MAX_LIMIT
    after = simulate_storage(limiter, clock, 30, capacity=500, answer=0.02)[-1]
    assert after <= MAX_LIMIT // 2
    assert after / 500 < 0.02 * 8


def test_refusing_storage_gets_few_excess_requests() -> None:
    """Storage that refuses more than 1,000 files a second is used well, with few refusals."""
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    given = refused = 0
    for tick in range(1200):
        if tick == 100:
            given = refused = 0
        clock.advance(0.1)
        asked = round(limiter.limit / 0.03 / 10)
        for number in range(asked):
            if number < 100:
                given += 1
                limiter.record_bytes(30_000)
                limiter.record_success()
            else:
                refused += 1
                limiter.back_off()
    assert given > 0.75 * 110 * 1000
    assert refused < 0.1 * given


def test_large_bodies_raise_the_limit() -> None:
    """Bytes count even if no file ends for a long time, so the limit grows with a few large files too."""
    clock = FakeClock()
    limiter = ConcurrencyLimiter(clock)
    for _ in range(600):
        clock.advance(0.1)
        limiter.record_bytes(limiter.limit * 1_000_000)
    assert limiter.limit > 2 * INITIAL_LIMIT


def test_group_waits_for_all_its_slots() -> None:
    """A request for several slots waits until all are free; one above the limit waits until it is alone."""

    async def work() -> list[str]:
        limiter, order = ConcurrencyLimiter(FakeClock(), fixed_limit=4), list[str]()

        async def visit(name: str, count: int) -> None:
            async with limiter.slot(count):
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


class Transfers:
    """Transfers of one run: each takes a slot until it is told to end."""

    def __init__(self, shared: SharedLimit, *, fixed_limit: int | None = None) -> None:
        self.limiter = ConcurrencyLimiter(FakeClock(), fixed_limit=fixed_limit, shared=shared)
        self._running: list[asyncio.Task[None]] = []
        self._end = asyncio.Semaphore(0)

    async def begin(self, count: int) -> None:
        """Begin transfers; return when as many as possible have a slot."""
        self._running += [asyncio.create_task(self._transfer()) for _ in range(count)]
        await self.settle()

    async def _transfer(self) -> None:
        async with self.limiter.slot():
            await self._end.acquire()

    async def end(self, count: int) -> None:
        """End transfers that have a slot."""
        for _ in range(count):
            self._end.release()
        await self.settle()

    async def cancel_waiting(self) -> None:
        """Cancel all transfers."""
        for task in self._running:
            task.cancel()
        await asyncio.gather(*self._running, return_exceptions=True)

    @staticmethod
    async def settle() -> None:
        """Let all tasks run until they wait."""
        for _ in range(20):
            await asyncio.sleep(0)

    @property
    def active(self) -> int:
        """Return the number of transfers with a slot."""
        return self.limiter.active


def test_a_run_alone_has_the_whole_shared_limit() -> None:
    """One run may use all slots of the shared limit."""

    async def work() -> None:
        alone = Transfers(SharedLimit(8), fixed_limit=100)
        await alone.begin(20)
        assert (alone.active, alone.limiter.max_limit) == (8, 8)
        await alone.cancel_waiting()

    asyncio.run(work())


def test_a_second_run_gets_its_share_as_slots_become_free() -> None:
    """A large run does not starve a small one: from the first free slots on, each has half of them."""

    async def work() -> None:
        shared = SharedLimit(8)
        large, small = Transfers(shared, fixed_limit=100), Transfers(shared, fixed_limit=100)
        await large.begin(50)
        await small.begin(10)
        assert (large.active, small.active) == (8, 1), "one transfer of each run is always admitted"
        await large.end(4)
        assert (large.active, small.active) == (4, 4)
        await large.end(1)
        assert (large.active, small.active) == (4, 4)
        await small.end(10)
        assert (large.active, small.active) == (8, 0), "a run that has ended leaves its share to the others"
        await large.cancel_waiting()
        assert shared.active == 0

    asyncio.run(work())


def test_the_sum_of_all_runs_stays_within_the_shared_limit() -> None:
    """However many runs transfer, they use the shared limit, or one slot each."""

    async def work() -> None:
        shared = SharedLimit(8)
        runs = [Transfers(shared, fixed_limit=100) for _ in range(4)]
        for run in runs:
            await run.begin(10)
        for _ in range(10):
            for run in runs:
                await run.end(1)
            assert shared.active == sum(run.active for run in runs) <= 8 + len(runs) - 1
        many = [Transfers(shared, fixed_limit=100) for _ in range(20)]
        for run in many:
            await run.begin(3)
        assert min(run.active for run in many) == 1
        assert shared.active <= 8 + len(many) - 1
        for run in (*runs, *many):
            await run.cancel_waiting()
        assert (shared.active, shared.share) == (0, 8)

    asyncio.run(work())


def test_cancelled_waiters_leave_no_share_behind() -> None:
    """A run whose waiting transfers are cancelled has no share any more."""

    async def work() -> None:
        shared = SharedLimit(2)
        first, second = Transfers(shared, fixed_limit=2), Transfers(shared, fixed_limit=2)
        await first.begin(2)
        await second.begin(3)
        await second.cancel_waiting()
        assert shared.share == 2
        await first.cancel_waiting()

    asyncio.run(work())
