"""Files of a container as the server sends them: from the cache, or streamed."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable
from typing import Final

from tilesync.model import Blob
from tilesync.runtime.streamed_file import ResumableStream, StreamPool
from tilesync.serving.live.cache import CacheEntry, MemoryCache
from tilesync.serving.tilesets import FileFacts

PIECE_BYTES: Final = 1 << 18
"""Maximum bytes that are handed to a client at once."""


def describe_entry(entry: CacheEntry) -> FileFacts:
    """Return the facts that a response states of a file."""
    return FileFacts(entry.blob.size, entry.etag, entry.headers, entry.blob.last_modified)


class BytesFile:
    """File whose bytes, `content`, are at hand.

    It offers a large one in pieces only: what is sent at once waits in a buffer of each client that is slow.
    """

    def __init__(self, facts: FileFacts, content: bytes, *, cache: str | None = None) -> None:
        self.facts = facts
        self.content: bytes | None = content
        self.body = content if len(content) <= PIECE_BYTES else None
        self.cache = cache
        self._pieces = memoryview(content)

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to before `stop`."""
        for at in range(start, stop, PIECE_BYTES):
            yield bytes(self._pieces[at : min(at + PIECE_BYTES, stop)])

    async def aclose(self) -> None:
        """Do nothing: nothing is open."""


class CachedBlob(BytesFile):
    """File in the cache, pinned until it is closed."""

    def __init__(self, entry: CacheEntry, entries: MemoryCache, *, cache: str) -> None:
        assert entry.body is not None
        super().__init__(describe_entry(entry), entry.body, cache=cache)
        self._entry: CacheEntry | None = entry
        self._entries = entries

    async def aclose(self) -> None:
        """Unpin the entry. May be called twice."""
        entry, self._entry = self._entry, None
        if entry is not None:
            self._entries.unpin(entry)


StreamRange = Callable[[Blob, int, int], AsyncGenerator[bytes, None]]
"""Reads a blob from one offset to before another; it resumes a body that breaks off."""


class StreamedBlob:
    """File that is not kept in memory: each response reads it from the container."""

    content: bytes | None = None
    body: bytes | None = None
    cache: str | None = "pass"

    def __init__(self, entry: CacheEntry, stream_range: StreamRange, streams: StreamPool) -> None:
        self.facts = describe_entry(entry)
        self._blob = entry.blob
        self._stream_range = stream_range
        self._streams = streams
        self._stream: ResumableStream | None = None

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`."""
        self._stream = ResumableStream(lambda offset: self._stream_range(self._blob, offset, stop), self._streams)
        async for piece in self._stream.read(start, stop):
            yield piece

    async def aclose(self) -> None:
        """Close the blob, if `chunks` has opened it. May be called twice."""
        if self._stream is not None:
            await self._stream.aclose()
