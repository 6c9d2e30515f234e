"""What the jobs need from the world: time, the service, and where tiles come from."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import datetime
from typing import Protocol

from tilesync.events import Event, Finding
from tilesync.model import BatchResult, Blob, Export, FileResult, Page, Resolution, SasUrl, StoredFile, Version


class Clock(Protocol):
    """Time as a parameter."""

    def now(self) -> datetime:
        """The wall clock, in UTC."""

    def monotonic(self) -> float:
        """Seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Return after `seconds`."""


class Observer(Protocol):
    """Hears what happens. Must not raise and must not block."""

    def __call__(self, event: Event, /) -> None:
        """Hear of one event."""


class TokenProvider(Protocol):
    """An identity towards the Mesh Export API."""

    @property
    def remedy(self) -> str:
        """What helps where the service refuses it."""

    async def header(self) -> str:
        """The value of `Authorization`. Raises NotAuthorised when there is none to be had."""

    async def renew_refused(self, header: str) -> bool:
        """The service answered 401 to `header`: whether another try, with a fresh token, makes sense."""


class Link(Protocol):
    """A signed link that stays alive: renewed ahead of its end, and on demand."""

    async def current(self) -> SasUrl:
        """A link to use now; renewed ahead of time where that is due."""

    async def renew(self, stale: SasUrl) -> None:
        """Fetch a fresh link, unless the current one is no longer `stale`: many callers cause one fetch."""

    def is_expired(self, link: SasUrl) -> bool:
        """Whether `link` has ended by the server's clock."""

    def mark_accepted(self, link: SasUrl) -> None:
        """A request through `link` was granted."""

    def seconds_until_valid(self, link: SasUrl, server_time: datetime | None, *, is_last: bool) -> float | None:
        """Seconds after which another attempt makes sense since the refused `link` may not be valid yet; None where
        that is not so. `last`: no other link is to be had. Raises NotAuthorised where that would take too long.
        """


class Body(Protocol):
    """The answer to a GET of one blob. `start` is where its bytes begin: 0 when the server ignored the range. `md5` is
    that of the whole blob where the answer states it.
    """

    start: int
    md5: bytes | None

    def chunks(self) -> AsyncIterator[bytes]:
        """The stored bytes as they come. Raises Transient when the body breaks off; what came before stays good."""

    async def read(self, max_bytes: int) -> bytes:
        """The stored bytes, all at once; of more than `most` no more than shows that there are more.

        Raises Transient when the body breaks off.
        """

    async def aclose(self) -> None:
        """Release the connection. May be called twice."""


class Source(Protocol):
    """Where tiles come from: an inventory, and bodies pinned to it.

    `has_way`: other processes can read its blobs too. `has_link`: others can, through a link. `place`: what a listing
    of it that broke off can go on with, and no other; empty for a container, whose bare URL says that. `remedy`: what
    to do where files of it fail. `undated`: how many of the blobs that it told of so far were modified at a time that
    no file can have.
    """

    @property
    def has_worker_source(self) -> bool:
        """Whether `way` can be asked."""

    @property
    def has_link(self) -> bool:
        """Whether `link` can be asked."""

    @property
    def inventory_key(self) -> str:
        """Where its inventory comes from."""

    @property
    def remedy(self) -> str:
        """A sentence for who runs it; empty where running it again is all."""

    @property
    def undated(self) -> int:
        """Blobs with a date out of range."""

    def pages(self, marker: str | None) -> AsyncIterator[Page]:
        """The inventory from `marker` on, page by page; each page complete and well-formed."""

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1) -> Body:
        """The bytes of `blob` from `offset` on, only as long as its ETag is the listed one; `ahead` of them are here
        when it returns.

        Raises BlobMissing, ExportReplaced (the blob or the whole container changed under the run), NotAuthorised,
        and Transient for what another attempt may cure.
        """

    async def peek(self, blob: Blob, count: int) -> bytes:
        """The first bytes of `blob`, `count` of them at most. Raises as `open` does."""

    async def open_by_name(self, name: str) -> tuple[Blob, Body]:
        """What the container says of a blob that is known by its name alone, and its bytes from the start.

        A weak ETag counts as none. Raises as `open` does.
        """

    async def is_unchanged(self, stored: StoredFile) -> bool:
        """Whether the container still has what is held, by its ETag, else by its bytes. Raises as `open` does."""

    async def container_url(self) -> str:
        """The bare URL of the container, without the query that signs it; of a copy, that of the one it is of."""

    async def worker_source(self) -> object:
        """A value, picklable, by which helpers can read blobs now; only where `has_way`."""

    async def link(self) -> SasUrl:
        """A link that blobs can be read through now; only where `has_link`."""

    async def is_listable(self) -> bool:
        """Whether it makes sense to ask for a listing: what a CDN signs never allows one."""


class Workers(Protocol):
    """Other processes that bring small blobs in, to where the run puts them."""

    @property
    def start_requested(self) -> bool:
        """Whether they have been called."""

    def request_start(self) -> None:
        """They will be asked soon."""

    async def start(self) -> None:
        """Return when they can be asked; at once where that is so already."""

    async def fetch_batch(
        self,
        version: Version,
        worker_source: object,
        blobs_by_number: Sequence[tuple[int, Blob]],
        *,
        max_concurrent: int,
    ) -> BatchResult:
        """Bring some small blobs in by a source's way, each at its first attempt; of all that were given, `at_once` at
        a time.

        What does not come so, for whatever reason, is left as it was.
        """

    async def verify_batch(self, version: Version, files: Sequence[StoredFile]) -> Sequence[Finding | FileResult]:
        """What is to be said of held files that fit into memory, in their order; nothing where that cannot be done."""


class SourceResolver(Protocol):
    """What SOURCE names: it resolves to one export, and opens that export's container, or a copy of it."""

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """The export to mirror now. `again`: the one resolved before is gone, so do not wait for another."""

    async def open_source(self, resolution: Resolution) -> Source:
        """The container of the resolved export, pinned by export id and container."""


class ExportsResolver(Protocol):
    """The finished exports that SOURCE stands for."""

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """The one that SOURCE comes to where one is meant."""

    async def list_finished(self) -> list[Export]:
        """The Complete ones, oldest first; waited for while there is none. Raises NoExport."""

    def resolver_for(self, export: Export) -> SourceResolver:
        """One of them as an origin."""
