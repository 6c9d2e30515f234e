"""Roll back the pointer to an older version, or move it forward to the newest again."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.core.guards import guard_against_shrinking
from tilesync.core.retention import sort_newest_first
from tilesync.core.safe_names import resolve_version_name
from tilesync.errors import DestinationError, GuardTripped, UsageError, VerifyFailed
from tilesync.events import VersionChosen, Warned
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.lifecycle import VersionLifecycle
from tilesync.jobs.versions.ownership import report_owner
from tilesync.jobs.versions.pointer import Pointer
from tilesync.jobs.versions.startup import prepare_destination
from tilesync.model import Layout, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import run_in_thread

SEPARATE_FOLDER_HINT = "mirror the older export into another folder with --export-id"


async def rollback(destination: Destination, run: RunContext, name: str | None, *, latest: bool) -> Version:
    """Move the pointer to an older version and pin it there; `latest`: to the newest, and remove the pin.

    `name`: a name, a unique prefix of one, or `current`, to pin the pointer where it is; without one, the version
    before the current one is chosen. Raises UsageError if there is no such version, and
    VerifyFailed if some of its files are gone; the pointer does not move then.
    """
    if destination.layout is Layout.FLAT:
        raise UsageError(
            "the flat layout holds one version only: there is no older one to roll back to", hint=SEPARATE_FOLDER_HINT
        )
    await run_in_thread(report_owner, destination.publication, run.observe)
    await prepare_destination(destination, run)
    pointer = Pointer(destination, run.clock, run.observe)
    history = sort_newest_first(destination.catalog.versions())
    if not history:
        raise DestinationError("no version is held here", hint="run `tilesync mirror` first")
    newest_name = destination.catalog.get_value("newest")
    newest_version = next((version for version in history if version.name == newest_name), history[0])
    current = await run_in_thread(pointer.find_current)
    version = newest_version if latest else _choose_version(history, name, current)
    version = await VersionLifecycle(destination, run).check_damage(version)
    if version.damaged:
        raise VerifyFailed(
            f"files of version {version.name} are missing or damaged, so the pointer does not move",
            hint=f"`tilesync mirror --export-id {version.export} --no-publish` repairs it if the service still has it",
        )
    if latest:
        try:
            guard_against_shrinking(version, current)
        except GuardTripped as error:
            run.observe(Warned(str(error)))
        pointer.unpin()
    else:
        pointer.pin(version)
    run.observe(VersionChosen(version.name, "held"))
    await run_in_thread(pointer.move, version)
    return version


def _choose_version(history: Sequence[Version], name: str | None, current: Version | None) -> Version:
    names = [version.name for version in history]
    if name is not None:
        chosen = resolve_version_name(name, names, current=current.name if current is not None else None)
        return history[names.index(chosen)]
    position = names.index(current.name) + 1 if current is not None and current.name in names else 0
    if position == len(history):
        raise UsageError("no older version is held", hint="`tilesync versions DEST` lists the versions that are held")
    return history[position]
