"""Blocking reads beside the loop: together where they are swift, side by side where they are not."""

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
"""Reads that wait for an answer at the same time, where that is what takes their time."""

MAX_READS_PER_BATCH = 32
"""Swift reads of one hop at most, so that those who wait for the first do not wait for all."""

FAST_READ_S = 0.002
"""Seconds of a read up to which one thread does them all: two would fight for the interpreter."""


class ReadBatcher:
    """Runs blocking reads in threads of its own, which end with it. `swift`: seconds up to which a read is."""

    def __init__(self, *, fast_read_s: float = FAST_READ_S) -> None:
        self._fast_read_s = fast_read_s
        self._pool = ThreadPoolExecutor(PARALLEL_READS, thread_name_prefix="read")
        self._pending: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._readers: set[asyncio.Task[None]] = set()
        self._is_fast = True

    async def run(self, read: Callable[[], T]) -> T:
        """What `read` gives, or raises. Cancelled it goes on to its end, and is forgotten."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((read, future))
        self._start_readers()
        return await future

    def _start_readers(self) -> None:
        """As many readers as there is work for: one while reads are swift."""
        wanted = min(1 if self._is_fast else PARALLEL_READS, len(self._readers) + len(self._pending))
        for _ in range(wanted - len(self._readers)):
            self._readers.add(asyncio.create_task(self._run_reader()))

    async def _run_reader(self) -> None:
        """Read until nothing waits, or until one reader does it all; the one who asks next calls another then."""
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
    """What each gives or raises, and how many seconds they took."""
    began = monotonic()
    return run_all(reads), monotonic() - began
