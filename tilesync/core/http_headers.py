"""What a file says to those who serve it: its media type and its encoding, told by its first bytes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from tilesync.core.gzip import PACKED
from tilesync.errors import UsageError
from tilesync.model import Blob
from tilesync.model.storage import Label

HEAD: Final = 512
"""Bytes from the beginning of a file that suffice."""

_TYPES: Final = {
    b"glTF": "model/gltf-binary",
    b"\x89PNG": "image/png",
    b"\xff\xd8\xff": "image/jpeg",
    b"RIFF": "image/webp",
    b"\xabKTX": "image/ktx2",
    b"GIF8": "image/gif",
    b"b3dm": "application/octet-stream",
    b"i3dm": "application/octet-stream",
    b"cmpt": "application/octet-stream",
    b"pnts": "application/octet-stream",
    b"subt": "application/octet-stream",
}
"""Source: glTF 2.0, section 4.4.1; 3D Tiles 1.1, "File Extensions and Media Types"; IANA, "Media Types"."""

_JSON: Final = {".gltf": "model/gltf+json", ".geojson": "application/geo+json"}
_ANY: Final = "application/octet-stream"
_BLANK: Final = b"\xef\xbb\xbf \t\r\n"

IMMUTABLE: Final = "public, max-age=31536000, immutable"
"""What lies in a version never changes. Source: RFC 8246."""

REVALIDATED: Final = "no-cache"
"""What names the current version is asked for anew each time. Source: RFC 9111, section 5.2.2.4."""


def field_value(text: str, option: str) -> str:
    """What may stand in a header. Raises UsageError for anything else. Source: RFC 9110, section 5.5."""
    if not text.strip() or not (text.isascii() and text.isprintable()):
        raise UsageError(f"{option} is to be the value of a header: letters, digits and signs of ASCII on one line")
    return text.strip()


@dataclass(frozen=True, slots=True)
class Serving:
    """How long caches keep what lies in a version, and what leads there."""

    version: str = IMMUTABLE
    pointer: str = REVALIDATED

    def label(self, blob: Blob, head: bytes) -> Label:
        """How a file of a version is served; `head` are its first bytes.

        The encoding that its container states is kept; a gzip payload without one gets it, since no viewer can read it
        else.
        """
        packed = head.startswith(PACKED)
        encoding = blob.content_encoding or ("gzip" if packed else None)
        start = _unpacked(head) if packed else head
        return Label(media_type(blob.name, start, blob.content_type), encoding, self.version)

    def document(self, media: str = "application/json") -> Label:
        """How the pointer, and what else names versions, is served."""
        return Label(media, None, self.pointer)


def media_type(name: str, head: bytes, said: str | None) -> str:
    """The media type of a file by what it is, else by what its container said of it, else octets."""
    for magic, media in _TYPES.items():
        if head.startswith(magic):
            return media
    if head.lstrip(_BLANK)[:1] in {b"{", b"["}:
        ending = name[name.rfind(".") :].lower() if "." in name else ""
        return _JSON.get(ending) or (said if said and "json" in said else "application/json")
    return said or _ANY


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD)
    except zlib.error:
        return b""
