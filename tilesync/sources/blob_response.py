"""Checks on the response to a GET of a blob: status, headers, and whether the storage sent it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from typing import TYPE_CHECKING, NoReturn

from tilesync.azure.blob_headers import (
    ETAG_MARK,
    REQUEST_ID_MARK,
    HeaderGetter,
    find_storage_marks,
    has_impossible_date,
    has_known_end,
    is_permanent_denial,
    is_unexpected_html,
    matches_range,
    parse_blob_headers,
    parse_server_time,
    parse_stated_md5,
)
from tilesync.azure.error_hints import READ_PERMISSION_HINT, storage_hint
from tilesync.azure.responses import classify_storage_response, parse_etag, parse_storage_error_code
from tilesync.core.http_status import Verdict, format_status, hint_for_status, raise_for_status
from tilesync.errors import BlobError, BlobMissing, ExportReplaced, LinkRefused, RangeRefused, Transient
from tilesync.model import UNKNOWN_SIZE, Blob, Chunk
from tilesync.transport.retry import retry_after_seconds

if TYPE_CHECKING:
    from tilesync.transport.blob_client import BlobResponse

REFUSED_HINT = (
    "another run will be refused as well: ask the owner of the storage, or leave such files out with --exclude"
)

_CERTAIN_VERDICTS = {Verdict.RETRY, Verdict.THROTTLED}
"""Verdicts that are valid whoever sent the response."""


class Provenance:
    """Check that a response is from the storage and not from a proxy on the way, by the marks of earlier responses.

    The marks (headers that only a storage sends) are learned, since an nginx or an emulator has others than Azure. A
    CDN may drop the headers of the storage from its cache, so only the ETag counts in its responses.
    """

    def __init__(self, *, cdn: bool) -> None:
        self._counted_marks = {ETAG_MARK} if cdn else {ETAG_MARK, REQUEST_ID_MARK}
        self._expected_marks = set[str]()

    def record_marks(self, header: HeaderGetter) -> None:
        """Learn the marks of a response that is from the storage."""
        self._expected_marks |= find_storage_marks(header) & self._counted_marks

    def check_response(self, header: HeaderGetter, blob: Blob) -> None:
        """Raise Transient for a response that is not from the storage, so cannot hold the bytes of the blob."""
        if blob.etag and parse_etag(header("etag")) == blob.etag:  # only the storage knows it
            if ETAG_MARK not in self._expected_marks:
                self.record_marks(header)
            return
        marks = find_storage_marks(header)
        if missing := sorted(self._expected_marks - marks):
            raise Transient(f"the response is not from the storage (it lacks {' and '.join(missing)})")
        if not is_unexpected_html(blob, header("content-type")):
            self.record_marks(header)
        elif REQUEST_ID_MARK not in marks:
            raise Transient("the response is not from the storage (it is a web page)")

    def check_refusal(self, status: int, verdict: Verdict, header: HeaderGetter) -> None:
        """Raise Transient for a refusal that is not from the storage."""
        if verdict not in _CERTAIN_VERDICTS and REQUEST_ID_MARK in self._expected_marks - find_storage_marks(header):
            raise Transient(f"a response {status} that is not from the storage (it lacks {REQUEST_ID_MARK})")


class BlobBody:
    """Body of one blob, from byte `start` on.

    `open_next` opens the piece that starts at a byte, and returns None at the end. `md5` is that of the whole blob, as
    the response states it.
    """

    def __init__(self, response: BlobResponse, blob: Blob, start: int) -> None:
        self._response = response
        self.start = start
        self.md5 = parse_stated_md5(response.header, is_whole=response.status == 200)
        self.open_next: Callable[[int], Awaitable[BlobBody] | None] = lambda _: None
        end_is_known = has_known_end(response.header, response.http_version)
        if not end_is_known and blob.size == UNKNOWN_SIZE and self.md5 is None:
            raise Transient("the response states no length (no Content-Length), so the body may be cut off")
        self._expected_bytes = 0 if end_is_known else blob.size - start

    def describe_blob(self, name: str) -> Blob:
        """Return the blob as the headers of the response describe it."""
        return parse_blob_headers(name, self._response.header)

    @property
    def is_undated(self) -> bool:
        """Return whether the response states a modification time that no file can have."""
        return has_impossible_date(self._response.header)

    async def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the stored bytes as they arrive."""
        position, piece_bytes = self.start, 0
        while True:
            async for chunk in self._response.chunks():
                piece_bytes += len(chunk)
                yield chunk
            self._check_complete(piece_bytes)
            if not piece_bytes or (opening := self.open_next(position + piece_bytes)) is None:
                return
            position, piece_bytes = position + piece_bytes, 0
            await self._response.aclose()
            body = await opening
            self._response, self._expected_bytes = body._response, body._expected_bytes
            if body.start != position:
                raise RangeRefused("the storage no longer supports ranges")
            if body.md5 != self.md5:
                raise RangeRefused("the storage states different MD5s for one blob")

    async def read(self, max_bytes: int) -> bytes:
        """Read all stored bytes; a body of more than `max_bytes` is read only until that is known."""
        body = await self._response.read(max_bytes)
        self._check_complete(len(body))
        return body

    def _check_complete(self, received_bytes: int) -> None:
        if received_bytes < self._expected_bytes:
            raise Transient("the body was cut off")

    async def aclose(self) -> None:
        """Release the connection."""
        await self._response.aclose()


async def check_blob_response(
    response: BlobResponse, blob: Blob, offset: int, provenance: Provenance, *, ranged: bool
) -> BlobBody:
    """Return the body of a valid response; raise the error that any other response means.

    `ranged`: the request was for a part of the blob.
    """
    if response.status not in {200, 206}:
        await _raise_refusal(response, blob, offset, provenance)
    provenance.check_response(response.header, blob)
    etag = parse_etag(response.header("etag"))
    if blob.etag and etag and etag != blob.etag:
        raise ExportReplaced(f"{blob.name} changed during the run (its ETag differs)")
    if response.status == 200:
        return BlobBody(response, blob, 0)
    if not ranged or not matches_range(response.header, blob, offset):
        raise RangeRefused(f"the storage sent another range than bytes {offset}-")
    return BlobBody(response, blob, offset)


async def _raise_refusal(response: BlobResponse, blob: Blob, offset: int, provenance: Provenance) -> NoReturn:
    body = await response.read_error_body()
    code = parse_storage_error_code(response.header("x-ms-error-code"), body)
    detail, hint = format_status(response.status, code), storage_hint(code)
    verdict = classify_storage_response(response.status, code)
    provenance.check_refusal(response.status, verdict, response.header)
    match verdict:
        case Verdict.MISSING:
            raise BlobMissing(f"{blob.name}: the container lists it, but does not have it {detail}")
        case Verdict.GONE:
            raise ExportReplaced(f"the container is gone {detail}")
        case Verdict.CHANGED:
            raise ExportReplaced(f"{blob.name} changed during the run {detail}")
        case Verdict.DENIED:
            raise LinkRefused(
                f"the container refused {blob.name} {detail}",
                hint=hint or READ_PERMISSION_HINT,
                server_time=parse_server_time(response.header),
                is_permanent=is_permanent_denial(code, body),
            )
        case Verdict.RANGE_REFUSED:
            raise RangeRefused(f"the storage cannot give {blob.name} from byte {offset} {detail}")
        case Verdict.REFUSED:
            raise BlobError(
                f"{blob.name}: the storage refuses it {detail}",
                hint=hint or hint_for_status(response.status) or REFUSED_HINT,
            )
        case _:
            raise_for_status(verdict, response.status, retry_after_seconds(response.header), "the storage", hint)
    raise Transient(f"the storage answered {response.status}")
