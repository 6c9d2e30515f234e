"""Pointing back at an older version, and forward again."""

from __future__ import annotations

from collections.abc import Sequence

from tilesync.core.guards import guard_against_shrinking
from tilesync.core.retention import newest_first
from tilesync.core.safe_names import the_one
from tilesync.errors import DestinationError, GuardTripped, UsageError, VerifyFailed
from tilesync.events import VersionChosen, Warned
from tilesync.jobs.run.context import Run
from tilesync.jobs.versions.lifecycle import Versions
from tilesync.jobs.versions.ownership import tell_owner
from tilesync.jobs.versions.pointer import Pointing
from tilesync.jobs.versions.startup import prepare
from tilesync.model import Layout, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import in_thread

ONE = "mirror that export into a folder of its own: --export-id"


async def rollback(destination: Destination, run: Run, name: str | None, *, latest: bool) -> Version:
    """Move the pointer to an older version and pin it there; `latest`: to the newest, and let it follow again.

    Without a `name` it is the version before the one that the pointer names. Raises UsageError when there is no such
    version, VerifyFailed when files of it are gone: the pointer stays then.
    """
    if destination.layout is Layout.FLAT:
        raise UsageError("the flat layout holds one version: there is none to point back at", hint=ONE)
    await in_thread(tell_owner, destination.publication, run.observe)
    await prepare(destination, run)
    pointing = Pointing(destination, run.clock, run.observe)
    history = newest_first(destination.catalog.versions())
    if not history:
        raise DestinationError("no version is held here", hint="`tilesync mirror` brings one in")
    newest = destination.catalog.recall("newest")
    followed = next((version for version in history if version.name == newest), history[0])
    current = await in_thread(pointing.named)
    version = followed if latest else _chosen(history, name, current)
    version = await Versions(destination, run).healed(version)
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
    await in_thread(pointing.move, version)
    return version


def _chosen(history: Sequence[Version], name: str | None, current: Version | None) -> Version:
    names = [version.name for version in history]
    if name is not None:
        return history[names.index(the_one(name, names))]
    place = names.index(current.name) + 1 if current is not None and current.name in names else 0
    if place == len(history):
        raise UsageError("no older version is held", hint="`tilesync versions DEST` shows what is")
    return history[place]
