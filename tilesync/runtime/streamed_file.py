"""Files that are read while they are sent, with bounded memory: streams of slow readers are closed, and continued."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Generator, Iterator
from concurrent.futures import Executor
from contextlib import suppress
from functools import partial
from typing import Final

from tilesync.model.storage import HEAD_BYTES
from tilesync.runtime.threads import run_abandonable

SMALL_FILE_BYTES: Final = 1 << 18
"""A file of at most this size is read when it is opened."""

MAX_OPEN_STREAMS: Final = 64
"""Streams that stay open while their readers are slow. Each may hold a megabyte in buffers of its client library."""

STREAM_PIECE_BYTES: Final = 1 << 16
"""Bytes that are passed on at a time, so that a slow reader does not hold many of them twice."""

ReadFrom = Callable[[int], Iterator[bytes]]
"""Reads a file from an offset on. Blocks."""


class ThreadedChunks:
    """Chunks of a blocking iterator, which is read in threads, and made there unless it is given."""

    def __init__(
        self, pool: Executor, make_chunks: Callable[[], Iterator[bytes]], *, made: Iterator[bytes] | None = None
    ) -> None:
        self._pool = pool
        self._make_chunks = make_chunks
        self._chunks = made

    def __aiter__(self) -> ThreadedChunks:
        return self

    async def __anext__(self) -> bytes:
        if chunk := await run_abandonable(self._pool, self._read_next):
            return chunk
        raise StopAsyncIteration

    def _read_next(self) -> bytes:
        if self._chunks is None:
            self._chunks = self._make_chunks()
        return next(self._chunks, b"")

    async def aclose(self) -> None:
        """Close the iterator in a thread."""
        if isinstance(self._chunks, Generator):
            await run_abandonable(self._pool, partial(_close_quietly, self._chunks))


Chunks = ThreadedChunks | AsyncGenerator[bytes, None]

OpenChunks = Callable[[int], Chunks]
"""Opens a file at an offset, as soon as its first chunk is read."""


class StreamPool:
    """Limit of streams that are open while nobody reads them.

    Beyond the limit, the stream that was not read for the longest time is closed; its reader does not notice, as its
    next read continues where it was.
    """

    def __init__(self, *, max_open: int = MAX_OPEN_STREAMS) -> None:
        self._max_open = max_open
        self._idle: dict[ResumableStream, None] = {}

    @property
    def is_full(self) -> bool:
        """True if the next stream that becomes idle costs another one what that has read ahead."""
        return len(self._idle) >= self._max_open

    async def mark_idle(self, stream: ResumableStream) -> None:
        """Note that a stream is open and waits for its reader; close those that have waited for the longest time."""
        self._idle[stream] = None
        while len(self._idle) > self._max_open:
            await next(iter(self._idle)).aclose()

    def forget(self, stream: ResumableStream) -> None:
        """Forget a stream that is closed, or is being read."""
        self._idle.pop(stream, None)


class ResumableStream:
    """Stream of a file for one reader. `chunks`, if it is open already, goes on behind `buffer`, the start of the file.

    A chunk is read only when the reader has taken the one before.
    """

    def __init__(
        self, open_chunks: OpenChunks, streams: StreamPool, *, chunks: Chunks | None = None, buffer: bytes = b""
    ) -> None:
        self._open_chunks = open_chunks
        self._streams = streams
        self._chunks = chunks
        self._buffer = buffer
        self._buffer_start = 0

    async def read(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the bytes from `start` to before `stop`, in small pieces; fewer if the file is shorter."""
        if start >= len(self._buffer):
            await self.aclose()
        else:
            await self._streams.mark_idle(self)
        while start < stop:
            if start >= self._buffer_start + len(self._buffer):
                await self._read_chunk(start)
                if not self._buffer:
                    return
            offset = start - self._buffer_start
            piece = self._buffer[offset : offset + min(STREAM_PIECE_BYTES, stop - start)]
            start += len(piece)
            yield piece

    async def _read_chunk(self, position: int) -> None:
        """Read the next chunk; open the file again if it was closed meanwhile."""
        self._streams.forget(self)
        self._buffer = b""
        if self._chunks is None:
            self._chunks = self._open_chunks(position)
        self._buffer, self._buffer_start = await anext(self._chunks, b""), position
        await self._streams.mark_idle(self)

    async def aclose(self) -> None:
        """Close the file, and forget what was read ahead. A later read opens it again. May be called twice."""
        self._streams.forget(self)
        chunks, self._chunks, self._buffer = self._chunks, None, b""
        if chunks is not None:
            await chunks.aclose()


class StreamedFile:
    """A file in a store or in a package, open for one response.

    `chunks`: the bytes from the start on, as they arrive. `read_from` reads the same file anew, for a range. `pool`
    runs both.
    """

    def __init__(
        self,
        size: int,
        etag: str,
        chunks: Iterator[bytes],
        *,
        read_from: ReadFrom,
        pool: Executor,
        streams: StreamPool,
    ) -> None:
        """Read the start of the file. Blocks."""
        self.size = size
        self.etag = etag
        self.last_modified: int | None = None
        self.body: bytes | None = None
        buffer = b"".join(chunks) if size <= SMALL_FILE_BYTES else next(chunks, b"")
        self.head = buffer[:HEAD_BYTES]
        if size <= SMALL_FILE_BYTES:
            self.body, self.size = buffer, len(buffer)
            return

        def open_chunks(offset: int, made: Iterator[bytes] | None = None) -> ThreadedChunks:
            return ThreadedChunks(pool, partial(read_from, offset), made=made)

        self._stream = ResumableStream(open_chunks, streams, chunks=open_chunks(len(buffer), chunks), buffer=buffer)

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`."""
        if self.body is not None:
            yield self.body[start:stop]
            return
        async for piece in self._stream.read(start, stop):
            yield piece

    async def aclose(self) -> None:
        """Close the stream. May be called twice."""
        if self.body is None:
            await self._stream.aclose()


def _close_quietly(chunks: Generator[bytes]) -> None:
    """Close a generator. A cancelled caller may have left a read in it, which hangs in another thread."""
    with suppress(ValueError):  # it runs
        chunks.close()
