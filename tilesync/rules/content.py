"""ContentCheck: what the stored bytes of one blob prove, computed chunk by chunk as they pass.

The result does not depend on how the bytes are cut into chunks.
"""

from __future__ import annotations

import hashlib
import struct
import zlib
from collections.abc import Iterator
from typing import Protocol

from tilesync.errors import BlobDamaged
from tilesync.model import Blob, Proof

GLB_MAGIC = b"glTF"
GZIP_MAGIC = b"\x1f\x8b"
_JSON_CHUNK = 0x4E4F534A
_PIECE = 1 << 16


class Shape(Protocol):
    """The structure of one format, followed without keeping the bytes."""

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""

    def finish(self) -> str | None:
        """What is wrong with the structure, None when nothing is."""


class GlbShape:
    """Header and chunk table of a binary glTF (glTF 2.0, section 4.4; version 1 by its header alone).

    Bytes after the declared length are tolerated, as every viewer does. `data` that is no glTF is a problem.
    """

    def __init__(self) -> None:
        self._offset = 0
        self._head = bytearray()
        self._at, self._need = 0, 12
        self._length = 0
        self._problem: str | None = None

    def feed(self, data: bytes) -> None:
        """Follow the next bytes."""
        end = self._offset + len(data)
        while self._need and self._at + len(self._head) < end:
            begin = self._at + len(self._head) - self._offset
            self._head += data[begin : begin + self._need - len(self._head)]
            if len(self._head) == self._need:
                head, self._head = bytes(self._head), bytearray()
                self._problem = self._file_header(head) if len(head) == 12 else self._chunk_header(head)
                if self._problem:
                    self._need = 0
        self._offset = end

    def _file_header(self, head: bytes) -> str | None:
        magic, version, self._length = struct.unpack("<4sII", head)
        if magic != GLB_MAGIC:
            return "it is named .glb but holds no glTF"
        if version not in {1, 2}:
            return f"GLB version {version} is unknown"
        self._at, self._need = (12, 8) if version == 2 else (0, 0)
        return None

    def _chunk_header(self, head: bytes) -> str | None:
        length, kind = struct.unpack("<II", head)
        if self._at == 12 and kind != _JSON_CHUNK:
            return "the first GLB chunk is not JSON"
        following = self._at + 8 + length
        if following > self._length:
            return f"a GLB chunk ends at byte {following}, behind the declared length {self._length}"
        self._at, self._need = following, 8 if following < self._length else 0
        return None

    def finish(self) -> str | None:
        """What is wrong, now that no more bytes come."""
        if self._problem:
            return self._problem
        if self._offset < 12:
            return "it is named .glb but holds no glTF" if self._offset < 4 else "the GLB header is cut off"
        if self._length > self._offset:
            return f"the GLB is cut off: its header says {self._length} bytes, {self._offset} are there"
        return "the GLB chunk table is cut off" if self._need else None


class _Unpacked:
    """The shape of what a gzip payload holds, in one member or several (RFC 1952, section 2.2)."""

    def __init__(self, shape: Shape) -> None:
        self._shape = shape
        self._gzip = zlib.decompressobj(wbits=31)
        self._problem: str | None = None

    def feed(self, data: bytes) -> None:
        if self._problem:
            return
        try:
            while data:
                if self._gzip.eof:
                    self._gzip = zlib.decompressobj(wbits=31)
                self._shape.feed(self._gzip.decompress(data, _PIECE))
                data = self._gzip.unused_data if self._gzip.eof else self._gzip.unconsumed_tail
        except zlib.error:
            self._problem = "its gzip payload is damaged"

    def finish(self) -> str | None:
        if not self._problem and not self._gzip.eof:
            self._problem = "its gzip payload is cut off"
        return self._problem or self._shape.finish()


class ContentCheck:
    """Length, MD5 where the listing claims one, SHA-256, and GLB structure of the bytes of one blob.

    GLB structure is checked where the name says `.glb` or the first bytes say glTF, through a gzip payload too.
    """

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._named_glb = blob.name.lower().endswith(".glb")
        self.restart()

    def restart(self) -> None:
        """Forget all bytes."""
        self.size = 0
        self._sha256 = hashlib.sha256()
        self._md5 = hashlib.md5(usedforsecurity=False) if self._blob.md5 is not None else None
        self._start: bytes | None = b""
        self._shape: Shape | None = None

    def feed(self, chunk: bytes) -> None:
        """Take in the next bytes, in order."""
        self.size += len(chunk)
        self._sha256.update(chunk)
        if self._md5 is not None:
            self._md5.update(chunk)
        if self._start is not None:
            chunk = self._start = self._start + chunk
            if len(chunk) < len(GLB_MAGIC):
                return
            self._start, self._shape = None, self._recognise(chunk)
        if self._shape is not None:
            self._shape.feed(chunk)

    def _recognise(self, start: bytes) -> Shape | None:
        if start.startswith(GZIP_MAGIC):
            return _Unpacked(GlbShape()) if self._named_glb else None
        return GlbShape() if self._named_glb or start.startswith(GLB_MAGIC) else None

    def finish(self) -> Proof:
        """The proof of the whole content. Raises BlobDamaged with every problem found."""
        if problems := list(self._problems()):
            raise BlobDamaged(f"{self._blob.name}: {'; '.join(problems)}")
        return Proof(self.size, self.sha256)

    def _problems(self) -> Iterator[str]:
        if self.size != self._blob.size:
            yield f"{self.size} bytes came, the listing says {self._blob.size}"
        if self._md5 is not None and self._md5.digest() != self._blob.md5:
            yield "its MD5 is not the one that the container states"
        if self._start is not None and self._named_glb:
            yield "it is named .glb but holds no glTF"
        if self._shape is not None and (problem := self._shape.finish()):
            yield problem

    @property
    def sha256(self) -> bytes:
        """SHA-256 of the bytes so far."""
        return self._sha256.digest()
