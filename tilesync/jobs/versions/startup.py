"""Startup of a run: bring catalog and manifests in line with the files of a destination."""

from __future__ import annotations

import asyncio

from tilesync.core.manifest import format_timestamp
from tilesync.events import Notice, Warned
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.lifecycle import VersionLifecycle
from tilesync.jobs.versions.pointer import Pointer
from tilesync.jobs.versions.publish import Publisher
from tilesync.jobs.versions.rebuild_catalog import rebuild_catalog, rebuild_version
from tilesync.model import Layout, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import run_in_thread


async def prepare_destination(destination: Destination, run: RunContext) -> None:
    """Bring catalog and manifests in line with the destination: they may be lost, or the machine was restarted."""
    publication = destination.publication
    manifest_names, _ = await asyncio.gather(
        run_in_thread(publication.manifest_names), run_in_thread(publication.latest)
    )
    finished_names = set(manifest_names)
    if destination.catalog.get_value("adopted") is None:
        await rebuild_catalog(destination, finished_names, run)
    elif destination.is_shared:
        await _sync_with_other_machines(destination, finished_names, run)
    versions = VersionLifecycle(destination, run)
    await versions.recheck_after_restart()
    for version in destination.catalog.versions():
        if version.is_published and version.name not in finished_names:
            await _handle_missing_manifest(version, versions, destination, run)


async def _sync_with_other_machines(destination: Destination, finished_names: set[str], run: RunContext) -> None:
    """Update the catalog with changes by other machines: finished versions, retired versions, and the pointer.

    A version that began here may have been finished there.
    """
    catalog, retired_names = destination.catalog, await run_in_thread(destination.publication.retired_names)
    for version in catalog.versions():
        if version.name in retired_names and version.name not in finished_names:
            catalog.update_version(version.with_times(retired_at=format_timestamp(run.clock.now())))
            catalog.drop_files(version)
            run.observe(Notice(f"version {version.name} was retired by another machine"))
        elif version.name in finished_names and not version.is_published:
            catalog.delete_version(version)
    known = {version.name for version in catalog.versions(retired=True)}
    for name in sorted(finished_names - known):
        run.observe(Notice(f"version {name} was finished by another machine, or by a killed run"))
        await rebuild_version(destination, name, run)
        catalog.set_value("newest", "")
    await run_in_thread(Pointer(destination, run.clock, run.observe).sync_with_latest)


async def _handle_missing_manifest(
    version: Version, versions: VersionLifecycle, destination: Destination, run: RunContext
) -> None:
    """Handle a lost manifest: retire the version if its files are gone too, else write the manifest again.

    A version that the pointer or a pin needs is never retired.
    """
    pointer = Pointer(destination, run.clock, run.observe)
    has_files = destination.layout is not Layout.VERSIONED or await run_in_thread(versions.has_any_files, version)
    if not has_files and version.name not in await run_in_thread(pointer.list_protected):
        destination.catalog.update_version(version.with_times(retired_at=format_timestamp(run.clock.now())))
        destination.catalog.drop_files(version)
        run.observe(Notice(f"version {version.name} and its manifest are gone: it counts as retired"))
        return
    version = version if version.damaged else await versions.check_damage(version)
    if not version.damaged:
        await run_in_thread(Publisher(destination, run, allow_missing=True).seal, version)
        run.observe(Warned(f"the manifest of version {version.name} was missing; it was written again"))
