"""The Source: one export's container, listed and read through links that stay alive."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from typing import TYPE_CHECKING, TypeVar
from urllib.parse import parse_qs

from tilesync.errors import (
    BlobError,
    BlobMissing,
    ExportReplaced,
    LinkRefused,
    ListingDenied,
    NoFreshLink,
    NotAuthorised,
    RangeRefused,
    Transient,
    Unavailable,
)
from tilesync.model import UNKNOWN, Blob, Held, Page, SasUrl
from tilesync.protocols import Clock, Link
from tilesync.rules.listings import parse_page
from tilesync.rules.replies import (
    Verdict,
    http_date,
    judge_storage,
    parse_md5,
    plain_etag,
    storage_code,
    weak_etag,
)
from tilesync.rules.verdicts import demand
from tilesync.threads import in_thread
from tilesync.wire.http import Ask, Conversation, Reply
from tilesync.wire.retry_after import asked_wait

if TYPE_CHECKING:
    from tilesync.wire.bulk import Answer, Bulk  # loaded with the first container that is opened

T = TypeVar("T")

ENTRY = 700
"""Bytes of one blob in a listing, or so; a page of the usual size comes at once, whatever the bandwidth."""

FULL, SLIGHT = 5000, 100
"""Blobs of a page: the most that there are, and the fewest that are asked for. Source: "List Blobs" (REST)."""

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

    async def pages(self, marker: str | None) -> AsyncIterator[Page]:
        """The inventory from `marker` on. Source: "Enumerating blob resources" (REST).

        A page is given out whole or not at all. Raises Unavailable when a page stays torn or a marker comes again, and
        ListingDenied when the first page is refused.
        """
        seen: set[str | None] = {marker}
        while True:
            try:
                page = await self._patiently(self._listing, partial(self._page, marker))
            except NotAuthorised as error:
                raise error if marker else ListingDenied(error) from error
            yield page
            if page.marker is None:
                return
            if page.marker in seen:
                raise Unavailable(
                    "the listing leads in a circle: a marker came twice", hint="this export was not published"
                )
            seen.add(page.marker)
            marker = page.marker

    async def _page(self, marker: str | None, sas: SasUrl) -> Page:
        piece = self._bulk.piece  # a sixteenth of what may come in a second
        size = None if piece is None else min(max(4 * piece // ENTRY, SLIGHT), FULL)

        async def make() -> Ask:
            return Ask(sas.listing(marker, page_size=size))

        async def accept(reply: Reply) -> Page:
            if reply.status == 200:
                return await in_thread(parse_page, b"".join([chunk async for chunk in reply.chunks()]))
            body = await reply.read()
            code = storage_code(reply.header("x-ms-error-code"), body)
            verdict = judge_storage(reply.status, code)
            if verdict in {Verdict.GONE, Verdict.MISSING}:
                raise ExportReplaced(f"the container is gone ({reply.status} {code})")
            if verdict is Verdict.DENIED:
                raise LinkRefused(f"the container refused to be listed ({reply.status} {code})".rstrip())
            wait = asked_wait(reply.header)
            demand(verdict, reply.status, wait, f"the container's listing ({code or 'no code'})")
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
            body = await _accept(answer, held.blob._replace(etag=""), 0)
            if known and (etag := body.described(held.blob.name).etag):
                return etag == known
            sha256 = hashlib.sha256()
            async for chunk in body.chunks():
                sha256.update(chunk)
            return sha256.digest() == held.sha256
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
            return await _accept(answer, blob, offset)
        except BaseException:
            await answer.aclose()
            raise

    async def _patiently(self, link: Link, attempt: Callable[[SasUrl], Awaitable[T]]) -> T:
        """One attempt through the link, made again with a fresh link after a 403.

        The 403 is final on an unexpired link that was fetched after the previous 403.
        """
        refused_at: float | None = None
        for _ in range(REFUSALS):
            sas = await link.current()
            try:
                return await attempt(sas)
            except LinkRefused as refusal:
                final = refused_at is not None and sas.fetched > refused_at and not link.expired(sas)
                if final:
                    raise NotAuthorised(f"{refusal}, also through a fresh link") from refusal
                refused_at = self._clock.monotonic()
                try:
                    await link.renew(sas)
                except NoFreshLink as error:
                    raise NotAuthorised(f"{refusal}; {error}", hint=error.hint) from refusal
        raise NotAuthorised(
            "each fresh link is refused on arrival", hint="compare this machine's clock with the world's"
        )


class BlobBody:
    """The body of one blob, from byte `start` on. `more` gets the piece that begins at a byte, None behind the last."""

    def __init__(self, answer: Answer, start: int) -> None:
        self._answer = answer
        self.start = start
        self.more: Callable[[int], Awaitable[BlobBody] | None] = lambda _: None

    def described(self, name: str) -> Blob:
        """What the answer says of the blob; a weak ETag counts as none, since it does not tell bytes apart."""
        said = self._answer.header
        length, etag = said("content-length") or "", said("etag")
        return Blob(
            name,
            int(length) if length.isdecimal() else UNKNOWN,
            "" if weak_etag(etag) else plain_etag(etag),
            parse_md5(said("content-md5")),
            said("content-type"),
            said("content-encoding"),
            http_date(said("last-modified")),
        )

    async def chunks(self) -> AsyncIterator[bytes]:
        """The stored bytes as they come."""
        at, piece = self.start, 0
        while True:
            async for chunk in self._answer.chunks():
                piece += len(chunk)
                yield chunk
            if not piece or (following := self.more(at + piece)) is None:
                return
            at, piece = at + piece, 0
            await self._answer.aclose()
            body = await following
            self._answer = body._answer
            if body.start != at:
                raise RangeRefused("the storage knows ranges no more")

    async def read(self, most: int) -> bytes:
        """The stored bytes, all at once; of more than `most` no more than shows that there are more."""
        return await self._answer.read(most)

    async def aclose(self) -> None:
        """Release the connection."""
        await self._answer.aclose()


async def _accept(answer: Answer, blob: Blob, offset: int) -> BlobBody:
    if answer.status in {200, 206}:
        etag = plain_etag(answer.header("etag"))
        if blob.etag and etag and etag != blob.etag:
            raise ExportReplaced(f"{blob.name} changed under the run (its ETag is another one)")
        if answer.status == 200:
            return BlobBody(answer, 0)
        if (answer.header("content-range") or "").startswith(f"bytes {offset}-"):
            return BlobBody(answer, offset)
        raise RangeRefused(f"the storage sent another range than bytes {offset}-")
    code = storage_code(answer.header("x-ms-error-code"), await answer.text())
    said = f"({answer.status} {code})".replace(" )", ")")
    match judge_storage(answer.status, code):
        case Verdict.MISSING:
            raise BlobMissing(f"{blob.name}: the container lists it, but does not have it {said}")
        case Verdict.GONE:
            raise ExportReplaced(f"the container is gone {said}")
        case Verdict.CHANGED:
            raise ExportReplaced(f"{blob.name} changed under the run {said}")
        case Verdict.DENIED:
            raise LinkRefused(f"the container refused {blob.name} {said}")
        case Verdict.UNRANGED:
            raise RangeRefused(f"the storage cannot give {blob.name} from byte {offset} on {said}")
        case Verdict.REFUSED:
            raise BlobError(f"{blob.name}: the storage refuses it {said}")
        case verdict:
            demand(verdict, answer.status, asked_wait(answer.header), "the storage")
    raise Transient(f"the storage answered {answer.status}")
