"""Objects in a bucket of S3, or of what speaks like it: small ones through obstore, large ones and copies by boto3."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager
from datetime import timedelta
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
from tilesync.stores.s3.errors import Archived, NotThere
from tilesync.stores.s3.lease import LEASE_TERM, ObjectLease
from tilesync.stores.s3.multipart import MAX_COPY_OBJECT_BYTES, PART_BYTES, MultipartClient
from tilesync.stores.s3.name_probe import find_misread_characters
from tilesync.stores.s3.objects import ObjectClient
from tilesync.stores.s3.upload import MultipartUpload, S3Upload, abort_upload
from tilesync.transport.blob_client_sync import SyncBlobClient
from tilesync.transport.retry import SyncRetrier

T = TypeVar("T")

PARALLEL_PARTS: Final = 16
"""Parts that are on their way at once, whatever they belong to."""

ABORT_RETRY_BUDGET: Final = timedelta(seconds=10)
"""How long a failing answer is borne with while an upload is given up."""


class S3Clients(NamedTuple):
    """The two doors to one bucket, and how long it is borne with when they stay shut; `asking`: how it is asked as
    viewers ask.
    """

    object_client: ObjectClient
    multipart_client: MultipartClient
    observe: Observer
    retry_budget: timedelta
    open_anonymous_client: Callable[[], AbstractContextManager[SyncBlobClient]]


class S3Objects:
    """The objects of one bucket below a prefix, which is empty or ends with a slash. `beating`: the same, for beats of
    the lock: they have no time to lose.
    """

    part_bytes = PART_BYTES
    suspect_characters = "+"
    rejects_empty_segments = True  # obstore takes nothing else

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
        self._observe = clients.observe
        self._retrying = SyncRetrier(clients.observe, budget=clients.retry_budget)
        self._abort_retrying = SyncRetrier(clients.observe, budget=min(clients.retry_budget, ABORT_RETRY_BUDGET))
        self._prefix = prefix
        self._lease = ObjectLease(self, renewal_objects or self, term=term)
        self._pool = ThreadPoolExecutor(PARALLEL_PARTS, "tilesync-s3")
        self._is_bucket_known = False
        self._has_warned_archived = False
        self.guard: Callable[[], None] = lambda: None
        self.display_name = display_name
        self.canonical_url = canonical_url

    # --- asking ---

    def find(self, name: str) -> ObjectInfo | None:
        """What is said of an object; None when there is none."""
        try:
            return self._relative_to_prefix(self._retry(lambda: self._object_client.head(self._prefix + name)))
        except NotThere:
            self._require_bucket()
            return None

    def _require_bucket(self) -> None:
        """Raise DestinationError where there is no bucket: the answer to a HEAD cannot say what is missing."""
        if not self._is_bucket_known:
            self._retry(lambda: next(self._object_client.list_pages(f"{self._prefix}.tilesync"), None))
            self._is_bucket_known = True

    def list_pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        """The objects whose names begin so, page by page; each page is asked for until it comes."""
        return (page for page, _ in self.list_pages_from(prefix, "") if page)

    def list_pages_from(self, prefix: str, cursor: str) -> Iterator[tuple[list[ObjectInfo], str]]:
        """Likewise, from behind a name on, each page with its last name."""
        lead, after = self._prefix + prefix, cursor or None
        folder = lead.rpartition("/")[0]  # obstore knows prefixes of whole segments only
        coming, guard = self._object_client.list_pages(folder, after=after), PageGuard()
        while True:
            try:
                page = next(coming, None)
            except Transient:
                coming, page = self._retry(partial(self._resume_listing, folder, after))
            if page is None:
                break
            after = page[-1].name if page else after
            guard.check_page(page[-1].name if page else "")
            yield [self._relative_to_prefix(each) for each in page if each.name.startswith(lead)], after or ""
        yield [], ""

    def _resume_listing(
        self, folder: str, after: str | None
    ) -> tuple[Iterator[list[ObjectInfo]], list[ObjectInfo] | None]:
        coming = self._object_client.list_pages(folder, after=after)
        return coming, next(coming, None)

    def read(self, name: str, *, offset: int = 0) -> ObjectStream | None:
        """An object and its bytes from `offset` on; None when there is none."""
        whole_name = self._prefix + name
        try:
            got = self._retry(lambda: self._object_client.get(whole_name, offset=offset, etag=""))
        except NotThere:
            return None
        found = self._relative_to_prefix(got.info)

        def again(at: int) -> Iterator[bytes] | None:
            try:
                return self._retry(lambda: self._object_client.get(whole_name, offset=at, etag=found.etag)).chunks
            except NotThere:
                return None

        return ObjectStream(found, read_resuming(found, offset, got.chunks, again, self.display_name))

    # --- changing ---

    def write(
        self, name: str, data: Iterable[bytes], label: ObjectHeaders, *, expected_etag: str | None = None
    ) -> ObjectInfo:
        """Put an object in place, of whatever size: in one request up to a part, in parts beyond. The condition goes
        with the request that puts it in place; where parts do, what is there is looked at just before as well, for
        servers that know conditions of the former alone.
        """
        md5 = hashlib.md5(usedforsecurity=False)
        pieces = _split_into_parts(data, md5.update)
        first, second = next(pieces), next(pieces, None)
        try:
            if second is None:
                put = partial(self._object_client.put, self._prefix + name, first, label, expected_etag=expected_etag)
                return self._relative_to_prefix(self._retry_guarded(put))
            return self._relative_to_prefix(
                self._upload_parts(name, chain([first, second], pieces), label, expected_etag)
            )
        except ConditionFailed:
            found = self._find_with_md5(
                name, md5.digest()
            )  # of an attempt whose answer was lost it is what this one put there
            if found is not None:
                return found
            raise

    def _upload_parts(
        self, name: str, pieces: Iterator[bytes], label: ObjectHeaders, expected_etag: str | None
    ) -> ObjectInfo:
        sending = MultipartUpload(self._multipart_client, self._object_client, self._prefix + name, label)
        try:
            count = 0
            for count, piece in enumerate(pieces, 1):
                self._retry_guarded(partial(sending.send_part, count, piece))
            if expected_etag is not None:
                self._require_etag(name, expected_etag)
            found = self._retry_guarded(lambda: sending.complete(count, expected_etag=expected_etag))
        except BaseException:
            self._abort_upload(sending)
            raise
        if sending.may_have_orphan:
            self._abort_upload(sending)
        return found

    def _require_etag(self, name: str, etag: str) -> None:
        there = self.find(name)
        if (there.etag if there is not None else "") != etag:
            raise ConditionFailed(f"{name} is another one by now")

    def _find_with_md5(self, name: str, md5: bytes) -> ObjectInfo | None:
        """The object, where it has these bytes; they are read, as not every ETag tells their MD5."""
        stored, digest = self.read(name), hashlib.md5(usedforsecurity=False)
        for chunk in stored.chunks if stored is not None else ():
            digest.update(chunk)
        return stored.info if stored is not None and digest.digest() == md5 else None

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Put a copy of an object in place, by the service alone; None when it is not there as it was found, or lies in
        an archive.
        """
        if original.size > MAX_COPY_OBJECT_BYTES:
            return None
        try:
            copied = self._retry_guarded(
                lambda: self._multipart_client.copy_object(original, self._prefix + original.name, self._prefix + name)
            )
        except Archived as error:
            self._warn_archived(error)
            return None
        if copied is None:
            return None
        if copied.etag != original.etag and not self._is_unchanged(
            original
        ):  # a server that takes no heed of the condition
            self.delete([name])
            return None
        return self._relative_to_prefix(copied)

    def _warn_archived(self, error: Archived) -> None:
        if not self._has_warned_archived:
            self._has_warned_archived = True
            self._observe(
                Warned(
                    f"{error}; such files of older versions are not reused in {self.display_name}, but fetched again"
                )
            )

    def _is_unchanged(self, original: ObjectInfo) -> bool:
        there = self.find(original.name)
        return there is not None and (there.etag, there.size) == (original.etag, original.size)

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing is no error."""
        if names:
            self._retry_guarded(lambda: self._object_client.delete([self._prefix + name for name in names]))

    # --- bodies ---

    async def put(self, name: str, data: bytes, md5: bytes | None, label: ObjectHeaders) -> ObjectInfo:
        """Put a small object in place, at one attempt; the service checks its SHA-256. Where keys encrypt it, its ETag
        is that of other bytes, and no error.
        """
        found = self._relative_to_prefix(await self._object_client.put_async(self._prefix + name, data, label))
        return found if md5 in {None, found.md5} else found._replace(md5=None)

    async def copy_from_url(self, source: CopySource, name: str, label: ObjectHeaders) -> str:
        """Nothing: S3 copies within itself alone."""
        return "S3 copies within itself alone"

    def begin_upload(self, name: str, size: int, label: ObjectHeaders) -> S3Upload:
        """Begin a large object."""
        sending = MultipartUpload(self._multipart_client, self._object_client, self._prefix + name, label)
        return S3Upload(
            self._prefix + name,
            size,
            label,
            object_client=self._object_client,
            multipart=sending,
            run_in_thread=partial(run_in_executor, self._pool),
            abort=lambda: self._abort_upload(sending),
        )

    def _abort_upload(self, upload: MultipartUpload) -> None:
        abort_upload(upload, self._abort_retrying, self._observe, self.display_name)

    # --- the rest ---

    def lease(self) -> ObjectLease:
        """The right to write here: always the same one, which keeps what it saw of another's."""
        return self._lease

    def find_misread_characters(self) -> list[str]:
        """The characters of names that the server reads as something else: it is asked by a few small objects, which
        go again. Not for a dry run.
        """
        return self._retry(
            lambda: find_misread_characters(
                self._object_client, f"{self._prefix}.tilesync/probe/", self._open_anonymous_client
            )
        )

    def close(self) -> None:
        """Let go of the threads."""
        self._pool.shutdown()

    def _relative_to_prefix(self, found: ObjectInfo) -> ObjectInfo:
        """By its name below the prefix."""
        return found._replace(name=found.name[len(self._prefix) :])

    def _retry_guarded(self, attempt: Callable[[], T]) -> T:
        def allowed() -> T:
            self.guard()
            return attempt()

        return self._retry(allowed)

    def _retry(self, attempt: Callable[[], T]) -> T:
        return self._retrying.retry(self.display_name, attempt)


def _split_into_parts(data: Iterable[bytes], update_digest: Callable[[bytes], object]) -> Iterator[bytes]:
    """The same bytes in pieces of a part each; the last is what is left, and the only one where there are few."""
    held, size = list[bytes](), 0
    for piece in data:
        update_digest(piece)
        held.append(piece)
        size += len(piece)
        while size > PART_BYTES:
            joined = b"".join(held)
            yield joined[:PART_BYTES]
            held, size = [joined[PART_BYTES:]], size - PART_BYTES
    yield b"".join(held)
