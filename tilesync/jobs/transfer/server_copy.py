"""Blobs that the store of the destination takes from their container by itself: their bytes never come here.

The service proves them by their MD5. What a file asks for is told by its beginning, which is read; a file of which
only the whole can tell that goes the usual way.
"""

from __future__ import annotations

from tilesync.errors import BlobDamaged
from tilesync.events import Notice
from tilesync.jobs.run.context import RunContext
from tilesync.model import Blob, FileResult, ParsedContent, Version
from tilesync.protocols import Files, Source
from tilesync.tiles.header import PROBE_BYTES, read_header

MAX_FAILED_COPIES = 3
"""Blobs that the store did not take, before any that it took: it takes none, then."""


class ServerSideCopy:
    """Hands blobs over, as long as the store takes them."""

    def __init__(self, version: Version, source: Source, files: Files, run: RunContext) -> None:
        self._version = version
        self._source = source
        self._files = files
        self._run = run
        self._copied = 0
        self._failed = 0

    def is_suitable(self, blob: Blob) -> bool:
        """Whether a blob is to be handed over: it is more than its beginning, and the store may take it."""
        possible = (
            self._run.allows_server_copy
            and self._source.has_link
            and (self._copied > 0 or self._failed < MAX_FAILED_COPIES)
        )
        return possible and blob.size > PROBE_BYTES

    async def copy(self, number: int, blob: Blob) -> FileResult | None:
        """The blob in its place; None where it is to go the usual way. Raises as a source and a store do."""
        head = await self._source.peek(blob, PROBE_BYTES)
        try:
            said = read_header(blob, self._version.container_url, head)
            if isinstance(said, int):
                head = await self._source.peek(blob, said)
                said = read_header(blob, self._version.container_url, head)
        except BlobDamaged:
            return None  # whether it is so in the container, or broke on the way, only the whole proves
        if not isinstance(said, ParsedContent):
            return None
        held, why = await self._files.copy_from_source(self._version, blob, await self._source.link(), head)
        if held is None:
            self._count_refusal(why)
            return None
        self._copied += 1
        self._run.stats.planned_bytes -= blob.size
        return FileResult(number, held, said)

    def _count_refusal(self, reason: str) -> None:
        self._failed += 1
        if self._failed == MAX_FAILED_COPIES and not self._copied:
            sentence = f"the storage does not copy from there by itself ({reason}): the bytes go through this machine"
            self._run.observe(Notice(sentence))
