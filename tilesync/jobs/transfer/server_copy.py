"""Server-side copy: the destination store reads blobs directly from the source container.

Their bytes never pass through this machine; the service proves them with their MD5. The references of a file are read
from its beginning; a file that must be read completely takes the default path.
"""

from __future__ import annotations

from tilesync.errors import BlobDamaged
from tilesync.events import Notice
from tilesync.jobs.run.context import RunContext
from tilesync.model import Blob, FileResult, ParsedContent, Version
from tilesync.protocols import Files, Source
from tilesync.tiles.header import PROBE_BYTES, read_header

MAX_FAILED_COPIES = 3
"""Maximum blobs that the store may refuse before its first success; after that, no more copies are tried."""


class ServerSideCopy:
    """Copy blobs on the server, as long as the store accepts them."""

    def __init__(self, version: Version, source: Source, files: Files, run: RunContext) -> None:
        self._version = version
        self._source = source
        self._files = files
        self._run = run
        self._copied = 0
        self._failed = 0

    def is_suitable(self, blob: Blob) -> bool:
        """Return whether to try a server-side copy: the blob is larger than a probe, and the store may accept it."""
        is_possible = (
            self._run.allows_server_copy
            and self._source.has_link
            and (self._copied > 0 or self._failed < MAX_FAILED_COPIES)
        )
        return is_possible and blob.size > PROBE_BYTES

    async def copy(self, number: int, blob: Blob) -> FileResult | None:
        """Copy one blob; None if it must take the default path. Raises the errors of a source and a store."""
        head = await self._source.peek(blob, PROBE_BYTES)
        try:
            content = read_header(blob, self._version.container_url, head)
            if isinstance(content, int):
                head = await self._source.peek(blob, content)
                content = read_header(blob, self._version.container_url, head)
        except BlobDamaged:
            return None  # only the whole file shows whether it is damaged in the container, or only in transit
        if not isinstance(content, ParsedContent):
            return None
        stored, reason = await self._files.copy_from_source(self._version, blob, await self._source.link(), head)
        if stored is None:
            self._count_refusal(reason)
            return None
        self._copied += 1
        self._run.stats.planned_bytes -= blob.size
        return FileResult(number, stored, content)

    def _count_refusal(self, reason: str) -> None:
        self._failed += 1
        if self._failed == MAX_FAILED_COPIES and not self._copied:
            sentence = f"no server-side copy from this source ({reason}): the bytes pass through this machine"
            self._run.observe(Notice(sentence))
