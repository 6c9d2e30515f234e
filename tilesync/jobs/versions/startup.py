"""What comes before any work on a destination: catalog and manifests tell of what lies there."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from tilesync.core.manifest import stamp
from tilesync.events import Notice, Warned
from tilesync.jobs.run.context import Run
from tilesync.jobs.versions.lifecycle import Versions
from tilesync.jobs.versions.pointer import Pointing
from tilesync.jobs.versions.publish import Publisher
from tilesync.jobs.versions.rebuild_catalog import adopt, adopt_version
from tilesync.model import Layout, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import in_thread


async def prepare(destination: Destination, run: Run) -> None:
    """See that catalog and manifests tell of what lies there: they may be lost, or the machine restarted since."""
    publication = destination.publication
    found, _ = await asyncio.gather(in_thread(publication.manifest_names), in_thread(publication.latest))
    there = set(found)
    if destination.catalog.recall("adopted") is None:
        await adopt(destination, there, run)
    elif destination.shared:
        await _catch_up(destination, there, run)
    versions = Versions(destination, run)
    await versions.settle()
    for version in destination.catalog.versions():
        if version.published is not None and version.name not in there:
            await _without_manifest(version, versions, destination, run)


async def _catch_up(destination: Destination, there: set[str], run: Run) -> None:
    """Take in what other machines did meanwhile: versions that they finished, also such as were begun here, those that
    they retired, and where they had the pointer lead.
    """
    catalog, retired = destination.catalog, await in_thread(destination.publication.retired_names)
    for version in catalog.versions():
        if version.name in retired and version.name not in there:
            catalog.update(replace(version, retired=stamp(run.clock.now())))
            catalog.drop_files(version)
            run.observe(Notice(f"version {version.name} was retired by another machine"))
        elif version.name in there and version.published is None:
            catalog.forget(version)
    known = {version.name for version in catalog.versions(retired=True)}
    for name in sorted(there - known):
        run.observe(Notice(f"version {name} was finished by another machine, or by a run that was killed"))
        await adopt_version(destination, name, run)
        catalog.remember("newest", "")
    await in_thread(Pointing(destination, run.clock, run.observe).catch_up)


async def _without_manifest(version: Version, versions: Versions, destination: Destination, run: Run) -> None:
    """Forget a version that someone removed, unless the pointer leads there; of any other write the manifest again."""
    pointing = Pointing(destination, run.clock, run.observe)
    lies = destination.layout is not Layout.VERSIONED or await in_thread(versions.lies_somewhere, version)
    if not lies and version.name not in await in_thread(pointing.spared):
        destination.catalog.update(replace(version, retired=stamp(run.clock.now())))
        destination.catalog.drop_files(version)
        run.observe(Notice(f"version {version.name} is not there any more, nor its manifest: it counts as retired"))
        return
    version = version if version.damaged else await versions.healed(version)
    if not version.damaged:
        await in_thread(Publisher(destination, run, allow_missing=True).seal, version)
        run.observe(Warned(f"the manifest of version {version.name} was lost; it is written again"))
