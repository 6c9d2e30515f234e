"""Batches of small requests that the calling thread waits for: copies within a store, thousands of them a night.

One connection pool sends them, in an event loop that runs while a batch does. A thread per request would spend most of
its time on being woken. As in `http1_pool`, a request that fails, or has an unexpected response, is only not done.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from threading import Lock
from time import monotonic
from typing import Final

from tilesync.errors import TilesyncError
from tilesync.runtime.event_loop import loop_factory
from tilesync.transport.http1_connection import PoolResponse
from tilesync.transport.http1_pool import HttpPool, PoolRequest

FIRST_CONNECTIONS: Final = 8
MIN_CONNECTIONS: Final = 2
MAX_CONNECTIONS: Final = 64

REQUESTS_PER_CONNECTION: Final = 4
"""Requests of a chunk for each connection. After a chunk the number of connections changes."""

MAX_FAILED_CHUNKS: Final = 3
"""Chunks in a row in which nothing succeeds; after that, no more are sent: the server does not know such requests."""

CHUNK_TIMEOUT: Final = timedelta(seconds=5)
BATCH_TIMEOUT: Final = timedelta(seconds=15)
"""Time limits of a chunk, and of when the last chunk of a batch begins: locks are renewed between batches."""


class RequestBatches:
    """Sender of batches. Safe from any thread; one batch at a time.

    The first chunk is one request: most servers that refuse it would refuse all. The number of connections doubles
    after a chunk without a failure, and halves after any other: a server that is too busy says so. Where nothing of a
    chunk succeeds, the batch ends, and the next one begins with one request again.
    """

    def __init__(self, *, ca_certificates: bytes | None = None) -> None:
        self._ca_certificates = ca_certificates
        self._lock = Lock()
        self._runner: asyncio.Runner | None = None
        self._pool: HttpPool | None = None
        self.connections = FIRST_CONNECTIONS
        self._has_succeeded = False
        self._failed_chunks = 0

    def send(self, requests: Sequence[PoolRequest]) -> list[PoolResponse | None]:
        """Send requests, one attempt each, and return their responses; None for each that must be sent another way."""
        results: list[PoolResponse | None] = [None] * len(requests)
        end, start = monotonic() + BATCH_TIMEOUT.total_seconds(), 0
        with self._lock:
            while start < len(requests) and self._failed_chunks < MAX_FAILED_CHUNKS and monotonic() < end:
                size = self.connections * REQUESTS_PER_CONNECTION if self._has_succeeded else 1
                chunk = requests[start : start + size]
                results[start : start + len(chunk)] = responses = self._send_chunk(chunk)
                start += len(chunk)
                self._adapt(len(chunk), len(chunk) - responses.count(None))
                if not self._has_succeeded:
                    break
        return results

    def _send_chunk(self, chunk: Sequence[PoolRequest]) -> list[PoolResponse | None]:
        responses: list[PoolResponse | None] = [None] * len(chunk)
        if self._runner is None or self._pool is None:
            self._runner = asyncio.Runner(loop_factory=loop_factory() or asyncio.SelectorEventLoop)
            self._pool = HttpPool(ca_certificates=self._ca_certificates)
        sending = self._pool.send_all(
            chunk, responses.__setitem__, max_connections=self.connections, time_limit=CHUNK_TIMEOUT
        )
        try:
            self._runner.run(sending)
        except TilesyncError:  # a URL that cannot be sent: the other way says so
            self._failed_chunks = MAX_FAILED_CHUNKS
        return responses

    def _adapt(self, sent: int, answered: int) -> None:
        if answered < sent:
            self.connections = max(MIN_CONNECTIONS, self.connections // 2)
        elif self._has_succeeded:
            self.connections = min(MAX_CONNECTIONS, self.connections * 2)
        self._has_succeeded = answered > 0
        self._failed_chunks = 0 if answered else self._failed_chunks + 1

    def close(self) -> None:
        """Close the connections."""
        with self._lock:
            if self._runner is not None and self._pool is not None:
                self._runner.run(_close(self._pool))
                self._runner.close()
            self._runner = self._pool = None


async def _close(pool: HttpPool) -> None:
    pool.close()
