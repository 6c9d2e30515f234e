"""Tilesets that the server offers, and files of them: the interfaces between the server and what it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Protocol

from tilesync.model.storage import ObjectHeaders
from tilesync.serving.comparisons import DiffLines


class TilesetKind(StrEnum):
    """Origin of the files of a tileset."""

    MIRROR = "mirror"
    PACKAGE = "package"
    LIVE = "live"


@dataclass(frozen=True, slots=True)
class FileFacts:
    """Facts of a file that its response states.

    `size`: stored bytes. `etag`: with its quotes. `last_modified`: seconds since the epoch, None if unknown.
    """

    size: int
    etag: str
    headers: ObjectHeaders
    last_modified: int | None = None


class ServedFile(Protocol):
    """File that was opened for one response.

    `body`: all of its bytes, if they were at hand when it was opened. `cache`: for the access log, `hit`, `miss` or
    `pass` of a cache; None where there is none.
    """

    @property
    def facts(self) -> FileFacts:
        """Facts that the response states."""

    @property
    def body(self) -> bytes | None:
        """All bytes, if they are at hand."""

    @property
    def cache(self) -> str | None:
        """Result of a cache."""

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`. An error closes the connection."""

    async def aclose(self) -> None:
        """Release the file. Called after each response, also without a body. May be called twice."""


class ServedTileset(Protocol):
    """Tileset that the server offers below one path.

    Its methods raise Transient, Unavailable or another TilesyncError if the place that stores it does not answer. The
    server answers 503 to the first two, 410 to ExportReplaced, 404 to UsageError, and 502 to all others.
    """

    @property
    def kind(self) -> TilesetKind:
        """Origin of its files."""

    async def open(self, path: str) -> ServedFile | None:
        """Open the file at a decoded path relative to the tileset; None if there is none that anybody may read.

        The server has refused paths with dot segments, empty segments, backslashes and control characters.
        """

    async def describe(self) -> Mapping[str, Any]:
        """Return its entry in `site.json`: title, kind, current, follow, and versions, newest first.

        Each `url` of a version is relative to the tileset. The server adds `name`, `base` and `url`.
        """

    async def find_file(self, version: str, name: str) -> Mapping[str, Any] | None:
        """Return what is known of a file: size, digests, type, encoding and times; None if there is no such file."""

    async def diff_lines(self, a: str, b: str) -> DiffLines:
        """Compare two versions; return the lines that `tilesync diff --json` prints. The caller closes them."""
