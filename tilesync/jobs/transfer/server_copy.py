"""Blobs that the store of the destination takes from their container by itself: their bytes never come here.

The service proves them by their MD5. What a file asks for is told by its beginning, which is read; a file of which
only the whole can tell that goes the usual way.
"""

from __future__ import annotations

from tilesync.errors import BlobDamaged
from tilesync.events import Notice
from tilesync.jobs.run.context import Run
from tilesync.model import Arrival, Blob, Reading, Version
from tilesync.protocols import Files, Source
from tilesync.tiles.header import FIRST, read_head

IN_VAIN = 3
"""Blobs that the store did not take, before any that it took: it takes none, then."""


class Handover:
    """Hands blobs over, as long as the store takes them."""

    def __init__(self, version: Version, source: Source, files: Files, run: Run) -> None:
        self._version = version
        self._source = source
        self._files = files
        self._run = run
        self._taken = 0
        self._in_vain = 0

    def suits(self, blob: Blob) -> bool:
        """Whether a blob is to be handed over: it is more than its beginning, and the store may take it."""
        possible = self._run.server_copy and self._source.has_link and (self._taken > 0 or self._in_vain < IN_VAIN)
        return possible and blob.size > FIRST

    async def bring(self, number: int, blob: Blob) -> Arrival | None:
        """The blob in its place; None where it is to go the usual way. Raises as a source and a store do."""
        head = await self._source.peek(blob, FIRST)
        try:
            said = read_head(blob, self._version.home, head)
            if isinstance(said, int):
                head = await self._source.peek(blob, said)
                said = read_head(blob, self._version.home, head)
        except BlobDamaged:
            return None  # whether it is so in the container, or broke on the way, only the whole proves
        if not isinstance(said, Reading):
            return None
        held, why = await self._files.take(self._version, blob, await self._source.link(), head)
        if held is None:
            self._refused(why)
            return None
        self._taken += 1
        self._run.tally.planned_bytes -= blob.size
        return Arrival(number, held, said)

    def _refused(self, why: str) -> None:
        self._in_vain += 1
        if self._in_vain == IN_VAIN and not self._taken:
            sentence = f"the storage does not copy from there by itself ({why}): the bytes go through this machine"
            self._run.observe(Notice(sentence))
