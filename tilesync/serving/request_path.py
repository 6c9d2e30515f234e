"""Path of a request: decode each segment once, and refuse whatever could leave a folder."""

from __future__ import annotations

from urllib.parse import unquote_to_bytes

from tilesync.core.safe_names import find_problem

_DECODED_SEPARATORS = frozenset("/\\")


def decode_path(raw_path: bytes) -> str | None:
    """Return the path of a request without its first slash; None if it cannot be that of a file.

    Dot segments, empty segments, backslashes, control characters, bytes that are not UTF-8, and separators that were
    encoded are refused, as no name in a destination has them. Source: RFC 3986, sections 2.1 and 3.3. Several leading
    slashes count as one: 3d-tiles-renderer (0.5.3) requests `//NAME` for a URI of a tileset at the root of a server.
    """
    if not raw_path.startswith(b"/"):
        return None
    relative = raw_path.lstrip(b"/")
    try:
        path = relative.decode("ascii") if b"%" not in relative else _decode_segments(relative)
    except UnicodeDecodeError:
        return None
    return path if path and find_problem(path) is None else None


def _decode_segments(raw_path: bytes) -> str:
    """Decode each segment. One with an encoded separator becomes `..`, which no name has."""
    segments = [unquote_to_bytes(segment).decode() for segment in raw_path.split(b"/")]
    return "/".join(".." if _DECODED_SEPARATORS.intersection(segment) else segment for segment in segments)
