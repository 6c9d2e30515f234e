"""A large object on its way into a bucket: not visible before it is whole, and nothing stays if it never is."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

from tilesync.errors import TilesyncError, Transient
from tilesync.events import Notice
from tilesync.model.storage import ObjectHeaders, ObjectInfo
from tilesync.protocols import Observer
from tilesync.stores.s3.errors import NotThere
from tilesync.stores.s3.multipart import PART_BYTES, MultipartClient, choose_part_bytes, compute_multipart_etag
from tilesync.stores.s3.objects import ObjectClient
from tilesync.transport.retry import SyncRetrier

T = TypeVar("T")


class RunInThread(Protocol):
    """Gives the result of blocking work that is done beside the loop."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Do it."""


class MultipartUpload:
    """The parts of one object, one attempt a call; it begins with the first of them. `astray`: an upload may have begun
    that nobody knows the id of, as the answer was lost; `abort` finds it.
    """

    def __init__(
        self, multipart_client: MultipartClient, object_client: ObjectClient, name: str, label: ObjectHeaders
    ) -> None:
        self._multipart_client = multipart_client
        self._object_client = object_client
        self._name = name
        self._label = label
        self._upload_id: str | None = None
        self._sent_parts: dict[int, tuple[str, bytes, int]] = {}
        self.may_have_orphan = False

    def send_part(self, number: int, data: bytes | bytearray) -> None:
        """Send a part, counted from 1; it may be sent again."""
        if self._upload_id is None:
            try:
                self._upload_id = self._multipart_client.create_upload(self._name, self._label)
            except Transient:
                self.may_have_orphan = True
                raise
        etag, md5 = self._multipart_client.upload_part(self._name, self._upload_id, number, data)
        self._sent_parts[number] = etag, md5, len(data)

    def complete(self, count: int, *, expected_etag: str | None = None) -> ObjectInfo:
        """Put in place what so many parts make; it may be tried again: what an attempt that went unanswered put there
        is known by its ETag.
        """
        sent = [self._sent_parts[number] for number in range(1, count + 1)]
        size, expected = sum(length for _, _, length in sent), compute_multipart_etag([md5 for _, md5, _ in sent])
        assert self._upload_id is not None
        try:
            etags = [etag for etag, _, _ in sent]
            etag = self._multipart_client.complete_upload(
                self._name, self._upload_id, etags, expected_etag=expected_etag
            )
        except NotThere:
            there = self._object_client.head(self._name)
            if (there.size, there.etag) != (size, expected):
                raise
            etag = expected
        self._upload_id = None
        return ObjectInfo(self._name, size, etag)

    def abort(self) -> None:
        """Give up what is not complete, and what began without an answer."""
        uploads = [self._upload_id] if self._upload_id is not None else []
        if self.may_have_orphan:
            uploads = self._multipart_client.list_unfinished_uploads(self._name)
        for upload in uploads:
            try:
                self._multipart_client.abort_upload(self._name, upload)
            except NotThere:
                continue
        self._upload_id, self._sent_parts, self.may_have_orphan = None, {}, False


def abort_upload(upload: MultipartUpload, retrying: SyncRetrier, observe: Observer, display_name: str) -> None:
    """Leave no parts behind: they would be paid for. Where they cannot be deleted that is said, and is no error."""
    try:
        retrying.retry(display_name, upload.abort)
    except TilesyncError as error:
        observe(
            Notice(
                f"parts of an unfinished upload stay in {display_name}: {error}; a lifecycle rule of the bucket can end them"
            )
        )


class S3Upload:
    """A large object on its way in. Of its bytes no more than two parts are in memory."""

    def __init__(
        self,
        name: str,
        size: int,
        label: ObjectHeaders,
        *,
        object_client: ObjectClient,
        multipart: MultipartUpload,
        run_in_thread: RunInThread,
        abort: Callable[[], None],
    ) -> None:
        self._name = name
        self._label = label
        self._object_client = object_client
        self._multipart = multipart
        self._run_in_thread = run_in_thread
        self._abort = abort
        self._part_bytes = choose_part_bytes(size)
        self._pieces: list[bytes] = []
        self._count = 0
        self._last_part_sent: int | None = None

    async def append(self, data: bytes) -> None:
        """Take in the next bytes; whole parts leave. Done again it sends the same parts under the same numbers."""
        pieces, count = [*self._pieces, data], self._count
        while sum(map(len, pieces)) > self._part_bytes:
            part, pieces = _cut_part(pieces, self._part_bytes)
            count += 1
            await self._send_part(count, part)
        self._pieces, self._count = pieces, count

    async def _send_part(self, number: int, part: bytes | bytearray) -> None:
        await self._run_in_thread(lambda: self._multipart.send_part(number, part))

    async def finish(self, md5: bytes | None) -> ObjectInfo:
        """Put it in place. The last part is not sent again once it is there: the upload may be complete by then."""
        rest, count = b"".join(self._pieces), self._count + 1
        if not self._count and len(rest) <= PART_BYTES:
            return await self._object_client.put_async(self._name, rest, self._label)
        if self._last_part_sent != count:
            await self._send_part(count, rest)
            self._last_part_sent = count
        found = await self._run_in_thread(lambda: self._multipart.complete(count))
        if self._multipart.may_have_orphan:
            await self._run_in_thread(self._abort)
        return found

    async def abort(self) -> None:
        """Give it up."""
        self._pieces, self._count, self._last_part_sent = [], 0, None
        await self._run_in_thread(self._abort)


def _cut_part(pieces: list[bytes], size: int) -> tuple[bytearray, list[bytes]]:
    """The first `size` bytes, and the pieces of what follows. As a bytearray: botocore copies bytes once more."""
    first = bytearray()
    for number, piece in enumerate(pieces):
        room = size - len(first)
        first += piece[:room]
        if len(first) == size:
            return first, [rest for rest in (piece[room:], *pieces[number + 1 :]) if rest]
    return first, []
