"""The Source: one export's container, listed and read through links that stay alive."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs

from tilesync.azure.blob_headers import is_permanent_denial
from tilesync.azure.error_hints import BAD_SIGNATURE_HINT, LIST_PERMISSION_HINT, storage_hint
from tilesync.azure.list_blobs import PageGuard, parse_page
from tilesync.azure.responses import classify_storage_response, parse_storage_error_code
from tilesync.azure.sas import guess_folder_depths
from tilesync.core.http_status import Verdict, raise_for_status
from tilesync.errors import (
    BlobMissing,
    ExportReplaced,
    LinkRefused,
    ListingDenied,
    NoFreshLink,
    NotAuthorised,
    Transient,
)
from tilesync.model import UNKNOWN_SIZE, Blob, Page, SasUrl, StoredFile
from tilesync.protocols import Clock, Link
from tilesync.runtime.threads import run_in_thread
from tilesync.sources.blob_response import BlobBody, Provenance, check_blob_response
from tilesync.transport.api_client import MAX_LISTING_PAGE_BYTES, ApiClient, ApiRequest, ApiResponse
from tilesync.transport.retry_after import retry_after_seconds

if TYPE_CHECKING:
    from tilesync.transport.blob_client import BlobClient  # loaded with the first container that is opened

T = TypeVar("T")

FRESH_LINK_REFUSED_HINT = (
    "links that were just made are refused: something on the way may change them (a proxy that rewrites URLs), or what"
    " makes them signs with a wrong key"
)
LISTING_ENTRY_BYTES = 700
"""Bytes of one blob in a listing, or so; a page of the usual size comes at once, whatever the bandwidth."""

MAX_PAGE_BLOBS, MIN_PAGE_BLOBS = 5000, 100
"""Blobs of a page: the most that there are, and the fewest that are asked for. Source: "List Blobs" (REST)."""

_NO_CONTAINER_STATUSES = {400, 405}
"""What a listing is answered where the path is that of no container. Source: "Blob service error codes"."""

MAX_REFUSALS = 8
"""403s in a row that one request survives, while each fresh link is expired on arrival."""


class Container:
    """A container: its listing through one link, its bytes through another, which may be the same.

    With a CDN the listing goes directly to the storage, the bytes through the CDN.
    """

    has_worker_source = has_link = True
    inventory_key = ""
    remedy = ""

    def __init__(
        self, *, listing: Link, content: Link, api_client: ApiClient, blob_client: BlobClient, clock: Clock
    ) -> None:
        self._listing = listing
        self._content = content
        self._api_client = api_client
        self._blob_client = blob_client
        self._clock = clock
        self._provenance = Provenance(cdn=content is not listing)
        self._folder_depth: int | None = None
        self.undated = 0

    async def pages(self, marker: str | None) -> AsyncIterator[Page]:
        """The inventory from `marker` on. Source: "Enumerating blob resources" (REST).

        A page is given out whole or not at all. Raises Unavailable when a page stays torn or a marker comes again, and
        ListingDenied when the first page is refused.
        """
        guard = PageGuard(marker, hint="this export was not published")
        depth = await self._find_folder_depth()
        while True:
            try:
                page = await self._retry_with_fresh_link(self._listing, partial(self._fetch_page, marker, depth))
            except NotAuthorised as error:
                if marker or not isinstance(error.__cause__, LinkRefused):
                    raise
                raise ListingDenied(error) from error
            self.undated += page.undated
            yield page
            if page.marker is None:
                return
            guard.check_page(page.blobs[-1].name if page.blobs else "", page.marker)
            marker = page.marker

    async def _find_folder_depth(self) -> int:
        """How many of the last parts of the link's path are a folder in the container: the first depth at which there
        is one. Where there is none at all, and where nothing but a listing tells, the likeliest.
        """
        if self._folder_depth is None:
            depths = guess_folder_depths(await self._listing.current())
            self._folder_depth = depths[0]
            for depth in depths if len(depths) > 1 else ():
                try:
                    await self._retry_with_fresh_link(self._listing, partial(self._fetch_page, None, depth, probe=True))
                except (ExportReplaced, NotAuthorised) as error:
                    if isinstance(error, NotAuthorised):
                        self._folder_depth = depth
                else:
                    self._folder_depth = depth
                    break
        return self._folder_depth

    async def _fetch_page(self, marker: str | None, folder_depth: int, sas: SasUrl, *, probe: bool = False) -> Page:
        piece = self._blob_client.piece_bytes  # a sixteenth of what may come in a second
        size = None if piece is None else min(max(4 * piece // LISTING_ENTRY_BYTES, MIN_PAGE_BLOBS), MAX_PAGE_BLOBS)

        async def make() -> ApiRequest:
            return ApiRequest(sas.listing_url(marker, page_size=1 if probe else size, depth=folder_depth))

        async def accept(reply: ApiResponse) -> Page:
            if reply.status == 200:
                page = await run_in_thread(parse_page, await reply.read(MAX_LISTING_PAGE_BYTES, timeout=None))
                self._provenance.record_marks(reply.header)
                return _names_below(page, sas.folder_prefix(folder_depth))
            body = await reply.read()
            code = parse_storage_error_code(reply.header("x-ms-error-code"), body)
            verdict = classify_storage_response(reply.status, code)
            self._provenance.check_refusal(reply.status, verdict, reply.header)
            if verdict in {Verdict.GONE, Verdict.MISSING} or (probe and reply.status in _NO_CONTAINER_STATUSES):
                raise ExportReplaced(f"the container is gone ({reply.status} {code})")
            if verdict is Verdict.DENIED:
                raise LinkRefused(
                    f"the container refused to be listed ({reply.status} {code})".replace(" )", ")"),
                    hint=storage_hint(code) or LIST_PERMISSION_HINT,
                    server_time=reply.server_time(),
                    is_permanent=is_permanent_denial(code, body),
                )
            wait = retry_after_seconds(reply.header)
            raise_for_status(
                verdict, reply.status, wait, f"the container's listing ({code or 'no code'})", storage_hint(code)
            )
            raise Transient(f"the container's listing answered {reply.status}")

        return await self._api_client.request("the container's listing", make, accept)

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1) -> BlobBody:
        """The bytes of `blob` from `offset` on, pinned to its listed ETag."""
        piece = self._blob_client.piece_bytes
        if piece is None or blob.size - offset <= max(piece, prefetch_bytes):
            return await self._open_range(blob, offset, prefetch_bytes=prefetch_bytes)

        def more(at: int) -> Awaitable[BlobBody] | None:
            until = min(at + piece, blob.size)
            return self._open_range(blob, at, prefetch_bytes=piece, until=until) if at < blob.size else None

        body = await self._open_range(blob, offset, prefetch_bytes=piece, until=min(offset + piece, blob.size))
        if body.start == offset:
            body.open_next = more
        return body

    async def peek(self, blob: Blob, count: int) -> bytes:
        """The first bytes of `blob`."""
        count = min(count, blob.size)
        body = await self._open_range(blob, 0, prefetch_bytes=count, until=count)
        try:
            return (await body.read(count))[:count]
        finally:
            await body.aclose()

    async def open_by_name(self, name: str) -> tuple[Blob, BlobBody]:
        """What the container says of a blob that is known by its name alone, and its bytes from the start."""
        body = await self.open(Blob(name, UNKNOWN_SIZE), 0)
        self.undated += body.is_undated
        return body.describe_blob(name), body

    async def is_unchanged(self, stored: StoredFile) -> bool:
        """Whether the container still has what is held, by its ETag, else by its bytes."""
        try:
            return await self._retry_with_fresh_link(self._content, lambda sas: self._is_same_blob(sas, stored))
        except BlobMissing:
            return False

    async def _is_same_blob(self, sas: SasUrl, stored: StoredFile) -> bool:
        known = stored.blob.etag
        answer = await self._blob_client.get(
            sas.blob_url(stored.blob.name), {"If-None-Match": f'"{known}"'} if known else {}
        )
        try:
            if answer.status == 304:
                return True
            body = await check_blob_response(answer, stored.blob._replace(etag=""), 0, self._provenance, ranged=False)
            if known and (etag := body.describe_blob(stored.blob.name).etag):
                return etag == known
            sha256 = hashlib.sha256()
            async for chunk in body.chunks():
                sha256.update(chunk)
            return sha256.digest() == stored.stored_sha256
        finally:
            await answer.aclose()

    async def is_listable(self) -> bool:
        """Whether it makes sense to ask for a listing: a SAS may allow one, the signature of a CDN never does."""
        return "sig" in parse_qs((await self._listing.current()).query)

    async def worker_source(self) -> SasUrl:
        """The link."""
        return await self.link()

    async def link(self) -> SasUrl:
        """A link that blobs can be read through now."""
        return await self._content.current()

    async def container_url(self) -> str:
        """The bare URL of the container."""
        return (await self._listing.current()).base

    async def _open_range(self, blob: Blob, offset: int, *, prefetch_bytes: int, until: int | None = None) -> BlobBody:
        headers = {"If-Match": f'"{blob.etag}"'} if blob.etag else {}
        if offset or until is not None:
            headers["Range"] = f"bytes={offset}-{'' if until is None else until - 1}"
        return await self._retry_with_fresh_link(
            self._content, lambda sas: self._request_blob(sas, blob, headers, offset, prefetch_bytes)
        )

    async def _request_blob(
        self, sas: SasUrl, blob: Blob, headers: dict[str, str], offset: int, prefetch_bytes: int
    ) -> BlobBody:
        answer = await self._blob_client.get(sas.blob_url(blob.name), headers, prefetch_bytes=prefetch_bytes)
        try:
            return await check_blob_response(answer, blob, offset, self._provenance, ranged="Range" in headers)
        except BaseException:
            await answer.aclose()
            raise

    async def _retry_with_fresh_link(self, link: Link, attempt: Callable[[SasUrl], Awaitable[T]]) -> T:
        """One attempt through the link, made again with a fresh link after a 403.

        The 403 is final on an unexpired link that was fetched after the previous 403, unless the link is too young.
        """
        refused_at: float | None = None
        refusals = 0
        while refusals < MAX_REFUSALS:
            sas = await link.current()
            try:
                done = await attempt(sas)
            except LinkRefused as refusal:
                final = refused_at is not None and sas.fetched_at_s > refused_at and not link.is_expired(sas)
                if await self._wait_until_valid(link, sas, refusal, is_last=final):
                    continue
                if final:
                    raise NotAuthorised(
                        f"{refusal}, also through a fresh link", hint=_fresh_link_hint(refusal.hint)
                    ) from refusal
                refused_at, refusals = self._clock.monotonic(), refusals + 1
                try:
                    await link.renew(sas)
                except NoFreshLink as error:
                    if not await self._wait_until_valid(link, sas, refusal, is_last=True):
                        hint = error.hint if link.is_expired(sas) else refusal.hint or error.hint
                        raise NotAuthorised(f"{refusal}; {error}", hint=hint) from refusal
                    refusals -= 1
            else:
                link.mark_accepted(sas)
                return done
        raise NotAuthorised(
            "each fresh link is refused on arrival", hint="compare this machine's clock with the world's"
        )

    async def _wait_until_valid(self, link: Link, sas: SasUrl, refusal: LinkRefused, *, is_last: bool) -> bool:
        """Whether the refused link may not have been valid yet; it is worth another attempt then."""
        pause = None if refusal.is_permanent else link.seconds_until_valid(sas, refusal.server_time, is_last=is_last)
        if pause is None:
            return False
        await self._clock.sleep(pause)
        return True


def _fresh_link_hint(hint: str) -> str:
    """What helps where a link that was just made is refused too."""
    return FRESH_LINK_REFUSED_HINT if hint == BAD_SIGNATURE_HINT else hint


def _names_below(page: Page, folder: str) -> Page:
    """A page with the names below a folder, relative to it; what a server lists beside it is left out."""
    if not folder:
        return page
    some = (blob for blob in page.blobs if blob.name.startswith(folder) and blob.name != folder)
    return replace(page, blobs=tuple(blob._replace(name=blob.name[len(folder) :]) for blob in some))
