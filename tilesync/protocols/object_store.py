"""What a destination needs of an object store."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from typing import NamedTuple, Protocol

from tilesync.model.storage import CopySource, ObjectHeaders, ObjectInfo


class ObjectStream(NamedTuple):
    """An object that is read: what it is, and its bytes as they come. Of one version, also when reading breaks off."""

    info: ObjectInfo
    chunks: Iterator[bytes]


class Upload(Protocol):
    """A large object on its way in. Nothing is visible before `finish`."""

    async def append(self, data: bytes) -> None:
        """Take in the next bytes. Raises Transient: none of them are in then."""

    async def finish(self, md5: bytes | None) -> ObjectInfo:
        """Put it in place. Raises Transient: it may be tried again."""

    async def abort(self) -> None:
        """Give it up; what was sent of it goes."""


class Lease(Protocol):
    """The right to write below a prefix, for one owner at a time; it ends a `term` after the last `keep`."""

    term: timedelta

    def acquire(self, owner: str) -> bool:
        """Take it, or take it up where this owner had it; whether that was possible."""

    def record_holder(self, owner: str) -> None:
        """Say who holds it, where taking it did not; it is for a message only."""

    def read_holder(self) -> object:
        """What the one who has it said of itself, as it was read; None where nothing is known."""

    def renew(self, owner: str) -> bool:
        """Hold it for another term; whether that was possible. Raises Unavailable where nobody could be asked."""

    def release(self, owner: str) -> None:
        """Give it back."""


class Objects(Protocol):
    """The objects below one prefix of a store, by names relative to it.

    Methods block and are safe from any thread, but for `put` and what `begin` gives. They bear with what passes by, and
    raise RunErrors: NotAuthorised, Unavailable, DestinationError. `shown` is how a person names the place, `home` tells
    it from all others. `part` is as how many bytes an object that is begun weighs in memory. `doubtful`: characters of
    names that such a server may read as others. `only_paths`: it takes no name with an empty part. `guard` is called
    before each attempt of a blocking method to change something, and raises where that is not to be done (any more),
    Transient where nobody knows.
    """

    display_name: str
    canonical_url: str
    part_bytes: int
    suspect_characters: str
    rejects_empty_segments: bool
    guard: Callable[[], None]

    def find_misread_characters(self) -> list[str]:
        """The characters of names that this server does read as others when a viewer asks for them. It is tried."""

    def find(self, name: str) -> ObjectInfo | None:
        """What is said of an object; None when there is none."""

    def list_pages(self, prefix: str) -> Iterator[list[ObjectInfo]]:
        """The objects whose names begin so, page by page."""

    def list_pages_from(self, prefix: str, cursor: str) -> Iterator[tuple[list[ObjectInfo], str]]:
        """Likewise, from a place on that an earlier page told: each page with the place of the next one, empty after
        the last. Raises DestinationError for a place that the store does not know (any more).
        """

    def read(self, name: str, *, offset: int = 0) -> ObjectStream | None:
        """An object and its bytes from `offset` on; None when there is none."""

    def write(
        self, name: str, data: Iterable[bytes], object_headers: ObjectHeaders, *, expected_etag: str | None = None
    ) -> ObjectInfo:
        """Put an object in place, of whatever size. `instead_of`: only where the one with this ETag stands, or with an
        empty text none does; else it raises ConditionFailed.
        """

    def copy(self, original: ObjectInfo, name: str) -> ObjectInfo | None:
        """Put a copy of an object in place, served as it is; None when it is not there as it was found, or cannot be
        copied so.
        """

    def delete(self, names: Sequence[str]) -> None:
        """Delete objects; missing is no error."""

    async def put(self, name: str, data: bytes, md5: bytes | None, object_headers: ObjectHeaders) -> ObjectInfo:
        """Put a small object in place, at one attempt. Raises Transient for what another may cure."""

    async def copy_from_url(self, source: CopySource, name: str, object_headers: ObjectHeaders) -> ObjectInfo | str:
        """Put a copy of what lies elsewhere in place, by the store alone, which proves its MD5; why it does not, where
        it does not. Raises Transient for what another attempt may cure.
        """

    def begin_upload(self, name: str, size: int, object_headers: ObjectHeaders) -> Upload:
        """Begin a large object of about that size."""

    def lease(self) -> Lease:
        """The right to write here."""
