"""Where all versions share one place: a finished one is laid out in order; what others left goes on request."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from typing import NamedTuple

from tilesync.core.filters import keeper
from tilesync.core.guards import Most, guard_against_deleting
from tilesync.core.manifest import stamp
from tilesync.core.safe_names import folders
from tilesync.errors import DestinationError
from tilesync.events import Deleted, Warned
from tilesync.jobs.run.context import Run
from tilesync.jobs.versions.lifecycle import proven
from tilesync.model import ROOT, Held, Kind, Version
from tilesync.protocols import Catalog, Destination, HeldFiles
from tilesync.tiles.graph import deepest_first

BATCH = 2000

MODELS = (Kind.GLB, Kind.GLTF)
COMPOSED = (Kind.B3DM, Kind.I3DM, Kind.CMPT)
ASKED_FIRST = tuple(kind for kind in Kind if kind not in {*MODELS, *COMPOSED, Kind.SUBTREE, Kind.TILESET})


def in_order(version: Version, catalog: Catalog) -> Iterator[str]:
    """The held files of a version, each behind those that it asks for: contents, subtrees, tilesets, the root last."""
    for kinds in (ASKED_FIRST, MODELS, COMPOSED, (Kind.SUBTREE,)):
        yield from _of_kinds(version, catalog, kinds)
    places = {name: place for place, name in enumerate(deepest_first(catalog.references.between_tilesets(version)))}
    tilesets = _of_kinds(version, catalog, (Kind.TILESET,))
    yield from sorted(tilesets, key=lambda name: (name == ROOT, places.get(name, -1), name))


def _of_kinds(version: Version, catalog: Catalog, kinds: Iterable[Kind]) -> Iterator[str]:
    after = ""
    while batch := catalog.held(version, after, limit=BATCH, kinds=tuple(kinds)):
        after = batch[-1][0]
        yield from (held.blob.name for _, held in batch)


class Left(NamedTuple):
    """A file that a version left in the shared place, and its id in the catalog."""

    version: Version
    number: int
    held: Held


class SharedPlace:
    """The place that all versions of a destination share. `delete`: how many files that earlier versions left there may
    be deleted; None leaves them all.
    """

    def __init__(self, destination: Destination, run: Run, delete: Most | None) -> None:
        self._publication = destination.publication
        self._catalog = destination.catalog
        self._files = destination.files
        self._run = run
        self._delete = delete

    def lay_out(self, version: Version, begin: Callable[[], None]) -> None:
        """Bring a finished version into place; `begin` is called before the first file moves. May be done again.

        Raises GuardTripped, or DestinationError where folders are in the way, before anything is done.
        """
        self._guard(version)
        if blocked := self._publication.blocked(version, in_order(version, self._catalog)):
            raise DestinationError(
                f"something else stands in the place of {', '.join(blocked[:5])}, or where a folder of it is to be",
                hint="nothing was put in place; move away what is there, then run again",
            )
        begin()
        moment = stamp(self._run.clock.now())
        left = left_by_others(version, self._catalog)
        obstacles = [each for each in left if in_the_way(version, each.held, self._catalog)]
        there = [each for each in obstacles if self._files.size(each.version, each.held.blob.name) is not None]
        strange = [each.held.blob.name for each in there if not is_ours(each, self._files)]
        self._discard(version, [each.held for each in there], moment)
        for each in obstacles:
            self._catalog.release(each.version, [each.held.blob.name])
        strange += self._publication.lay_out(version, in_order(version, self._catalog), moment)
        for name in strange:
            self._run.observe(Warned(f"{name} was not as tilesync left it; it was replaced, and lies in the trash"))

    def settle(self, version: Version) -> None:
        """Give up the other versions, and delete what they left where that is wished. Raises GuardTripped."""
        manifests = set(self._publication.manifest_names())
        others = [o for o in self._others(version) if o.retired is None or o.name in manifests]
        if self._delete is None and not others:
            return
        self._guard(version)
        moment = stamp(self._run.clock.now())
        if self._delete is not None:
            self._catalog.leftovers.drop(list(self._deleted(version, moment)))
        for other in others:
            self._catalog.update(replace(other, retired=other.retired or moment))
        self._catalog.leftovers.supersede(version)
        for other in others:
            self._publication.retire(other, moment)

    def _others(self, version: Version) -> list[Version]:
        return [other for other in self._catalog.versions(retired=True) if other.serial != version.serial]

    def _deleted(self, version: Version, moment: str) -> Iterator[int]:
        """Delete what is left; the ids of all that is tilesync's no more: what someone changed since stays theirs."""
        keeps = keeper(version.globs)
        for each in left_by_others(version, self._catalog):
            if keeps(each.held.blob.name):
                if is_ours(each, self._files):
                    self._discard(version, [each.held], moment)
                yield each.number

    def _discard(self, version: Version, files: Iterable[Held], moment: str) -> None:
        for held in self._publication.discard(version, files, moment):
            self._run.tally.deleted += 1
            self._run.observe(Deleted(held.blob.name, held.size))

    def _guard(self, version: Version) -> None:
        if self._delete is not None:
            count = sum(1 for _ in to_delete(version, self._catalog, self._files))
            guard_against_deleting(count, self._delete, of=self._catalog.totals(version).held_files + count)


def to_delete(version: Version, catalog: Catalog, files: HeldFiles) -> Iterator[Held]:
    """What other versions left, this one does not have, nobody changed since, and no filter protects."""
    keeps = keeper(version.globs)
    left = (each for each in left_by_others(version, catalog) if keeps(each.held.blob.name))
    return (each.held for each in left if is_ours(each, files))


def is_ours(left: Left, files: HeldFiles) -> bool:
    """Whether a file lies in the shared place as it was left there, by its look, else by its bytes."""
    try:
        return files.unchanged(left.version, [left.held]) == [True] or bool(proven(left.version, [left.held], files))
    except DestinationError:
        return False  # there is no such folder any more


def in_the_way(version: Version, held: Held, catalog: Catalog) -> bool:
    """Whether it is a file where this version has a folder, or lies in a folder where this version has a file."""
    name = held.blob.name
    return catalog.leftovers.any_below(version, name) or bool(catalog.held_among(version, folders(name)))


def left_by_others(version: Version, catalog: Catalog) -> Iterator[Left]:
    """What other versions hold under names that this one does not hold."""
    for other in catalog.versions(retired=True):
        after = ""
        while other.serial != version.serial and (batch := catalog.leftovers.of(other, version, after, limit=BATCH)):
            after = batch[-1][1].blob.name
            yield from (Left(other, number, held) for number, held in batch)
