"""Telling the world that the pointer has moved, until that was done once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tilesync.jobs.pointing import UNANNOUNCED
from tilesync.protocols import Catalog

Announce = Callable[[str], Awaitable[None]]
"""Tells that the pointer names a version now. Raises RunErrors."""


async def announced(catalog: Catalog, announce: Announce | None) -> None:
    """Have it told, where the pointer moved and that was not told yet. Raises what telling raises: then it is told by
    the next run.
    """
    version = catalog.recall(UNANNOUNCED)
    if version and announce is not None:
        await announce(version)
    if version:
        catalog.remember(UNANNOUNCED, "")
