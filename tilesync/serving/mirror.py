"""Tileset of a destination: a folder, a store or a package that tilesync has filled."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

from tilesync.core.http_headers import CachePolicy, is_self_describing
from tilesync.core.manifest import find_line, split_manifest, translate_damage
from tilesync.core.safe_names import CURRENT_VERSION
from tilesync.model import POINTER, Blob, Layout
from tilesync.model.storage import ObjectHeaders
from tilesync.protocols import OpenedFile, PublicFiles, ReadOnlyPublication
from tilesync.runtime.threads import raise_if_stopped, run_abandonable
from tilesync.serving.comparisons import CompareVersions, DiffLines, SharedComparisons
from tilesync.serving.stated_types import StatedType, StatedTypes, is_hidden
from tilesync.serving.tilesets import FileFacts, FileRow, TilesetEntry, TilesetKind
from tilesync.serving.version_list import VersionList, resolve_requested_version

MAX_DOCUMENT_THREADS: Final = 8
"""Threads that read manifests and the pointer of one destination."""

MAX_KNOWN_VERSIONS: Final = 4
"""Versions whose stated types are kept in memory: those that were asked for last."""

_LATEST, _CURRENT_LINK, _MANIFESTS, _VERSIONS = "latest.json", "current", "manifests", "versions"
_MANIFEST_SUFFIX: Final = ".jsonl"
_MANIFEST_MEDIA_TYPE: Final = "application/jsonl"


@dataclass(frozen=True)
class MirrorParts:
    """A destination, opened to be served. `title`: name for people, if the current export has none.

    `files`: its files by their paths below its top.
    """

    title: str
    files: PublicFiles
    publication: ReadOnlyPublication
    layout: Layout = Layout.VERSIONED
    kind: TilesetKind = TilesetKind.MIRROR
    cache_policy: CachePolicy = field(default_factory=CachePolicy)


class MirrorFile:
    """A file of a destination, open for one response."""

    cache = None

    def __init__(self, opened: OpenedFile, headers: ObjectHeaders) -> None:
        self._opened = opened
        self.facts = FileFacts(opened.size, opened.etag, headers, opened.last_modified)
        self.body = opened.body

    def chunks(self, start: int, stop: int) -> AsyncIterator[bytes]:
        """Yield the stored bytes from `start` to before `stop`."""
        return self._opened.chunks(start, stop)

    async def aclose(self) -> None:
        """Release the file."""
        await self._opened.aclose()


class MirrorTileset:
    """A destination as a tileset. A version is served once its manifest exists, so when it is complete."""

    def __init__(self, parts: MirrorParts, compare: CompareVersions, comparisons: SharedComparisons) -> None:
        self.kind = parts.kind
        self._parts = parts
        self._files = parts.files
        self._policy = parts.cache_policy
        self._compare = compare
        self._comparisons = comparisons
        self._identity = object()  # of this tileset among all whose comparisons are shared
        self._pool = ThreadPoolExecutor(MAX_DOCUMENT_THREADS, thread_name_prefix="tilesync-documents")
        self._is_versioned = parts.layout is Layout.VERSIONED
        self._must_be_named = not self._is_versioned and parts.files.has_other_files
        self._versions = VersionList(parts.publication, self._read_latest, self._run, self._find_url)
        self._published = set[str]()
        self._stated: dict[str, asyncio.Task[StatedTypes]] = {}
        self._stated_revision = 0

    def close(self) -> None:
        """End the threads. Does not wait for reads that hang."""
        for reading in self._stated.values():
            reading.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def open(self, path: str) -> MirrorFile | None:
        """Open a file at a path that anybody may read: the pointer, or a file of a finished version."""
        if not self._is_versioned:
            return await self._open_in_place(path)
        top, _, rest = path.partition("/")
        if top == _VERSIONS:
            version, _, name = rest.partition("/")
            return await self._open_of_version(version, name, self._policy.version_cache_control)
        if top == _CURRENT_LINK:
            current = await self._versions.current()
            return await self._open_of_version(current or "", rest, self._policy.pointer_cache_control)
        if top == _MANIFESTS:
            is_manifest = rest.endswith(_MANIFEST_SUFFIX) and "/" not in rest
            return await self._open_document(path, _MANIFEST_MEDIA_TYPE) if is_manifest else None
        return await self._open_document(path) if path in {POINTER, _LATEST} else None

    async def _open_document(self, path: str, media_type: str = "application/json") -> MirrorFile | None:
        opened = await self._files.open(path)
        return None if opened is None else MirrorFile(opened, self._policy.document_headers(media_type))

    async def _open_of_version(self, version: str, name: str, cache_control: str) -> MirrorFile | None:
        if not name or not (version in self._published or await self._find_published(version)):
            return None
        if is_hidden(name) and name not in (await self._read_stated_types(version)).hidden_names:
            return None
        opened = await self._files.open(f"{_VERSIONS}/{version}/{name}")
        if opened is None:
            return None
        if not opened.size:  # perhaps damaged, as after a power failure: caches must ask again
            cache_control = self._policy.pointer_cache_control
        return await self._describe_opened(opened, version, name, cache_control)

    async def _find_published(self, version: str) -> bool:
        """Return whether a version has a manifest, and remember it."""
        manifest = await self._files.open(f"{_MANIFESTS}/{version}{_MANIFEST_SUFFIX}") if version else None
        if manifest is None:
            return False
        await manifest.aclose()
        self._published.add(version)
        return True

    async def _open_in_place(self, path: str) -> MirrorFile | None:
        """Open a file of the flat layout or of a package, which the manifest must name."""
        if not await self._is_public(path):
            return None
        opened = await self._files.open(path)
        if opened is None:
            return None
        return await self._describe_opened(opened, "", path, self._policy.pointer_cache_control)

    async def _is_public(self, path: str) -> bool:
        """Return whether a file is one of the version. The manifest tells, unless there are no other files."""
        if not self._must_be_named or await self._is_named(path, await self._versions.current()):
            return True
        revision = self._versions.revision
        version = await self._versions.current(max_age_s=0)  # a version may have been published just now
        return self._versions.revision != revision and await self._is_named(path, version)

    async def _is_named(self, path: str, version: str | None) -> bool:
        if version is None:
            return False
        stated = await self._read_stated_types(version)
        return path.encode(errors="surrogatepass") in stated.names

    async def _describe_opened(self, opened: OpenedFile, version: str, name: str, cache_control: str) -> MirrorFile:
        stated = StatedType()
        if not is_self_describing(opened.head):
            version = version or await self._versions.current() or ""
            stated = (await self._read_stated_types(version)).find(name)
        blob = Blob(name, opened.size, content_type=stated.content_type, content_encoding=stated.content_encoding)
        headers = self._policy.file_headers(blob, opened.head)
        if cache_control != headers.cache_control:
            headers = headers._replace(cache_control=cache_control)
        return MirrorFile(opened, headers)

    async def _read_stated_types(self, version: str) -> StatedTypes:
        """Read what the manifest of a version states, once. An unknown version states nothing."""
        if self._stated_revision != self._versions.revision:
            self._stated_revision = self._versions.revision  # a version may be published again, with other files
            self._stated.clear()
        known = self._stated.pop(version, None)
        if known is None or (known.done() and (known.cancelled() or known.exception() is not None)):
            known = asyncio.ensure_future(self._run(partial(self._collect_stated_types, version)))
        self._stated[version] = known
        if len(self._stated) > MAX_KNOWN_VERSIONS:
            del self._stated[next(iter(self._stated))]
        return await asyncio.shield(known)  # a client that leaves does not end it for the others

    def _collect_stated_types(self, version: str) -> StatedTypes:
        with translate_damage(f"of version {version}"):
            pieces = split_manifest(self._parts.publication.manifest_chunks(version) if version else ())
            next(pieces, None)
            return StatedTypes(_stoppable(pieces), with_names=self._must_be_named)

    async def describe(self) -> TilesetEntry:
        """Return its entry in `site.json`."""
        current, versions = await self._versions.read()
        if not self._is_versioned:
            versions = [each for each in versions if each.current]
        title = next((each.display_name for each in versions if each.current), None) or self._parts.title
        return TilesetEntry(title=title, kind=self.kind, current=current, versions=versions)

    def _find_url(self, version: str) -> str:
        return f"{_VERSIONS}/{version}/{POINTER}" if self._is_versioned else POINTER

    async def find_file(self, version: str, name: str) -> FileRow | None:
        """Return the line of a file in the manifest of a version; without a version, of the current one.

        Raises UsageError for an unknown version.
        """
        version = await self._resolve(version or CURRENT_VERSION)
        line: Mapping[str, Any] | None = await self._run(partial(self._find_line, version, name))
        if line is None:
            return None
        return FileRow(
            name=name,
            size=line.get("size"),
            sha256=line.get("sha256"),
            md5=line.get("md5"),
            etag=line.get("etag"),
            content_type=line.get("content_type"),
            content_encoding=line.get("content_encoding"),
            last_modified=line.get("last_modified"),
        )

    def _find_line(self, version: str, name: str) -> Mapping[str, Any] | None:
        with translate_damage(f"of version {version}"):
            return find_line(self._parts.publication.manifest_chunks(version), name)

    async def diff_lines(self, a: str, b: str) -> DiffLines:
        """Compare two versions; clients that ask for the same ones share the comparison. Raises UsageError."""
        old, new = await self._resolve(a), await self._resolve(b)
        key = self._identity, self._versions.revision, old, new
        return await self._comparisons.open(key, partial(self._compare, old, new))

    async def _resolve(self, text: str) -> str:
        """Return the version that a name, a prefix of one, or `current` means. Raises UsageError."""
        current, versions = await self._versions.read()
        return resolve_requested_version(text, {each.name for each in versions}, current=current)

    async def _read_latest(self) -> bytes | None:
        """Return the bytes of `latest.json`; None without one, or if it is not public."""
        opened = await self._files.open(_LATEST) if self._is_versioned else None
        if opened is None:
            return None
        try:
            return b"".join([chunk async for chunk in opened.chunks(0, opened.size)])
        finally:
            await opened.aclose()

    async def _run(self, work: Callable[[], Any]) -> Any:
        """Run blocking work in the threads of this tileset: a place that hangs holds up no other."""
        return await run_abandonable(self._pool, work)


def _stoppable(pieces: Iterable[bytes]) -> Iterator[bytes]:
    """Yield pieces of a manifest until the server ends."""
    for piece in pieces:
        raise_if_stopped("reading a manifest")
        yield piece
