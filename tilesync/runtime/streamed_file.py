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

_PIECE_BYTES: Final = 1 << 16
"""Bytes that are passed on at a time, so that a slow reader does not hold many of them twice."""

ReadFrom = Callable[[int], Iterator[bytes]]
"""Reads the same file from an offset on. Blocks."""


class StreamedFile:
    """A file in a store or in a package, open for one response.

    `chunks`: the bytes from the start on, as they arrive. `read_from` reads the same file anew, for a range. `pool`:
    the threads for both. A piece is read only when the reader has taken the one before.
    """

    def __init__(self, size: int, etag: str, chunks: Iterator[bytes], *, read_from: ReadFrom, pool: Executor) -> None:
        """Read the start of the file. Blocks."""
        self.size = size
        self.etag = etag
        self.last_modified: int | None = None
        self.body: bytes | None = None
        self._pool: Executor = pool
        self._read_from = read_from
        self._chunks = chunks
        if size <= SMALL_FILE_BYTES:
            self.body = self._start = b"".join(chunks)
            self.size = len(self.body)
        else:
            self._start = next(chunks, b"")
        self.head = self._start[:HEAD_BYTES]

    async def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`."""
        if self.body is not None:
            yield self.body[start:stop]
            return
        chunk, position = self._start, 0
        if start >= len(chunk):
            await self.aclose()
            self._chunks = await run_abandonable(self._pool, partial(self._read_from, start))
            chunk, position = b"", start
        self._start = b""
        while position < stop:
            if not chunk:
                chunk = await run_abandonable(self._pool, partial(next, self._chunks, b""))
                if not chunk:
                    return
            begin, end = max(start - position, 0), min(stop - position, len(chunk))
            for offset in range(begin, end, _PIECE_BYTES):
                yield chunk[offset : min(offset + _PIECE_BYTES, end)]
            position, chunk = position + len(chunk), b""

    async def aclose(self) -> None:
        """Close the stream. May be called twice."""
        chunks, self._chunks = self._chunks, iter(())
        if isinstance(chunks, Generator):
            await run_abandonable(self._pool, partial(_close_quietly, chunks))


def _close_quietly(chunks: Generator[bytes]) -> None:
    """Close a generator. A cancelled caller may have left a read in it, which hangs in another thread."""
    with suppress(ValueError):  # it runs
        chunks.close()
