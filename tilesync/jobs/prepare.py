"""What comes before any work on a destination: catalog and manifests tell of what lies there."""

from __future__ import annotations

from tilesync.events import Warned
from tilesync.jobs.adopt import adopt
from tilesync.jobs.publish import Publisher
from tilesync.jobs.run import Run
from tilesync.jobs.versions import Versions
from tilesync.protocols import Destination
from tilesync.threads import in_thread


async def prepare(destination: Destination, run: Run) -> None:
    """See that catalog and manifests tell of what lies there: they may be lost, or the machine restarted since."""
    if destination.catalog.recall("adopted") is None:
        await in_thread(adopt, destination, run.observe)
    await Versions(destination, run).settle()
    there = set(destination.publication.manifest_names())
    for version in destination.catalog.versions():
        lost = version.published is not None and not version.damaged and version.name not in there
        if lost and destination.catalog.totals(version).held_files == version.files:
            await in_thread(Publisher(destination, run, allow_missing=True).seal, version)
            run.observe(Warned(f"the manifest of version {version.name} was lost; it is written again"))
