"""Interfaces of time, identity, links, sources and workers."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from tilesync.model import BatchResult, Blob, Chunk, Export, FileResult, Page, Resolution, SasUrl, StoredFile, Version
from tilesync.protocols.destination import StoredFiles
from tilesync.values import dataclass

if TYPE_CHECKING:  # a worker process loads no events
    from tilesync.events import Event, Finding

T = TypeVar("T")


class Clock(Protocol):
    """Clock as a parameter, so that tests can control time."""

    def now(self) -> datetime:
        """Return the current time in UTC."""

    def monotonic(self) -> float:
        """Return seconds on a clock that never goes back."""

    async def sleep(self, seconds: float) -> None:
        """Wait for `seconds`."""


Observer = Callable[["Event"], None]
"""Receiver of events. Must not raise and must not block."""


class TokenProvider(Protocol):
    """Provider of tokens for the Mesh Export API."""

    @property
    def remedy(self) -> str:
        """Hint for the case that the service refuses this identity."""

    async def header(self) -> str:
        """Return the value of `Authorization`. Raises NotAuthorised if there is none."""

    async def renew_refused(self, header: str) -> bool:
        """Renew the token after a 401 to `header`; return whether another attempt makes sense."""


class Link(Protocol):
    """Signed link that is renewed before its end and on demand."""

    async def current(self) -> SasUrl:
        """Return a valid link, renewed early if that is due."""

    async def use(self, attempt: Callable[[SasUrl], Awaitable[T]]) -> T:
        """Call `attempt` with the link, and again with a fresh one after LinkRefused.

        Raises NotAuthorised for a refusal that is final.
        """


class Body(Protocol):
    """Response body of a GET of one blob.

    `start`: offset of its first byte, 0 if the server ignored the range. `md5`: that of the whole blob, if stated.
    """

    start: int
    md5: bytes | None

    def chunks(self) -> AsyncIterator[Chunk]:
        """Yield the stored bytes as they arrive.

        Raises Transient if the body breaks off; the bytes before that are good.
        """

    async def read(self, max_bytes: int) -> bytes:
        """Return the stored bytes at once; of a larger body, just enough to exceed `max_bytes`.

        Raises Transient if the body breaks off.
        """

    async def aclose(self) -> None:
        """Release the connection. May be called twice."""


@dataclass(frozen=True, slots=True)
class MirrorWorkerSource:
    """Stored version of a mirror that worker processes read from.

    `is_unproven`: no digest is known, so that the reader alone decides that the bytes are right.
    """

    files: StoredFiles
    version: Version
    is_unproven: bool = False


WorkerSource = SasUrl | MirrorWorkerSource
"""Picklable value with which worker processes read blobs: a link to their container, or a mirror."""


class Source(Protocol):
    """Source of tiles: an inventory, and bodies that match it.

    `has_worker_source`: other processes can read its blobs too. `has_link`: others can read it through a link.
    `inventory_key`: identifies the inventory, so that an interrupted listing continues only with the same one; empty
    for a container, which its URL identifies. `remedy`: what to do if its files fail. `undated`: number of blobs so far
    with an impossible modification time.
    """

    @property
    def has_worker_source(self) -> bool:
        """True if `worker_source` can be called."""

    @property
    def has_link(self) -> bool:
        """True if `link` can be called."""

    @property
    def inventory_key(self) -> str:
        """Identity of its inventory."""

    @property
    def remedy(self) -> str:
        """Hint for the user; empty if running again is all that helps."""

    @property
    def undated(self) -> int:
        """Number of blobs with a time out of range."""

    def pages(self, marker: str | None) -> AsyncGenerator[Page, None]:
        """Yield complete, well-formed pages of the inventory from `marker` on.

        Close it when no more pages are wanted: the next one may be on its way.
        """

    async def open(self, blob: Blob, offset: int, *, prefetch_bytes: int = 1, until: int | None = None) -> Body:
        """Open `blob` at `offset`, only if its ETag is still the listed one.

        `prefetch_bytes` have arrived when it returns. `until`: the caller reads no byte from there on; the body may
        have more. Raises BlobMissing, ExportReplaced (the blob or the whole
        container changed during the run), NotAuthorised, and Transient for a failure worth a retry.
        """

    async def peek(self, blob: Blob, count: int) -> bytes:
        """Return up to `count` bytes from the start of `blob`. Raises as `open` does."""

    async def open_by_name(self, name: str) -> tuple[Blob, Body]:
        """Open a blob that is known only by name; return its description and its bytes from the start.

        A weak ETag counts as none. Raises as `open` does.
        """

    async def is_unchanged(self, stored: StoredFile) -> bool:
        """Return whether the container still has the stored content, by ETag, else by its bytes.

        Raises as `open` does.
        """

    async def container_url(self) -> str:
        """Return the container URL without its query; for a copy, that of the original container."""

    async def worker_source(self) -> WorkerSource:
        """Return a value with which workers can read blobs now; only if `has_worker_source`."""

    async def link(self) -> SasUrl:
        """Return a link through which blobs can be read now; only if `has_link`."""

    async def is_listable(self) -> bool:
        """Return whether a listing may be allowed: a link signed for a CDN never allows one."""


class Workers(Protocol):
    """Worker processes that download small blobs into the destination, and verify its files.

    The app assembles them from sources and stores, which the jobs must not import.
    """

    @property
    def blobs_per_batch(self) -> int:
        """Maximum blobs of one batch."""

    @property
    def has_own_limits(self) -> bool:
        """True if the limit on transfers holds for each of them, as in a cluster, not for all together."""

    @property
    def start_requested(self) -> bool:
        """True if their start has been requested."""

    def request_start(self) -> None:
        """Start the workers without waiting, since they will be needed soon."""

    async def start(self) -> None:
        """Start the workers and wait until they are ready."""

    async def fetch_batch(
        self,
        version: Version,
        worker_source: WorkerSource,
        blobs_by_number: Sequence[tuple[int, Blob]],
        *,
        max_concurrent: int,
    ) -> BatchResult:
        """Fetch small blobs through a worker source, one attempt each, at most `max_concurrent` of them at a time.

        A blob that fails, for whatever reason, is left unchanged.
        """

    @property
    def max_verified_bytes(self) -> int:
        """Maximum size of a file that `verify_batch` can read: it holds whole files in memory."""

    async def verify_batch(
        self, version: Version, files: Sequence[StoredFile]
    ) -> Sequence[Finding | FileResult | None]:
        """Verify files of at most `max_verified_bytes`; return results in order, or nothing if that is impossible.

        None stands for a file of a store that did not come at once, or that is not as it should be.
        """


class SourceResolver(Protocol):
    """Resolver of SOURCE to one export; it also opens the export's container, or a copy of it."""

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """Return the export to mirror now.

        `is_replacement`: the export resolved before is gone, so do not wait for another one.
        """

    async def open_source(self, resolution: Resolution) -> Source:
        """Open the container of the resolved export, bound to its export id and container."""


class ExportsResolver(Protocol):
    """Resolver of SOURCE to all its finished exports."""

    async def resolve(self, *, is_replacement: bool = False) -> Resolution:
        """Return the single export that SOURCE resolves to, if one is needed."""

    async def list_finished(self) -> list[Export]:
        """Return the Complete exports, oldest first; wait while there is none. Raises NoExport."""

    def resolver_for(self, export: Export) -> SourceResolver:
        """Return a resolver for one of these exports."""
