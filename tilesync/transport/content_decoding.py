"""Decoding of gzip and deflate responses in small pieces, since a few bytes may decode to many."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Final

from tilesync.errors import Transient

_PIECE_BYTES: Final = 1 << 16
_GZIP_OR_ZLIB_WBITS: Final = 32 + zlib.MAX_WBITS
"""Makes zlib detect gzip or zlib from the first bytes."""


class ContentDecoder:
    """Incremental decoder of one response. Raises Transient for a coding that is damaged or not supported.

    Requests ask for no coding; some servers, and proxies before them, apply one nevertheless.
    """

    def __init__(self, coding: str | None) -> None:
        coding = (coding or "").strip().lower()
        if coding not in {"", "identity", "gzip", "x-gzip", "deflate"}:
            raise Transient(f"a response with an unsupported Content-Encoding ({coding[:40]!r})")
        self._zlib = None if coding in {"", "identity"} else zlib.decompressobj(wbits=_GZIP_OR_ZLIB_WBITS)
        self._has_data = False

    def feed(self, data: bytes) -> Iterator[bytes]:
        """Yield the decoded bytes of `data`, in small pieces."""
        if self._zlib is None:
            yield data
            return
        self._has_data = self._has_data or bool(data)
        while data and not self._zlib.eof:
            try:
                yield self._zlib.decompress(data, _PIECE_BYTES)
            except zlib.error:
                raise Transient("the connection failed (the compressed response is damaged)") from None
            data = self._zlib.unconsumed_tail

    def finish(self) -> None:
        """Check that the data is complete. Raises Transient when it was cut off."""
        if self._zlib is not None and self._has_data and not self._zlib.eof:
            raise Transient("the connection failed (the compressed response is cut off)")
