"""Content codings of answers, undone within bounds: a few bytes may stand for many."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from tilesync.errors import Transient

_PIECE_BYTES: Final = 1 << 16
_GZIP_OR_ZLIB_WBITS: Final = 32 + zlib.MAX_WBITS
"""Gzip or zlib, as the first bytes say."""


class ContentDecoder:
    """Undoes the coding of one answer, piece by piece. Raises Transient for one that is damaged or not known.

    No coding is asked for: this is for servers, and what is before them, that code all the same.
    """

    def __init__(self, coding: str | None) -> None:
        coding = (coding or "").strip().lower()
        if coding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise Transient(f"an answer in a coding that nobody asked for ({coding[:40]!r})")
        self._zlib = None if coding in {"", "identity"} else zlib.decompressobj(wbits=_GZIP_OR_ZLIB_WBITS)
        self._has_data = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """What the next bytes stand for, in small pieces."""
        if self._zlib is None:
            yield data
            return
        self._has_data = self._has_data or bool(data)
        while data and not self._zlib.eof:
            try:
                yield self._zlib.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise Transient("the connection failed (the coding of the answer is damaged)") from None
            data = self._zlib.unconsumed_tail

    def finish(self) -> None:
        """No more comes."""
        if self._zlib is not None and self._has_data and not self._zlib.eof:
            raise Transient("the connection failed (the coding of the answer is cut off)")
