"""Interface of the catalog: the state of a destination."""

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
    """Index of references between the files of a version. Safe from any thread."""

    def add(
        self,
        version: Version,
        source: str,
        reading: ParsedContent,
        *,
        replace_existing: bool = False,
        derived: bool = False,
    ) -> None:
        """Add parsed content of one file, or a part of it.

        `replace_existing`: drop what was recorded for the file before. `derived`: the references follow from reading
        the file together with others; then `replace_existing` drops only derived ones. Derived ones are also dropped
        when the file itself is replaced.
        """

    def read_contents(
        self, version: Version, names: Sequence[str], *, references_per_part: int
    ) -> Iterator[tuple[str, ParsedContent]]:
        """Yield the parsed content of each stored file, at most `references_per_part` references at a time."""

    def list_targets(self, version: Version, source: str, role: Role) -> list[str]:
        """Return the targets of one file in one role."""

    def count_announced(self, version: Version) -> tuple[int, int]:
        """Return the number of files that subtrees announce, and how many of them are missing or unknown."""

    def list_implicit_tilesets(self, version: Version, *, only_reached: bool = False) -> list[str]:
        """Return the stored tilesets with implicit tiling; `only_reached`: only those known to be reachable from the
        root.
        """

    def compute_completeness(self, version: Version) -> Completeness:
        """Compute the reference counts of a version."""

    def list_missing(self, version: Version) -> Iterator[tuple[str, str, str]]:
        """Yield each missing name with its referrer and role; call `compute_completeness` first."""

    def list_leading_elsewhere(self, version: Version) -> list[tuple[str, str]]:
        """Return the files that lead viewers of a copy elsewhere, each with a sentence; call `compute_completeness`
        first.
        """

    def has_suspect_files(self, version: Version) -> bool:
        """Return whether a stored file may be broken, or unusable for its referrer."""

    def list_damaged(self, version: Version) -> list[DamagedFile]:
        """Return each stored file that is broken, or unusable for its referrer; call `compute_completeness` first."""

    def find_referrers(self, version: Version, names: Sequence[str]) -> dict[str, str]:
        """Return a referrer of each file that has one."""

    def list_diagnostics(self, version: Version) -> Iterator[tuple[str, Diagnostic]]:
        """Yield every diagnostic with its file."""

    def list_tileset_references(self, version: Version) -> list[tuple[str, str]]:
        """Return the references between tilesets, as pairs of source and target."""


class DuplicateIndex(Protocol):
    """Index of stored files in other versions with the same content, newest version first. Safe from any thread."""

    def find_by_digest(
        self, version: Version, blobs: Sequence[Blob], *, all_versions: bool = False
    ) -> dict[str, list[Duplicate]]:
        """Find duplicates by size and SHA-256, or MD5 if a blob has no SHA-256; only names with duplicates are
        returned.

        One duplicate from the newest version that has it; `all_versions`: every one.
        """

    def find_by_sha256(self, version: Version, stored: Sequence[StoredFile]) -> dict[str, list[Duplicate]]:
        """Find duplicates by size and SHA-256; only names with duplicates are returned."""

    def count_reusable_bytes(self, version: Version) -> int:
        """Return the wanted bytes that other versions have, by size and digest."""

    def copy_references(self, version: Version, duplicates: Iterable[Duplicate]) -> None:
        """Copy the references of duplicates to the same names, replacing what was recorded for those names."""


class StaleFileIndex(Protocol):
    """Index of files that earlier versions left in a shared folder, under names that a version does not have."""

    def list_stale(
        self, other: Version, version: Version, after: str = "", *, limit: int
    ) -> list[tuple[int, StoredFile]]:
        """Return files of `other` whose names `version` does not have, each with its id.

        By key in byte order; `after` is the key of a name, exclusive.
        """

    def has_files_below(self, version: Version, name: str) -> bool:
        """Return whether the version has files in a folder of that name."""

    def drop_superseded(self, version: Version) -> None:
        """Forget files of other versions that this one has replaced; only files under other names stay known."""

    def drop(self, ids: Iterable[int]) -> None:
        """Forget files by id."""


class Catalog(Protocol):
    """State of a destination: versions, their inventory, and the stored files. Safe from any thread."""

    is_new: bool

    @property
    def references(self) -> ReferenceIndex:
        """Index of references between files."""

    @property
    def duplicates(self) -> DuplicateIndex:
        """Index of files of other versions with the same content."""

    @property
    def stale_files(self) -> StaleFileIndex:
        """Index of files that other versions left in a shared folder."""

    def set_value(self, key: str, value: str) -> None:
        """Store a value about the whole destination."""

    def get_value(self, key: str) -> str | None:
        """Return the value of `key`, or None."""

    def versions(self, *, export: str | None = None, name: str | None = None, retired: bool = False) -> list[Version]:
        """Return the versions in the order in which they were begun; `retired`: also the retired ones."""

    def is_vacant(self) -> bool:
        """Return whether no version is finished, lists or stores anything; files wanted by a walk do not count."""

    def add_version(self, version: Version) -> Version:
        """Add a new version and return it with its serial."""

    def update_version(self, version: Version) -> None:
        """Save the changed fields of a version."""

    def delete_version(self, version: Version) -> None:
        """Delete a version that never stored anything."""

    def find_stored(self, version: Version, names: Sequence[str]) -> dict[str, StoredFile]:
        """Return the stored files with these names, by name."""

    def add_page(
        self, version: Version, rows: Sequence[tuple[Blob, StoredFile | None]], folders: Iterable[str]
    ) -> None:
        """Add one page of a listing: each blob with its stored file, the folders, and the next marker.

        Raises Incomplete, and adds nothing, if this listing has a name twice.
        """

    def add_stored_files(self, version: Version, results: Sequence[FileResult]) -> None:
        """Add files that were read in place, with their references; their numbers have no meaning."""

    def finish_listing(self, version: Version) -> list[str]:
        """Mark the listing complete; return the names of the previous listing that this one lacks."""

    def find_clash(self, version: Version, name: str) -> tuple[str, str] | None:
        """Return a file and another file in a folder of the same name, `name` being one of the two.

        None if there is no such pair, or the destination can store both.
        """

    def list_wanted(
        self, version: Version, after: int, *, limit: int, empty: bool | None = None
    ) -> list[tuple[int, Blob]]:
        """Return blobs that are not stored, in listed order, each with its id and its expected SHA-256 if known.

        `after` is exclusive.
        """

    def list_stored(
        self, version: Version, after: str = "", *, limit: int, kinds: Collection[Kind] = ()
    ) -> list[tuple[str, StoredFile]]:
        """Return stored files, of `kinds` only if given, by key in byte order; `after` is exclusive."""

    def list_names(self, version: Version, after: str = "", *, limit: int) -> list[tuple[str, str]]:
        """Return each known name of a version with its key, including excluded and missing files.

        By key in byte order; `after` is exclusive.
        """

    def mark_stored(self, version: Version, results: Sequence[FileResult]) -> int:
        """Record files as stored, with their references; return how many new names a walk learns from them."""

    def mark_all_stored(self, version: Version) -> None:
        """Record every wanted file as stored without any bytes, so that a dry run can continue."""

    def add_wanted(self, version: Version, name: str) -> None:
        """Add a file that a walk wants, known only by name; does nothing if it is known."""

    def add_wanted_references(self, version: Version, source: str) -> int:
        """Add all targets of one file as wanted by a walk; return how many are new."""

    def mark_missing(self, version: Version, ids: Iterable[int]) -> None:
        """Record that the container does not have these files."""

    def mark_missing_wanted(self, version: Version) -> None:
        """Want all missing files again, since the container may have them now."""

    def update_stamps(self, version: Version, stored: Sequence[StoredFile]) -> None:
        """Save new stamps of stored files."""

    def mark_wanted(self, version: Version, names: Iterable[str], *, include_linked: bool = False) -> None:
        """Record files as not stored, or stored wrongly: they are wanted again.

        `include_linked`: the bytes are wrong, so the same file in other versions is affected too; those versions become
        damaged.
        """

    def compute_totals(self, version: Version) -> Totals:
        """Return the totals of the version: listed and stored files and bytes."""

    def compute_shared_bytes(self) -> dict[str, int]:
        """Return the bytes that each version shares with others as the same file, by name; only versions with any."""

    def drop_files(self, version: Version) -> None:
        """Forget all files of a version and their references."""
