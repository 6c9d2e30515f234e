"""What the beginning of a file says of the files that it asks for, where the beginning says all of it."""

from __future__ import annotations

import struct
from typing import Final

from tilesync.errors import BlobDamaged
from tilesync.model import Blob, Kind, ParsedContent
from tilesync.tiles.references import ReferenceCollector
from tilesync.tiles.validator import Payload

PROBE_BYTES: Final = 1 << 14
"""Bytes from the beginning that are worth a look."""

MAX_HEADER_BYTES: Final = 1 << 22
"""Bytes from the beginning at most: a file that needs more is better read whole."""

_KINDS_WITHOUT_REFERENCES: Final = {Kind.IMAGE, Kind.NONE, Kind.VOXELS}
"""Kinds that ask for nothing, whatever follows."""


def read_header(blob: Blob, container_url: str, prefix: bytes) -> ParsedContent | int | None:
    """What a file says, told by its beginning; as how many bytes more would tell; None where only the whole does.

    Of a GLB the JSON chunk tells all, and comes first. Source: glTF 2.0, section 4.4. Raises BlobDamaged where the
    beginning shows that the file is not what its name, or its own length, says.
    """
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
        raise BlobDamaged(f"{blob.name}: it says that it has {length} bytes, and has {blob.size}")
    if len(prefix) < needed:
        return needed
    payload.report_buffer_lengths()
    named, remarks = references.drain()
    return ParsedContent(Kind.GLB, named, remarks)
