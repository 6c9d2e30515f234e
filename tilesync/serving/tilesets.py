"""Tilesets that the server offers, and files of them: the interfaces between the server and what it serves."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Protocol

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


@dataclass(frozen=True, slots=True, kw_only=True)
class VersionRow:
    """A version of a tileset in `site.json`; None for what is not known. `url` is relative to the tileset."""

    name: str
    url: str
    export: str
    imodel: str | None
    display_name: str | None
    changeset: str | None
    modified: str | None
    finished: str | None = None
    files: int | None = None
    bytes: int | None = None
    current: bool
    missing: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class TilesetEntry:
    """A tileset in `site.json`. `title`: for people. `versions`: newest first. `follow`: takes up newer exports."""

    title: str
    kind: TilesetKind
    current: str | None
    follow: bool = False
    versions: Sequence[VersionRow] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class FileRow:
    """A file in `file.json`; None for what is not known. Digests are hexadecimal, and the time is ISO 8601."""

    name: str
    size: int | None
    sha256: str | None
    md5: str | None
    etag: str | None
    content_type: str | None
    content_encoding: str | None
    last_modified: str | None


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

    async def describe(self) -> TilesetEntry:
        """Return its entry in `site.json`. The server adds `name`, `base` and `url`."""

    async def find_file(self, version: str, name: str) -> FileRow | None:
        """Return what is known of a file; None if there is no such file."""

    async def diff_lines(self, a: str, b: str) -> DiffLines:
        """Compare two versions; return the lines that `tilesync diff --json` prints. The caller closes them."""
