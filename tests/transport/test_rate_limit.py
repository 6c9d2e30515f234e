"""Rate limiter on a fake clock."""

from __future__ import annotations

import asyncio

import pytest

from tests.support.clock import FakeClock
from tilesync.transport.rate_limit import BURST_S, MAX_PIECE_BYTES, MIN_PIECE_BYTES, RateLimiter


@pytest.mark.parametrize("rate", [1e4, 1e6, 1e8])
@pytest.mark.parametrize("part", [100, 5_000])
def test_rate_is_kept(rate: float, part: int) -> None:
    """Over ten seconds the throughput is within 5 % of the rate, whatever the size of the requests."""
    clock, size = FakeClock(), int(rate / part) + 1

    async def work() -> float:
        bandwidth, taken = RateLimiter(rate, clock), 0
        while clock.monotonic() < 10:
            await bandwidth.wait_for_bandwidth(size)
            taken += size
        return taken / clock.monotonic()

    assert asyncio.run(work()) == pytest.approx(rate, rel=0.05)


def test_many_share_one_rate() -> None:
    """Concurrent connections get the rate together, not each."""
    clock = FakeClock()

    async def taker(bandwidth: RateLimiter) -> None:
        for _ in range(20):
            await bandwidth.wait_for_bandwidth(100)

    async def work() -> None:
        bandwidth = RateLimiter(1000, clock)
        await asyncio.gather(*(taker(bandwidth) for _ in range(50)))

    asyncio.run(work())
    assert clock.monotonic() >= 100 - BURST_S


def test_idle_time_is_not_saved_up() -> None:
    """After a minute without traffic only the burst is available at once."""
    clock = FakeClock()

    async def work() -> float:
        bandwidth = RateLimiter(1000, clock)
        clock.advance(60)
        await bandwidth.wait_for_bandwidth(1000)
        return clock.monotonic() - 60

    assert asyncio.run(work()) == pytest.approx(1 - BURST_S)


def test_a_piece_is_a_sixteenth_of_a_second() -> None:
    """Pieces grow with the rate, within bounds."""
    clock = FakeClock()
    assert RateLimiter(1000, clock).piece_bytes == MIN_PIECE_BYTES
    assert RateLimiter(1 << 23, clock).piece_bytes == 1 << 19
    assert RateLimiter(1e12, clock).piece_bytes == MAX_PIECE_BYTES


def test_a_limit_of_its_own_and_a_shared_one_hold_together() -> None:
    """A run with a limit keeps it, and all runs together keep the shared one."""

    async def work() -> None:
        clock = FakeClock()
        shared = RateLimiter(1000, clock)
        slow, fast = RateLimiter(100, clock, shared=shared), RateLimiter(1_000_000, clock, shared=shared)
        started = clock.monotonic()
        await slow.wait_for_bandwidth(1000)
        assert clock.monotonic() - started == pytest.approx(9.9 + 0.9, abs=0.2)
        started = clock.monotonic()
        for _ in range(10):
            await fast.wait_for_bandwidth(1000)
        assert clock.monotonic() - started == pytest.approx(10, abs=0.2)
        assert slow.piece_bytes <= shared.piece_bytes

    asyncio.run(work())
