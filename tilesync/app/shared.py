"""Shared resources: what runs of one process use together, so that they keep to one limit."""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Hashable
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING

from tilesync.protocols import Clock, Observer, TokenProvider
from tilesync.runtime.clock import WallClock

if TYPE_CHECKING:
    from tilesync.jobs.run.concurrency import SharedLimit
    from tilesync.runtime.process_pool import ProcessPool
    from tilesync.transport.api_client import ApiClient, ApiTransports
    from tilesync.transport.api_pace import ApiPace
    from tilesync.transport.rate_limit import RateLimiter

MAX_WORKERS = 4
"""Largest number of worker processes: with more, the catalog and the disk are the bottleneck."""


class SharedResources:
    """Connections to the service, tokens, limits and worker processes that several runs share.

    `pace`: rate of API calls. `bandwidth`, `upload_bandwidth`: limits on downloads and uploads of all runs together,
    None for no limit. `transfers`: limit on their concurrent transfers. Storage has clients for each run: a container
    that hangs must not hold the connections of other runs.
    """

    def __init__(
        self,
        api_transports: ApiTransports,
        api_client: ApiClient,
        pace: ApiPace,
        transfers: SharedLimit,
        bandwidth: RateLimiter | None,
        upload_bandwidth: RateLimiter | None,
        exit_stack: AsyncExitStack,
        clock: Clock,
    ) -> None:
        self.api_transports = api_transports
        self.api_client = api_client
        self.pace = pace
        self.transfers = transfers
        self.bandwidth = bandwidth
        self.upload_bandwidth = upload_bandwidth
        self.clock = clock
        self._exit_stack = exit_stack
        self._token_providers: dict[Hashable, TokenProvider] = {}
        self._pool: ProcessPool | None = None

    def token_provider(self, identity: Hashable, create: Callable[[ApiClient, Clock], TokenProvider]) -> TokenProvider:
        """Return the token provider of an identity, which its first user creates."""
        provider = self._token_providers.get(identity)
        if provider is None:
            provider = self._token_providers[identity] = create(self.api_client, self.clock)
        return provider

    def process_pool(self) -> ProcessPool | None:
        """Return the pool of worker processes, a new one if the processes of the old one have ended."""
        if self._pool is None or self._pool.is_lost:
            self._pool = create_process_pool(self._exit_stack)
        return self._pool


@asynccontextmanager
async def open_shared_resources(
    observe: Observer,
    *,
    max_transfers: int,
    calls_per_minute: int,
    bwlimit: float | None = None,
    retry_for: timedelta = timedelta(seconds=60),
) -> AsyncIterator[SharedResources]:
    """Open resources for several runs. `bwlimit`: bytes per second; `retry_for`: for requests of tokens."""
    from tilesync.jobs.run.concurrency import SharedLimit
    from tilesync.transport.api_client import ApiClient, open_api_transports
    from tilesync.transport.api_pace import ApiPace
    from tilesync.transport.rate_limit import RateLimiter

    clock = WallClock()
    async with AsyncExitStack() as exit_stack:
        transports = await exit_stack.enter_async_context(open_api_transports())
        yield SharedResources(
            transports,
            ApiClient(transports, clock, observe, budget=retry_for),
            ApiPace(calls_per_minute, clock),
            SharedLimit(max_transfers),
            RateLimiter(bwlimit, clock) if bwlimit else None,
            RateLimiter(bwlimit, clock) if bwlimit else None,
            exit_stack,
            clock,
        )


def count_cores() -> int:
    """Return the number of cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def create_process_pool(exit_stack: AsyncExitStack) -> ProcessPool | None:
    """Create a pool with a process per core; None on one core, and on Windows, whose pipes asyncio cannot read."""
    from tilesync.runtime.process_pool import ProcessPool

    size = min(count_cores(), MAX_WORKERS)
    if size < 2 or not sys.executable or os.name == "nt":
        return None
    pool = ProcessPool(size)
    exit_stack.push_async_callback(pool.aclose)
    return pool
