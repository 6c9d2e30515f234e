"""Read the GLBs of the demo city."""

import json
import struct
from collections.abc import Sequence
from typing import Any


def split_glb(glb: bytes) -> tuple[dict[str, Any], bytes]:
    """Check the header and the chunk table (glTF 2.0, 4.4); return the JSON and the binary chunk."""
    magic, version, length, size, kind = struct.unpack_from("<4s3I4s", glb)
    assert (magic, version, length, kind, size % 4) == (b"glTF", 2, len(glb), b"JSON", 0)
    rest, kind = struct.unpack_from("<I4s", glb, 20 + size)
    assert (kind, rest % 4, 28 + size + rest) == (b"BIN\0", 0, len(glb))
    return json.loads(glb[20 : 20 + size]), glb[28 + size :]


def split_all_glbs(files: dict[str, bytes]) -> dict[str, tuple[dict[str, Any], bytes]]:
    return {name: split_glb(payload) for name, payload in files.items() if name.endswith(".glb")}


def dot(one: Sequence[float], other: Sequence[float]) -> float:
    return sum(a * b for a, b in zip(one, other, strict=True))
