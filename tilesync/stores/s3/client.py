"""Read, write, list, copy and delete objects of an S3 bucket: small ones through obstore, large ones through boto3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import UTC, datetime, timedelta
from functools import partial
from itertools import chain
from typing import Final, NamedTuple, TypeVar

from tilesync.azure.list_blobs import PageGuard
from tilesync.errors import ConditionFailed, Transient
from tilesync.events import Warned
from tilesync.model.storage import CopySource, ObjectHeaders, ObjectInfo
from tilesync.protocols import ObjectStream, Observer
from tilesync.runtime.threads import run_in_executor
from tilesync.stores.object_store.resumable_read import read_resuming
from tilesync.stores.s3.copy_requests import BucketCopies, parse_copy
from tilesync.stores.s3.direct_put import WorkerAccess
from tilesync.stores.s3.errors import Archived, NotThere
from tilesync.stores.s3.lease import LEASE_TERM, ObjectLease
from tilesync.stores.s3.multipart import MAX_COPY_OBJECT_BYTES, PART_BYTES, MultipartClient
from tilesync.stores.s3.name_probe import find_misread_characters
from tilesync.stores.s3.objects import ObjectClient
from tilesync.stores.s3.signing import SignedAccess
from tilesync.stores.s3.upload import MultipartUpload, S3Upload, abort_upload
from tilesync.transport.blob_client_sync import SyncBlobClient
from tilesync.transport.request_batches import RequestBatches
from tilesync.transport.retry import SyncRetrier

T = TypeVar("T")

PARALLEL_PARTS: Final = 16
"""Parts of all uploads that are sent in parallel."""

ABORT_RETRY_BUDGET: Final = timedelta(seconds=10)
"""Retry budget of the requests that abort an upload."""


MAX_BATCH_COPY_BYTES: Final = 8 << 20
"""Bytes of the largest object that is copied in a batch: a larger one takes the service too long."""


class S3Clients(NamedTuple):
    """Clients for one bucket, and the budget of their retries.

    `open_anonymous_client`: requests as a viewer does. `access`: for copies in batches, and for worker processes; None
    if that is not possible.
    """

    object_client: ObjectClient
    multipart_client: MultipartClient
    observe: Observer
    retry_budget: timedelta
    open_anonymous_client: Callable[[], AbstractContextManager[SyncBlobClient]]
    access: SignedAccess | None
    batches: RequestBatches


class S3Objects:
    """The objects of one bucket below a prefix, which is empty or ends with a slash.

    `renewal_objects`: the same objects with shorter time limits, for the renewals of the lock.
    """

    part_bytes = PART_BYTES
    suspect_characters = "+"
    rejects_empty_segments = True  # obstore rejects such names

    def __init__(
        self,
        clients: S3Clients,
        prefix: str,
        *,
        display_name: str,
        canonical_url: str,
        term: timedelta = LEASE_TERM,
        renewal_objects: S3Objects | None = None,
    ) -> None:
        self._object_client = clients.object_client
        self._multipart_client = clients.multipart_client
        self._open_anonymous_client = clients.open_anonymous_client
        self._access, self._batches = clients.access, clients.batches
        self._copies = BucketCopies(clients.access.bucket, clients.access.load_signer) if clients.access else None
        self._observe = clients.observe
        self._retrying = SyncRetrier(clients.observe, budget=clients.retry_budget)
        self._abort_retrying = SyncRetrier(clients.observe, budget=min(clients.retry_budget, ABORT_RETRY_BUDGET))
        self._prefix = prefix
        self._lease = ObjectLease(self, renewal_objects or self, term=term)
        self._pool = ThreadPoolExecutor(PARALLEL_PARTS, "tilesync-s3")
        self._is_bucket_known = False
        self._obeys_copy_condition: bool | None = None
        self._has_warned_archived = False
        self.guard: Callable[[], None] = lambda: None
        self.display_name = display_name
        self.canonical_url = canonical_url

    # --- read ---

    def find(self, name: str) -> ObjectInfo | None:
        """Return size, ETag and MD5 of an object, or None if it is missing."""
        try:
            return self._relative_to_prefix(self._retry(lambda: self._object_client.head(self._prefix + name)))
        except NotThere:
            self._require_bucket()
            return None

    def _require_bucket(self) -> None:
        """Raise DestinationError if the bucket is missing: a response to HEAD does not say what is missing."""
        if not self._is_bucket_known:
            self._retry(lambda: next(self._object_client.list_pages(f"{self._prefix}.tilesync"), None))
            self._is_bucket_known = True

    def list_pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        """List the objects whose names begin with `prefix`, page by page. Each page is retried."""
        return (page for page, _ in self.list_pages_from(prefix, "") if page)

    def list_pages_from(self, prefix: str, cursor: str) -> Iterator[tuple[list[ObjectInfo], str]]:
        """List objects after the name `cursor`, each page with its last name."""
        full_prefix, after = self._prefix + prefix, cursor or None
        folder = full_prefix.rpartition("/")[0]  # obstore knows prefixes of whole segments only
        pages, guard = self._object_client.list_pages(folder, after=after), PageGuard()
        while True:
            try:
                page = next(pages, None)
            except Transient:
                pages, page = self._retry(partial(self._resume_listing, folder, after))
            if page is None:
                break
            after = page[-1].name if page else after
            guard.check_page(page[-1].name if page else "")
            yield [self._relative_to_prefix(each) for each in page if each.name.startswith(full_prefix)], after or ""
        yield [], ""

    def _resume_listing(
        self, folder: str, after: str | None
    ) -> tuple[Iterator[list[ObjectInfo]], list[ObjectInfo] | None]:
        pages = self._object_client.list_pages(folder, after=after)
        return pages, next(pages, None)

    def read(self, name: str, *, offset: int = 0) -> ObjectStream | None:
        """Open an object from `offset` on; None if it is missing."""
        full_name = self._prefix + name
        try:
            body = self._retry(lambda: self._object_client.get(full_name, offset=offset, etag=""))
        except NotThere:
            return None
        info = self._relative_to_prefix(body.info)

        def reopen(offset: int) -> Iterator[bytes] | None:
            try:
                return self._retry(lambda: self._object_client.get(full_name, offset=offset, etag=info.etag)).chunks
            except NotThere:
                return None

        return ObjectStream(info, read_resuming(info, offset, body.chunks, reopen, self.display_name))

    # --- write, copy and delete ---

    def write(
        self, name: str, data: Iterable[bytes], object_headers: ObjectHeaders, *, expected_etag: str | None = None
    ) -> ObjectInfo:
        """Write an object of any size: in one request up to a part, in parts beyond.

        The request that publishes the object carries the condition. Before parts are completed the ETag is compared as
        well: some servers know conditions on single PUT requests only.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        pieces = _split_into_parts(data, md5.update)
        first, second = next(pieces), next(pieces, None)
        try:
            if second is None:
                put = partial(
                    self._object_client.put, self._prefix + name, first, object_headers, expected_etag=expected_etag
                )
                return self._relative_to_prefix(self._retry_guarded(put))
            return self._relative_to_prefix(
                self._upload_parts(name, chain([first, second], pieces), object_headers, expected_etag)
            )
        except ConditionFailed:
            # An earlier attempt whose response was lost may have written this very object.
            found = self._find_with_md5(name, md5.digest())
            if found is not None:
                return found
            raise

    def _upload_parts(
        self, name: str, pieces: Iterator[bytes], object_headers: ObjectHeaders, expected_etag: str | None
    ) -> ObjectInfo:
        upload = MultipartUpload(self._multipart_client, self._object_client, self._prefix + name, object_headers)
        try:
            count = 0
            for count, piece in enumerate(pieces, 1):
                self._retry_guarded(partial(upload.send_part, count, piece))
            if expected_etag is not None:
                self._require_etag(name, expected_etag)
            found = self._retry_guarded(lambda: upload.complete(count, expected_etag=expected_etag))
        except BaseException:
            self._abort_upload(upload)
            raise
        if upload.may_have_orphan:
            self._abort_upload(upload)
        return found

    def _require_etag(self, name: str, etag: str) -> None:
        found = self.find(name)
        if (found.etag if found is not None else "") != etag:
            raise ConditionFailed(f"{name} was changed meanwhile")

    def _find_with_md5(self, name: str, md5: bytes) -> ObjectInfo | None:
        """Return the object if it has this MD5. It is read for that, since not every ETag is an MD5."""
        stored, digest = self.read(name), hashlib.md5(usedforsecurity=False)
        for chunk in stored.chunks if stored is not None else ():
            digest.update(chunk)
        return stored.info if stored is not None and digest.digest() == md5 else None

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Copy an object by the service alone; None if it was changed, deleted or archived, or is too large."""
        if original.size > MAX_COPY_OBJECT_BYTES:
            return None
        try:
            copied = self._retry_guarded(
                lambda: self._multipart_client.copy_object(original, self._prefix + original.name, self._prefix + name)
            )
        except Archived as error:
            self._warn_archived(error)
            return None
        return None if copied is None else self._accept_copy(original, self._relative_to_prefix(copied))

    def copy_batch(self, copies: Sequence[tuple[ObjectInfo, str]]) -> list[ObjectInfo | None]:
        """Copy small objects at once, one attempt each; None for each that `copy` has to try."""
        results: list[ObjectInfo | None] = [None] * len(copies)
        numbers = [number for number, (original, _) in enumerate(copies) if original.size <= MAX_BATCH_COPY_BYTES]
        if self._copies is None or not numbers:
            return results
        self._retry_guarded(lambda: None)
        full_names = [
            (original._replace(name=self._prefix + original.name), self._prefix + name)
            for original, name in (copies[number] for number in numbers)
        ]
        try:
            requests = self._copies.make_requests(full_names, datetime.now(UTC))
        except Transient:
            return results
        for number, response in zip(numbers, self._batches.send(requests), strict=True):
            original, name = copies[number]
            copied = parse_copy(name, original.size, response.body) if response is not None else None
            results[number] = self._accept_copy(original, copied) if copied is not None else None
        return results

    def _accept_copy(self, original: ObjectInfo, copied: ObjectInfo) -> ObjectInfo | None:
        """Return a copy; None, and delete it, if the server ignores conditions and it may be one of other bytes.

        With KMS or customer keys each copy has an ETag of its own, and so has one of an upload in parts.
        """
        if copied.etag == original.etag or self._obeys_condition(original, copied.name) or self._is_unchanged(original):
            return copied
        self.delete([copied.name])
        return None

    def _obeys_condition(self, original: ObjectInfo, name: str) -> bool:
        """Return whether the server refuses to copy an object that has another ETag; tried once."""
        if self._obeys_copy_condition is None:
            self._obeys_copy_condition = self._retry_guarded(
                lambda: self._multipart_client.refuses_stale_copy(self._prefix + original.name, self._prefix + name)
            )
        return self._obeys_copy_condition

    def _warn_archived(self, error: Archived) -> None:
        if not self._has_warned_archived:
            self._has_warned_archived = True
            self._observe(
                Warned(
                    f"{error}; such files of older versions are not reused in {self.display_name}, but downloaded again"
                )
            )

    def _is_unchanged(self, original: ObjectInfo) -> bool:
        found = self.find(original.name)
        return found is not None and (found.etag, found.size) == (original.etag, original.size)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing is no error."""
        if names:
            self._retry_guarded(lambda: self._object_client.delete([self._prefix + name for name in names]))

    # --- upload, asynchronous ---

    async def put(self, name: str, data: bytes, md5: bytes | None, object_headers: ObjectHeaders) -> ObjectInfo:
        """Upload a small object in one attempt; the service checks its SHA-256.

        With KMS or customer keys the ETag is not the MD5 of the bytes: that is no error.
        """
        found = self._relative_to_prefix(await self._object_client.put_async(self._prefix + name, data, object_headers))
        return found if md5 in {None, found.md5} else found._replace(md5=None)

    def worker_access(self) -> WorkerAccess | None:
        """Return the access that worker processes have to the bucket; None if they cannot have any."""
        access = self._access
        if access is None:
            return None
        return WorkerAccess(
            access, self._prefix, lambda: run_in_executor(self._pool, lambda: self._retry(access.load_signer))
        )

    async def copy_from_url(self, source: CopySource, name: str, object_headers: ObjectHeaders) -> str:
        """Return a refusal: S3 cannot copy from other services."""
        return "S3 cannot copy from other services"

    def begin_upload(self, name: str, size: int, object_headers: ObjectHeaders) -> S3Upload:
        """Begin the upload of a large object."""
        upload = MultipartUpload(self._multipart_client, self._object_client, self._prefix + name, object_headers)
        return S3Upload(
            self._prefix + name,
            size,
            object_headers,
            object_client=self._object_client,
            multipart=upload,
            run_in_thread=partial(run_in_executor, self._pool),
            abort=lambda: self._abort_upload(upload),
        )

    def _abort_upload(self, upload: MultipartUpload) -> None:
        abort_upload(upload, self._abort_retrying, self._observe, self.display_name)

    # --- lock, probe and retries ---

    def lease(self) -> ObjectLease:
        """Return the lock of the destination: always the same object, which remembers the state of another owner."""
        return self._lease

    def find_misread_characters(self) -> list[str]:
        """Return the characters in names that the server misreads, found with a few small objects.

        The objects are deleted again; still this writes, so it is not for a dry run.
        """
        return self._retry(
            lambda: find_misread_characters(
                self._object_client, f"{self._prefix}.tilesync/probe/", self._open_anonymous_client
            )
        )

    def close(self) -> None:
        """Stop the threads."""
        self._pool.shutdown()

    def _relative_to_prefix(self, found: ObjectInfo) -> ObjectInfo:
        """Return the object with its name relative to the prefix."""
        return found._replace(name=found.name[len(self._prefix) :])

    def _retry_guarded(self, attempt: Callable[[], T]) -> T:
        """Retry an attempt to write, and check the lock before each one."""

        def guarded() -> T:
            self.guard()
            return attempt()

        return self._retry(guarded)

    def _retry(self, attempt: Callable[[], T]) -> T:
        return self._retrying.retry(self.display_name, attempt)


def _split_into_parts(data: Iterable[bytes], update_digest: Callable[[bytes], object]) -> Iterator[bytes]:
    """Yield the bytes in parts of PART_BYTES; the last one may be smaller, and empty if it is the only one."""
    buffered, size = list[bytes](), 0
    for piece in data:
        update_digest(piece)
        buffered.append(piece)
        size += len(piece)
        while size > PART_BYTES:
            joined = b"".join(buffered)
            yield joined[:PART_BYTES]
            buffered, size = [joined[PART_BYTES:]], size - PART_BYTES
    yield b"".join(buffered)
