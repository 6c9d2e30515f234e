"""Where all versions share one place: a finished one is laid out in order; what others left goes on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from tilesync.core.filters import glob_matcher
from tilesync.core.guards import DeleteLimit, guard_against_deleting
from tilesync.core.manifest import format_timestamp
from tilesync.core.safe_names import list_parent_folders
from tilesync.errors import DestinationError
from tilesync.events import FileDeleted, Warned
from tilesync.jobs.run.context import RunContext
from tilesync.jobs.versions.lifecycle import find_intact
from tilesync.model import ROOT, Kind, StoredFile, Version
from tilesync.protocols import Catalog, Destination, StoredFiles
from tilesync.tiles.graph import sort_dependencies_first

ROWS_PER_QUERY = 2000

MODEL_KINDS = (Kind.GLB, Kind.GLTF)
COMPOSITE_KINDS = (Kind.B3DM, Kind.I3DM, Kind.CMPT)
LEAF_KINDS = tuple(kind for kind in Kind if kind not in {*MODEL_KINDS, *COMPOSITE_KINDS, Kind.SUBTREE, Kind.TILESET})


def list_dependencies_first(version: Version, catalog: Catalog) -> Iterator[str]:
    """The held files of a version, each behind those that it asks for: contents, subtrees, tilesets, the root last."""
    for kinds in (LEAF_KINDS, MODEL_KINDS, COMPOSITE_KINDS, (Kind.SUBTREE,)):
        yield from _list_names_of_kinds(version, catalog, kinds)
    places = {
        name: place
        for place, name in enumerate(sort_dependencies_first(catalog.references.list_tileset_references(version)))
    }
    tilesets = _list_names_of_kinds(version, catalog, (Kind.TILESET,))
    yield from sorted(tilesets, key=lambda name: (name == ROOT, places.get(name, -1), name))


def _list_names_of_kinds(version: Version, catalog: Catalog, kinds: Iterable[Kind]) -> Iterator[str]:
    after = ""
    while batch := catalog.list_stored(version, after, limit=ROWS_PER_QUERY, kinds=tuple(kinds)):
        after = batch[-1][0]
        yield from (held.blob.name for _, held in batch)


class StaleFile(NamedTuple):
    """A file that a version left in the shared place, and its id in the catalog."""

    version: Version
    file_id: int
    stored: StoredFile


class FlatLayout:
    """The place that all versions of a destination share. `delete`: how many files that earlier versions left there may
    be deleted; None leaves them all.
    """

    def __init__(self, destination: Destination, run: RunContext, delete_limit: DeleteLimit | None) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._delete_limit = delete_limit

    def move_into_place(self, version: Version, on_start: Callable[[], None]) -> None:
        """Bring a finished version into place; `begin` is called before the first file moves. May be done again.

        Raises GuardTripped, or DestinationError where folders are in the way, before anything is done.
        """
        self._check_delete_limit(version)
        if blocked := self._publication.find_blocked(version, list_dependencies_first(version, self._catalog)):
            raise DestinationError(
                f"something else stands in the place of {', '.join(blocked[:5])}, or where a folder of it is to be",
                hint="nothing was put in place; move away what is there, then run again",
            )
        on_start()
        moment = format_timestamp(self._run.clock.now())
        left = list_stale_files(version, self._catalog)
        obstacles = [each for each in left if is_obstacle(version, each.stored, self._catalog)]
        there = [each for each in obstacles if self._files.size(each.version, each.stored.blob.name) is not None]
        strange = [each.stored.blob.name for each in there if not is_unmodified(each, self._files)]
        self._discard(version, [each.stored for each in there], moment)
        for each in obstacles:
            self._catalog.mark_wanted(each.version, [each.stored.blob.name])
        strange += self._publication.move_into_place(version, list_dependencies_first(version, self._catalog), moment)
        for name in strange:
            self._run.observe(Warned(f"{name} was not as tilesync left it; it was replaced, and lies in the trash"))

    def retire_others(self, version: Version) -> None:
        """Give up the other versions, and delete what they left where that is wished. Raises GuardTripped."""
        manifests = set(self._publication.manifest_names())
        others = [o for o in self._list_others(version) if o.retired_at is None or o.name in manifests]
        if self._delete_limit is None and not others:
            return
        self._check_delete_limit(version)
        moment = format_timestamp(self._run.clock.now())
        if self._delete_limit is not None:
            self._catalog.stale_files.drop(list(self._delete_stale(version, moment)))
        for other in others:
            self._catalog.update_version(replace(other, retired_at=other.retired_at or moment))
        self._catalog.stale_files.drop_superseded(version)
        for other in others:
            self._publication.retire(other, moment)

    def _list_others(self, version: Version) -> list[Version]:
        return [other for other in self._catalog.versions(retired=True) if other.serial != version.serial]

    def _delete_stale(self, version: Version, timestamp: str) -> Iterator[int]:
        """Delete what is left; the ids of all that is tilesync's no more: what someone changed since stays theirs."""
        keeps = glob_matcher(version.globs)
        for each in list_stale_files(version, self._catalog):
            if keeps(each.stored.blob.name):
                if is_unmodified(each, self._files):
                    self._discard(version, [each.stored], timestamp)
                yield each.file_id

    def _discard(self, version: Version, files: Iterable[StoredFile], timestamp: str) -> None:
        for held in self._publication.discard(version, files, timestamp):
            self._run.stats.deleted += 1
            self._run.observe(FileDeleted(held.blob.name, held.size))

    def _check_delete_limit(self, version: Version) -> None:
        if self._delete_limit is not None:
            count = sum(1 for _ in list_deletable(version, self._catalog, self._files))
            guard_against_deleting(
                count, self._delete_limit, total=self._catalog.compute_totals(version).stored_files + count
            )


def list_deletable(version: Version, catalog: Catalog, files: StoredFiles) -> Iterator[StoredFile]:
    """What other versions left, this one does not have, nobody changed since, and no filter protects."""
    keeps = glob_matcher(version.globs)
    left = (each for each in list_stale_files(version, catalog) if keeps(each.stored.blob.name))
    return (each.stored for each in left if is_unmodified(each, files))


def is_unmodified(stale_file: StaleFile, files: StoredFiles) -> bool:
    """Whether a file lies in the shared place as it was left there, by its look, else by its bytes."""
    try:
        return files.unchanged(stale_file.version, [stale_file.stored]) == [True] or bool(
            find_intact(stale_file.version, [stale_file.stored], files)
        )
    except DestinationError:
        return False  # there is no such folder any more


def is_obstacle(version: Version, stored: StoredFile, catalog: Catalog) -> bool:
    """Whether it is a file where this version has a folder, or lies in a folder where this version has a file."""
    name = stored.blob.name
    return catalog.stale_files.has_files_below(version, name) or bool(
        catalog.find_stored(version, list_parent_folders(name))
    )


def list_stale_files(version: Version, catalog: Catalog) -> Iterator[StaleFile]:
    """What other versions hold under names that this one does not hold."""
    for other in catalog.versions(retired=True):
        after = ""
        while other.serial != version.serial and (
            batch := catalog.stale_files.list_stale(other, version, after, limit=ROWS_PER_QUERY)
        ):
            after = batch[-1][1].blob.name
            yield from (StaleFile(other, number, held) for number, held in batch)
