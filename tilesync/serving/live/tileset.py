"""Tileset of a live export: the container's own paths behind a stable address, and each export at a pinned path."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Final

from tilesync.core.http_headers import REVALIDATE_CACHE_CONTROL, CachePolicy
from tilesync.core.safe_names import CURRENT_VERSION, find_universal_problem
from tilesync.errors import BlobMissing, NoFreshLink, UsageError
from tilesync.model import ROOT, Resolution
from tilesync.protocols import SourceResolver
from tilesync.runtime.threads import run_in_thread
from tilesync.serving.comparisons import DiffLines
from tilesync.serving.live.blob_files import BytesFile
from tilesync.serving.live.container_files import ContainerFiles
from tilesync.serving.live.context import LiveContext, find_server_hint
from tilesync.serving.live.follower import ExportFollower
from tilesync.serving.live.open_exports import RETIRED_HINT, OpenExport, OpenExports
from tilesync.serving.tilesets import FileFacts, FileRow, ServedFile, TilesetEntry, TilesetKind, VersionRow
from tilesync.tiles.rebase import rebase

SWITCH_WAIT_S: Final = 10.0
"""Seconds that a request for the root tileset waits for a newer export when the current one is gone."""

NO_FOLLOW_HINT: Final = "start tilesync serve again, with --follow to take up the newest export by itself"

_VERSIONS = "versions/"


@dataclass(frozen=True)
class LiveOptions:
    """Options of a live export. `follow`: take up newer exports; `poll`: how often to look for them.

    `title`: name for people, if the export has none.
    """

    follow: bool
    poll: timedelta
    title: str


class LiveTileset:
    """Tileset of the export that a resolver finds.

    With `follow` the root tileset leads to `versions/EXPORT_ID/`, so that a viewer never mixes two exports.
    """

    kind = TilesetKind.LIVE

    def __init__(self, resolver: SourceResolver, context: LiveContext, options: LiveOptions) -> None:
        self._resolver = resolver
        self._context = context
        self._options = options
        self._exports = OpenExports()
        self._follower = ExportFollower(
            resolver,
            self._exports,
            context,
            self._open_export,
            poll_s=options.poll.total_seconds(),
            follow=options.follow,
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """Open the export and watch over it as long as the context lasts. Raises the RunErrors of the search."""
        try:
            resolution = await self._resolver.resolve()
            self._exports.replace_current(await self._open_export(resolution), self._context.clock.monotonic())
        except NoFreshLink as error:
            error.hint = find_server_hint(error)
            raise
        watch = asyncio.create_task(self._follower.run())
        try:
            yield
        finally:
            watch.cancel()
            with suppress(asyncio.CancelledError):
                await watch
            await self._exports.aclose()

    async def _open_export(self, resolution: Resolution) -> OpenExport:
        source = await self._resolver.open_source(resolution)
        name = self._exports.next_name(resolution.export)
        hint = RETIRED_HINT if self._options.follow else NO_FOLLOW_HINT
        files = ContainerFiles(name, source, self._context, gone_hint=hint)
        opened = OpenExport(name, resolution.export, files, container_url=await source.container_url())
        await files.read_root()
        files.on_replaced = self._follower.wake
        return opened

    async def open(self, path: str) -> ServedFile | None:
        """Open the file at a path of the container, or below `versions/EXPORT_ID/`; None if there is none.

        Raises ExportReplaced if the export is gone, NotAuthorised if its link is refused, and Unavailable.
        """
        pinned, name = self._find_version(path)
        if find_universal_problem(name):
            return None
        try:
            if pinned is not None:
                return await pinned.files.open(name)
            if name == ROOT:
                return await self._open_root()
            opened = await self._exports.current.files.open(name)
        except BlobMissing:
            return None
        opened.facts = _revalidated(opened.facts)
        return opened

    def _find_version(self, path: str) -> tuple[OpenExport | None, str]:
        """Return the export that a path names and the name of the file in it; None for a path of the container."""
        if path.startswith(_VERSIONS):
            version, _, name = path.removeprefix(_VERSIONS).partition("/")
            if (opened := self._exports.find(version)) is not None:
                return opened, name
        return None, path

    async def _open_root(self) -> ServedFile:
        if self._options.follow and self._exports.current.files.replaced is not None:
            await self._follower.wait_for_check(SWITCH_WAIT_S)
        current = self._exports.current
        if self._options.follow:
            return await self._open_pointer(current)
        opened = await current.files.open(ROOT)
        opened.facts = _revalidated(opened.facts)
        return opened

    async def _open_pointer(self, opened: OpenExport) -> ServedFile:
        """Open the root tileset with URIs that lead to the folder of its version."""
        root = await opened.files.read_root()
        if opened.pointer is None:
            document = await run_in_thread(_rebase_root, root, f"{_VERSIONS}{opened.name}/", opened.container_url)
            opened.pointer = document, f'"{hashlib.sha256(document).hexdigest()[:32]}"'
        document, etag = opened.pointer
        return BytesFile(FileFacts(len(document), etag, CachePolicy().document_headers()), document, cache="hit")

    async def describe(self) -> TilesetEntry:
        """Return the entry of `site.json`. URLs are relative to the tileset."""
        current = self._exports.current
        return TilesetEntry(
            title=current.export.name or self._options.title,
            kind=self.kind,
            current=current.name,
            follow=self._options.follow,
            versions=[_describe_export(opened, is_current=opened is current) for opened in self._exports],
        )

    async def find_file(self, version: str, name: str) -> FileRow | None:
        """Return what the container states of a file, and its SHA-256 if its bytes are in the cache.

        Without a version, of the current export. Raises UsageError for an unknown version.
        """
        opened = self._exports.resolve(version or CURRENT_VERSION)
        if find_universal_problem(name):
            return None
        try:
            entry = await opened.files.find_entry(name)
        except BlobMissing:
            return None
        blob, sha256 = entry.blob, entry.sha256
        modified = None if blob.last_modified is None else datetime.fromtimestamp(blob.last_modified, UTC).isoformat()
        return FileRow(
            name=name,
            size=blob.size,
            sha256=sha256.hex() if sha256 is not None else None,
            md5=blob.md5.hex() if blob.md5 is not None else None,
            etag=entry.etag,
            content_type=entry.headers.content_type,
            content_encoding=entry.headers.content_encoding,
            last_modified=modified,
        )

    async def diff_lines(self, a: str, b: str) -> DiffLines:
        """Raise UsageError: a live export has no manifests."""
        raise UsageError(
            "exports that are served live cannot be compared: they have no manifests",
            hint="mirror them with `tilesync mirror`, and compare the versions of the mirror",
        )


def _revalidated(facts: FileFacts) -> FileFacts:
    """Return the facts of a file at a path that may lead to another export later: caches must ask each time."""
    return replace(facts, headers=facts.headers._replace(cache_control=REVALIDATE_CACHE_CONTROL))


def _rebase_root(root: bytes, prefix: str, container_url: str) -> bytes:
    return b"".join(rebase([root], prefix, container_url))


def _describe_export(opened: OpenExport, *, is_current: bool) -> VersionRow:
    export = opened.export
    return VersionRow(
        name=opened.name,
        url=f"{_VERSIONS}{opened.name}/{ROOT}",
        export=export.id,
        imodel=export.imodel,
        display_name=export.name,
        changeset=export.changeset,
        modified=export.modified or None,
        current=is_current,
    )
