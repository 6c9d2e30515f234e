"""Pointer update: the last step of a mirror run, unless the pointer is pinned or a guard stops it."""

from __future__ import annotations

from tilesync.core.guards import guard_against_shrinking
from tilesync.events import PointerKept, Warned
from tilesync.jobs.mirror.options import MirrorOptions
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.flat_layout import FlatLayout
from tilesync.jobs.versions.lifecycle import VersionLifecycle
from tilesync.jobs.versions.pointer import Pointer
from tilesync.model.version import Layout, Version
from tilesync.protocols import Destination
from tilesync.runtime.threads import run_in_thread

UNPIN_HINT = "`tilesync rollback DEST --latest` lets it follow the newest export again"


class PointerUpdate:
    """Move the pointer of a destination to the version that a run has completed."""

    def __init__(
        self, destination: Destination, run: RunContext, options: MirrorOptions, versions: VersionLifecycle
    ) -> None:
        self._destination = destination
        self._run = run
        self._options = options
        self._versions = versions
        self._pointer = Pointer(destination, run.clock, run.observe)
        self._flat_layout = FlatLayout(destination, run, options.delete_limit)

    def may_move(self, version: Version) -> bool:
        """Return whether the pointer may lead to this version: it is not pinned to another one."""
        pinned = self._pointer.find_pinned()
        return self._options.move_pointer and (pinned is None or pinned.serial == version.serial)

    async def is_current(self, version: Version) -> bool:
        """Return whether the pointer leads to this version."""
        return await run_in_thread(self._pointer.is_current, version)

    async def update(self, version: Version) -> None:
        """Move the pointer to a complete version, or to the pinned one. Raises GuardTripped."""
        pinned = await run_in_thread(self._pointer.find_pinned)
        complete = f"version {version.name} is complete"
        if not self._options.move_pointer:
            self._run.observe(PointerKept(version.name, f"{complete}; the pointer did not move"))
            return
        if pinned is not None and pinned.serial != version.serial:
            self._run.observe(
                PointerKept(version.name, f"{complete}; the pointer is pinned to {pinned.name}: {UNPIN_HINT}")
            )
        target = pinned or version
        if await run_in_thread(self._pointer.is_current, target):
            return
        if not self._options.allow_shrink and pinned is None:
            guard_against_shrinking(target, await run_in_thread(self._pointer.find_current))
        if pinned is not None and (await self._versions.check_damage(pinned)).damaged:
            self._run.observe(Warned("the pointer did not move: the pinned version is not complete"))
            return
        await run_in_thread(self._switch, target)

    def _switch(self, version: Version) -> None:
        if self._destination.layout is Layout.FLAT:
            self._flat_layout.move_into_place(version, self._pointer.invalidate)
        self._pointer.move(version)
