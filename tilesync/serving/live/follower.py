"""Watch over a live export: notice that it is gone, and take up a newer one when it is Complete."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final

from tilesync.errors import TilesyncError
from tilesync.events import Notice, Warned
from tilesync.model import Resolution, Status
from tilesync.protocols import SourceResolver
from tilesync.serving.live.context import LiveContext
from tilesync.serving.live.open_exports import OpenExport, OpenExports

MIN_CHECK_INTERVAL_S: Final = 2.0
"""Minimum seconds between two checks, however many requests find that the export is gone."""

OpenNewExport = Callable[[Resolution], Awaitable[OpenExport]]
"""Opens the container of an export, and reads its root tileset."""


class ExportFollower:
    """Watch that checks every `poll_s`, and at once when a request finds that the export is gone.

    Without `follow` it only checks whether the current export is still the same. While no newer export is Complete, or
    the newer one cannot be read, the current one stays.
    """

    def __init__(
        self,
        resolver: SourceResolver,
        exports: OpenExports,
        context: LiveContext,
        open_export: OpenNewExport,
        *,
        poll_s: float,
        follow: bool,
    ) -> None:
        self._resolver = resolver
        self._exports = exports
        self._context = context
        self._open_export = open_export
        self._poll_s = poll_s
        self._follow = follow
        self._wake = asyncio.Event()
        self._checked = asyncio.Event()
        self._announced = ""

    async def run(self) -> None:
        """Check again and again, until cancelled."""
        while True:
            await self._wait()
            try:
                await self.check_for_newer()
            except Exception as error:  # noqa: BLE001 - last handler: a bug ends one check, not all later ones
                self._context.announcer(
                    Warned(
                        f"the check for a newer export failed: {type(error).__name__}: {error}; please report this bug"
                    )
                )
            self._checked.set()

    def wake(self) -> None:
        """Check soon: the current export is gone."""
        if self._follow:
            self._wake.set()

    async def wait_for_check(self, timeout_s: float) -> None:
        """Wake it, and wait until it has checked, at most `timeout_s`."""
        self._checked.clear()
        self.wake()
        await asyncio.wait([task := asyncio.ensure_future(self._checked.wait())], timeout=timeout_s)
        task.cancel()

    async def _wait(self) -> None:
        clock = self._context.clock
        await clock.sleep(min(MIN_CHECK_INTERVAL_S, self._poll_s))
        waits = [
            asyncio.ensure_future(clock.sleep(max(0.0, self._poll_s - MIN_CHECK_INTERVAL_S))),
            asyncio.ensure_future(self._wake.wait()),
        ]
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for each in waits:
                each.cancel()
        self._wake.clear()

    async def check_for_newer(self) -> None:
        """Check once whether the current export is still there; with `follow`, take up a newer one."""
        await self._check_current()
        if self._follow:
            await self._take_up_newer()
        await self._exports.retire_old(self._context.clock.monotonic())

    async def _check_current(self) -> None:
        files = self._exports.current.files
        if files.replaced is not None or not files.is_used:
            return
        files.is_used = False
        try:
            await files.check_unchanged()
        except TilesyncError as error:
            self._context.announcer.warn(f"export {self._exports.current.name}: ", error)

    async def _take_up_newer(self) -> None:
        try:
            resolution = await self._resolver.resolve(is_replacement=True)
        except TilesyncError as error:
            self._context.announcer.warn("no newer export could be looked for: ", error)
            return
        self._announce_newest(resolution)
        opened = self._exports.find_export(resolution.export)
        if opened is self._exports.current:
            return
        try:
            opened = opened or await self._open_export(resolution)
        except TilesyncError as error:
            self._context.announcer.warn(f"export {resolution.export.id} cannot be served yet: ", error)
            return
        self._exports.replace_current(opened, self._context.clock.monotonic())
        dated = f" of {resolution.export.modified}" if resolution.export.modified else ""
        self._context.announcer(Notice(f"export {opened.name}{dated} is served from now on"))

    def _announce_newest(self, resolution: Resolution) -> None:
        """Report once that the newest export is not the one that is served, and why."""
        state = f"{resolution.newest} {resolution.newest_status}"
        if not resolution.behind or state == self._announced:
            return
        self._announced = state
        text = f"the newest export, {resolution.newest}, is {resolution.newest_status}"
        if resolution.newest_status.lower() == Status.INVALID.lower():
            self._context.announcer(Warned(f"{text}: the last finished one stays"))
        else:
            self._context.announcer(Notice(f"{text}: it is taken up when it is Complete"))
