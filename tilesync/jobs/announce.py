"""Telling the world that the pointer has moved, until that was done once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tilesync.events import Event, Published
from tilesync.protocols import Catalog, Observer

UNANNOUNCED = "unannounced"

Announce = Callable[[str], Awaitable[None]]
"""Tells that the pointer names a version now. Raises RunErrors."""


class Announcement:
    """Hears of the pointer, and has it told once the run is through; what failed is told by the next run again."""

    def __init__(self, catalog: Catalog, observe: Observer, announce: Announce | None) -> None:
        self._catalog = catalog
        self._observe = observe
        self._announce = announce

    def __call__(self, event: Event) -> None:
        """Hear, and pass it on. That it is to be told is kept before anybody knows that it moved."""
        if isinstance(event, Published) and self._announce is not None:
            self._catalog.remember(UNANNOUNCED, event.version)
        self._observe(event)

    async def finish(self) -> None:
        """Have it told, where it is to be told yet. Raises what telling raises."""
        version = self._catalog.recall(UNANNOUNCED) if self._announce is not None else None
        if version and self._announce is not None:
            await self._announce(version)
            self._catalog.remember(UNANNOUNCED, "")
