"""Pointing back at an older version, and forward again."""

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

SEPARATE_FOLDER_HINT = "mirror that export into a folder of its own: --export-id"


async def rollback(destination: Destination, run: RunContext, name: str | None, *, latest: bool) -> Version:
    """Move the pointer to an older version and pin it there; `latest`: to the newest, and let it follow again.

    Without a `name` it is the version before the one that the pointer names. Raises UsageError when there is no such
    version, VerifyFailed when files of it are gone: the pointer stays then.
    """
    if destination.layout is Layout.FLAT:
        raise UsageError("the flat layout holds one version: there is none to point back at", hint=SEPARATE_FOLDER_HINT)
    await run_in_thread(report_owner, destination.publication, run.observe)
    await prepare_destination(destination, run)
    pointing = Pointer(destination, run.clock, run.observe)
    history = sort_newest_first(destination.catalog.versions())
    if not history:
        raise DestinationError("no version is held here", hint="`tilesync mirror` brings one in")
    newest = destination.catalog.get_value("newest")
    followed = next((version for version in history if version.name == newest), history[0])
    current = await run_in_thread(pointing.find_current)
    version = followed if latest else _choose_version(history, name, current)
    version = await VersionLifecycle(destination, run).check_damage(version)
    if version.damaged:
        raise VerifyFailed(
            f"version {version.name} is not whole, so the pointer stays",
            hint=f"`tilesync mirror --export-id {version.export} --no-publish` heals it as long as the service has it",
        )
    if latest:
        try:
            guard_against_shrinking(version, current)
        except GuardTripped as error:
            run.observe(Warned(str(error)))
        pointing.unpin()
    else:
        pointing.pin(version)
    run.observe(VersionChosen(version.name, "held"))
    await run_in_thread(pointing.move, version)
    return version


def _choose_version(history: Sequence[Version], name: str | None, current: Version | None) -> Version:
    names = [version.name for version in history]
    if name is not None:
        return history[names.index(resolve_version_name(name, names))]
    place = names.index(current.name) + 1 if current is not None and current.name in names else 0
    if place == len(history):
        raise UsageError("no older version is held", hint="`tilesync versions DEST` shows what is")
    return history[place]
