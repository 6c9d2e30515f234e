"""Versions of a destination, pages of a listing, and results for their files."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import astuple, field, replace
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tilesync.model.blob import Blob, BlobColumns, StoredFile
from tilesync.model.tiles import Kind, ParsedContent
from tilesync.values import dataclass


class Layout(StrEnum):
    """Layout of a destination: each version in a folder of its own behind a pointer, or only the last version, at the
    container's own paths.
    """

    VERSIONED = "versioned"
    FLAT = "flat"


class Content(StrEnum):
    """Content form of the files of a version: as the container stores them, or with gzip payloads unpacked."""

    STORED = "stored"
    DECODED = "decoded"


@dataclass(frozen=True, slots=True)
class Page:
    """One complete, well-formed page of a listing.

    `marker` requests the next page; None after the last. `undated`: number of blobs with an impossible time.
    """

    blobs: BlobColumns
    marker: str | None
    skipped: int = 0
    undated: int = 0

    @classmethod
    def of(cls, blobs: Iterable[Blob], marker: str | None, skipped: int = 0) -> Page:
        """Build a page of these blobs."""
        return cls(BlobColumns.from_blobs(blobs), marker, skipped)


class FileResult(NamedTuple):
    """File that is in place, by its number in the catalog, with its parsed content.

    `has_more_references`: further references of it are already in the catalog.
    """

    file_id: int
    stored: StoredFile
    content: ParsedContent = ParsedContent()
    has_more_references: bool = False


class BatchResult(NamedTuple):
    """Result of a batch of small blobs.

    `results`: files in place. `remaining`: blobs that did not succeed at once, with their numbers. `response_s`:
    seconds per response; `first_byte_s`: seconds until its first byte.
    """

    results: tuple[FileResult, ...]
    remaining: tuple[tuple[int, Blob], ...]
    response_s: float
    first_byte_s: float = 0.0


@dataclass(frozen=True, slots=True)
class Completeness:
    """Reference counts of a version.

    `referenced`: names in the closure of the root, including the root; `missing`: those of them that are not stored;
    `orphans`: files outside the closure; `unfollowed`: URIs that lead outside the container or whose purpose is
    unknown.
    """

    referenced: int = 0
    missing: int = 0
    orphans: int = 0
    unfollowed: int = 0

    def __add__(self, other: Completeness) -> Completeness:
        return Completeness(*map(sum, zip(astuple(self), astuple(other), strict=True)))


class Inventory(StrEnum):
    """Method to find the files of an export: list the container, or walk from the root tileset."""

    LIST = "list"
    WALK = "walk"


@dataclass(frozen=True, slots=True)
class Globs:
    """Globs of wanted names: matched by one of `include` (any name if it is empty) and by none of `exclude`; sorted."""

    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.include or self.exclude)


EVERYTHING: Final = Globs()
"""Globs that exclude nothing."""


@dataclass(frozen=True, slots=True)
class ListingState:
    """State of the listing, or walk, of one version.

    `number`: listings started for it. `is_complete`: this one has all files, else it continues at `marker`.
    """

    number: int = 1
    is_complete: bool = False
    marker: str | None = None

    @property
    def has_begun(self) -> bool:
        """True if at least one page is known."""
        return self.is_complete or self.marker is not None

    def restart(self) -> ListingState:
        """Return the state of the next listing, before its first page."""
        return ListingState(self.number + 1)


@dataclass(frozen=True, slots=True)
class ExportFacts:
    """The export of a version, as the service describes it; empty if it came from a bare link.

    `modified` is also empty if the container was replaced since. `record`: all that the service says of it.
    """

    imodel: str | None = None
    changeset: str | None = None
    modified: str = ""
    record: Mapping[str, Any] = field(default_factory=dict, hash=False)

    @property
    def exported(self) -> str:
        """Export time as the service states it; empty if it does not."""
        return self.modified or str(self.record.get("lastModified") or "")


@dataclass(frozen=True, slots=True)
class VersionSummary:
    """Totals of a published version, which its manifest states.

    `published_at`: time at which it was finished (UTC); None while it is unfinished. `bytes`: size on disk.
    `manifest_sha256`: digest of the manifest itself.
    """

    published_at: str | None = None
    files: int = 0
    bytes: int = 0
    manifest_sha256: str | None = None
    completeness: Completeness = Completeness()


@dataclass(frozen=True, slots=True)
class VersionTimes:
    """Times of a version in this destination: texts in UTC.

    `started_at`: a run last started or continued it. `replaced_at`: the pointer last moved away from it. `retired_at`:
    it was given up; its files are in the trash, or gone.
    """

    started_at: str = ""
    replaced_at: str | None = None
    retired_at: str | None = None


@dataclass(frozen=True, slots=True)
class Version:
    """One export in a destination, complete or still unfinished.

    `serial`: key in the catalog. `export`: id of the export; `facts` describe it. `inventory`, `container_url`,
    `globs`: how its files were found, where (without the query), and which of them are wanted. `content`: form of its
    files; never changes. `damaged`: `verify` found bad files.
    """

    serial: int
    name: str
    export: str
    facts: ExportFacts = ExportFacts()
    listing: ListingState = ListingState()
    inventory: str = Inventory.LIST
    container_url: str = ""
    globs: Globs = EVERYTHING
    content: Content = Content.STORED
    damaged: bool = False
    summary: VersionSummary = VersionSummary()
    times: VersionTimes = VersionTimes()

    @property
    def is_published(self) -> bool:
        """True if it was finished: all its files are in place, and its manifest is written."""
        return self.summary.published_at is not None

    def with_facts(self, **changes: Any) -> Version:
        """Return the version with other values of these ExportFacts."""
        return replace(self, facts=replace(self.facts, **changes))

    def with_summary(self, **changes: Any) -> Version:
        """Return the version with other values of this VersionSummary."""
        return replace(self, summary=replace(self.summary, **changes))

    def with_times(self, **changes: Any) -> Version:
        """Return the version with other times in its VersionTimes."""
        return replace(self, times=replace(self.times, **changes))


@dataclass(frozen=True, slots=True)
class Duplicate:
    """Stored file of another version with the content of a wanted one.

    `kind` and `has_implicit_tiling` as in ParsedContent. `has_references`: it refers to other files. `has_diagnostics`:
    it has diagnostics about its URIs, which may differ at another place.
    """

    version: Version
    stored: StoredFile
    kind: Kind = Kind.NONE
    has_implicit_tiling: bool = False
    has_references: bool = False
    has_diagnostics: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Files and bytes of an inventory, and the stored part of them; neither counts excluded files.

    Bytes are those in the container; stored files need `growth_bytes` more on disk.
    """

    files: int
    bytes: int
    stored_files: int
    stored_bytes: int
    excluded: int = 0
    excluded_bytes: int = 0
    growth_bytes: int = 0
