"""Source that lists and reads the container of one export, through SAS links that renew themselves."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncGenerator, Awaitable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING
from urllib.parse import parse_qs

from tilesync.azure.list_blobs import PageGuard, parse_page, peek_marker
from tilesync.azure.sas import guess_folder_depths
from tilesync.errors import (
    BlobMissing,
    ExportReplaced,
    LinkRefused,
    ListingDenied,
    NotAuthorised,
)
from tilesync.model import UNKNOWN_SIZE, Blob, Page, SasUrl, StoredFile
from tilesync.protocols import Link
from tilesync.runtime.threads import run_in_thread
from tilesync.sources.blob_response import BlobBody, Provenance, check_blob_response
from tilesync.sources.listing_response import raise_listing_refusal, read_page_body
from tilesync.sources.pages_ahead import AnnounceMarker, PagesAhead
from tilesync.transport.retry import AsyncRetrier

if TYPE_CHECKING:
    from tilesync.transport.blob_client import BlobClient  # loaded with the first container that is opened

LISTING_ENTRY_BYTES = 700
"""Approximate bytes of one blob in a listing."""

MAX_PAGE_BLOBS, MIN_PAGE_BLOBS = 5000, 100
"""Bounds of the page size, in blobs. The maximum is that of Azure. Source: "List Blobs" (REST)."""


class Container:
    """Container that is listed through one link and read through another, which may be the same.

    With a CDN the listing goes directly to the storage, and the bytes through the CDN.
    """

    has_worker_source = has_link = True
    inventory_key = ""
    remedy = ""

    def __init__(self, *, listing: Link, content: Link, blob_client: BlobClient, retrier: AsyncRetrier) -> None:
        self._listing = listing
        self._content = content
        self._blob_client = blob_client
        self._retrier = retrier
        self._parse_lock = asyncio.Lock()
        self._provenance = Provenance(cdn=content is not listing)
        self._folder_depth: int | None = None
        self.undated = 0

    async def pages(self, marker: str | None) -> AsyncGenerator[Page, None]:
        """Yield the pages of the listing from `marker` on. Source: "Enumerating blob resources" (REST).

        A page is yielded only if it is complete; the next ones are requested meanwhile. Raises Unavailable when a page
        stays incomplete or a marker repeats, and ListingDenied when the first page is refused.
        """
        guard = PageGuard(marker, hint="this export was not published")
        depth = await self._find_folder_depth()

        async def fetch(marker: str | None, announce: AnnounceMarker) -> Page:
            return await self._listing.use(partial(self._fetch_page, marker, depth, announce=announce))

        ahead = PagesAhead(fetch, lambda marker: not guard.has_seen(marker))
        try:
            while True:
                try:
                    page = await ahead.get(marker)
                except NotAuthorised as error:
                    if marker or not isinstance(error.__cause__, LinkRefused):
                        raise
                    raise ListingDenied(error) from error
                self.undated += page.undated
                yield page
                if page.marker is None:
                    return
                guard.check_page(page.blobs.names[-1] if page.blobs else "", page.marker)
                marker = page.marker
        finally:
            await ahead.aclose()

    async def _find_folder_depth(self) -> int:
        """Find how many trailing segments of the link's path are a folder in the container.

        Lists one blob at each possible depth, and takes the first depth at which there is a container. If only one
        depth is possible, or no container is found, it is the most likely one.
        """
        if self._folder_depth is None:
            depths = guess_folder_depths(await self._listing.current())
            self._folder_depth = depths[0]
            for depth in depths if len(depths) > 1 else ():
                try:
                    await self._listing.use(partial(self._fetch_page, None, depth, probe=True))
                except (ExportReplaced, NotAuthorised) as error:
                    if isinstance(error, NotAuthorised):
                        self._folder_depth = depth
                else:
                    self._folder_depth = depth
                    break
        return self._folder_depth

    async def _fetch_page(
        self,
        marker: str | None,
        folder_depth: int,
        sas: SasUrl,
        *,
        probe: bool = False,
        announce: AnnounceMarker = lambda _: None,
    ) -> Page:
        # With a bandwidth limit, a page has as many bytes as arrive in a quarter of a second: four pieces.
        piece = self._blob_client.piece_bytes
        size = None if piece is None else min(max(4 * piece // LISTING_ENTRY_BYTES, MIN_PAGE_BLOBS), MAX_PAGE_BLOBS)

        url = sas.listing_url(marker, page_size=1 if probe else size, depth=folder_depth)

        async def attempt() -> Page:
            response = await self._blob_client.get(url, {})
            try:
                if response.status != 200:
                    await raise_listing_refusal(response, self._provenance, is_probe=probe)
                body = await read_page_body(response)
            finally:
                await response.aclose()
            page = await _parse_page(body, announce, self._parse_lock)
            self._provenance.record_marks(response.header)
            return _names_below(page, sas.folder_prefix(folder_depth))

        return await self._retrier.retry("the container's listing", attempt)

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1, until: int | None = None) -> BlobBody:
        """Open `blob` from byte `offset` on; If-Match pins it to its listed ETag."""
        piece = self._blob_client.piece_bytes
        if until is not None:
            return await self._open_range(blob, offset, prefetch_bytes=prefetch_bytes, until=until)
        if piece is None or blob.size - offset <= max(piece, prefetch_bytes):
            return await self._open_range(blob, offset, prefetch_bytes=prefetch_bytes)

        def open_next(position: int) -> Awaitable[BlobBody] | None:
            until = min(position + piece, blob.size)
            return self._open_range(blob, position, prefetch_bytes=piece, until=until) if position < blob.size else None

        body = await self._open_range(blob, offset, prefetch_bytes=piece, until=min(offset + piece, blob.size))
        if body.start == offset:
            body.open_next = open_next
        return body

    async def peek(self, blob: Blob, count: int) -> bytes:
        """Read the first bytes of `blob`."""
        count = min(count, blob.size)
        body = await self._open_range(blob, 0, prefetch_bytes=count, until=count)
        try:
            return (await body.read(count))[:count]
        finally:
            await body.aclose()

    async def open_by_name(self, name: str) -> tuple[Blob, BlobBody]:
        """Open a blob by its name alone. Return the blob as the response describes it, and its body."""
        body = await self.open(Blob(name, UNKNOWN_SIZE), 0)
        self.undated += body.is_undated
        return body.describe_blob(name), body

    async def is_unchanged(self, stored: StoredFile) -> bool:
        """Return whether the container still has the stored file: by its ETag, or else by its SHA-256."""
        try:
            return await self._content.use(lambda sas: self._is_same_blob(sas, stored))
        except BlobMissing:
            return False

    async def _is_same_blob(self, sas: SasUrl, stored: StoredFile) -> bool:
        known_etag = stored.blob.etag
        condition = {"If-None-Match": f'"{known_etag}"'} if known_etag else {}
        response = await self._blob_client.get(sas.blob_url(stored.blob.name), condition)
        try:
            if response.status == 304:
                return True
            body = await check_blob_response(response, stored.blob._replace(etag=""), 0, self._provenance, ranged=False)
            if known_etag and (etag := body.describe_blob(stored.blob.name).etag):
                return etag == known_etag
            sha256 = hashlib.sha256()
            async for chunk in body.chunks():
                sha256.update(chunk)
            return sha256.digest() == stored.stored_sha256
        finally:
            await response.aclose()

    async def is_listable(self) -> bool:
        """Return whether the link may allow a listing: a SAS may, the signature of a CDN does not."""
        return "sig" in parse_qs((await self._listing.current()).query)

    async def worker_source(self) -> SasUrl:
        """Return the link, through which worker processes read."""
        return await self.link()

    async def link(self) -> SasUrl:
        """Return the current link for reading blobs."""
        return await self._content.current()

    async def container_url(self) -> str:
        """Return the URL of the container without its signature."""
        return (await self._listing.current()).base

    async def _open_range(self, blob: Blob, offset: int, *, prefetch_bytes: int, until: int | None = None) -> BlobBody:
        headers = {"If-Match": f'"{blob.etag}"'} if blob.etag else {}
        if offset or until is not None:
            headers["Range"] = f"bytes={offset}-{'' if until is None else until - 1}"
        return await self._content.use(lambda sas: self._request_blob(sas, blob, headers, offset, prefetch_bytes))

    async def _request_blob(
        self, sas: SasUrl, blob: Blob, headers: dict[str, str], offset: int, prefetch_bytes: int
    ) -> BlobBody:
        response = await self._blob_client.get(sas.blob_url(blob.name), headers, prefetch_bytes=prefetch_bytes)
        try:
            return await check_blob_response(response, blob, offset, self._provenance, ranged="Range" in headers)
        except BaseException:
            await response.aclose()
            raise


async def _parse_page(body: bytes, announce: AnnounceMarker, lock: asyncio.Lock) -> Page:
    """Parse a page off the event loop. Its marker is announced before that, and taken back if the page is malformed.

    Pages are parsed one at a time: two threads would share one interpreter lock, but need the memory of two.
    """
    announce(peek_marker(body))
    try:
        async with lock:
            return await run_in_thread(parse_page, body)
    except BaseException:
        announce(None)
        raise


def _names_below(page: Page, folder: str) -> Page:
    """Return a page with only the blobs below a folder, their names relative to it; a server may list others too."""
    if not folder:
        return page
    blobs = page.blobs.select([name.startswith(folder) and name != folder for name in page.blobs.names])
    return replace(page, blobs=replace(blobs, names=[name[len(folder) :] for name in blobs.names]))
