"""`checked.json`: when a run last looked at SOURCE and found, or brought, everything.

`latest.json` stays as it is while nothing changes, so its age tells nothing; a file of its own costs no viewer, and no
poller of `latest.json`, a byte.
"""

from __future__ import annotations

from typing import Any

from tilesync.core.manifest import stamp
from tilesync.errors import TilesyncError
from tilesync.events import Warned
from tilesync.jobs.run.context import Run
from tilesync.model import Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import in_thread


async def note_checked(destination: Destination, version: Version, run: Run) -> None:
    """Record that this run ended well, with `version` the one it was about.

    The mirror is whole whether that can be written or not: where it cannot, it is a warning, and the alarm on the age
    of the file goes off.
    """
    publication = destination.publication
    try:
        said = _said(version, await in_thread(publication.owner), stamp(run.clock.now()))
        await in_thread(publication.set_checked, said)
    except TilesyncError as error:
        run.observe(Warned(f"checked.json could not be written, and tells of an earlier run: {error}"))


def _said(version: Version, owner: str | None, moment: str) -> dict[str, Any]:
    return {
        "checked": moment,
        "owner": owner,
        "version": version.name,
        "export": version.export,
        "imodel": version.imodel,
        "changeset": version.changeset,
    }
