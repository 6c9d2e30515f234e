"""The values that travel between the rooms of the house: frozen, picklable, without effects."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any, Final, NamedTuple
from urllib.parse import quote, unquote, urlsplit

from tilesync.model.blob import UNKNOWN as UNKNOWN
from tilesync.model.blob import Blob as Blob
from tilesync.model.blob import Held as Held
from tilesync.model.blob import Proof as Proof
from tilesync.model.blob import Trace as Trace
from tilesync.model.blob import Unpacked as Unpacked

ROOT = "tileset.json"
"""The name of the root tileset in every mesh export (Mesh Export API, "Streaming 3DTiles")."""

POINTER = "tileset.json"
"""The name of the pointer at the top of a destination."""


class Secret:
    """A text whose `repr` is silent."""

    __slots__ = ("text",)

    def __init__(self, text: str) -> None:
        self.text = text

    def __repr__(self) -> str:
        return "Secret(…)"


class Layout(StrEnum):
    """How a destination lays versions out: each whole in a folder of its own, behind a pointer; or only the last one,
    at the container's own paths.
    """

    VERSIONED = "versioned"
    FLAT = "flat"


class Content(StrEnum):
    """How the files of a version lie: as the container stores them, or those whose payload is gzip unpacked."""

    STORED = "stored"
    DECODED = "decoded"


class Status(StrEnum):
    """State of an export job, as the service spells it (get-exports, schema ExportStatus)."""

    NOT_STARTED = "NotStarted"
    IN_PROGRESS = "InProgress"
    COMPLETE = "Complete"
    INVALID = "Invalid"


@dataclass(frozen=True, slots=True, repr=False)
class SasUrl:
    """A container URL and the query that signs it. Equality is of base and query; `repr` is silent about the query.

    `base` ends without a slash. `expires` is the earliest end that the query states (UTC), None when it states none.
    `fetched` is when this process got it, on the monotonic clock, in seconds.
    """

    base: str
    query: str
    expires: datetime | None = field(default=None, compare=False)
    fetched: float = field(default=0.0, compare=False)

    @property
    def container(self) -> str:
        """The last segment of the path: for a mesh export the export id."""
        return unquote(urlsplit(self.base).path.rpartition("/")[2])

    def blob(self, name: str) -> str:
        """The signed URL of one blob: each segment of the name quoted once, the query as it was given."""
        return f"{self.base}/{quote(name, safe='/~')}?{self.query}"

    def folder(self, depth: int) -> str:
        """The prefix of the blobs behind the link, where the last `depth` parts of its path are no part of the
        container's; empty, or ending with a slash.
        """
        return "".join(f"{unquote(part)}/" for part in self.base.split("/")[-depth:]) if depth else ""

    def listing(self, marker: str | None, *, page_size: int | None = None, prefix: str = "", depth: int = 0) -> str:
        """The signed URL of one page of List Blobs, from `marker` on (None: from the start). The last `depth` parts of
        the path are a folder in the container.
        """
        base, prefix = self.base.rsplit("/", depth)[0], self.folder(depth) + prefix
        more = f"&maxresults={page_size}" if page_size else ""
        if prefix:
            more += f"&prefix={quote(prefix, safe='')}"
        if marker:
            more += f"&marker={quote(marker, safe='')}"
        return f"{base}?restype=container&comp=list{more}&{self.query}"

    @property
    def reads_only(self) -> bool:
        """Whether it says itself that it reads, and at most lists. Source: "Create a service SAS", `sp`."""
        fields = dict(pair.partition("=")[::2] for pair in self.query.split("&"))
        return "r" in fields.get("sp", "") and set(fields["sp"]) <= {"r", "l"}

    def viewer(self, prefix: str = "") -> str:
        """The URL that a 3D viewer starts from. No slash stands in its query, as those of signatures do when nobody
        quotes them: 3d-tiles-renderer takes what is before the last one for the folder (0.5.3).
        """
        path, mark, query = self.blob(f"{prefix}{ROOT}").partition("?")
        return f"{path}{mark}{query.replace('/', '%2F')}"

    def __repr__(self) -> str:
        return f"SasUrl({self.base!r}, expires={self.expires})"


@dataclass(frozen=True, slots=True)
class Export:
    """One row of the service's export list.

    `modified` is the service's own text. `size` is `stats.compressedSize`, in bytes. `record` is the whole row without
    its links. `link` may be present on exports that are not Complete. `held`: it is read from this held version.
    """

    id: str
    status: str
    name: str = ""
    imodel: str | None = None
    changeset: str | None = None
    type: str = ""
    modified: str = ""
    size: int | None = None
    error: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)
    link: SasUrl | None = None
    held: Version | None = None

    @property
    def complete(self) -> bool:
        """Whether the tiles are all there: the status says so, a link alone does not."""
        return self.status.lower() == Status.COMPLETE.lower()


@dataclass(frozen=True, slots=True)
class Selector:
    """Which exports are meant. Empty fields do not filter; `export_type` compares without case."""

    imodel: str | None = None
    changeset: str | None = None
    export_id: str | None = None
    export_type: str = ""
    tile_version: str | None = None
    itwinjs: str | None = None


@dataclass(frozen=True, slots=True)
class Resolution:
    """The export to mirror, the id of the newest of the selection, and what a held one `lacks` as its manifest says."""

    export: Export
    newest: str
    newest_status: str = Status.COMPLETE
    server_time: datetime | None = None
    lacks: frozenset[str] = frozenset()

    @property
    def behind(self) -> bool:
        """Whether the newest export is another one than the chosen."""
        return self.newest != self.export.id


class Role(StrEnum):
    """What one file asks another for. `UNKNOWN`: a URI in an extension that tilesync does not know."""

    CONTENT = "content"
    SUBTREE = "subtree"
    SCHEMA = "schema"
    BUFFER = "buffer"
    IMAGE = "image"
    SHADER = "shader"
    MODEL = "model"
    EXTENT = "extent"
    UNKNOWN = "unknown"


class Kind(StrEnum):
    """What a file is, told by its payload, never by its name. `NONE`: nothing that tilesync knows."""

    TILESET = "tileset"
    SUBTREE = "subtree"
    GLB = "glb"
    GLTF = "gltf"
    B3DM = "b3dm"
    I3DM = "i3dm"
    PNTS = "pnts"
    CMPT = "cmpt"
    VECTOR = "vector"
    VOXELS = "voxels"
    GEOJSON = "geojson"
    SCHEMA = "schema"
    IMAGE = "image"
    ARCHIVE = "archive"
    JSON = "json"
    EMPTY = "empty"
    NONE = ""


class Reference(NamedTuple):
    """One file asks for another: `target` is the name of a blob of the same container."""

    target: str
    role: Role


class Remark(NamedTuple):
    """Something about a file that a person may want to know and that is no error. `problem` is one word for it."""

    problem: str
    detail: str


class Reading(NamedTuple):
    """What the bytes of one file say. `implicit`: it is a tileset with implicit tiling, so its subtrees say more."""

    kind: Kind = Kind.NONE
    references: tuple[Reference, ...] = ()
    remarks: tuple[Remark, ...] = ()
    implicit: bool = False


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, complete and well-formed; `marker` asks for the next one, None after the last. `undated`:
    of how many blobs it states a time that none can have.
    """

    blobs: tuple[Blob, ...]
    marker: str | None
    skipped: int = 0
    undated: int = 0


class Unsound(NamedTuple):
    """A held file that is broken, or of no use for who asks for it. `role` is empty where nothing asks, `asker` also
    of the root, which every viewer asks for. `stated`: the container states the MD5 of these bytes.
    """

    name: str
    reason: str
    asker: str = ""
    role: str = ""
    stated: bool = False


class Arrival(NamedTuple):
    """A file that is in place, by its number in the catalog, with what its bytes said.

    `partly`: more references of it than `reading` holds are in the catalog already.
    """

    number: int
    held: Held
    reading: Reading = Reading()
    partly: bool = False


class Brought(NamedTuple):
    """What came of some small blobs: those that are in place, those that did not come at once, each with its number,
    and how many seconds an answer took, and took to begin.
    """

    arrivals: tuple[Arrival, ...]
    left: tuple[tuple[int, Blob], ...]
    seconds: float
    first: float = 0.0


@dataclass(frozen=True, slots=True)
class Completeness:
    """What the files of a version ask for, counted: `referenced` names in the closure of the root, the root included;
    `missing` ones of them that are not there; `orphans`, files that the closure does not hold; `unfollowed` URIs that
    lead elsewhere or stand where tilesync cannot tell what they are.
    """

    referenced: int = 0
    missing: int = 0
    orphans: int = 0
    unfollowed: int = 0


class Inventory(StrEnum):
    """How the files of an export are found: by the container's listing, or by walking from the root tileset."""

    LIST = "list"
    WALK = "walk"


@dataclass(frozen=True, slots=True)
class Globs:
    """Which names are wanted: what one of `include` matches (all, where it is empty) and none of `exclude`; ordered."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)


EVERYTHING: Final = Globs()
"""Globs that leave nothing out."""


@dataclass(frozen=True, slots=True)
class Version:
    """One whole export in a destination, or one on its way in (`published` is None then).

    `serial` is its key in the catalog. `listing` counts the listings begun for it, `listed` says that the current one
    is complete; else it goes on at `marker`. `damaged`: `verify` found files of it bad. `home` is the bare URL of its
    container, without the query that signs it; `globs` say which files of it are wanted. `bytes` are those of its files
    as they lie, which `content` says for as long as it lives.

    Moments are texts, in UTC: `begun`, when a run last took it up; `published`, when it was finished; `left`, when the
    pointer last moved away from it; `retired`, when it was given up (its files are in the trash then, or gone).
    """

    serial: int
    name: str
    export: str
    imodel: str | None
    changeset: str | None
    modified: str
    record: Mapping[str, Any] = field(hash=False)
    listing: int = 1
    listed: bool = False
    marker: str | None = None
    damaged: bool = False
    published: str | None = None
    files: int = 0
    bytes: int = 0
    manifest_sha256: str | None = None
    inventory: str = Inventory.LIST
    home: str = ""
    globs: Globs = EVERYTHING
    completeness: Completeness = Completeness()
    begun: str = ""
    left: str | None = None
    retired: str | None = None
    content: Content = Content.STORED

    @property
    def exported(self) -> str:
        """When the service made the export, in its own words; empty where it did not say. `modified` is empty, too,
        where the container was found to be another one since.
        """
        return self.modified or str(self.record.get("lastModified") or "")


@dataclass(frozen=True, slots=True)
class Twin:
    """A held file of another version that has the content of a wanted one. `kind` and `implicit` as in its Reading;
    `asks`: it asks for others; `remarked`: something is to be said of its URIs, which may be another thing elsewhere.
    """

    version: Version
    held: Held
    kind: Kind = Kind.NONE
    implicit: bool = False
    asks: bool = False
    remarked: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Files and bytes of an inventory, and what of them is held; what is excluded is counted in neither. Bytes are
    those that the container stores; what is held takes `growth` more as it lies.
    """

    files: int
    bytes: int
    held_files: int
    held_bytes: int
    excluded: int = 0
    excluded_bytes: int = 0
    growth: int = 0
