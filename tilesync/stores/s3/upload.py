"""Upload a large object in parts: it is invisible before it is complete, and an aborted upload leaves no parts."""

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
    """Run blocking work outside the event loop, and return its result."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]:
        """Run the work."""


class MultipartUpload:
    """One multipart upload, one attempt for each call; it begins with the first part.

    `may_have_orphan`: an upload with an unknown id may exist, since the response was lost; `abort` finds it.
    """

    def __init__(
        self, multipart_client: MultipartClient, object_client: ObjectClient, name: str, object_headers: ObjectHeaders
    ) -> None:
        self._multipart_client = multipart_client
        self._object_client = object_client
        self._name = name
        self._label = object_headers
        self._upload_id: str | None = None
        self._sent_parts: dict[int, tuple[str, bytes, int]] = {}
        self.may_have_orphan = False

    def send_part(self, number: int, data: bytes | bytearray) -> None:
        """Send a part, counted from 1. It may be sent again."""
        if self._upload_id is None:
            try:
                self._upload_id = self._multipart_client.create_upload(self._name, self._label)
            except Transient:
                self.may_have_orphan = True
                raise
        etag, md5 = self._multipart_client.upload_part(self._name, self._upload_id, number, data)
        self._sent_parts[number] = etag, md5, len(data)

    def complete(self, count: int, *, expected_etag: str | None = None) -> ObjectInfo:
        """Complete the upload of `count` parts. It may be called again after a lost response.

        Then the upload is gone, and the object is recognised by its size and ETag.
        """
        parts = [self._sent_parts[number] for number in range(1, count + 1)]
        size, own_etag = sum(length for _, _, length in parts), compute_multipart_etag([md5 for _, md5, _ in parts])
        assert self._upload_id is not None
        try:
            etags = [etag for etag, _, _ in parts]
            etag = self._multipart_client.complete_upload(
                self._name, self._upload_id, etags, expected_etag=expected_etag
            )
        except NotThere:
            found = self._object_client.head(self._name)
            if (found.size, found.etag) != (size, own_etag):
                raise
            etag = own_etag
        self._upload_id = None
        return ObjectInfo(self._name, size, etag)

    def abort(self) -> None:
        """Abort the upload, and any upload whose id was lost."""
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
    """Abort an upload, since its parts cost storage. A failure is reported as a notice, and is no error."""
    try:
        retrying.retry(display_name, upload.abort)
    except TilesyncError as error:
        observe(
            Notice(
                f"parts of an unfinished upload stay in {display_name}: {error}; a lifecycle rule of the bucket can"
                " delete them"
            )
        )


class S3Upload:
    """A large object that is uploaded part by part. At most two parts are in memory."""

    def __init__(
        self,
        name: str,
        size: int,
        object_headers: ObjectHeaders,
        *,
        object_client: ObjectClient,
        multipart: MultipartUpload,
        run_in_thread: RunInThread,
        abort: Callable[[], None],
    ) -> None:
        self._name = name
        self._label = object_headers
        self._object_client = object_client
        self._multipart = multipart
        self._run_in_thread = run_in_thread
        self._abort = abort
        self._part_bytes = choose_part_bytes(size)
        self._pieces: list[bytes] = []
        self._count = 0
        self._last_part_sent: int | None = None

    async def append(self, data: bytes) -> None:
        """Add bytes, and send each full part. A repeated call sends the same parts under the same numbers."""
        pieces, count = [*self._pieces, data], self._count
        while sum(map(len, pieces)) > self._part_bytes:
            part, pieces = _cut_part(pieces, self._part_bytes)
            count += 1
            await self._send_part(count, part)
        self._pieces, self._count = pieces, count

    async def _send_part(self, number: int, part: bytes | bytearray) -> None:
        await self._run_in_thread(lambda: self._multipart.send_part(number, part))

    async def finish(self, md5: bytes | None) -> ObjectInfo:
        """Send the rest and publish the object: in one PUT if it fits into a part, else by completing the upload.

        A repeated call does not send the last part again: the upload may be complete by then.
        """
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
        """Abort the upload."""
        self._pieces, self._count, self._last_part_sent = [], 0, None
        await self._run_in_thread(self._abort)


def _cut_part(pieces: list[bytes], size: int) -> tuple[bytearray, list[bytes]]:
    """Return the first `size` bytes, and the rest in pieces. As a bytearray: botocore would copy bytes once more."""
    part = bytearray()
    for number, piece in enumerate(pieces):
        missing = size - len(part)
        part += piece[:missing]
        if len(part) == size:
            return part, [rest for rest in (piece[missing:], *pieces[number + 1 :]) if rest]
    return part, []
