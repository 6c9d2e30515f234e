"""The flat layout: move a finished version into the folder that all versions share, and delete stale files."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import NamedTuple

from tilesync.catalog.catalog import Catalog
from tilesync.core.filters import glob_matcher
from tilesync.core.guards import DeleteLimit, guard_against_deleting
from tilesync.core.manifest import format_timestamp
from tilesync.core.safe_names import list_parent_folders
from tilesync.errors import DestinationError
from tilesync.events import FileDeleted, Warned
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.lifecycle import find_intact
from tilesync.model import ROOT, Kind, StoredFile, Version
from tilesync.protocols import Destination, StoredFiles
from tilesync.tiles.graph import sort_dependencies_first

ROWS_PER_QUERY = 2000

MODEL_KINDS = (Kind.GLB, Kind.GLTF)
COMPOSITE_KINDS = (Kind.B3DM, Kind.I3DM, Kind.CMPT)
LEAF_KINDS = tuple(kind for kind in Kind if kind not in {*MODEL_KINDS, *COMPOSITE_KINDS, Kind.SUBTREE, Kind.TILESET})


def list_dependencies_first(version: Version, catalog: Catalog) -> Iterator[str]:
    """Yield the stored files of a version, dependencies first: contents, subtrees, tilesets, the root last."""
    for kinds in (LEAF_KINDS, MODEL_KINDS, COMPOSITE_KINDS, (Kind.SUBTREE,)):
        yield from _list_names_of_kinds(version, catalog, kinds)
    positions = {
        name: position
        for position, name in enumerate(sort_dependencies_first(catalog.references.list_tileset_references(version)))
    }
    tilesets = _list_names_of_kinds(version, catalog, (Kind.TILESET,))
    yield from sorted(tilesets, key=lambda name: (name == ROOT, positions.get(name, -1), name))


def _list_names_of_kinds(version: Version, catalog: Catalog, kinds: Iterable[Kind]) -> Iterator[str]:
    after = ""
    while batch := catalog.list_stored(version, after, limit=ROWS_PER_QUERY, kinds=tuple(kinds)):
        after = batch[-1][0]
        yield from (stored.blob.name for _, stored in batch)


class StaleFile(NamedTuple):
    """A file that another version left in the shared folder, and its id in the catalog."""

    version: Version
    file_id: int
    stored: StoredFile


class FlatLayout:
    """The folder that all versions of a destination share.

    `delete_limit`: how many stale files of earlier versions may be deleted; None keeps them all.
    """

    def __init__(self, destination: Destination, run: RunContext, delete_limit: DeleteLimit | None) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._delete_limit = delete_limit

    def move_into_place(self, version: Version, on_start: Callable[[], None]) -> None:
        """Move the files of a finished version into place. May be called again after an interruption.

        `on_start` is called before the first file moves. Raises GuardTripped, or DestinationError if folders are in the
        way; both before anything is changed.
        """
        self._check_delete_limit(version)
        if blocked := self._publication.find_blocked(version, list_dependencies_first(version, self._catalog)):
            raise DestinationError(
                f"cannot put {', '.join(blocked[:5])} in place: another file or folder is in the way",
                hint="nothing was changed; move the other file or folder away, then run again",
            )
        on_start()
        timestamp = format_timestamp(self._run.clock.now())
        stale_files = list_stale_files(version, self._catalog)
        obstacles = [stale for stale in stale_files if is_obstacle(version, stale.stored, self._catalog)]
        present = [stale for stale in obstacles if self._files.size(stale.version, stale.stored.blob.name) is not None]
        modified_names = [stale.stored.blob.name for stale in present if not is_unmodified(stale, self._files)]
        self._discard(version, [stale.stored for stale in present], timestamp)
        for stale in obstacles:
            self._catalog.mark_wanted(stale.version, [stale.stored.blob.name])
        modified_names += self._publication.move_into_place(
            version, list_dependencies_first(version, self._catalog), timestamp
        )
        for name in modified_names:
            self._run.observe(
                Warned(f"{name} was changed by someone else; it was replaced, and the old file is in the trash")
            )

    def retire_others(self, version: Version) -> None:
        """Retire the other versions, and delete their stale files if a delete limit is set. Raises GuardTripped."""
        manifests = set(self._publication.manifest_names())
        others = [
            other for other in self._list_others(version) if other.times.retired_at is None or other.name in manifests
        ]
        if self._delete_limit is None and not others:
            return
        self._check_delete_limit(version)
        timestamp = format_timestamp(self._run.clock.now())
        if self._delete_limit is not None:
            self._catalog.stale_files.drop(list(self._delete_stale(version, timestamp)))
        for other in others:
            self._catalog.update_version(other.with_times(retired_at=other.times.retired_at or timestamp))
        self._catalog.stale_files.drop_superseded(version)
        for other in others:
            self._publication.retire(other, timestamp)

    def _list_others(self, version: Version) -> list[Version]:
        return [other for other in self._catalog.versions(retired=True) if other.serial != version.serial]

    def _delete_stale(self, version: Version, timestamp: str) -> Iterator[int]:
        """Delete the stale files that nobody changed; yield the ids of all that the catalog can forget.

        A file that someone changed now belongs to them: it stays, and the catalog forgets it.
        """
        is_included = glob_matcher(version.globs)
        for stale in list_stale_files(version, self._catalog):
            if is_included(stale.stored.blob.name):
                if is_unmodified(stale, self._files):
                    self._discard(version, [stale.stored], timestamp)
                yield stale.file_id

    def _discard(self, version: Version, files: Iterable[StoredFile], timestamp: str) -> None:
        for stored in self._publication.discard(version, files, timestamp):
            self._run.stats.deleted += 1
            self._run.observe(FileDeleted(stored.blob.name, stored.size))

    def _check_delete_limit(self, version: Version) -> None:
        if self._delete_limit is not None:
            count = sum(1 for _ in list_deletable(version, self._catalog, self._files))
            guard_against_deleting(
                count, self._delete_limit, total=self._catalog.compute_totals(version).stored_files + count
            )


def list_deletable(version: Version, catalog: Catalog, files: StoredFiles) -> Iterator[StoredFile]:
    """Yield the stale files that may be deleted: unmodified, and not protected by a filter."""
    is_included = glob_matcher(version.globs)
    candidates = (stale for stale in list_stale_files(version, catalog) if is_included(stale.stored.blob.name))
    return (stale.stored for stale in candidates if is_unmodified(stale, files))


def is_unmodified(stale_file: StaleFile, files: StoredFiles) -> bool:
    """Return whether nobody changed a file in the shared folder: by its stamp, else by its bytes."""
    try:
        return files.unchanged(stale_file.version, [stale_file.stored]) == [True] or bool(
            find_intact(stale_file.version, [stale_file.stored], files)
        )
    except DestinationError:
        return False  # its folder is gone


def is_obstacle(version: Version, stored: StoredFile, catalog: Catalog) -> bool:
    """Return whether a file is where this version has a folder, or is in a folder where this version has a file."""
    name = stored.blob.name
    return catalog.stale_files.has_files_below(version, name) or bool(
        catalog.find_stored(version, list_parent_folders(name))
    )


def list_stale_files(version: Version, catalog: Catalog) -> Iterator[StaleFile]:
    """Yield the files of other versions under names that this version does not have."""
    for other in catalog.versions(retired=True):
        after = ""
        while other.serial != version.serial and (
            batch := catalog.stale_files.list_stale(other, version, after, limit=ROWS_PER_QUERY)
        ):
            after = batch[-1][1].blob.name
            yield from (StaleFile(other, file_id, stored) for file_id, stored in batch)
