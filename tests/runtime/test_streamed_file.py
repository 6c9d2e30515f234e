"""Test files that are read by blocking calls, as a server reads them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from tilesync.errors import Unavailable
from tilesync.runtime.streamed_file import SMALL_FILE_BYTES, StreamedFile, StreamPool

DATA = os.urandom(3 * SMALL_FILE_BYTES)


class Source:
    """Bytes that are read in chunks; counts what is read, and what is open."""

    def __init__(self, data: bytes, chunk_bytes: int = 100_000) -> None:
        self.data = data
        self.chunk_bytes = chunk_bytes
        self.read_bytes = self.opened = self.closed = 0
        self.offsets: list[int] = []

    def read_from(self, offset: int) -> Iterator[bytes]:
        self.offsets.append(offset)
        self.opened += 1
        try:
            for start in range(offset, len(self.data), self.chunk_bytes):
                chunk = self.data[start : start + self.chunk_bytes]
                self.read_bytes += len(chunk)
                yield chunk
        finally:
            self.closed += 1

    def open(self, pool: ThreadPoolExecutor, streams: StreamPool | None = None) -> StreamedFile:
        chunks, streams = self.read_from(0), streams or StreamPool()
        return StreamedFile(len(self.data), '"e"', chunks, read_from=self.read_from, pool=pool, streams=streams)


async def read(file: StreamedFile, start: int, stop: int) -> bytes:
    try:
        return b"".join([chunk async for chunk in file.chunks(start, stop)])
    finally:
        await file.aclose()


@pytest.mark.parametrize(
    ("start", "stop"), [(0, len(DATA)), (0, 1), (5, 99_999), (5, 100_001), (100_000, 100_001), (250_000, 700_000)]
)
def test_any_part_of_a_large_file(start: int, stop: int) -> None:
    """Each part has its bytes; one that begins later is read from there, and every stream is closed."""
    source = Source(DATA)
    with ThreadPoolExecutor() as pool:
        assert asyncio.run(read(source.open(pool), start, stop)) == DATA[start:stop]
    assert source.offsets == ([0] if start < source.chunk_bytes else [0, start])
    assert source.opened == source.closed
    assert source.read_bytes <= stop - start + 2 * source.chunk_bytes


def test_a_small_file_is_read_at_once() -> None:
    """A small file is in memory when it is open, and has its true size."""
    with ThreadPoolExecutor() as pool:
        file = Source(DATA[:1000], 300).open(pool)
        assert (file.body, file.size, file.head) == (DATA[:1000], 1000, DATA[:512])
        assert asyncio.run(read(file, 10, 20)) == DATA[10:20]


def test_a_slow_reader_holds_one_chunk() -> None:
    """Nothing is read ahead of the reader."""
    source = Source(DATA)

    async def work() -> None:
        chunks = file.chunks(0, len(DATA))
        taken = 0
        async for chunk in chunks:
            taken += len(chunk)
            assert source.read_bytes <= taken + source.chunk_bytes

    with ThreadPoolExecutor() as pool:
        file = source.open(pool)
        asyncio.run(work())


def test_a_source_that_fails_in_the_middle() -> None:
    """The error reaches the reader, and closing the file afterwards is no error."""

    def fail() -> Iterator[bytes]:
        yield DATA[:1000]
        raise Unavailable("the store is gone")

    with ThreadPoolExecutor() as pool:
        file = StreamedFile(len(DATA), '"e"', fail(), read_from=lambda offset: fail(), pool=pool, streams=StreamPool())
        with pytest.raises(Unavailable):
            asyncio.run(read(file, 0, len(DATA)))


def test_streams_that_nobody_reads_are_closed() -> None:
    """More slow readers than the limit have no open stream each, and all get their bytes in the end."""
    sources = [Source(DATA) for _ in range(6)]

    async def work(pool: ThreadPoolExecutor) -> None:
        streams = StreamPool(max_open=2)
        files = [source.open(pool, streams) for source in sources]
        readers = [file.chunks(0, len(DATA)) for file in files]
        received = [b"" for _ in files]
        for _ in range(6):
            for number, reader in enumerate(readers):
                received[number] += await anext(reader)
        assert sum(source.opened - source.closed for source in sources) <= 2
        for number, reader in enumerate(readers):
            received[number] += b"".join([chunk async for chunk in reader])
            await files[number].aclose()
        assert received == [DATA] * 6

    with ThreadPoolExecutor() as pool:
        asyncio.run(work(pool))
    assert all(source.opened == source.closed > 1 for source in sources)
