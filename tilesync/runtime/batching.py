"""Blocking reads beside the loop: together where they are swift, side by side where they are not."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from time import monotonic
from typing import Any, TypeVar

from tilesync.runtime.threads import outcomes, tell

T = TypeVar("T")

AT_ONCE = 32
"""Reads that wait for an answer at the same time, where that is what takes their time."""

TOGETHER = 32
"""Swift reads of one hop at most, so that those who wait for the first do not wait for all."""

SWIFT = 0.002
"""Seconds of a read up to which one thread does them all: two would fight for the interpreter."""


class Reading:
    """Runs blocking reads in threads of its own, which end with it. `swift`: seconds up to which a read is."""

    def __init__(self, *, swift: float = SWIFT) -> None:
        self._limit = swift
        self._pool = ThreadPoolExecutor(AT_ONCE, thread_name_prefix="read")
        self._pending: deque[tuple[Callable[[], Any], asyncio.Future[Any]]] = deque()
        self._readers: set[asyncio.Task[None]] = set()
        self._swift = True

    async def run(self, read: Callable[[], T]) -> T:
        """What `read` gives, or raises. Cancelled it goes on to its end, and is forgotten."""
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._pending.append((read, future))
        self._call_readers()
        return await future

    def _call_readers(self) -> None:
        """As many readers as there is work for: one while reads are swift."""
        wanted = min(1 if self._swift else AT_ONCE, len(self._readers) + len(self._pending))
        for _ in range(wanted - len(self._readers)):
            self._readers.add(asyncio.create_task(self._work()))

    async def _work(self) -> None:
        """Read until nothing waits, or until one reader does it all; the one who asks next calls another then."""
        try:
            while self._pending and (not self._swift or len(self._readers) == 1):
                await self._read()
        finally:
            self._readers = {reader for reader in self._readers if reader is not asyncio.current_task()}

    async def _read(self) -> None:
        count = min(len(self._pending), TOGETHER if self._swift else 1)
        batch = [self._pending.popleft() for _ in range(count)]
        loop = asyncio.get_running_loop()
        results, seconds = await loop.run_in_executor(self._pool, _timed, [read for read, _ in batch])
        self._swift = seconds <= self._limit * count
        if self._pending:
            self._call_readers()
        tell([future for _, future in batch], results)


def _timed(reads: Sequence[Callable[[], Any]]) -> tuple[list[Any], float]:
    """What each gives or raises, and how many seconds they took."""
    began = monotonic()
    return outcomes(reads), monotonic() - began
