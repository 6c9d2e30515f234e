"""References read from the beginning of a file, for formats whose beginning contains all of them."""

from __future__ import annotations

import struct
from typing import Final

from tilesync.errors import BlobDamaged
from tilesync.model import Blob, Kind, ParsedContent
from tilesync.tiles.references import ReferenceCollector

PROBE_BYTES: Final = 1 << 14
"""Bytes at the beginning that are read first."""

MAX_HEADER_BYTES: Final = 1 << 22
"""Maximum bytes to read at the beginning of a file. If more are needed, the whole file is read, which is cheaper."""

_KINDS_WITHOUT_REFERENCES: Final = {Kind.IMAGE, Kind.NONE, Kind.VOXELS}
"""Kinds that never reference other files."""


def read_header(blob: Blob, container_url: str, prefix: bytes) -> ParsedContent | int | None:
    """Parse the references of a file from its first bytes.

    Returns the number of bytes needed if `prefix` is too short, and None if the whole file is needed. The JSON
    chunk of a GLB comes first and contains all references. Source: glTF 2.0, section 4.4. Raises BlobDamaged if the
    beginning contradicts the name or the length of the file.
    """
    from tilesync.tiles.payload import Payload  # late: a run without changes reads no file

    references = ReferenceCollector(blob.name, container_url)
    payload = Payload(blob.name, references)
    payload.feed(prefix)
    if payload.kind in _KINDS_WITHOUT_REFERENCES and not payload.expects_more:
        return ParsedContent(payload.kind)
    if payload.kind is not Kind.GLB or len(prefix) < 20:
        return None
    version, length, size = struct.unpack_from("<3I", prefix, 4)
    needed: int = 20 + size + 8
    if version != 2 or needed > min(MAX_HEADER_BYTES, blob.size):
        return None
    if length > blob.size:
        raise BlobDamaged(f"{blob.name}: its header says {length} bytes, but it has {blob.size}")
    if len(prefix) < needed:
        return needed
    payload.report_buffer_lengths()
    found, diagnostics = references.drain()
    return ParsedContent(Kind.GLB, found, diagnostics)
