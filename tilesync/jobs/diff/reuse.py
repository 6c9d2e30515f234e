"""Sum up the contents of one side that the other side does not have under any name."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Final

from tilesync.jobs.diff.sides import Side
from tilesync.jobs.diff.spool import PartitionedSpool

MAX_CONTENTS_IN_MEMORY: Final = 1 << 17
"""Contents that are looked up at once; each takes about 200 bytes of memory."""

_PARTITIONS: Final = 128
_SIZE: Final = re.compile(rb'","size":([0-9]++),"sha256"')


class NewContents:
    """Contents of a side that may be new. A content that several files have counts once.

    `uses_md5`: one of the sides has no SHA-256 of some files, so that the MD5 is looked up. A record of the spool is a
    digest and a size, or the size alone if the digest is not known.
    """

    def __init__(self, *, uses_md5: bool) -> None:
        self._spool = PartitionedSpool(_PARTITIONS)
        self._count = 0
        self._member, self._digits = (b'"md5":"', 32) if uses_md5 else (b'"sha256":"', 64)

    def add(self, records: Sequence[bytes]) -> None:
        """Add files."""
        member, digits = self._member, self._digits
        digests = [each.partition(member)[2][:digits] for each in records]
        self._count += len(records)
        self._spool.add(digests, list(map(bytes.__add__, digests, _SIZE.findall(b"\n".join(records)))))

    def sum_missing(self, other: Side) -> int:
        """Return the bytes of the contents that the other side does not have. Reads it only if there are any."""
        if not self._count:
            return 0
        digests = map(self._cut_digests, other.open_pieces())
        if self._count <= MAX_CONTENTS_IN_MEMORY:
            records = [each for number in range(_PARTITIONS) for each in self._spool.read(number)]
            return self._sum_missing(self._index(records), records, digests)
        spool = PartitionedSpool(_PARTITIONS)
        for batch in digests:
            spool.add(batch, batch)
        total = 0
        for number in range(_PARTITIONS):
            records = self._spool.read(number)
            total += self._sum_missing(self._index(records), records, [spool.read(number)])
        return total

    def _cut_digests(self, piece: bytes) -> list[bytes]:
        """Return all digests in a piece of a manifest."""
        digits = self._digits
        return [each[:digits] for each in piece.split(self._member)[1:]]

    def _index(self, records: Iterable[bytes]) -> dict[bytes, int]:
        """Return the size of each content by its digest."""
        digits = self._digits
        return {each[:digits]: int(each[digits:]) for each in records if len(each) > digits}

    def _sum_missing(self, sizes: dict[bytes, int], records: Iterable[bytes], others: Iterable[Iterable[bytes]]) -> int:
        missing = set(sizes)
        for known in others:
            missing.difference_update(known)
        unknown_bytes = sum(int(each) for each in records if len(each) <= self._digits)
        return unknown_bytes + sum(map(sizes.__getitem__, missing))

    def sum_differences(self, other: NewContents) -> tuple[int, int]:
        """Return the bytes of the contents that only this side has, and that only the other side has.

        For sides that have no other contents, so that neither is read again.
        """
        mine = others = 0
        for number in range(_PARTITIONS):
            my_records, other_records = self._spool.read(number), other._spool.read(number)
            my_sizes, other_sizes = self._index(my_records), self._index(other_records)
            mine += self._sum_missing(my_sizes, my_records, [other_sizes])
            others += self._sum_missing(other_sizes, other_records, [my_sizes])
        return mine, others
