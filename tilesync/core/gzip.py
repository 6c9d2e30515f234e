"""Payloads that are stored gzip-compressed, unpacked as a stream (RFC 1952)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from tilesync.errors import BlobDamaged

GZIP_MAGIC = b"\x1f\x8b"
PACKED = GZIP_MAGIC + b"\x08"
"""With the only compression method that there is: a bitstream in 65,536 begins with the first two bytes by chance."""

MOST = 1 << 36
"""Bytes that one payload may unpack to: input is untrusted, and a gzip stream can claim a thousand times its size."""

_PIECE = 1 << 16


class Unpacker:
    """One gzip payload, in one member or several, fed in pieces. Raises BlobDamaged for one that is broken.

    `size`: how many bytes it unpacked to so far.
    """

    def __init__(self) -> None:
        self._gzip = zlib.decompressobj(wbits=31)
        self.size = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bytes that the next ones unpack to, in pieces that are not small even where the members are."""
        for at in range(0, len(data), _PIECE):  # each end of a member copies what follows it
            pieces, size = list[bytes](), 0
            for piece in self._members(data[at : at + _PIECE]):
                pieces.append(piece)
                size += len(piece)
                if size >= _PIECE:
                    yield b"".join(pieces)
                    pieces, size = [], 0
            if size:
                yield b"".join(pieces)

    def _members(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._gzip.eof:
                if not (data := data.lstrip(b"\0")):  # which pad a file, and are ignored as gzip does
                    return
                self._gzip = zlib.decompressobj(wbits=31)
            try:
                piece = self._gzip.decompress(data, _PIECE)
            except zlib.error:
                raise BlobDamaged("its gzip payload is damaged") from None
            self.size += len(piece)
            if self.size > MOST:
                raise BlobDamaged(f"its gzip payload unpacks to more than {MOST:,} bytes")
            data = self._gzip.unused_data if self._gzip.eof else self._gzip.unconsumed_tail
            yield piece

    def finish(self) -> None:
        """No more comes."""
        if not self._gzip.eof:
            raise BlobDamaged("its gzip payload is cut off")


def unpacked(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The bytes of a file, unpacked where they are gzip-compressed. Raises BlobDamaged."""
    pieces = iter(chunks)
    start = b""
    for piece in pieces:
        start += piece
        if len(start) >= len(GZIP_MAGIC):
            break
    if not start.startswith(GZIP_MAGIC):
        yield start
        yield from pieces
        return
    yield from gunzipped(chain([start], pieces))


def gunzipped(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What a gzip payload unpacks to. Raises BlobDamaged."""
    unpacker = Unpacker()
    for chunk in chunks:
        yield from unpacker.feed(chunk)
    unpacker.finish()
