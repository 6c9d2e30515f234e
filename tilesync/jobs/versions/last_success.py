"""Record the time of the last successful run in `checked.json`, for alarms on its age.

`latest.json` does not change while the export stays the same, so its age says nothing about runs. A separate file keeps
`latest.json` small and unchanged for those who poll it.
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
    """Record that this run succeeded, with the version that it checked or published.

    If the file cannot be written, it is only a warning: the mirror itself is complete, and an alarm on the age of the
    file will report it.
    """
    publication = destination.publication
    try:
        document = _make_document(version, await run_in_thread(publication.owner), format_timestamp(run.clock.now()))
        await run_in_thread(publication.set_last_success, document)
    except TilesyncError as error:
        run.observe(Warned(f"checked.json could not be written, so it still describes an earlier run: {error}"))


def _make_document(version: Version, owner: str | None, timestamp: str) -> dict[str, Any]:
    return {
        "checked": timestamp,
        "owner": owner,
        "version": version.name,
        "export": version.export,
        "imodel": version.facts.imodel,
        "changeset": version.facts.changeset,
    }
