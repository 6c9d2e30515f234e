"""Journal of a fleet: the histories of its mirrors, stored a few times a second."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from types import TracebackType
from typing import Final, Self

from tilesync.errors import TilesyncError
from tilesync.events import Warned
from tilesync.fleets.state import FleetState
from tilesync.model.history import MirrorHistory
from tilesync.protocols import Observer
from tilesync.runtime.threads import run_in_thread

FLUSH_INTERVAL_S: Final = 0.25
"""Seconds between two transactions; a kill loses what came after the last one."""


class HistoryJournal:
    """Stores histories in the background; on leaving its block, what is left.

    A history that cannot be stored is only a warning, once: the mirrors themselves are not affected.
    """

    def __init__(self, state: FleetState, observe: Observer, *, is_enabled: bool) -> None:
        self._state = state
        self._observe = observe
        self._is_enabled = is_enabled
        self._has_warned = False
        self._pending: dict[str, MirrorHistory] = {}
        self._closing = asyncio.Event()
        self._task: asyncio.Task[None] | None = None

    def add(self, key: str, history: MirrorHistory) -> None:
        """Store the history of a mirror soon."""
        if self._is_enabled:
            self._pending[key] = history

    async def __aenter__(self) -> Self:
        self._task = asyncio.create_task(self._flush_regularly())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._task is not None
        self._closing.set()
        await self._task  # not cancelled: a transaction under way may fail, and what it was to store would be lost
        await self._flush()

    async def _flush_regularly(self) -> None:
        while not self._closing.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(FLUSH_INTERVAL_S):
                    await self._closing.wait()
            await self._flush()

    async def _flush(self) -> None:
        pending, self._pending = self._pending, {}
        if not pending:
            return
        try:
            await run_in_thread(self._state.save_histories, list(pending.items()))
        except TilesyncError as error:
            self._pending = {**pending, **self._pending}
            if not self._has_warned:
                self._has_warned = True
                self._observe(Warned(f"what this run did cannot be stored for `tilesync status`: {error}"))
