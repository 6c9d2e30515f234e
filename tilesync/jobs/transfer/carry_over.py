"""Carry over: link the files that an earlier version stores unchanged, thousands at a time.

This is the shortest way for the files of a night in which little changed: they are found by name and content in one
statement, linked folder by folder, and marked as stored by another statement. Everything unusual (a file that was
changed on disk, a file system without links, another name) is left to `Reuse`, file by file.
"""

from __future__ import annotations

import asyncio

from tilesync.events import FileReused
from tilesync.jobs.run.context import RunContext
from tilesync.model import Inventory, UnchangedFile, Version
from tilesync.protocols import Destination
from tilesync.runtime.task_groups import gather_or_cancel
from tilesync.runtime.threads import run_in_thread

FILES_PER_BATCH = 5000
"""Files that are linked and recorded together: a kill loses only the record of two batches, and it is made again."""


class CarryOver:
    """Carry unchanged files over from the newest finished version, in the order of the listing, each once."""

    def __init__(self, version: Version, destination: Destination, run: RunContext) -> None:
        self._version = version
        self._files = destination.files
        self._index = destination.catalog.unchanged
        self._run = run
        can_link = self._files.has_hard_links and version.inventory is not Inventory.WALK
        self._earlier = self._index.find_earlier(version) if can_link else None
        self._lock = asyncio.Lock()
        self._position = 0  # row id of the last wanted file that was looked at

    async def advance(self) -> int | None:
        """Carry over what is listed and wanted by now; return the row id of the last file that was looked at.

        None if no file can be carried over, or any more: then there is nothing to wait for.
        """
        async with self._lock:
            return await self._advance()

    async def _advance(self) -> int | None:
        if self._earlier is None:
            return None
        until, linked = await run_in_thread(self._index.last_wanted, self._version), list[UnchangedFile]()
        found = await run_in_thread(self._record_and_list, self._earlier, linked, until)
        while self._earlier is not None and (found or linked):
            # The file system and the catalog work at the same time: a batch is linked while the last one is recorded.
            linking = run_in_thread(self._files.link_unchanged, self._version, self._earlier, found)
            recording = run_in_thread(self._record_and_list, self._earlier, linked, until)
            linked, next_found = await gather_or_cancel([linking, recording])
            self._count(linked)
            if found and not linked:
                self._earlier = None  # no links here, or the destination was copied: each file would fail
            found = next_found
        return until

    def _record_and_list(self, earlier: Version, linked: list[UnchangedFile], until: int) -> list[UnchangedFile]:
        """Mark linked files as stored; return the next unchanged files."""
        if linked:
            self._index.mark_stored(self._version, earlier, linked)
        if self._position >= until:
            return []
        found = self._index.list_unchanged(self._version, earlier, self._position, until, limit=FILES_PER_BATCH)
        self._position = found[-1].file_id if len(found) == FILES_PER_BATCH else until
        return found

    def _count(self, linked: list[UnchangedFile]) -> None:
        stats = self._run.stats
        stats.reused += len(linked)
        stats.reused_bytes += sum(each.listed_size for each in linked)
        stats.verified += len(linked)
        if self._run.reports_every_file:
            for each in linked:
                self._run.observe(FileReused(each.name, each.listed_size))
