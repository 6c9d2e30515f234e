"""Places of a fleet: how many mirrors run at the same time, and which one comes next."""

from __future__ import annotations

import asyncio
import heapq
import itertools
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final

LARGE_BYTES: Final = 1 << 30
"""Bytes to transfer from which on a mirror is large."""


class JobPlaces:
    """Places for mirrors that run. The mirror with the least to transfer comes first.

    Large mirrors may use all places but one, so that small ones, which may come later, never wait for all of them.
    """

    def __init__(self, count: int) -> None:
        self._free = count
        self._free_for_large = max(1, count - 1)
        self._numbers = itertools.count()
        self._waiters: list[tuple[int, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def take(self, bytes_to_transfer: int) -> AsyncIterator[None]:
        """Wait for a place, and hold it inside the `with` block."""
        is_large = bytes_to_transfer >= LARGE_BYTES
        admitted: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiters, (bytes_to_transfer, next(self._numbers), admitted))
        self._admit()
        try:
            await admitted
        except asyncio.CancelledError:
            if admitted.done() and not admitted.cancelled():
                self._release(is_large=is_large)
            raise
        try:
            yield
        finally:
            self._release(is_large=is_large)

    def _release(self, *, is_large: bool) -> None:
        self._free += 1
        self._free_for_large += is_large
        self._admit()

    def _admit(self) -> None:
        """Admit waiters in order. All those behind a large one that has to wait are large too."""
        while self._waiters and self._free:
            size, _, admitted = self._waiters[0]
            if admitted.done():
                heapq.heappop(self._waiters)
                continue
            is_large = size >= LARGE_BYTES
            if is_large and not self._free_for_large:
                return
            heapq.heappop(self._waiters)
            self._free -= 1
            self._free_for_large -= is_large
            admitted.set_result(None)
