"""Records in a temporary file, for comparisons that are larger than memory: in partitions, or sorted.

A record is a line of bytes without a line break. Some megabytes of records stay in memory, so a small comparison
writes no file. The file has no name, so nothing is left behind after a kill.
"""

from __future__ import annotations

import tempfile
import threading
from bisect import bisect_right
from collections.abc import Iterator, Sequence
from itertools import chain
from typing import IO, Final

from tilesync.runtime.os_errors import translate_os_errors

MAX_BUFFERED_BYTES: Final = 8 << 20
"""Bytes of records that a spool with partitions keeps in memory."""

MAX_SORTED_BYTES: Final = 16 << 20
"""Bytes of records that are sorted in memory. Fewer and longer runs are merged faster."""

_PIECE_BYTES: Final = 1 << 20
_READ_BYTES: Final = 1 << 18
_DISK_PROBLEM = "cannot use a temporary file for the comparison"


class _ScratchFile:
    """Temporary file without a name, created when it is first written. Any thread may use it."""

    def __init__(self) -> None:
        self._file: IO[bytes] | None = None
        self._size = 0
        self._lock = threading.Lock()

    def append(self, data: bytes) -> tuple[int, int]:
        """Append data; return its position and size."""
        with self._lock, translate_os_errors(_DISK_PROBLEM):
            if self._file is None:
                self._file = tempfile.TemporaryFile(prefix="tilesync-", buffering=0)  # noqa: SIM115 - closed with the spool
            self._file.seek(self._size)
            view = memoryview(data)
            while view:  # a write of a raw file may be short
                view = view[self._file.write(view) :]
        position, self._size = self._size, self._size + len(data)
        return position, len(data)

    def close(self) -> None:
        """Remove the file."""
        with self._lock:
            if self._file is not None:
                self._file.close()

    def read(self, position: int, size: int) -> bytes:
        """Read data."""
        assert self._file is not None
        with self._lock, translate_os_errors(_DISK_PROBLEM):
            self._file.seek(position)
            return self._file.read(size)


class PartitionedSpool:
    """Records in partitions by a key: equal keys are in the same partition."""

    def __init__(self, partitions: int) -> None:
        self.partitions = partitions
        self._buckets: list[list[bytes]] = [[] for _ in range(partitions)]
        self._extents: list[list[tuple[int, int]]] = [[] for _ in range(partitions)]
        self._buffered_bytes = 0
        self._file = _ScratchFile()

    def add(self, keys: Sequence[bytes], records: Sequence[bytes]) -> None:
        """Add records, each with its key."""
        buckets, partitions = self._buckets, self.partitions
        for number, record in zip(map(hash, keys), records, strict=True):
            buckets[number % partitions].append(record)
        self._buffered_bytes += sum(map(len, records))
        if self._buffered_bytes > MAX_BUFFERED_BYTES:
            self._flush()

    def _flush(self) -> None:
        for bucket, extents in zip(self._buckets, self._extents, strict=True):
            if bucket:
                extents.append(self._file.append(b"\n".join(bucket)))
                bucket.clear()
        self._buffered_bytes = 0

    def read(self, partition: int) -> list[bytes]:
        """Return the records of a partition."""
        records = list(self._buckets[partition])
        for position, size in self._extents[partition]:
            records += self._file.read(position, size).split(b"\n")
        return records


class PlainSpool:
    """Records in the order in which they were added. `records`: their number."""

    def __init__(self) -> None:
        self.records = 0
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._extents: list[tuple[int, int]] = []
        self._file = _ScratchFile()

    def add(self, records: Sequence[bytes]) -> None:
        """Add records."""
        self._buffer += records
        self.records += len(records)
        self._buffered_bytes += sum(map(len, records))
        if self._buffered_bytes > _PIECE_BYTES:
            self._extents.append(self._file.append(b"\n".join(self._buffer)))
            self._buffer, self._buffered_bytes = [], 0

    def pieces(self) -> Iterator[bytes]:
        """Yield all records in pieces of about 1 MiB, with a line break between two records."""
        yield from (self._file.read(*extent) for extent in self._extents)
        if self._buffer:
            yield b"\n".join(self._buffer)

    def batches(self) -> Iterator[list[bytes]]:
        """Yield all records in lists."""
        return (piece.split(b"\n") for piece in self.pieces())


class SortedSpool:
    """Records that are read back in ascending order, as often as wanted."""

    def __init__(self) -> None:
        self._buffer: list[bytes] = []
        self._buffered_bytes = 0
        self._runs: list[tuple[int, int]] = []
        self._file = _ScratchFile()
        self._is_sorted = True

    def add(self, records: Sequence[bytes]) -> None:
        """Add records."""
        self._buffer += records
        self._is_sorted = False
        self._buffered_bytes += sum(map(len, records))
        if self._buffered_bytes > MAX_SORTED_BYTES:
            self._buffer.sort()
            self._runs.append(self._file.append(b"\n".join(self._buffer)))
            self._buffer, self._buffered_bytes = [], 0

    def close(self) -> None:
        """Remove the temporary file. Nothing can be read after it."""
        self._buffer, self._runs = [], []
        self._file.close()

    def __iter__(self) -> Iterator[bytes]:
        return chain.from_iterable(self.batches())

    def batches(self) -> Iterator[list[bytes]]:
        """Yield all records in ascending order, in lists.

        A list has all records up to the smallest last record of the blocks that were read of each run: sorting a few
        sorted blocks is many times as fast as to merge them record by record.
        """
        if not self._is_sorted:
            self._buffer.sort()
            self._is_sorted = True
        readers = [iter([self._buffer]), *(self._read_run(*run) for run in self._runs)]
        blocks = [(next(reader), reader) for reader in readers]
        while blocks := [(block, reader) for block, reader in blocks if block]:
            last = min(block[-1] for block, _ in blocks)
            batch, rest = list[bytes](), list[tuple[list[bytes], Iterator[list[bytes]]]]()
            for block, reader in blocks:
                end = bisect_right(block, last)
                batch += block[:end]
                rest.append((block[end:] or next(reader, []), reader))
            batch.sort()
            yield batch
            blocks = rest

    def _read_run(self, position: int, size: int) -> Iterator[list[bytes]]:
        end, unfinished = position + size, b""
        while position < end:
            data = self._file.read(position, min(_READ_BYTES, end - position))
            position += len(data)
            *records, unfinished = (unfinished + data).split(b"\n")
            if records:
                yield records
        yield [unfinished]
