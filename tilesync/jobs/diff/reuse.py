"""Sum up the contents of one side that the other side does not have under any name."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Final

from tilesync.jobs.diff.sides import Side
from tilesync.jobs.diff.spool import PartitionedSpool

MAX_CONTENTS_IN_MEMORY: Final = 1 << 17
"""Contents that are looked up at once; each takes about 200 bytes of memory."""

_PARTITIONS: Final = 128
_SIZE = re.compile(rb'","size":([0-9]++),"sha256"')


class NewContents:
    """Contents that may be new. A content that several files have counts once.

    `uses_md5`: one of the sides has no SHA-256 of some files, so that the MD5 is looked up.
    """

    def __init__(self, *, uses_md5: bool) -> None:
        self._spool = PartitionedSpool(_PARTITIONS)
        self._count = 0
        member, digits = (b'"md5":"', 32) if uses_md5 else (b'"sha256":"', 64)
        self._member, self._digits = member, digits
        self._digest = re.compile(member + rb"([0-9a-f]{%d})" % digits)

    def add(self, facts: Sequence[bytes]) -> None:
        """Add files."""
        self._count += len(facts)
        self._spool.add(self._find_digests(facts), facts)

    def _find_digests(self, facts: Sequence[bytes]) -> list[bytes]:
        """Return the digest of each file; empty if it is not known."""
        member, digits = self._member, self._digits
        return [each.partition(member)[2][:digits] for each in facts]

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
        facts = [each for number in partitions for each in self._spool.read(number)]
        digests, sizes = self._find_digests(facts), map(int, _SIZE.findall(b"\n".join(facts)))
        size_by_digest, unknown_bytes = dict[bytes, int](), 0
        for digest, size in zip(digests, sizes, strict=True):
            if digest:
                size_by_digest[digest] = size
            else:
                unknown_bytes += size
        missing = set(size_by_digest)
        for known in others:
            missing.difference_update(known)
        return unknown_bytes + sum(map(size_by_digest.__getitem__, missing))
