"""HTTP headers of stored files: media type, encoding and caching, detected from their first bytes."""

from __future__ import annotations

import zlib
from typing import Final

from tilesync.errors import UsageError
from tilesync.model import Blob
from tilesync.model.storage import HEAD_BYTES, ObjectHeaders
from tilesync.runtime.gzip import GZIP_DEFLATE_MAGIC
from tilesync.values import dataclass

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
"""Media types by the first bytes of a file.

Source: glTF 2.0, section 4.4.1; 3D Tiles 1.1, "File Extensions and Media Types"; IANA, "Media Types".
"""

_JSON_MEDIA_TYPES: Final = {".gltf": "model/gltf+json", ".geojson": "application/geo+json"}
_OCTET_STREAM: Final = "application/octet-stream"
_JSON_BLANKS: Final = b"\xef\xbb\xbf \t\r\n"

IMMUTABLE_CACHE_CONTROL: Final = "public, max-age=31536000, immutable"
"""Cache-Control of files in a version, which never change. Source: RFC 8246."""

REVALIDATE_CACHE_CONTROL: Final = "no-cache"
"""Cache-Control of documents that name the current version: caches must ask each time.

Source: RFC 9111, section 5.2.2.4.
"""


def parse_header_value(text: str, option: str) -> str:
    """Return a text that is valid in a header. Raises UsageError for any other. Source: RFC 9110, section 5.5."""
    if not text.strip() or not (text.isascii() and text.isprintable()):
        raise UsageError(f"{option} must be a valid header value: printable ASCII characters on one line")
    return text.strip()


@dataclass(frozen=True, slots=True)
class CachePolicy:
    """Cache-Control values for the files of versions and for the documents that lead to them."""

    version_cache_control: str = IMMUTABLE_CACHE_CONTROL
    pointer_cache_control: str = REVALIDATE_CACHE_CONTROL

    def file_headers(self, blob: Blob, head: bytes) -> ObjectHeaders:
        """Return the headers of a file of a version; `head` is its first bytes.

        The encoding that its container states is kept. A gzip payload without an encoding gets `gzip`, since no viewer
        could read it otherwise.
        """
        is_gzip = head.startswith(GZIP_DEFLATE_MAGIC)
        encoding = blob.content_encoding or ("gzip" if is_gzip else None)
        start = _gunzip_head(head) if is_gzip else head
        return ObjectHeaders(
            detect_media_type(blob.name, start, blob.content_type), encoding, self.version_cache_control
        )

    def document_headers(self, media: str = "application/json") -> ObjectHeaders:
        """Return the headers of the pointer, and of other documents that name versions."""
        return ObjectHeaders(media, None, self.pointer_cache_control)


def detect_media_type(name: str, head: bytes, stated_type: str | None) -> str:
    """Return the media type from the first bytes, else the one that the container states, else octet-stream."""
    for magic, media in _MEDIA_TYPES_BY_MAGIC.items():
        if head.startswith(magic):
            return media
    if head.lstrip(_JSON_BLANKS)[:1] in {b"{", b"["}:
        suffix = name[name.rfind(".") :].lower() if "." in name else ""
        return _JSON_MEDIA_TYPES.get(suffix) or (
            stated_type if stated_type and "json" in stated_type else "application/json"
        )
    return stated_type or _OCTET_STREAM


def is_self_describing(head: bytes) -> bool:
    """Return whether the first bytes of a file alone tell its type and encoding."""
    return head.startswith((GZIP_DEFLATE_MAGIC, *_MEDIA_TYPES_BY_MAGIC)) or head.lstrip(_JSON_BLANKS)[:1] in {
        b"{",
        b"[",
    }


def _gunzip_head(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(wbits=31).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""
