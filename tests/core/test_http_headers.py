"""HTTP headers of stored files."""

from __future__ import annotations

import gzip

import pytest

from tests.support.builders import glb, tileset
from tilesync.core.http_headers import IMMUTABLE_CACHE_CONTROL, CachePolicy, detect_media_type
from tilesync.model import Blob

GLB = glb(b"1")
OCTETS = "application/octet-stream"


@pytest.mark.parametrize(
    ("name", "head", "stated_type", "expected"),
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
def test_media_types(name: str, head: bytes, stated_type: str | None, expected: str) -> None:
    """The first bytes decide, then the name of a JSON document, then the type that the container states."""
    assert detect_media_type(name, head, stated_type) == expected


@pytest.mark.parametrize("stated_encoding", [None, "gzip"])
def test_gzip_payloads_have_their_encoding(stated_encoding: str | None) -> None:
    """The encoding is stated even if the container does not, and the type is that of the unpacked content."""
    headers = CachePolicy().file_headers(
        Blob("a.glb", 1, content_encoding=stated_encoding), gzip.compress(GLB, mtime=0)[:512]
    )
    assert headers == ("model/gltf-binary", "gzip", IMMUTABLE_CACHE_CONTROL)


def test_a_stated_encoding_is_kept() -> None:
    """The encoding that the container states is kept, even if the bytes do not show it."""
    assert CachePolicy().file_headers(Blob("a", 1, content_encoding="br"), b"\0").content_encoding == "br"


def test_broken_gzip_has_the_stated_type() -> None:
    """A gzip payload that cannot be unpacked has the type that the container states."""
    headers = CachePolicy().file_headers(Blob("a", 1, content_type="image/x"), b"\x1f\x8b\x08" + b"\xff" * 20)
    assert headers[:2] == ("image/x", "gzip")


def test_cache_control_is_configurable() -> None:
    """Files in versions, and documents that lead to them, have separate Cache-Control values."""
    policy = CachePolicy("max-age=60", "no-store")
    assert policy.file_headers(Blob("a", 1), b"").cache_control == "max-age=60"
    assert policy.document_headers() == ("application/json", None, "no-store")
