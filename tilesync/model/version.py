"""The versions of a destination, and what is told of their files."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any, Final, NamedTuple

from tilesync.model.blob import Blob, StoredFile
from tilesync.model.tiles import Kind, ParsedContent


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


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a listing, complete and well-formed; `marker` asks for the next one, None after the last. `undated`:
    of how many blobs it states a time that none can have.
    """

    blobs: tuple[Blob, ...]
    marker: str | None
    skipped: int = 0
    undated: int = 0


class FileResult(NamedTuple):
    """A file that is in place, by its number in the catalog, with what its bytes said.

    `partly`: more references of it than `reading` holds are in the catalog already.
    """

    file_id: int
    stored: StoredFile
    content: ParsedContent = ParsedContent()
    has_more_references: bool = False


class BatchResult(NamedTuple):
    """What came of some small blobs: those that are in place, those that did not come at once, each with its number,
    and how many seconds an answer took, and took to begin.
    """

    results: tuple[FileResult, ...]
    remaining: tuple[tuple[int, Blob], ...]
    response_s: float
    first_byte_s: float = 0.0


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
    listing_number: int = 1
    listed: bool = False
    marker: str | None = None
    damaged: bool = False
    published_at: str | None = None
    files: int = 0
    bytes: int = 0
    manifest_sha256: str | None = None
    inventory: str = Inventory.LIST
    container_url: str = ""
    globs: Globs = EVERYTHING
    completeness: Completeness = Completeness()
    started_at: str = ""
    replaced_at: str | None = None
    retired_at: str | None = None
    content: Content = Content.STORED

    @property
    def exported(self) -> str:
        """When the service made the export, in its own words; empty where it did not say. `modified` is empty, too,
        where the container was found to be another one since.
        """
        return self.modified or str(self.record.get("lastModified") or "")


@dataclass(frozen=True, slots=True)
class Duplicate:
    """A held file of another version that has the content of a wanted one. `kind` and `implicit` as in its Reading;
    `asks`: it asks for others; `remarked`: something is to be said of its URIs, which may be another thing elsewhere.
    """

    version: Version
    stored: StoredFile
    kind: Kind = Kind.NONE
    has_implicit_tiling: bool = False
    has_references: bool = False
    has_diagnostics: bool = False


@dataclass(frozen=True, slots=True)
class Totals:
    """Files and bytes of an inventory, and what of them is held; what is excluded is counted in neither. Bytes are
    those that the container stores; what is held takes `growth` more as it lies.
    """

    files: int
    bytes: int
    stored_files: int
    stored_bytes: int
    excluded: int = 0
    excluded_bytes: int = 0
    growth_bytes: int = 0
