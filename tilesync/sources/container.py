"""The Source: one export's container, listed and read through links that stay alive."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs

from tilesync.azure.blob_headers import is_certain
from tilesync.azure.error_hints import BAD_SIGNATURE, LISTABLE, storage_hint
from tilesync.azure.list_blobs import PageGuard, parse_page
from tilesync.azure.responses import judge_storage, storage_code
from tilesync.azure.sas import folder_depths
from tilesync.core.http_status import Verdict, demand
from tilesync.errors import (
    BlobMissing,
    ExportReplaced,
    LinkRefused,
    ListingDenied,
    NoFreshLink,
    NotAuthorised,
    Transient,
)
from tilesync.model import UNKNOWN, Blob, Held, Page, SasUrl
from tilesync.protocols import Clock, Link
from tilesync.runtime.threads import in_thread
from tilesync.sources.blob_response import BlobBody, Provenance, accept
from tilesync.transport.api_client import LARGEST_PAGE, Ask, Conversation, Reply
from tilesync.transport.retry_after import asked_wait

if TYPE_CHECKING:
    from tilesync.transport.blob_client import Bulk  # loaded with the first container that is opened

T = TypeVar("T")

FRESH_REFUSED = (
    "links that were just made are refused: something on the way may change them (a proxy that rewrites URLs), or what"
    " makes them signs with a wrong key"
)
ENTRY = 700
"""Bytes of one blob in a listing, or so; a page of the usual size comes at once, whatever the bandwidth."""

FULL, SLIGHT = 5000, 100
"""Blobs of a page: the most that there are, and the fewest that are asked for. Source: "List Blobs" (REST)."""

_NO_CONTAINER = {400, 405}
"""What a listing is answered where the path is that of no container. Source: "Blob service error codes"."""

REFUSALS = 8
"""403s in a row that one request survives, while each fresh link is expired on arrival."""


class Container:
    """A container: its listing through one link, its bytes through another, which may be the same.

    With a CDN the listing goes directly to the storage, the bytes through the CDN.
    """

    has_way = has_link = True
    place = ""
    remedy = ""

    def __init__(self, *, listing: Link, content: Link, talk: Conversation, bulk: Bulk, clock: Clock) -> None:
        self._listing = listing
        self._content = content
        self._talk = talk
        self._bulk = bulk
        self._clock = clock
        self._provenance = Provenance(cdn=content is not listing)
        self._depth: int | None = None
        self.undated = 0

    async def pages(self, marker: str | None) -> AsyncIterator[Page]:
        """The inventory from `marker` on. Source: "Enumerating blob resources" (REST).

        A page is given out whole or not at all. Raises Unavailable when a page stays torn or a marker comes again, and
        ListingDenied when the first page is refused.
        """
        guard = PageGuard(marker, hint="this export was not published")
        depth = await self._find_depth()
        while True:
            try:
                page = await self._patiently(self._listing, partial(self._page, marker, depth))
            except NotAuthorised as error:
                if marker or not isinstance(error.__cause__, LinkRefused):
                    raise
                raise ListingDenied(error) from error
            self.undated += page.undated
            yield page
            if page.marker is None:
                return
            guard.note(page.blobs[-1].name if page.blobs else "", page.marker)
            marker = page.marker

    async def _find_depth(self) -> int:
        """How many of the last parts of the link's path are a folder in the container: the first depth at which there
        is one. Where there is none at all, and where nothing but a listing tells, the likeliest.
        """
        if self._depth is None:
            depths = folder_depths(await self._listing.current())
            self._depth = depths[0]
            for depth in depths if len(depths) > 1 else ():
                try:
                    await self._patiently(self._listing, partial(self._page, None, depth, probe=True))
                except (ExportReplaced, NotAuthorised) as error:
                    if isinstance(error, NotAuthorised):
                        self._depth = depth
                else:
                    self._depth = depth
                    break
        return self._depth

    async def _page(self, marker: str | None, depth: int, sas: SasUrl, *, probe: bool = False) -> Page:
        piece = self._bulk.piece  # a sixteenth of what may come in a second
        size = None if piece is None else min(max(4 * piece // ENTRY, SLIGHT), FULL)

        async def make() -> Ask:
            return Ask(sas.listing(marker, page_size=1 if probe else size, depth=depth))

        async def accept(reply: Reply) -> Page:
            if reply.status == 200:
                page = await in_thread(parse_page, await reply.read(LARGEST_PAGE, within=None))
                self._provenance.learn(reply.header)
                return _below(page, sas.folder(depth))
            body = await reply.read()
            code = storage_code(reply.header("x-ms-error-code"), body)
            verdict = judge_storage(reply.status, code)
            self._provenance.judge_refusal(reply.status, verdict, reply.header)
            if verdict in {Verdict.GONE, Verdict.MISSING} or (probe and reply.status in _NO_CONTAINER):
                raise ExportReplaced(f"the container is gone ({reply.status} {code})")
            if verdict is Verdict.DENIED:
                raise LinkRefused(
                    f"the container refused to be listed ({reply.status} {code})".replace(" )", ")"),
                    hint=storage_hint(code) or LISTABLE,
                    server_time=reply.server_time(),
                    certain=is_certain(code, body),
                )
            wait = asked_wait(reply.header)
            demand(verdict, reply.status, wait, f"the container's listing ({code or 'no code'})", storage_hint(code))
            raise Transient(f"the container's listing answered {reply.status}")

        return await self._talk.ask("the container's listing", make, accept)

    async def open(self, blob: Blob, offset: int, *, ahead: int = 1) -> BlobBody:
        """The bytes of `blob` from `offset` on, pinned to its listed ETag."""
        piece = self._bulk.piece
        if piece is None or blob.size - offset <= max(piece, ahead):
            return await self._get(blob, offset, ahead=ahead)

        def more(at: int) -> Awaitable[BlobBody] | None:
            until = min(at + piece, blob.size)
            return self._get(blob, at, ahead=piece, until=until) if at < blob.size else None

        body = await self._get(blob, offset, ahead=piece, until=min(offset + piece, blob.size))
        if body.start == offset:
            body.more = more
        return body

    async def peek(self, blob: Blob, count: int) -> bytes:
        """The first bytes of `blob`."""
        count = min(count, blob.size)
        body = await self._get(blob, 0, ahead=count, until=count)
        try:
            return (await body.read(count))[:count]
        finally:
            await body.aclose()

    async def first(self, name: str) -> tuple[Blob, BlobBody]:
        """What the container says of a blob that is known by its name alone, and its bytes from the start."""
        body = await self.open(Blob(name, UNKNOWN), 0)
        self.undated += body.is_undated
        return body.described(name), body

    async def unchanged(self, held: Held) -> bool:
        """Whether the container still has what is held, by its ETag, else by its bytes."""
        try:
            return await self._patiently(self._content, lambda sas: self._compare(sas, held))
        except BlobMissing:
            return False

    async def _compare(self, sas: SasUrl, held: Held) -> bool:
        known = held.blob.etag
        answer = await self._bulk.get(sas.blob(held.blob.name), {"If-None-Match": f'"{known}"'} if known else {})
        try:
            if answer.status == 304:
                return True
            body = await accept(answer, held.blob._replace(etag=""), 0, self._provenance, ranged=False)
            if known and (etag := body.described(held.blob.name).etag):
                return etag == known
            sha256 = hashlib.sha256()
            async for chunk in body.chunks():
                sha256.update(chunk)
            return sha256.digest() == held.stored_sha256
        finally:
            await answer.aclose()

    async def listable(self) -> bool:
        """Whether it makes sense to ask for a listing: a SAS may allow one, the signature of a CDN never does."""
        return "sig" in parse_qs((await self._listing.current()).query)

    async def way(self) -> SasUrl:
        """The link."""
        return await self.link()

    async def link(self) -> SasUrl:
        """A link that blobs can be read through now."""
        return await self._content.current()

    async def home(self) -> str:
        """The bare URL of the container."""
        return (await self._listing.current()).base

    async def _get(self, blob: Blob, offset: int, *, ahead: int, until: int | None = None) -> BlobBody:
        headers = {"If-Match": f'"{blob.etag}"'} if blob.etag else {}
        if offset or until is not None:
            headers["Range"] = f"bytes={offset}-{'' if until is None else until - 1}"
        return await self._patiently(self._content, lambda sas: self._ask(sas, blob, headers, offset, ahead))

    async def _ask(self, sas: SasUrl, blob: Blob, headers: dict[str, str], offset: int, ahead: int) -> BlobBody:
        answer = await self._bulk.get(sas.blob(blob.name), headers, ahead=ahead)
        try:
            return await accept(answer, blob, offset, self._provenance, ranged="Range" in headers)
        except BaseException:
            await answer.aclose()
            raise

    async def _patiently(self, link: Link, attempt: Callable[[SasUrl], Awaitable[T]]) -> T:
        """One attempt through the link, made again with a fresh link after a 403.

        The 403 is final on an unexpired link that was fetched after the previous 403, unless the link is too young.
        """
        refused_at: float | None = None
        refusals = 0
        while refusals < REFUSALS:
            sas = await link.current()
            try:
                done = await attempt(sas)
            except LinkRefused as refusal:
                final = refused_at is not None and sas.fetched > refused_at and not link.expired(sas)
                if await self._waited(link, sas, refusal, last=final):
                    continue
                if final:
                    raise NotAuthorised(
                        f"{refusal}, also through a fresh link", hint=_for_fresh(refusal.hint)
                    ) from refusal
                refused_at, refusals = self._clock.monotonic(), refusals + 1
                try:
                    await link.renew(sas)
                except NoFreshLink as error:
                    if not await self._waited(link, sas, refusal, last=True):
                        hint = error.hint if link.expired(sas) else refusal.hint or error.hint
                        raise NotAuthorised(f"{refusal}; {error}", hint=hint) from refusal
                    refusals -= 1
            else:
                link.worked(sas)
                return done
        raise NotAuthorised(
            "each fresh link is refused on arrival", hint="compare this machine's clock with the world's"
        )

    async def _waited(self, link: Link, sas: SasUrl, refusal: LinkRefused, *, last: bool) -> bool:
        """Whether the refused link may not have been valid yet; it is worth another attempt then."""
        pause = None if refusal.certain else link.too_early(sas, refusal.server_time, last=last)
        if pause is None:
            return False
        await self._clock.sleep(pause)
        return True


def _for_fresh(hint: str) -> str:
    """What helps where a link that was just made is refused too."""
    return FRESH_REFUSED if hint == BAD_SIGNATURE else hint


def _below(page: Page, folder: str) -> Page:
    """A page with the names below a folder, relative to it; what a server lists beside it is left out."""
    if not folder:
        return page
    some = (blob for blob in page.blobs if blob.name.startswith(folder) and blob.name != folder)
    return replace(page, blobs=tuple(blob._replace(name=blob.name[len(folder) :]) for blob in some))
