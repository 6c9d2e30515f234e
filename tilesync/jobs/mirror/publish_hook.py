"""Telling the world that the pointer has moved, until that was done once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tilesync.errors import TilesyncError
from tilesync.jobs.versions.pointer import UNANNOUNCED_KEY
from tilesync.protocols import Destination
from tilesync.runtime.threads import run_in_thread

PublishHook = Callable[[str, TilesyncError | None], Awaitable[None]]
"""Tells that the pointer names a version now, and which error the run ends with. Raises RunErrors."""


async def run_publish_hook(
    destination: Destination, hook: PublishHook | None, *, error: TilesyncError | None = None
) -> None:
    """Have it told, where the pointer has moved and that was not told yet. Raises what telling raises: then, and where
    there is nobody to be told, the next run tells it.
    """
    version = destination.catalog.get_value(UNANNOUNCED_KEY)
    if hook is None or not version:
        return
    latest = await run_in_thread(destination.publication.latest) or {}
    if latest.get("version") == version:
        await hook(version, error)
        destination.catalog.set_value(UNANNOUNCED_KEY, "")
