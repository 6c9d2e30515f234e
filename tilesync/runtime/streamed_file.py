"""File that is read by blocking calls, as an asynchronous one: in threads, and with bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Final

from tilesync.runtime.threads import run_abandonable

SMALL_FILE_BYTES: Final = 1 << 18
"""A file of at most this size is read when it is opened."""

HEAD_BYTES: Final = 512

MAX_OPEN_STREAMS: Final = 64
"""Streams that stay open while their readers are slow. Each may hold a megabyte in buffers of its client library."""

_PIECE_BYTES: Final = 1 << 16
"""Bytes that are passed on at a time, so that a slow reader does not hold many of them twice."""

ReadFrom = Callable[[int], Iterator[bytes]]
"""Reads the same file from an offset on. Blocks."""


class StreamedFile:
    """A file in a store or in a package, open for one response.

    `chunks`: the bytes from the start on, as they arrive. `read_from` reads the same file anew, for a range. `streams`
    runs both. A piece is read only when the reader has taken the one before.
    """

    def __init__(
        self, size: int, etag: str, chunks: Iterator[bytes], *, read_from: ReadFrom, streams: StreamPool
    ) -> None:
        """Read the start of the file. Blocks."""
        self.size = size
        self.etag = etag
        self.last_modified: int | None = None
        self.body: bytes | None = None
        self._streams = streams
        self._read_from = read_from
        self._chunks: Iterator[bytes] | None = chunks
        self._buffer = b"".join(chunks) if size <= SMALL_FILE_BYTES else next(chunks, b"")
        self._buffer_start = 0
        self.head = self._buffer[:HEAD_BYTES]
        if size <= SMALL_FILE_BYTES:
            self.body, self.size = self._buffer, len(self._buffer)
            self._chunks = None  # read to its end: there is nothing to close

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`."""
        if self.body is not None:
            yield self.body[start:stop]
            return
        if start >= len(self._buffer):
            await self.aclose()
        else:
            await self._streams.mark_idle(self)
        while start < stop:
            if start >= self._buffer_start + len(self._buffer):
                self._buffer = await self._streams.read(self, start)
                self._buffer_start = start
                if not self._buffer:
                    return
            offset = start - self._buffer_start
            piece = self._buffer[offset : offset + min(_PIECE_BYTES, stop - start)]
            start += len(piece)
            yield piece

    def read_chunk(self, position: int) -> bytes:
        """Read the next chunk; open the stream again if it was closed meanwhile. Blocks."""
        if self._chunks is None:
            self._chunks = self._read_from(position)
        return next(self._chunks, b"")

    async def aclose(self) -> None:
        """Close the stream, and forget what was read ahead. A later read opens it again. May be called twice."""
        self._streams.forget(self)
        chunks, self._chunks, self._buffer = self._chunks, None, b""
        if isinstance(chunks, Generator):
            await self._streams.run(partial(_close_quietly, chunks))


class StreamPool:
    """Threads for the streams of one place, and a limit of streams that are open while nobody reads them.

    Beyond the limit, the stream that was not read for the longest time is closed; its reader does not notice, as its
    next read continues where it was.
    """

    def __init__(self, pool: Executor, *, max_open: int = MAX_OPEN_STREAMS) -> None:
        self._pool = pool
        self._max_open = max_open
        self._idle: dict[StreamedFile, None] = {}

    async def run(self, work: Callable[[], object]) -> None:
        """Run blocking work in a thread."""
        await run_abandonable(self._pool, work)

    async def read(self, file: StreamedFile, position: int) -> bytes:
        """Read the next chunk of a file, which is the most recently read one then."""
        self._idle.pop(file, None)
        chunk = await run_abandonable(self._pool, partial(file.read_chunk, position))
        await self.mark_idle(file)
        return chunk

    async def mark_idle(self, file: StreamedFile) -> None:
        """Note that a stream is open and waits for its reader; close those that have waited for the longest time."""
        self._idle[file] = None
        while len(self._idle) > self._max_open:
            await next(iter(self._idle)).aclose()

    def forget(self, file: StreamedFile) -> None:
        """Forget a file that is closed."""
        self._idle.pop(file, None)


def _close_quietly(chunks: Generator[bytes]) -> None:
    """Close a generator. A cancelled caller may have left a read in it, which hangs in another thread."""
    with suppress(ValueError):  # it runs
        chunks.close()
