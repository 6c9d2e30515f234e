"""Interface of an object store, as a destination uses it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol

from tilesync.model.storage import CopySource, ObjectHeaders, ObjectInfo


class ObjectStream(NamedTuple):
    """Object with its bytes as they arrive; all from one version of it, even if reading breaks off."""

    info: ObjectInfo
    chunks: Iterator[bytes]


class Upload(Protocol):
    """Multipart upload of a large object, invisible before `finish`."""

    async def append(self, data: bytes) -> None:
        """Upload the next bytes. Raises Transient: then none of them were stored."""

    async def finish(self, md5: bytes | None) -> ObjectInfo:
        """Complete the upload. Raises Transient: it may be repeated."""

    async def abort(self) -> None:
        """Abort the upload and delete its parts."""


class Lease(Protocol):
    """Exclusive right to write below a prefix; it expires a `term` after the last `renew`."""

    term: timedelta

    def acquire(self, owner: str) -> bool:
        """Acquire the lease, or continue one of the same owner; return whether that succeeded."""

    def record_holder(self, owner: str) -> None:
        """Record the holder for messages, if acquiring did not do so."""

    def read_holder(self) -> object:
        """Return the record of the current holder, as it was read; None if unknown."""

    def renew(self, owner: str) -> bool:
        """Renew the lease for another term; return whether that succeeded. Raises Unavailable if the store does not
        answer.
        """

    def release(self, owner: str) -> None:
        """Release the lease."""


class Objects(Protocol):
    """Objects below one prefix of a store, by names relative to it.

    Methods block and are safe from any thread, except `put` and the upload of `begin_upload`. They retry transient
    failures, and raise RunErrors: NotAuthorised, Unavailable, DestinationError.

    `display_name`: the location for messages. `canonical_url`: identifies the location. `part_bytes`: memory that an
    upload needs. `suspect_characters`: characters in names that such a server may misread. `rejects_empty_segments`:
    names with an empty segment are refused. `guard`: called before each attempt to change something; raises if the
    change must not happen (any more), or Transient if that is unknown.
    """

    display_name: str
    canonical_url: str
    part_bytes: int
    suspect_characters: str
    rejects_empty_segments: bool
    guard: Callable[[], None]

    def find_misread_characters(self) -> list[str]:
        """Return the characters that this server misreads in the names of a viewer's requests, found by trying."""

    def find(self, name: str) -> ObjectInfo | None:
        """Return the description of an object, or None."""

    def list_pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        """Yield pages of the objects whose names begin with `prefix`."""

    def list_pages_from(self, prefix: str, cursor: str) -> Iterator[tuple[list[ObjectInfo], str]]:
        """Yield pages from the cursor of an earlier page on, each with the next cursor, empty after the last.

        Raises DestinationError for a cursor that the store does not know (any more).
        """

    def read(self, name: str, *, offset: int = 0) -> ObjectStream | None:
        """Return an object and its bytes from `offset` on; None if there is none."""

    def write(
        self, name: str, data: Iterable[bytes], object_headers: ObjectHeaders, *, expected_etag: str | None = None
    ) -> ObjectInfo:
        """Write an object of any size.

        `expected_etag`: raises ConditionFailed, and writes nothing, unless the object has this ETag; an empty text
        means that the object must not exist.
        """

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Copy an object with its headers inside the store.

        None if it changed, or cannot be copied this way.
        """

    def copy_batch(self, copies: Sequence[tuple[ObjectInfo, str]]) -> list[ObjectInfo | None]:
        """Copy objects to the names beside them at once, as far as one attempt each is enough.

        None for each that `copy` has to try.
        """

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; a missing one is no error."""

    async def put(self, name: str, data: bytes, md5: bytes | None, object_headers: ObjectHeaders) -> ObjectInfo:
        """Write a small object in one attempt. Raises Transient for a failure worth a retry."""

    async def copy_from_url(self, source: CopySource, name: str, object_headers: ObjectHeaders) -> ObjectInfo | str:
        """Let the store copy a blob from elsewhere and prove its MD5; return the reason if it does not.

        Raises Transient for a failure worth a retry.
        """

    def begin_upload(self, name: str, size: int, object_headers: ObjectHeaders) -> Upload:
        """Begin the upload of a large object of about `size` bytes."""

    def lease(self) -> Lease:
        """Return the write lease of this prefix."""
