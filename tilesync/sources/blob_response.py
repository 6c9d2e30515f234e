"""Answers of a container to the GET of a blob: checked for what they state, and for whether the storage gave them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

from tilesync.azure.blob_headers import (
    ETAG,
    MARK,
    Header,
    describe,
    is_certain,
    is_foreign_page,
    is_undated,
    marks_of,
    range_fits,
    server_time,
    stated_md5,
    tells_its_end,
)
from tilesync.azure.error_hints import READABLE, storage_hint
from tilesync.azure.responses import judge_storage, plain_etag, storage_code
from tilesync.core.http_status import Verdict, demand, status_hint
from tilesync.errors import BlobError, BlobMissing, ExportReplaced, LinkRefused, RangeRefused, Transient
from tilesync.model import UNKNOWN, Blob
from tilesync.transport.retry_after import asked_wait

if TYPE_CHECKING:
    from tilesync.transport.blob_client import Answer

REFUSED = "another run is refused as well: ask the owner of the storage, or leave such files out with --exclude"

_SURE = {Verdict.RETRY, Verdict.PRESSURE}
"""Verdicts that hold, whoever gave the answer."""


class Provenance:
    """Tells answers of the storage from those of something on the way, by the marks that earlier answers had.

    Only relative to those: an nginx or an emulator has other marks than Azure. A CDN may drop the headers of the
    storage from what it keeps, so of its answers the ETag alone counts.
    """

    def __init__(self, *, cdn: bool) -> None:
        self._counts = {ETAG} if cdn else {ETAG, MARK}
        self._expected = set[str]()

    def learn(self, header: Header) -> None:
        """An answer came from the storage."""
        self._expected |= marks_of(header) & self._counts

    def judge(self, header: Header, blob: Blob) -> None:
        """Raise Transient for bytes that cannot be those of the blob, because the storage did not send them."""
        if blob.etag and plain_etag(header("etag")) == blob.etag:  # nobody else knows it
            if ETAG not in self._expected:
                self.learn(header)
            return
        marks = marks_of(header)
        if lacking := sorted(self._expected - marks):
            raise Transient(f"the answer does not come from the storage (it lacks {' and '.join(lacking)})")
        if not is_foreign_page(blob, header("content-type")):
            self.learn(header)
        elif MARK not in marks:
            raise Transient("the answer does not come from the storage (it is a web page)")

    def judge_refusal(self, status: int, verdict: Verdict, header: Header) -> None:
        """Raise Transient for a refusal that is not the storage's."""
        if verdict not in _SURE and MARK in self._expected - marks_of(header):
            raise Transient(f"an answer {status} that does not come from the storage (it lacks {MARK})")


class BlobBody:
    """The body of one blob, from byte `start` on. `more` gets the piece that begins at a byte, None behind the last.

    `md5` is that of the whole blob, as the answer states it.
    """

    def __init__(self, answer: Answer, blob: Blob, start: int) -> None:
        self._answer = answer
        self.start = start
        self.md5 = stated_md5(answer.header, whole=answer.status == 200)
        self.more: Callable[[int], Awaitable[BlobBody] | None] = lambda _: None
        ends = tells_its_end(answer.header, answer.version)
        if not ends and blob.size == UNKNOWN and self.md5 is None:
            raise Transient("nothing tells where the body ends (no Content-Length), so it may have broken off")
        self._due = 0 if ends else blob.size - start

    def described(self, name: str) -> Blob:
        """What the answer says of the blob."""
        return describe(name, self._answer.header)

    @property
    def is_undated(self) -> bool:
        """Whether the answer says that the blob was modified at a time that no file can have."""
        return is_undated(self._answer.header)

    async def chunks(self) -> AsyncIterator[bytes]:
        """The stored bytes as they come."""
        at, piece = self.start, 0
        while True:
            async for chunk in self._answer.chunks():
                piece += len(chunk)
                yield chunk
            self._demand_all(piece)
            if not piece or (following := self.more(at + piece)) is None:
                return
            at, piece = at + piece, 0
            await self._answer.aclose()
            body = await following
            self._answer, self._due = body._answer, body._due
            if body.start != at:
                raise RangeRefused("the storage knows ranges no more")
            if body.md5 != self.md5:
                raise RangeRefused("the storage states another MD5 in each answer")

    async def read(self, most: int) -> bytes:
        """The stored bytes, all at once; of more than `most` no more than shows that there are more."""
        body = await self._answer.read(most)
        self._demand_all(len(body))
        return body

    def _demand_all(self, came: int) -> None:
        if came < self._due:
            raise Transient("the body broke off")

    async def aclose(self) -> None:
        """Release the connection."""
        await self._answer.aclose()


async def accept(answer: Answer, blob: Blob, offset: int, provenance: Provenance, *, ranged: bool) -> BlobBody:
    """The body that an answer holds. Raises what follows from any other answer.

    `ranged`: a part of the blob was asked for.
    """
    if answer.status not in {200, 206}:
        await _refuse(answer, blob, offset, provenance)
    provenance.judge(answer.header, blob)
    etag = plain_etag(answer.header("etag"))
    if blob.etag and etag and etag != blob.etag:
        raise ExportReplaced(f"{blob.name} changed under the run (its ETag is another one)")
    if answer.status == 200:
        return BlobBody(answer, blob, 0)
    if not ranged or not range_fits(answer.header, blob, offset):
        raise RangeRefused(f"the storage sent another range than bytes {offset}-")
    return BlobBody(answer, blob, offset)


async def _refuse(answer: Answer, blob: Blob, offset: int, provenance: Provenance) -> NoReturn:
    body = await answer.text()
    code = storage_code(answer.header("x-ms-error-code"), body)
    said, hint = f"({answer.status} {code})".replace(" )", ")"), storage_hint(code)
    verdict = judge_storage(answer.status, code)
    provenance.judge_refusal(answer.status, verdict, answer.header)
    match verdict:
        case Verdict.MISSING:
            raise BlobMissing(f"{blob.name}: the container lists it, but does not have it {said}")
        case Verdict.GONE:
            raise ExportReplaced(f"the container is gone {said}")
        case Verdict.CHANGED:
            raise ExportReplaced(f"{blob.name} changed under the run {said}")
        case Verdict.DENIED:
            raise LinkRefused(
                f"the container refused {blob.name} {said}",
                hint=hint or READABLE,
                server_time=server_time(answer.header),
                certain=is_certain(code, body),
            )
        case Verdict.UNRANGED:
            raise RangeRefused(f"the storage cannot give {blob.name} from byte {offset} on {said}")
        case Verdict.REFUSED:
            raise BlobError(
                f"{blob.name}: the storage refuses it {said}", hint=hint or status_hint(answer.status) or REFUSED
            )
        case _:
            demand(verdict, answer.status, asked_wait(answer.header), "the storage", hint)
    raise Transient(f"the storage answered {answer.status}")
