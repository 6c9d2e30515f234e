"""Payloads that are stored gzip-compressed, unpacked as a stream (RFC 1952)."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Iterator
from itertools import chain

from tilesync.errors import BlobDamaged

GZIP_MAGIC = b"\x1f\x8b"
GZIP_DEFLATE_MAGIC = GZIP_MAGIC + b"\x08"
"""With the only compression method that there is: a bitstream in 65,536 begins with the first two bytes by chance."""

MAX_UNPACKED_BYTES = 1 << 36
"""Bytes that one payload may unpack to: input is untrusted, and a gzip stream can claim a thousand times its size."""

_CHUNK_BYTES = 1 << 16


class Unpacker:
    """One gzip payload, in one member or several, fed in pieces. Raises BlobDamaged for one that is broken.

    `size`: how many bytes it unpacked to so far.
    """

    def __init__(self) -> None:
        self._decompressor = zlib.decompressobj(wbits=31)
        self.unpacked_bytes = 0

    def feed(self, data: bytes) -> Iterator[bytes]:
        """The bytes that the next ones unpack to, in pieces that are not small even where the members are."""
        for at in range(0, len(data), _CHUNK_BYTES):  # each end of a member copies what follows it
            pieces, size = list[bytes](), 0
            for piece in self._decompress_members(data[at : at + _CHUNK_BYTES]):
                pieces.append(piece)
                size += len(piece)
                if size >= _CHUNK_BYTES:
                    yield b"".join(pieces)
                    pieces, size = [], 0
            if size:
                yield b"".join(pieces)

    def _decompress_members(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._decompressor.eof:
                if not (data := data.lstrip(b"\0")):  # which pad a file, and are ignored as gzip does
                    return
                self._decompressor = zlib.decompressobj(wbits=31)
            try:
                piece = self._decompressor.decompress(data, _CHUNK_BYTES)
            except zlib.error:
                raise BlobDamaged("its gzip payload is damaged") from None
            self.unpacked_bytes += len(piece)
            if self.unpacked_bytes > MAX_UNPACKED_BYTES:
                raise BlobDamaged(f"its gzip payload unpacks to more than {MAX_UNPACKED_BYTES:,} bytes")
            data = self._decompressor.unused_data if self._decompressor.eof else self._decompressor.unconsumed_tail
            yield piece

    def finish(self) -> None:
        """No more comes."""
        if not self._decompressor.eof:
            raise BlobDamaged("its gzip payload is cut off")


def gunzip_chunks_if_packed(chunks: Iterable[bytes]) -> Iterator[bytes]:
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
    yield from gunzip_chunks(chain([start], pieces))


def gunzip_chunks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """What a gzip payload unpacks to. Raises BlobDamaged."""
    unpacker = Unpacker()
    for chunk in chunks:
        yield from unpacker.feed(chunk)
    unpacker.finish()
