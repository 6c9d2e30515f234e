"""Where a tileset names other files, and the same sites rewritten.

One table of sites serves every reader. It iterates, never recurses: a tileset is untrusted input.
"""

from __future__ import annotations

import gzip
import json
import re
import zlib
from collections.abc import Iterator
from typing import Any

from tilesync.errors import BlobDamaged
from tilesync.model import ROOT
from tilesync.rules.content import GZIP_MAGIC

_SCHEME = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*:")
_URI_KEY = re.compile(r"(?:uri|url|.+U(?:ri|RI|rl|RL))")
_OPAQUE = frozenset({"extras", "schema", "metadata", "properties", "statistics"})

Site = tuple[dict[str, Any], str]
"""An object of a tileset and the key in it that holds a URI."""


def parse_tileset(data: bytes, name: str = ROOT) -> dict[str, Any]:
    """The tileset JSON in `data`, stored plain or gzip-compressed, with or without a byte order mark.

    Raises BlobDamaged when it is no tileset.
    """
    try:
        if data.startswith(GZIP_MAGIC):
            data = gzip.decompress(data)
        tileset = json.loads(data.decode("utf-8-sig"))
    except (ValueError, OSError, EOFError, zlib.error, RecursionError) as error:
        raise BlobDamaged(f"{name}: it is no readable tileset JSON ({type(error).__name__})") from error
    if not isinstance(tileset, dict) or not isinstance(tileset.get("root"), dict):
        raise BlobDamaged(f"{name}: it is JSON, but no tileset (it has no root tile)")
    return tileset


def sites(tileset: dict[str, Any]) -> Iterator[Site]:
    """Every place of a tileset that holds a URI (3D Tiles 1.1, "URIs"): `uri`, `url` and `…Uri` strings anywhere.

    That covers contents, legacy `url`, implicit subtrees, `schemaUri`, and extensions known or not. `extras` and
    metadata are left out: what they hold belongs to the application.
    """
    pending: list[Any] = [tileset]
    while pending:
        node = pending.pop()
        if isinstance(node, list):
            pending.extend(item for item in node if isinstance(item, dict | list))
            continue
        for key, value in node.items():
            if isinstance(value, str) and _URI_KEY.fullmatch(key):
                yield node, key
            elif isinstance(value, dict | list) and key not in _OPAQUE:
                pending.append(value)


def rebase(data: bytes, prefix: str) -> bytes:
    """The tileset document in `data` with each relative URI prefixed, to stand that many folders above its place.

    Absolute, `data:` and empty URIs, and those that begin with `/`, `?` or `#`, stay as they are. Raises BlobDamaged
    when `data` is no tileset.
    """
    tileset = parse_tileset(data)
    for node, key in sites(tileset):
        if relative(node[key]):
            node[key] = prefix + node[key]
    try:
        return json.dumps(tileset, separators=(",", ":"), allow_nan=False).encode()
    except (ValueError, RecursionError) as error:
        raise BlobDamaged(f"{ROOT}: it cannot be written again as JSON ({error})") from error


def relative(uri: str) -> bool:
    """Whether a URI is a relative-path reference (RFC 3986, section 4.2) that names a file."""
    return bool(uri) and uri[0] not in "/?#" and not _SCHEME.match(uri)
