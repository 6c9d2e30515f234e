"""File that is read by blocking calls, as an asynchronous one: in threads, and with bounded memory."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Final

from tilesync.runtime.threads import run_in_executor

SMALL_FILE_BYTES: Final = 1 << 18
"""A file of at most this size is read when it is opened."""

HEAD_BYTES: Final = 512

_PIECE_BYTES: Final = 1 << 16
"""Bytes that are passed on at a time, so that a slow reader does not hold many of them twice."""

ReadFrom = Callable[[int], Iterator[bytes]]
"""Reads the same file from an offset on. Blocks."""


class StreamedFile:
    """A file in a store or in a package, open for one response.

    `chunks`: the bytes from the start on, as they arrive. `read_from` reads the same file anew, for a range. A piece is
    read only when the reader has taken the one before.
    """

    def __init__(
        self, size: int, etag: str, chunks: Iterator[bytes], read_from: ReadFrom, *, last_modified: int | None = None
    ) -> None:
        """Read the start of the file. Blocks."""
        self.size = size
        self.etag = etag
        self.last_modified = last_modified
        self.body: bytes | None = None
        self._pool: Executor | None = None
        self._read_from = read_from
        self._chunks = chunks
        if size <= SMALL_FILE_BYTES:
            self.body = self._start = b"".join(chunks)
            self.size = len(self.body)
        else:
            self._start = next(chunks, b"")
        self.head = self._start[:HEAD_BYTES]

    def use_threads_of(self, pool: Executor) -> StreamedFile:
        """Set the threads for its blocking calls; return the file itself."""
        self._pool = pool
        return self

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`."""
        if self.body is not None:
            yield self.body[start:stop]
            return
        chunk, position = self._start, 0
        if start >= len(chunk):
            await self.aclose()
            self._chunks = await run_in_executor(self._pool, partial(self._read_from, start))
            chunk, position = b"", start
        self._start = b""
        while position < stop:
            if not chunk:
                chunk = await run_in_executor(self._pool, partial(next, self._chunks, b""))
                if not chunk:
                    return
            begin, end = max(start - position, 0), min(stop - position, len(chunk))
            for offset in range(begin, end, _PIECE_BYTES):
                yield chunk[offset : min(offset + _PIECE_BYTES, end)]
            position, chunk = position + len(chunk), b""

    async def aclose(self) -> None:
        """Close the stream. May be called twice."""
        close = getattr(self._chunks, "close", None)
        self._chunks = iter(())
        if close is not None:
            await run_in_executor(self._pool, close)


async def open_streamed(pool: Executor, open_file: Callable[[], StreamedFile | None]) -> StreamedFile | None:
    """Open a file in a thread of `pool`; all later calls use these threads too."""
    file = await run_in_executor(pool, open_file)
    return file.use_threads_of(pool) if file is not None else None
