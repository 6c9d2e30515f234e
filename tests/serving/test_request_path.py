"""Test the paths of requests: each segment is decoded once, and no path leaves a folder."""

from __future__ import annotations

import pytest

from tilesync.serving.request_path import decode_path


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"/tileset.json", "tileset.json"),
        (b"/a/b.glb", "a/b.glb"),
        (b"/a+b%20c.glb", "a+b c.glb"),
        (b"/100%25.glb", "100%.glb"),
        (b"/%252e%252e/x", "%2e%2e/x"),
        (b"/%C3%A4/t.png", "ä/t.png"),
        (b"/...", "..."),
    ],
)
def test_each_segment_is_decoded_once(raw: bytes, path: str) -> None:
    """A plus sign stays one, and what was encoded twice is decoded once."""
    assert decode_path(raw) == path


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"/",
        b"*",
        b"x",
        b"//",
        b"/a//b",
        b"/a/",
        b"/..",
        b"/a/../b",
        b"/%2e%2e/x",
        b"/%2E%2e/x",
        b"/.%2e/x",
        b"/a/./b",
        b"/%2e/b",
        b"/a%2fb",
        b"/..%2f..%2fetc",
        b"/a%5cb",
        b"/..%5c..%5cetc",
        b"/a\\b",
        b"/a%00.glb",
        b"/a%0d%0ab",
        b"/a%7f",
        b"/%c0%ae%c0%ae/x",
        b"/%e0%80%ae/x",
        b"/%ff",
        b"/\xff",
        b"/" + b"a" * 300,
        b"/" + b"a/" * 600 + b"a",
    ],
)
def test_paths_that_no_file_has_are_refused(raw: bytes) -> None:
    """Dot segments, separators, control characters and overlong forms are refused in every encoding."""
    assert decode_path(raw) is None


def test_leading_slashes_count_as_one() -> None:
    """A viewer that doubles the slash after the host gets the file; other empty segments stay refused."""
    assert decode_path(b"//a/b.glb") == "a/b.glb"
    assert decode_path(b"///%C3%A4.glb") == "ä.glb"
    assert decode_path(b"//../a") is None
    assert decode_path(b"//a//b") is None
