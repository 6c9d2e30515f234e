"""Batching of blocking reads: one thread and large batches if reads are fast, many threads if they are slow."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

from tilesync.runtime.threads import run_all, set_outcomes

T = TypeVar("T")

PARALLEL_READS = 32
"""Number of reads that run at the same time if they are slow, since then most of the time is waiting."""

MAX_READS_PER_BATCH = 32
"""Maximum number of fast reads per thread call, so that the first caller does not wait for too many others."""

FAST_READ_S = 0.002
"""Seconds per read up to which one thread does all reads: two threads would compete for the interpreter lock."""


class ReadBatcher:
    """Runner of blocking reads in a thread pool of its own.

    `fast_read_s`: seconds per read up to which reads count as fast.
    """

    def __init__(self, *, fast_read_s: float = FAST_READ_S) -> None:
        self._fast_read_s = fast_read_s
        self._pool = ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="read")
        self._pending: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._readers: set[asyncio.Task[None]] = set()
        self._is_fast = True

    async def run(self, read: Callable[[], T]) -> T:
        """Run `read` in a thread and return its result or raise its error.

        If the caller is cancelled, the read still runs to its end and its result is dropped.
        """
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((read, future))
        self._start_readers()
        return await future

    def _start_readers(self) -> None:
        """Start as many readers as there is work for, but only one while reads are fast."""
        wanted = min(1 if self._is_fast else PARALLEL_READS, len(self._readers) + len(self._pending))
        for _ in range(wanted - len(self._readers)):
            self._readers.add(asyncio.create_task(self._run_reader()))

    async def _run_reader(self) -> None:
        """Read until the queue is empty, or, while reads are fast, until this is the only reader.

        The next `run` starts a reader again.
        """
        try:
            while self._pending and (not self._is_fast or len(self._readers) == 1):
                await self._read_batch()
        finally:
            self._readers = {reader for reader in self._readers if reader is not asyncio.current_task()}

    async def _read_batch(self) -> None:
        count = min(len(self._pending), MAX_READS_PER_BATCH if self._is_fast else 1)
        batch = [self._pending.popleft() for _ in range(count)]
        loop = asyncio.get_running_loop()
        results, seconds = await loop.run_in_executor(self._pool, _run_timed, [read for read, _ in batch])
        self._is_fast = seconds <= self._fast_read_s * count
        if self._pending:
            self._start_readers()
        set_outcomes([future for _, future in batch], results)


def _run_timed(reads: Sequence[Callable[[], Any]]) -> tuple[list[Any], float]:
    """Run each read; return the results or errors, and the seconds for all of them."""
    started_at = monotonic()
    return run_all(reads), monotonic() - started_at
