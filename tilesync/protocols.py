"""What the jobs need from the world, each Protocol as wide as its consumer."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from datetime import datetime
from typing import Any, Protocol

from tilesync.events import Event
from tilesync.model import (
    Arrival,
    Blob,
    Completeness,
    Held,
    Page,
    Proof,
    Reading,
    Remark,
    Resolution,
    Role,
    SasUrl,
    Totals,
    Trace,
    Twin,
    Version,
)


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

    async def header(self) -> str:
        """The value of `Authorization`. Raises NotAuthorised when there is none to be had."""

    async def refused(self, header: str) -> bool:
        """The service answered 401 to `header`: whether another try, with a fresh token, makes sense."""


class Link(Protocol):
    """A signed link that stays alive: renewed ahead of its end, and on demand."""

    async def current(self) -> SasUrl:
        """A link to use now; renewed ahead of time where that is due."""

    async def renew(self, stale: SasUrl) -> None:
        """Fetch a fresh link, unless the current one is no longer `stale`: many callers cause one fetch."""

    def expired(self, link: SasUrl) -> bool:
        """Whether `link` has ended by the server's clock."""


class Body(Protocol):
    """The answer to a GET of one blob. `start` is where its bytes begin: 0 when the server ignored the range."""

    start: int

    def chunks(self) -> AsyncIterator[bytes]:
        """The stored bytes as they come. Raises Transient when the body breaks off; what came before stays good."""

    async def aclose(self) -> None:
        """Release the connection. May be called twice."""


class Source(Protocol):
    """Where tiles come from: an inventory, and bodies pinned to it."""

    def pages(self, marker: str | None) -> AsyncIterator[Page]:
        """The inventory from `marker` on, page by page; each page complete and well-formed."""

    async def open(self, blob: Blob, offset: int) -> Body:
        """The bytes of `blob` from `offset` on, only as long as its ETag is the listed one.

        Raises BlobMissing, ExportReplaced (the blob or the whole container changed under the run), NotAuthorised,
        and Transient for what another attempt may cure.
        """

    async def first(self, name: str) -> tuple[Blob, Body]:
        """What the container says of a blob that is known by its name alone, and its bytes from the start.

        A weak ETag counts as none. Raises as `open` does.
        """

    async def unchanged(self, held: Held) -> bool:
        """Whether the container still has what is held, by its ETag, else by its bytes. Raises as `open` does."""

    async def home(self) -> str:
        """The bare URL of the container, without the query that signs it."""

    async def listable(self) -> bool:
        """Whether it makes sense to ask for a listing: what a CDN signs never allows one."""


class Origin(Protocol):
    """What SOURCE names: it resolves to one export, and opens that export's container."""

    async def resolve(self, *, again: bool = False) -> Resolution:
        """The export to mirror now. `again`: the one resolved before is gone, so do not wait for another."""

    async def source(self, resolution: Resolution) -> Source:
        """The container of the resolved export, pinned by export id and container."""


class Draft(Protocol):
    """A blob on its way in. Nothing is visible before `commit`.

    `held` counts the bytes that are safely in; after `restart` it is 0.
    """

    held: int

    def prefix(self) -> AsyncIterator[bytes]:
        """The held bytes, for the checks of a resumed transfer."""

    async def append(self, chunk: bytes) -> None:
        """Add `chunk` after the held bytes."""

    async def restart(self) -> None:
        """Forget the held bytes."""

    async def commit(self, proof: Proof) -> Held:
        """Place the whole file under its final name, replacing what was there."""

    async def suspend(self) -> None:
        """Keep what is held for a later run. May be called after `commit`, and then does nothing."""


class HeldFiles(Protocol):
    """The files of the versions of a destination, to be read."""

    def size(self, version: Version, name: str) -> int | None:
        """The size of the held file in bytes; None when there is no such regular file."""

    def feed(self, version: Version, name: str, into: Callable[[bytes], object]) -> Trace | None:
        """Give the bytes of the held file, read anew, to `into`; its trace, None when there is no such file."""

    def digest(self, version: Version, name: str) -> bytes | None:
        """SHA-256 of the held file, read anew; None when there is no such regular file."""

    def chunks(self, version: Version, name: str) -> Iterator[bytes]:
        """The bytes of one held file, piece by piece. Raises DestinationError when there is none."""

    def read(self, version: Version, name: str) -> bytes:
        """The bytes of one held file. Raises DestinationError when there is none."""


class Files(HeldFiles, Protocol):
    """The files of the versions of a destination, to be read and written."""

    def free(self) -> int | None:
        """Bytes of room left; None where that has no meaning."""

    def judge(self, names: Iterable[str]) -> None:
        """Raise UnsafeName, naming the offenders, when any of `names` cannot be held safely. Writes nothing."""

    def draft(self, version: Version, blob: Blob) -> Draft:
        """A draft of `blob`, continued from an earlier run when that left one for the same name and ETag."""

    def unchanged(self, version: Version, held: Sequence[Held]) -> list[bool]:
        """For each, whether the file still is what was left there, as far as a look without reading it can tell."""

    def share(self, version: Version, blob: Blob, of: Version, held: Held) -> Held | None:
        """Place, as `blob`, what another version holds, by a link or a copy, without touching what lies there.

        None when that is no longer what was left there.
        """

    def remove(self, version: Version, names: Iterable[str]) -> None:
        """Remove files that an unpublished version should not have; missing is no error."""

    def tidy(self) -> None:
        """Remove what only unfinished transfers needed."""


class Published(Protocol):
    """What leads to the versions of a destination, to be read."""

    def manifest(self, version: str) -> Iterator[Mapping[str, Any]]:
        """The lines of a manifest, the first one about the version. Raises DestinationError when it cannot be read."""

    def latest(self) -> Mapping[str, Any] | None:
        """What `latest.json` says; None when there is none."""

    def pointer(self) -> str | None:
        """SHA-256 of the pointer, in hexadecimal; None when there is none."""


class Publication(Published, Protocol):
    """What leads to the versions of a destination, to be read and written."""

    def manifest_names(self) -> list[str]:
        """The versions that have a manifest."""

    def points_at(self, version: Version, pointer_sha256: str) -> bool:
        """Whether the pointer is the one of `version`, and what it needs is there."""

    def complete(self, version: Version) -> bool:
        """Whether all else that names the current version names `version`."""

    def write_manifest(self, version: Version, lines: Iterable[Mapping[str, Any]]) -> str:
        """Make every file durable, then put the manifest in place. Returns its SHA-256. May be done again."""

    def point_at(self, version: Version, pointer: Iterable[bytes], latest: Mapping[str, Any]) -> None:
        """Move the pointer, `latest.json` and what else names the current version. May be done again."""


class References(Protocol):
    """Which file of a version asks for which. Safe from any thread."""

    def add(self, version: Version, source: str, reading: Reading, *, anew: bool = False, grown: bool = False) -> None:
        """Take in a part of what one file asks for; `anew`: what was said before of it is void.

        `grown`: it asks for that when it is read together with others. `anew` then voids what that said before; it is
        void, too, when the file itself comes anew.
        """

    def of(self, version: Version, source: str, role: Role) -> list[str]:
        """What one file asks for in one role."""

    def implicit(self, version: Version) -> list[str]:
        """The held tilesets with implicit tiling."""

    def settle(self, version: Version) -> Completeness:
        """Count what the version asks for."""

    def missing(self, version: Version) -> Iterator[tuple[str, str, str]]:
        """Each name that is asked for and not there, who asks for it, and what for; after `settle`."""

    def askers(self, version: Version, names: Sequence[str]) -> dict[str, str]:
        """Who asks for each of some files, where anyone does."""

    def remarks(self, version: Version) -> Iterator[tuple[str, Remark]]:
        """Every file with what is to be said of it."""

    def between_tilesets(self, version: Version) -> list[tuple[str, str]]:
        """Which tileset asks for which."""


class Twins(Protocol):
    """Which held files of other versions, the newest first, have the content of wanted ones. Safe from any thread."""

    def by_md5(self, version: Version, blobs: Sequence[Blob]) -> dict[str, list[Twin]]:
        """By size and MD5, for each name where there are any."""

    def by_sha256(self, version: Version, held: Sequence[Held]) -> dict[str, list[Twin]]:
        """By size and SHA-256, for each name where there are any."""

    def bytes_of_wanted(self, version: Version) -> int:
        """How many bytes of what is wanted other versions hold, by size and MD5."""

    def copy_references(self, version: Version, twins: Iterable[Twin]) -> None:
        """Take over what twins of the same names ask for, in place of what was said of those names before."""


class Catalog(Protocol):
    """The state of a destination: versions, their inventory, and which of it is held. Safe from any thread."""

    fresh: bool

    @property
    def references(self) -> References:
        """Which file asks for which."""

    @property
    def twins(self) -> Twins:
        """Which files of other versions have the same content."""

    def remember(self, key: str, value: str) -> None:
        """Keep one fact about the destination as a whole."""

    def recall(self, key: str) -> str | None:
        """The fact kept under `key`, None when there is none."""

    def versions(self, *, export: str | None = None, name: str | None = None, retired: bool = False) -> list[Version]:
        """The versions in the order in which they were begun; with `retired` also those that were given up."""

    def begin(self, version: Version) -> Version:
        """Record a new version; its serial is given here."""

    def update(self, version: Version) -> None:
        """Record what changed about a version."""

    def forget(self, version: Version) -> None:
        """Drop a version that never held anything."""

    def held_among(self, version: Version, names: Sequence[str]) -> dict[str, Held]:
        """What of these this version holds, by name."""

    def add_page(self, version: Version, rows: Sequence[tuple[Blob, Held | None]], folders: Iterable[str]) -> None:
        """Take in one page: each blob with what is held of it, the folders, and the next marker.

        Raises Incomplete, and takes in nothing, when this listing has a name twice.
        """

    def add_held(self, version: Version, arrivals: Sequence[Arrival]) -> None:
        """Take in files that were read where they lie, with what they ask for; their numbers mean nothing."""

    def finish_listing(self, version: Version) -> list[str]:
        """Mark the listing complete; return the names that an earlier listing had and this one has not."""

    def wanted(self, version: Version, after: int, *, limit: int, empty: bool | None = None) -> list[tuple[int, Blob]]:
        """Blobs that are not held, in listed order, each with its id; `after` is exclusive."""

    def held(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, Held]]:
        """What is held, by key in byte order; `after` is exclusive."""

    def hold(self, version: Version, arrivals: Sequence[Arrival]) -> int:
        """Record files that are in place now, with what they ask for; how many names a walk learns by that."""

    def want(self, version: Version, name: str) -> None:
        """A walk wants one file, known by its name alone, unless it knows it already."""

    def want_what(self, version: Version, source: str) -> int:
        """A walk wants everything that one file asks for; how much of that is new."""

    def miss(self, version: Version, numbers: Iterable[int]) -> None:
        """Record that the container does not have what a walk asked it for."""

    def ask_again(self, version: Version) -> None:
        """What was missing may be there now."""

    def documents(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, Held]]:
        """What is held of tilesets and subtrees, by key in byte order; `after` is exclusive."""

    def release(self, version: Version, names: Iterable[str], *, linked: bool = False) -> None:
        """Record that files are not held, or not rightly: they are wanted again.

        `linked`: the bytes are wrong, so also where another version holds the same file; that one is damaged then.
        """

    def totals(self, version: Version) -> Totals:
        """How much of the version is listed, and how much of that is held."""


class Destination(Protocol):
    """Where tiles go. `calm`: what the last run wrote is whole, whether it was made durable or not."""

    calm: bool

    def settle(self) -> None:
        """Everything that is recorded as held has been checked: from here on the destination is calm."""

    @property
    def catalog(self) -> Catalog:
        """The state."""

    @property
    def files(self) -> Files:
        """The files."""

    @property
    def publication(self) -> Publication:
        """What leads to them."""
