"""Journal of a fleet: the histories of its mirrors, stored a few times a second."""

from __future__ import annotations

import asyncio
import contextlib
from types import TracebackType
from typing import Final, Self

from tilesync.errors import DestinationError
from tilesync.fleets.state import FleetState
from tilesync.model.history import MirrorHistory
from tilesync.runtime.threads import run_in_thread

FLUSH_INTERVAL_S: Final = 0.25
"""Seconds between two transactions; a kill loses what came after the last one."""


class HistoryJournal:
    """Stores histories in the background; on leaving its block, what is left."""

    def __init__(self, state: FleetState, *, is_enabled: bool) -> None:
        self._state = state
        self._is_enabled = is_enabled
        self._pending: dict[str, MirrorHistory] = {}
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
        self._task.cancel()
        await asyncio.gather(self._task, return_exceptions=True)
        await self._flush()

    async def _flush_regularly(self) -> None:
        while True:
            await asyncio.sleep(FLUSH_INTERVAL_S)
            with contextlib.suppress(DestinationError):  # tried again with the next ones, and raised in the end
                await self._flush()

    async def _flush(self) -> None:
        """Store what is pending; it stays pending until it is stored."""
        pending = dict(self._pending)
        if not pending:
            return
        await run_in_thread(self._state.save_histories, list(pending.items()))
        for key, history in pending.items():
            if self._pending.get(key) is history:
                del self._pending[key]
