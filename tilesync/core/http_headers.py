"""What a file says to those who serve it: its media type and its encoding, told by its first bytes."""

from __future__ import annotations

import zlib
from dataclasses import dataclass
from typing import Final

from tilesync.core.gzip import GZIP_DEFLATE_MAGIC
from tilesync.errors import UsageError
from tilesync.model import Blob
from tilesync.model.storage import ObjectHeaders

HEAD_BYTES: Final = 512
"""Bytes from the beginning of a file that suffice."""

_MEDIA_TYPES_BY_MAGIC: Final = {
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

_JSON_MEDIA_TYPES: Final = {".gltf": "model/gltf+json", ".geojson": "application/geo+json"}
_OCTET_STREAM: Final = "application/octet-stream"
_JSON_BLANKS: Final = b"\xef\xbb\xbf \t\r\n"

IMMUTABLE_CACHE_CONTROL: Final = "public, max-age=31536000, immutable"
"""What lies in a version never changes. Source: RFC 8246."""

REVALIDATE_CACHE_CONTROL: Final = "no-cache"
"""What names the current version is asked for anew each time. Source: RFC 9111, section 5.2.2.4."""


def parse_header_value(text: str, option: str) -> str:
    """What may stand in a header. Raises UsageError for anything else. Source: RFC 9110, section 5.5."""
    if not text.strip() or not (text.isascii() and text.isprintable()):
        raise UsageError(f"{option} is to be the value of a header: letters, digits and signs of ASCII on one line")
    return text.strip()


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """How long caches keep what lies in a version, and what leads there."""

    version_cache_control: str = IMMUTABLE_CACHE_CONTROL
    pointer_cache_control: str = REVALIDATE_CACHE_CONTROL

    def file_headers(self, blob: Blob, head: bytes) -> ObjectHeaders:
        """How a file of a version is served; `head` are its first bytes.

        The encoding that its container states is kept; a gzip payload without one gets it, since no viewer can read it
        else.
        """
        packed = head.startswith(GZIP_DEFLATE_MAGIC)
        encoding = blob.content_encoding or ("gzip" if packed else None)
        start = _gunzip_head(head) if packed else head
        return ObjectHeaders(
            detect_media_type(blob.name, start, blob.content_type), encoding, self.version_cache_control
        )

    def document_headers(self, media: str = "application/json") -> ObjectHeaders:
        """How the pointer, and what else names versions, is served."""
        return ObjectHeaders(media, None, self.pointer_cache_control)


def detect_media_type(name: str, head: bytes, stated_type: str | None) -> str:
    """The media type of a file by what it is, else by what its container said of it, else octets."""
    for magic, media in _MEDIA_TYPES_BY_MAGIC.items():
        if head.startswith(magic):
            return media
    if head.lstrip(_JSON_BLANKS)[:1] in {b"{", b"["}:
        ending = name[name.rfind(".") :].lower() if "." in name else ""
        return _JSON_MEDIA_TYPES.get(ending) or (
            stated_type if stated_type and "json" in stated_type else "application/json"
        )
    return stated_type or _OCTET_STREAM


def _gunzip_head(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""
