"""Publish hook: report a moved pointer once."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from tilesync.errors import TilesyncError
from tilesync.jobs.versions.pointer import UNANNOUNCED_KEY
from tilesync.protocols import Destination
from tilesync.runtime.threads import run_in_thread

PublishHook = Callable[[str, TilesyncError | None], Awaitable[None]]
"""Report the version that the pointer leads to now, and the error that the run ends with. Raises RunErrors."""


async def run_publish_hook(
    destination: Destination, hook: PublishHook | None, *, error: TilesyncError | None = None
) -> None:
    """Run the hook if the pointer has moved and no run has reported that yet.

    Raises the errors of the hook. After an error, or without a hook, the next run reports the version.
    """
    version = destination.catalog.get_value(UNANNOUNCED_KEY)
    if hook is None or not version:
        return
    latest = await run_in_thread(destination.publication.latest) or {}
    if latest.get("version") == version:
        await hook(version, error)
        destination.catalog.set_value(UNANNOUNCED_KEY, "")
