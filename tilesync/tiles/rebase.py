"""Re-basing of a tileset: rewrite its URIs so that it works in another folder, as the pointer does."""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from urllib.parse import quote

from tilesync.errors import BlobDamaged
from tilesync.model import ROOT, Role
from tilesync.runtime.gzip import gunzip_chunks_if_packed
from tilesync.tiles.json_members import DOCUMENT_NODE
from tilesync.tiles.json_scanner import BOM, MAX_STRING_BYTES, Leaf, MalformedJson, Scanner
from tilesync.tiles.uris import RejectedUri, ResolvedUri, is_plain_path, is_relative_path, resolve

_URI_BLANKS = "".join(map(chr, range(0x21)))
"""Characters that viewers drop at the ends of a URI (WHATWG URL)."""

_PATH_SAFE = "/{}~!$&'()*+,;=:@"
"""Characters that may stand unencoded in the path of a URI; the braces belong to templates."""


class _UriRebaser:
    """Collect the edits that re-base each URI of a document that leads into the container."""

    def __init__(self, prefix: str, container_url: str) -> None:
        self._prefix = prefix
        self._container_url = container_url
        self.edits: deque[tuple[int, int, bytes]] = deque()
        self.is_tileset = False

    def on_string(self, leaf: Leaf, text: str, start: int, end: int) -> None:
        """Add the edit of one URI: insert the prefix before its first character."""
        if not isinstance(leaf.role, Role) or end - start > MAX_STRING_BYTES:
            return
        if is_plain_path(text):
            self.edits.append((start, start, self._prefix.encode()))
        elif path := _path_in_container(text, self._container_url):
            self.edits.append((start, end, json.dumps(self._prefix + path)[1:-1].encode()))
        elif not is_relative_path(text) or _leaves_container(text):
            return
        elif text[0] > " ":
            self.edits.append((start, start, self._prefix.encode()))
        else:
            self.edits.append((start, end, json.dumps(self._prefix + text.strip(_URI_BLANKS))[1:-1].encode()))

    def on_scalar(self, leaf: Leaf, raw: bytes) -> None:
        """Do nothing: not a URI."""

    def on_object_start(self, scope: str) -> None:
        """Detect a tileset: only a tileset has tiles."""
        self.is_tileset = self.is_tileset or scope == "tile"

    def on_object_end(self, scope: str) -> None:
        """Do nothing: only URIs are edited."""


def _leaves_container(uri: str) -> bool:
    """Return whether a relative URI of the root climbs out of the container; it then does so from anywhere."""
    target = resolve(uri, ROOT, "https://host/container")
    return isinstance(target, RejectedUri) and not target.has_unsafe_name


def _path_in_container(uri: str, container_url: str) -> str | None:
    """Find the path in the container that an absolute URI of the root names, without its query, which may be a
    signature.
    """
    target = resolve(uri, ROOT, container_url) if container_url else None
    if not isinstance(target, ResolvedUri) or not target.is_absolute:
        return None
    return quote(f"{target.name}/{target.archive_path}" if target.archive_path else target.name, safe=_PATH_SAFE)


def rebase(chunks: Iterable[bytes], prefix: str, container_url: str = "") -> Iterator[bytes]:
    """Prefix each relative URI of a tileset document, so that it works in another folder.

    Every other byte stays the same; gzip is unpacked, a byte order mark dropped. URIs that point to the container,
    whose bare URL is `container_url`, become relative. Other absolute URIs, `data:` and empty URIs stay, as do those
    that begin with `/`, `?` or `#` and those that leave the container. Raises BlobDamaged, at the end at the latest, if
    it is not a tileset.
    """
    rebaser = _UriRebaser(prefix, container_url)
    scanner = Scanner(DOCUMENT_NODE, rebaser)
    window, offset = b"", 0
    try:
        for chunk in gunzip_chunks_if_packed(chunks):
            window += chunk
            scanner.feed(chunk)
            edited, window, offset = _apply_edits(window, offset, scanner.position, rebaser.edits)
            yield edited
        scanner.finish()
    except MalformedJson as error:
        raise BlobDamaged(f"{ROOT}: {error}") from None
    if not rebaser.is_tileset:
        raise BlobDamaged(f"{ROOT}: it is JSON, but not a tileset (it has no root tile)")


def _apply_edits(window: bytes, at: int, until: int, edits: deque[tuple[int, int, bytes]]) -> tuple[bytes, bytes, int]:
    """Return the bytes of the window (it begins at `at`) up to `until` with the edits applied; the rest, and its
    offset.
    """
    pieces, done = [], len(BOM) if at == 0 and window.startswith(BOM) else at
    while edits:
        start, end, text = edits.popleft()
        pieces += [window[done - at : start - at], text]
        done = end
    pieces.append(window[done - at : until - at])
    return b"".join(pieces), window[until - at :], until
