"""What the jobs need of the state of a destination."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Protocol

from tilesync.model import (
    Blob,
    Completeness,
    DamagedFile,
    Diagnostic,
    Duplicate,
    FileResult,
    Kind,
    ParsedContent,
    Role,
    StoredFile,
    Totals,
    Version,
)


class ReferenceIndex(Protocol):
    """Which file of a version asks for which. Safe from any thread."""

    def add(
        self,
        version: Version,
        source: str,
        reading: ParsedContent,
        *,
        replace_existing: bool = False,
        derived: bool = False,
    ) -> None:
        """Take in a part of what one file asks for; `anew`: what was said before of it is void.

        `grown`: it asks for that when it is read together with others. `anew` then voids what that said before; it is
        void, too, when the file itself comes anew.
        """

    def read_contents(
        self, version: Version, names: Sequence[str], *, references_per_part: int
    ) -> Iterator[tuple[str, ParsedContent]]:
        """What each of some held files says by itself, `together` references at a time at most."""

    def list_targets(self, version: Version, source: str, role: Role) -> list[str]:
        """What one file asks for in one role."""

    def count_announced(self, version: Version) -> tuple[int, int]:
        """How many files subtrees announce, and how many of them are not there, or are not known to be."""

    def list_implicit_tilesets(self, version: Version, *, only_reached: bool = False) -> list[str]:
        """The held tilesets with implicit tiling; `reached`: those that the root leads to, as far as is known."""

    def compute_completeness(self, version: Version) -> Completeness:
        """Count what the version asks for."""

    def list_missing(self, version: Version) -> Iterator[tuple[str, str, str]]:
        """Each name that is asked for and not there, who asks for it, and what for; after `settle`."""

    def list_leading_elsewhere(self, version: Version) -> list[tuple[str, str]]:
        """The files of which viewers of a copy are led elsewhere, each with a sentence; after `settle`."""

    def has_suspect_files(self, version: Version) -> bool:
        """Whether any held file may be broken, or of no use for who asks for it."""

    def list_damaged(self, version: Version) -> list[DamagedFile]:
        """Each held file that is broken, or of no use for who asks for it; after `settle`."""

    def find_referrers(self, version: Version, names: Sequence[str]) -> dict[str, str]:
        """Who asks for each of some files, where anyone does."""

    def list_diagnostics(self, version: Version) -> Iterator[tuple[str, Diagnostic]]:
        """Every file with what is to be said of it."""

    def list_tileset_references(self, version: Version) -> list[tuple[str, str]]:
        """Which tileset asks for which."""


class DuplicateIndex(Protocol):
    """Which held files of other versions, the newest first, have the content of wanted ones. Safe from any thread."""

    def find_by_digest(
        self, version: Version, blobs: Sequence[Blob], *, all_versions: bool = False
    ) -> dict[str, list[Duplicate]]:
        """By size and SHA-256, or MD5 where a blob tells no other, for each name where there are any: one of a newest
        version that has it, or `every` one.
        """

    def find_by_sha256(self, version: Version, stored: Sequence[StoredFile]) -> dict[str, list[Duplicate]]:
        """By size and SHA-256, for each name where there are any."""

    def count_reusable_bytes(self, version: Version) -> int:
        """How many bytes of what is wanted other versions hold, by size and digest."""

    def copy_references(self, version: Version, duplicates: Iterable[Duplicate]) -> None:
        """Take over what twins of the same names ask for, in place of what was said of those names before."""


class StaleFileIndex(Protocol):
    """Where all versions share one place: what others left there under names that one does not have."""

    def list_stale(
        self, other: Version, version: Version, after: str = "", *, limit: int
    ) -> list[tuple[int, StoredFile]]:
        """What `other` holds under names that `version` does not hold, each with its id; by key in byte order, `after`
        the key of a name, which is exclusive.
        """

    def has_files_below(self, version: Version, name: str) -> bool:
        """Whether the version holds files in a folder of that name."""

    def drop_superseded(self, version: Version) -> None:
        """Give up what other versions hold where this one has taken their place: only what they left under other names
        is known on.
        """

    def drop(self, ids: Iterable[int]) -> None:
        """Forget some of them, by id."""


class Catalog(Protocol):
    """The state of a destination: versions, their inventory, and which of it is held. Safe from any thread."""

    is_new: bool

    @property
    def references(self) -> ReferenceIndex:
        """Which file asks for which."""

    @property
    def duplicates(self) -> DuplicateIndex:
        """Which files of other versions have the same content."""

    @property
    def stale_files(self) -> StaleFileIndex:
        """What other versions left where all share one place."""

    def set_value(self, key: str, value: str) -> None:
        """Keep one fact about the destination as a whole."""

    def get_value(self, key: str) -> str | None:
        """The fact kept under `key`, None when there is none."""

    def versions(self, *, export: str | None = None, name: str | None = None, retired: bool = False) -> list[Version]:
        """The versions in the order in which they were begun; with `retired` also those that were given up."""

    def is_vacant(self) -> bool:
        """Whether no version is finished, and none lists or holds anything; what a walk only wants does not count."""

    def add_version(self, version: Version) -> Version:
        """Record a new version; its serial is given here."""

    def update_version(self, version: Version) -> None:
        """Record what changed about a version."""

    def delete_version(self, version: Version) -> None:
        """Drop a version that never held anything."""

    def find_stored(self, version: Version, names: Sequence[str]) -> dict[str, StoredFile]:
        """What of these this version holds, by name."""

    def add_page(
        self, version: Version, rows: Sequence[tuple[Blob, StoredFile | None]], folders: Iterable[str]
    ) -> None:
        """Take in one page: each blob with what is held of it, the folders, and the next marker.

        Raises Incomplete, and takes in nothing, when this listing has a name twice.
        """

    def add_stored_files(self, version: Version, results: Sequence[FileResult]) -> None:
        """Take in files that were read where they lie, with what they ask for; their numbers mean nothing."""

    def finish_listing(self, version: Version) -> list[str]:
        """Mark the listing complete; return the names that an earlier listing had and this one has not."""

    def find_clash(self, version: Version, name: str) -> tuple[str, str] | None:
        """A file of the version, and one in a folder of that very name, `name` being one of the two; None where there
        are none, or the place can hold both.
        """

    def list_wanted(
        self, version: Version, after: int, *, limit: int, empty: bool | None = None
    ) -> list[tuple[int, Blob]]:
        """Blobs that are not held, in listed order, each with its id and the SHA-256 that it must have, where that is
        known; `after` is exclusive.
        """

    def list_stored(
        self, version: Version, after: str = "", *, limit: int, kinds: Collection[Kind] = ()
    ) -> list[tuple[str, StoredFile]]:
        """What is held, or what of these kinds is, by key in byte order; `after` is exclusive."""

    def list_names(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, str]]:
        """The name of every file that is known of a version, also of those left out or missing, with its key; by key in
        byte order, `after` is exclusive.
        """

    def mark_stored(self, version: Version, results: Sequence[FileResult]) -> int:
        """Record files that are in place now, with what they ask for; how many names a walk learns by that."""

    def mark_all_stored(self, version: Version) -> None:
        """Take everything that is wanted for held, with no bytes known: a plan goes on as if it had been done."""

    def add_wanted(self, version: Version, name: str) -> None:
        """A walk wants one file, known by its name alone, unless it knows it already."""

    def add_wanted_references(self, version: Version, source: str) -> int:
        """A walk wants everything that one file asks for; how much of that is new."""

    def mark_missing(self, version: Version, ids: Iterable[int]) -> None:
        """Record that the container does not have what a walk asked it for."""

    def mark_missing_wanted(self, version: Version) -> None:
        """What was missing may be there now."""

    def update_stamps(self, version: Version, stored: Sequence[StoredFile]) -> None:
        """Files that are held have another trace than was known."""

    def mark_wanted(self, version: Version, names: Iterable[str], *, include_linked: bool = False) -> None:
        """Record that files are not held, or not rightly: they are wanted again, as they were.

        `linked`: the bytes are wrong, so also where another version holds the same file; that one is damaged then.
        """

    def compute_totals(self, version: Version) -> Totals:
        """How much of the version is listed, and how much of that is held."""

    def compute_shared_bytes(self) -> dict[str, int]:
        """The bytes of the files of each version that other versions hold too, as one file; by name, where any are."""

    def drop_files(self, version: Version) -> None:
        """Forget every file of a version, and what they ask for."""
