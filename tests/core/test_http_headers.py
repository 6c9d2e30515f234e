"""What a file says to those who serve it."""

from __future__ import annotations

import gzip

import pytest

from tests.support.builders import glb, tileset
from tilesync.core.http_headers import IMMUTABLE_CACHE_CONTROL, CachePolicy, detect_media_type
from tilesync.model import Blob

GLB = glb(b"1")
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("name", "head", "said", "expected"),
    [
        ("a.glb", GLB, None, "model/gltf-binary"),
        ("a.glb", GLB, OCTETS, "model/gltf-binary"),
        ("a.bin", GLB, "text/plain", "model/gltf-binary"),
        ("tileset.json", tileset(), OCTETS, "application/json"),
        ("a", b"\xef\xbb\xbf \n{", None, "application/json"),
        ("a.gltf", b"{}", OCTETS, "model/gltf+json"),
        ("a.GEOJSON", b"{}", None, "application/geo+json"),
        ("a.json", b"[1]", "application/schema+json", "application/schema+json"),
        ("a.subtree", b"subt", "text/plain", OCTETS),
        ("a.b3dm", b"b3dm", "application/json", OCTETS),
        ("a.png", b"\x89PNG\r\n", None, "image/png"),
        ("a.jpg", b"\xff\xd8\xff\xe0", None, "image/jpeg"),
        ("a.webp", b"RIFF....WEBP", None, "image/webp"),
        ("a.ktx2", b"\xabKTX 20", None, "image/ktx2"),
        ("a.bin", b"\0\1", None, OCTETS),
        ("a.bin", b"\0\1", "application/x-own", "application/x-own"),
        ("", b"", None, OCTETS),
    ],
)
def test_the_media_type_is_what_a_file_is(name: str, head: bytes, said: str | None, expected: str) -> None:
    """The first bytes decide, then the name of a document, then what its container said."""
    assert detect_media_type(name, head, said) == expected


@pytest.mark.parametrize("said", [None, "gzip"])
def test_a_gzip_payload_is_told(said: str | None) -> None:
    """Its encoding is stated whether the container did or not, and its type is that of what is packed."""
    label = CachePolicy().file_headers(Blob("a.glb", 1, content_encoding=said), gzip.compress(GLB, mtime=0)[:512])
    assert label == ("model/gltf-binary", "gzip", IMMUTABLE_CACHE_CONTROL)


def test_an_encoding_of_others_is_kept() -> None:
    """What the container says of the encoding stands, though the bytes do not show it."""
    assert CachePolicy().file_headers(Blob("a", 1, content_encoding="br"), b"\0").content_encoding == "br"


def test_what_only_begins_like_gzip_is_served_as_it_is_called() -> None:
    """A gzip that cannot be unpacked has the type that the container states."""
    label = CachePolicy().file_headers(Blob("a", 1, content_type="image/x"), b"\x1f\x8b\x08" + b"\xff" * 20)
    assert label[:2] == ("image/x", "gzip")


def test_caches_are_told_as_wished() -> None:
    """What lies in a version, and what leads there, each have their own word."""
    serving = CachePolicy("max-age=60", "no-store")
    assert serving.file_headers(Blob("a", 1), b"").cache_control == "max-age=60"
    assert serving.document_headers() == ("application/json", None, "no-store")
