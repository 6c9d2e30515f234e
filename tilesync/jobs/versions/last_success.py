"""`checked.json`: when a run last looked at SOURCE and found, or brought, everything.

`latest.json` stays as it is while nothing changes, so its age tells nothing; a file of its own costs no viewer, and no
poller of `latest.json`, a byte.
"""

from __future__ import annotations

from typing import Any

from tilesync.core.manifest import format_timestamp
from tilesync.errors import TilesyncError
from tilesync.events import Warned
from tilesync.jobs.run.context import RunContext
from tilesync.model import Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import run_in_thread


async def record_last_success(destination: Destination, version: Version, run: RunContext) -> None:
    """Record that this run ended well, with `version` the one it was about.

    The mirror is whole whether that can be written or not: where it cannot, it is a warning, and the alarm on the age
    of the file goes off.
    """
    publication = destination.publication
    try:
        said = _make_document(version, await run_in_thread(publication.owner), format_timestamp(run.clock.now()))
        await run_in_thread(publication.set_last_success, said)
    except TilesyncError as error:
        run.observe(Warned(f"checked.json could not be written, and tells of an earlier run: {error}"))


def _make_document(version: Version, owner: str | None, timestamp: str) -> dict[str, Any]:
    return {
        "checked": timestamp,
        "owner": owner,
        "version": version.name,
        "export": version.export,
        "imodel": version.imodel,
        "changeset": version.changeset,
    }
