"""Sum up the contents of one side that the other side does not have under any name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from tilesync.jobs.diff.facts import NAME_END
from tilesync.jobs.diff.sides import Side
from tilesync.jobs.diff.spool import PartitionedSpool

MAX_CONTENTS_IN_MEMORY: Final = 1 << 17
"""Contents that are looked up at once; each takes about 200 bytes of memory."""

_PARTITIONS: Final = 128
_SHA256 = re.compile(rb'"sha256":"([0-9a-f]{64})"')
_MD5 = re.compile(rb'"md5":"([0-9a-f]{32})"')


class NewContents:
    """Contents that may be new, each with its size. A content that several files have counts once.

    `uses_md5`: one of the sides has no SHA-256 of some files, so that the MD5 is looked up.
    """

    def __init__(self, *, uses_md5: bool) -> None:
        self._spool = PartitionedSpool(_PARTITIONS)
        self._digest = _MD5 if uses_md5 else _SHA256
        self._count = 0

    def add(self, facts: Sequence[bytes]) -> None:
        """Add files."""
        rests = [each.partition(NAME_END)[2] for each in facts]
        keys = [found[1] if (found := self._digest.search(rest)) else b"" for rest in rests]
        sizes = [rest.partition(b",")[0] for rest in rests]
        self._count += len(keys)
        self._spool.add(keys, list(map(b" ".join, zip(keys, sizes, strict=True))))

    def sum_missing(self, other: Side) -> int:
        """Return the bytes of the contents that the other side does not have. Reads it only if there are any."""
        if not self._count:
            return 0
        digests = (self._digest.findall(piece) for piece in other.open_pieces())
        if self._count <= MAX_CONTENTS_IN_MEMORY:
            return self._sum_missing(range(_PARTITIONS), digests)
        spool = PartitionedSpool(_PARTITIONS)
        for batch in digests:
            spool.add(batch, batch)
        return sum(self._sum_missing([number], iter([spool.read(number)])) for number in range(_PARTITIONS))

    def _sum_missing(self, partitions: Sequence[int], others: Iterator[list[bytes]]) -> int:
        rows = [record.partition(b" ") for number in partitions for record in self._spool.read(number)]
        sizes = {key: int(size) for key, _, size in rows if key}
        undigested_bytes = sum(int(size) for key, _, size in rows if not key)
        missing = set(sizes)
        for digests in others:
            missing.difference_update(digests)
        return undigested_bytes + sum(map(sizes.__getitem__, missing))
