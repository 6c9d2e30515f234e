"""Files of one container behind the cache: one download for concurrent requests, retries, and what a failure means."""

from __future__ import annotations

import asyncio
import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Final

from tilesync.core.http_headers import CachePolicy
from tilesync.errors import BlobError, BlobMissing, ExportReplaced, NotAuthorised, Transient
from tilesync.model import ROOT, Blob, Chunk, StoredFile
from tilesync.model.storage import HEAD_BYTES
from tilesync.protocols import Body, Source
from tilesync.runtime.streamed_file import STREAM_PIECE_BYTES
from tilesync.runtime.threads import run_in_thread
from tilesync.serving.live.blob_files import CachedBlob, StreamedBlob
from tilesync.serving.live.cache import ENTRY_OVERHEAD_BYTES, CacheEntry
from tilesync.serving.live.context import LiveContext
from tilesync.transport.retry import retry_async

MAX_KEPT_BYTES: Final = 8 << 20
"""Maximum size of a file that is kept in memory, in bytes; larger ones are streamed."""

MISSING_FOR_S: Final = 10.0
"""Seconds for which a file that the container does not have is not requested again."""

MAX_MISSING_NAMES: Final = 10_000

REFUSED_FOR_S: Final = 2.0
"""Seconds for which a final refusal is the answer to all requests, so that a dead link is not tried for each file."""

LARGE_DIGEST_BYTES: Final = 1 << 18
"""Digests of more bytes than this are computed in a thread, since they would hold up other requests."""

STREAM_RANGE_BYTES: Final = 1 << 19
"""Bytes of a large file that one request reads. A body that waits for a slow client would hold a connection, and more
memory in the client library. While so many clients wait that what is read ahead is dropped, it is a single piece."""

_CACHE_POLICY: Final = CachePolicy(version_cache_control="public, max-age=3600")
"""Cache-Control of files of one export. Not immutable: the service can generate an export again under the same id."""


class ContainerFiles:
    """Files of the container of one export.

    A file is downloaded once for all requests that wait for it, and a request that is cancelled does not end the
    download. `replaced`: the error of all requests, once the export is gone. `gone_hint`: what to do then. `is_used`:
    set by each request.
    """

    def __init__(self, version: str, source: Source, context: LiveContext, *, gone_hint: str) -> None:
        self._version = version
        self._source = source
        self._context = context
        self._cache = context.cache
        self._downloads: dict[str, _Download] = {}
        self._missing_until_s: OrderedDict[str, float] = OrderedDict()
        self._refusal: tuple[NotAuthorised, float] | None = None
        self._root: StoredFile | None = None
        self._gone_hint = gone_hint
        self.replaced: ExportReplaced | None = None
        self.on_replaced: Callable[[], object] = lambda: None
        self.is_used = False

    async def open(self, name: str) -> CachedBlob | StreamedBlob:
        """Open a file. Raises BlobMissing, ExportReplaced, NotAuthorised and Unavailable."""
        self.is_used = True
        if name == ROOT:  # other files may still be sent from the cache to viewers that have them in use
            self._raise_if_replaced()
        state, entry = "hit", self._cache.pin((self._version, name))
        if entry is None:
            self._raise_known_failure(name)
            state, entry = "miss", await self._wait_for_download(name)
        if entry.body is not None:
            self._cache.counts.hits += state == "hit"
            return CachedBlob(entry, self._cache, cache=state)
        self._cache.unpin(entry)
        self._raise_known_failure(name)
        return StreamedBlob(entry, self.stream, self._context.streams)

    async def read_root(self) -> bytes:
        """Return the bytes of the root tileset. Raises as `open` does."""
        root = await self.open(ROOT)
        try:
            if root.content is None:
                raise BlobError(
                    f"{ROOT} has {root.facts.size:,} bytes: too large for the cache in memory",
                    hint="use a larger --cache-size",
                )
            return root.content
        finally:
            await root.aclose()

    async def find_entry(self, name: str) -> CacheEntry:
        """Return what is known of a file, with its SHA-256 if its bytes are in the cache. Raises as `open` does."""
        entry = self._cache.pin((self._version, name))
        if entry is None:
            self._raise_known_failure(name)
            entry = await self._wait_for_download(name)
        try:
            if entry.body is not None and entry.sha256 is None:
                entry.sha256 = await _digest("sha256", entry.body)
            return entry
        finally:
            self._cache.unpin(entry)

    async def check_unchanged(self) -> None:
        """Ask the container whether its root tileset is still the same one. Raises ExportReplaced if it is not."""
        if self._root is None:
            return
        with self._noting_failures(ROOT):
            if not await self._source.is_unchanged(self._root):
                raise ExportReplaced("the export was generated again, or deleted")

    async def aclose(self) -> None:
        """Cancel the downloads in progress, and forget the files."""
        tasks = [download.task for download in self._downloads.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._cache.discard_version(self._version)

    # --- known failures ---

    def _raise_if_replaced(self) -> None:
        if self.replaced is not None:
            raise ExportReplaced(str(self.replaced), hint=self.replaced.hint)

    def _raise_known_failure(self, name: str) -> None:
        """Raise the error of a request that need not be sent."""
        self._raise_if_replaced()
        now_s = self._context.clock.monotonic()
        if self._refusal is not None and now_s < self._refusal[1]:
            raise NotAuthorised(str(self._refusal[0]), hint=self._refusal[0].hint)
        if now_s < self._missing_until_s.get(name, now_s):
            raise BlobMissing(f"the container does not have {name}")

    @contextmanager
    def _noting_failures(self, name: str) -> Iterator[None]:
        """Remember the failures that later requests would meet too."""
        now_s = self._context.clock.monotonic
        try:
            yield
        except BlobMissing:
            self._missing_until_s[name] = now_s() + MISSING_FOR_S
            if len(self._missing_until_s) > MAX_MISSING_NAMES:
                self._missing_until_s.popitem(last=False)
            raise
        except ExportReplaced as error:
            self.replaced = self.replaced or ExportReplaced(str(error), hint=self._gone_hint)
            self.on_replaced()
            raise ExportReplaced(str(error), hint=self._gone_hint) from error
        except NotAuthorised as error:
            self._refusal = (error, now_s() + REFUSED_FOR_S)
            self._context.announcer.warn("", error, topic=f"refused {self._version}")
            raise

    # --- downloads into the cache ---

    async def _wait_for_download(self, name: str) -> CacheEntry:
        """Return the entry of a file, pinned, from a download that concurrent callers share."""
        download = self._downloads.get(name)
        if download is None:
            self._cache.counts.misses += 1
            download = self._downloads[name] = _Download(asyncio.create_task(self._download(name)))
            download.task.add_done_callback(lambda _: self._finish_download(name, download))
        else:
            self._cache.counts.joined += 1
        download.waiting += 1
        try:
            entry = await asyncio.shield(download.task)
            self._cache.pin_again(entry)
            return entry
        finally:
            download.waiting -= 1
            self._unpin_unused(download)

    def _finish_download(self, name: str, download: _Download) -> None:
        del self._downloads[name]
        self._unpin_unused(download)

    def _unpin_unused(self, download: _Download) -> None:
        """Undo the pin of a download that is done, when nobody waits for it any more."""
        if download.waiting or not download.task.done() or download.is_released:
            return
        download.is_released = True
        if not download.task.cancelled() and download.task.exception() is None:
            self._cache.unpin(download.task.result())

    async def _download(self, name: str) -> CacheEntry:
        clock = self._context.clock
        with self._noting_failures(name):
            entry = await retry_async(
                self._context.new_policy(), partial(self._fetch, name), now=clock.monotonic, sleep=clock.sleep
            )
            if name == ROOT and entry.body is not None:
                await self._check_root(entry, entry.body)
        return entry

    async def _check_root(self, entry: CacheEntry, content: bytes) -> None:
        """Remember the root tileset. Raises ExportReplaced if it is not the same one as before."""
        entry.sha256 = await _digest("sha256", content)
        self._root = self._root or StoredFile(entry.blob, entry.sha256, 0)
        if self._root.sha256 != entry.sha256:
            self._cache.discard(entry.key)
            self._cache.unpin(entry)
            raise ExportReplaced("the export was generated again")

    async def _fetch(self, name: str) -> CacheEntry:
        """Fetch a file once; return its entry, pinned. One that is too large is only described."""
        async with self._context.slots:
            blob, body = await self._context.within_limit(self._source.open_by_name(name))
            self._refusal = None
            try:
                max_bytes = self._max_kept_bytes(name)
                size = blob.size if blob.size >= 0 else max_bytes
                if size <= max_bytes and self._cache.reserve(ENTRY_OVERHEAD_BYTES + size):
                    return await self._keep(blob, body, size)
                return await self._describe(blob, body, keep=size > max_bytes)
            finally:
                await body.aclose()

    def _max_kept_bytes(self, name: str) -> int:
        """Return the largest size that is kept. The root tileset is rewritten, so that it must fit into memory."""
        share = self._cache.max_bytes // (2 if name == ROOT else 8)
        return share if name == ROOT else min(MAX_KEPT_BYTES, share)

    async def _keep(self, blob: Blob, body: Body, reserved_bytes: int) -> CacheEntry:
        try:
            content = await body.read(reserved_bytes)
            if len(content) > reserved_bytes and blob.size < 0:
                raise BlobError(f"{blob.name}: the response states no length, and is too large for the cache")
            if blob.size >= 0 and len(content) != blob.size:
                raise Transient(f"{blob.name}: {len(content):,} of {blob.size:,} bytes arrived")
            if blob.md5 is not None and await _digest("md5", content) != blob.md5:
                raise Transient(f"{blob.name}: the bytes that arrived do not have the MD5 that the container states")
        except BaseException:
            self._cache.free(ENTRY_OVERHEAD_BYTES + reserved_bytes)
            raise
        self._cache.free(reserved_bytes - len(content))
        entry = self._make_entry(blob._replace(size=len(content)), content[:HEAD_BYTES], content)
        self._cache.add_pinned(entry)
        return entry

    async def _describe(self, blob: Blob, body: Body, *, keep: bool) -> CacheEntry:
        """Return the entry of a file that is streamed. `keep`: it is too large; else the cache is in use."""
        if blob.size < 0:
            raise BlobError(f"{blob.name}: the response states no length, and is too large for the cache")
        head = b""
        async for chunk in body.chunks():
            head = bytes(chunk[:HEAD_BYTES])
            break
        entry = self._make_entry(blob, head, None)
        self._cache.reserve_beyond_limit(entry.cost_bytes)
        self._cache.add_pinned(entry)
        if not keep:
            self._cache.discard(entry.key)
        return entry

    def _make_entry(self, blob: Blob, head: bytes, content: bytes | None) -> CacheEntry:
        headers = _CACHE_POLICY.file_headers(blob, head)
        return CacheEntry((self._version, blob.name), blob, _make_etag(blob, content), headers, content)

    # --- streams ---

    async def stream(self, blob: Blob, start: int, stop: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes of a blob from `start` to before `stop`, a range at a time; retry ranges that fail."""
        clock, position = self._context.clock, start
        with self._noting_failures(blob.name):
            while position < stop:
                chunk = await retry_async(
                    self._context.new_policy(),
                    partial(self._read_range, blob, position, min(position + self._range_bytes(), stop)),
                    now=clock.monotonic,
                    sleep=clock.sleep,
                )
                position += len(chunk)
                yield chunk

    def _range_bytes(self) -> int:
        return STREAM_PIECE_BYTES if self._context.streams.is_full else STREAM_RANGE_BYTES

    async def _read_range(self, blob: Blob, start: int, stop: int) -> bytes:
        """Read the bytes from `start` to before `stop`; only the first ones of them if the body breaks off.

        Raises Transient if none arrives.
        """
        received: list[Chunk] = []
        async with self._context.range_slots:
            body = await self._context.within_limit(self._source.open(blob, start, until=stop))
            try:
                at = body.start  # 0 if the container knows no ranges
                async for chunk in body.chunks():
                    if wanted := chunk[max(0, start - at) : max(0, stop - at)]:
                        received.append(wanted)
                    at += len(chunk)
                    if at > stop:  # a body that is read to its end leaves its connection for the next request
                        break
            except Transient:
                if not received:
                    raise
            finally:
                await body.aclose()
        if not received:
            raise Transient(f"{blob.name}: the body was cut off")
        return b"".join(received)


class _Download:
    """Download that several requests may wait for. Its task returns a pinned entry."""

    def __init__(self, task: asyncio.Task[CacheEntry]) -> None:
        self.task = task
        self.waiting = 0
        self.is_released = False


def _make_etag(blob: Blob, content: bytes | None) -> str:
    """Return the ETag of the container, or one made of the bytes, or a weak one of what is known."""
    if blob.etag:
        return f'"{blob.etag}"'
    if content is not None:
        return f'"{hashlib.sha256(content).hexdigest()[:32]}"'
    return f'W/"{blob.size:x}-{blob.last_modified or 0:x}"'


async def _digest(algorithm: str, content: bytes) -> bytes:
    def compute() -> bytes:
        return hashlib.new(algorithm, content, usedforsecurity=False).digest()

    return await run_in_thread(compute) if len(content) > LARGE_DIGEST_BYTES else compute()
