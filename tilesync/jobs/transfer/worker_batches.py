"""Small blobs by the hundred: brought in by other processes, at the first attempt of each."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from tilesync.errors import Transient
from tilesync.jobs.run.context import Run
from tilesync.jobs.transfer.download import SWIFT, WHOLE
from tilesync.model import Arrival, Blob, Brought, Version
from tilesync.protocols import Helpers, Source

TOGETHER = 16
"""Blobs that are asked for together."""

WAITING = 2
"""Blobs that are with the helpers for each that is asked for: so they never run dry."""

REST = 1.0
"""Seconds without this way after a blob that did not come by it: what is wrong is found out by the usual one."""


class Express:
    """Sends small blobs by way of the helpers. `take` hears what came, `hand_back` gets what did not; `ready` is told
    when the helpers are.
    """

    def __init__(
        self,
        version: Version,
        source: Source,
        run: Run,
        *,
        take: Callable[[Arrival], None],
        hand_back: Callable[[tuple[int, Blob]], Awaitable[None]],
        ready: Callable[[], None],
    ) -> None:
        self._version = version
        self._source = source
        self._run = run
        self._helpers = run.helpers if run.helpers is not None and source.has_way else None
        self._take = take
        self._hand_back = hand_back
        self._tell_ready = ready
        self._open: list[tuple[int, Blob]] = []
        self._rests_until = 0.0
        self._called, self._finished = asyncio.Event(), asyncio.Event()
        if self._helpers is not None and self._helpers.called:
            self._called.set()
        self._ready = self._over = False
        self._width = run.gate.most * WAITING // TOGETHER
        self._groups: asyncio.Queue[list[tuple[int, Blob]] | None] = asyncio.Queue(maxsize=self._width)

    @property
    def starting(self) -> bool:
        """Whether it will suit soon."""
        possible = self._helpers is not None and self._width > 0
        return possible and self._called.is_set() and not self._ready and not self._over

    def carries(self, blob: Blob) -> bool:
        """Whether a blob could go this way."""
        return 0 < blob.size <= WHOLE

    def suits(self, blob: Blob) -> bool:
        """Whether a blob should go this way now."""
        if not self._ready or not self.carries(blob):
            return False
        return self._run.gate.swift and self._run.clock.monotonic() >= self._rests_until

    async def put(self, item: tuple[int, Blob]) -> None:
        """Send one; it leaves with others."""
        self._open.append(item)
        if len(self._open) >= TOGETHER:
            await self.flush()

    async def flush(self) -> None:
        """Send what waits for others."""
        group, self._open = self._open, []
        if group:
            await self._groups.put(group)

    async def run(self) -> None:
        """Return when everything that was sent came, or was handed back, and `finish` was called."""
        helpers = self._helpers
        if helpers is None or not self._width:
            return
        await self._called.wait()
        if not self._over:
            await self._started(helpers)
        if self._over:
            return
        self._ready = True
        self._tell_ready()
        async with asyncio.TaskGroup() as group:
            for _ in range(self._width):
                group.create_task(self._work(helpers))

    async def _started(self, helpers: Helpers) -> None:
        """Return when helpers can be asked, or nothing more is sent: who is done waits for none that are stuck."""
        waits = [asyncio.create_task(helpers.start()), asyncio.create_task(self._finished.wait())]
        try:
            done, _ = await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
            _ = [task.result() for task in done]
        finally:
            for task in waits:
                task.cancel()

    def call(self) -> None:
        """There is so much to do that helpers are worth their start; until they are there nothing suits."""
        self._called.set()

    async def finish(self) -> None:
        """Nothing more is sent."""
        self._over = True
        self._called.set()
        self._finished.set()
        await self.flush()
        for _ in range(self._width if self._ready else 0):
            await self._groups.put(None)

    async def _work(self, helpers: Helpers) -> None:
        while (group := await self._groups.get()) is not None:
            places = len(group) if self._run.gate.fixed else len(group) // WAITING
            async with self._run.gate.turn(places):
                way, limit = await self._source.way(), self._run.gate.limit
                try:
                    brought = await helpers.bring(self._version, way, group, at_once=limit)
                except Transient:  # what is wrong is found out by the usual way
                    brought = Brought((), tuple(group), 0.0)
            for arrival in brought.arrivals:
                self._run.tally.bytes += arrival.held.blob.size
                self._run.gate.moved(arrival.held.blob.size)
                self._take(arrival)
            if brought.arrivals:
                self._run.gate.answered(brought.first)
                self._run.gate.swift = brought.seconds < SWIFT
            if brought.left:
                self._rests_until = self._run.clock.monotonic() + REST
                for item in brought.left:
                    await self._hand_back(item)
