"""Comparisons of versions: one at a time in the whole server, and shared by all clients that ask for the same one."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Hashable, Iterator
from dataclasses import dataclass
from functools import partial
from typing import Final

from tilesync.errors import Unavailable
from tilesync.runtime.threads import run_in_thread

MAX_COMPARISONS: Final = 8
"""Comparisons that wait, run, or are being sent. Each has a temporary file, and some megabytes of memory."""


@dataclass(frozen=True)
class ComparedVersions:
    """Result of a comparison.

    `open_pieces`: starts to read its JSON lines, in pieces of whole lines; blocks, and may be called again. `close`:
    removes its temporary file.
    """

    open_pieces: Callable[[], Iterator[bytes]]
    close: Callable[[], None]


CompareVersions = Callable[[str, str], ComparedVersions]
"""Compares two versions. Blocks. Raises a TilesyncError."""


class DiffLines:
    """JSON lines of a comparison, as one client reads them."""

    def __init__(self, pieces: Iterator[bytes], release: Callable[[], None]) -> None:
        self._pieces = pieces
        self._release: Callable[[], None] | None = release

    async def read(self) -> bytes:
        """Return the next lines; empty at the end. Raises DestinationError if the temporary file cannot be read."""
        return await run_in_thread(next, self._pieces, b"")

    def close(self) -> None:
        """Give up the comparison. May be called twice."""
        release, self._release = self._release, None
        if release is not None:
            release()


class _Comparison:
    """A comparison that waits, runs or is complete, and the number of clients that want it."""

    def __init__(self, key: Hashable, task: asyncio.Task[ComparedVersions]) -> None:
        self.key = key
        self.task = task
        self.users = 0


class SharedComparisons:
    """The comparisons of a server. The last complete one stays, so that a page which is loaded again has it at once."""

    def __init__(self) -> None:
        self._turn = asyncio.Lock()
        self._known: dict[Hashable, _Comparison] = {}
        self._last: _Comparison | None = None

    async def open(self, key: Hashable, compare: Callable[[], ComparedVersions]) -> DiffLines:
        """Return the lines of the comparison `key`, which `compare` makes unless it is known.

        Raises its TilesyncErrors, and Unavailable if too many others are in use. If all clients that wait for it are
        cancelled, it is stopped.
        """
        found = self._known.get(key) or self._start(key, compare)
        found.users += 1
        try:
            compared = await asyncio.shield(found.task)
        except BaseException:
            self._release(found)
            if not found.users:
                await asyncio.wait({found.task})  # it may still use what the caller closes
            raise
        self._keep(found)
        return DiffLines(compared.open_pieces(), partial(self._release, found))

    def _start(self, key: Hashable, compare: Callable[[], ComparedVersions]) -> _Comparison:
        if len(self._known) >= MAX_COMPARISONS:
            self._keep(None)
        if len(self._known) >= MAX_COMPARISONS:
            raise Unavailable(f"{MAX_COMPARISONS} other comparisons are in use", hint="ask again when one has ended")
        started = self._known[key] = _Comparison(key, asyncio.ensure_future(self._compare(compare)))
        return started

    async def _compare(self, compare: Callable[[], ComparedVersions]) -> ComparedVersions:
        async with self._turn:
            return await run_in_thread(compare)

    def _keep(self, comparison: _Comparison | None) -> None:
        """Keep a comparison without users until the next one is complete."""
        previous, self._last = self._last, comparison
        if previous is not None and previous is not comparison and not previous.users:
            self._drop(previous)

    def _release(self, comparison: _Comparison) -> None:
        comparison.users -= 1
        if not comparison.users and comparison is not self._last:
            self._drop(comparison)

    def _drop(self, comparison: _Comparison) -> None:
        if self._known.get(comparison.key) is comparison:
            del self._known[comparison.key]
        if comparison.task.cancel():
            comparison.task.add_done_callback(_close_result)  # it may have just ended
        else:
            _close_result(comparison.task)

    async def aclose(self) -> None:
        """Stop what runs, and close all results."""
        dropped = list(self._known.values())
        for each in dropped:
            self._drop(each)
        if dropped:
            await asyncio.wait({each.task for each in dropped})


def _close_result(task: asyncio.Task[ComparedVersions]) -> None:
    if not task.cancelled() and task.exception() is None:
        task.result().close()
