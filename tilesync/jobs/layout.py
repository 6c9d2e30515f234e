"""Where all versions share one place: a finished one is laid out in order; what others left goes on request."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from tilesync.errors import DestinationError
from tilesync.events import Deleted
from tilesync.jobs.run import Run
from tilesync.jobs.versions import proven
from tilesync.model import ROOT, Held, Kind, Version
from tilesync.protocols import Catalog, Destination, HeldFiles
from tilesync.rules.cycles import deepest_first
from tilesync.rules.filters import keeper
from tilesync.rules.guards import Most, guard_against_deleting
from tilesync.rules.manifest import stamp
from tilesync.rules.names import folders

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

    def lay_out(self, version: Version) -> None:
        """Bring a finished version into place. Raises GuardTripped, before anything is done. May be done again."""
        self._guard(version)
        moment = stamp(self._run.clock.now())
        obstacles = [
            (number, held)
            for number, held in left_by_others(version, self._catalog)
            if in_the_way(version, held, self._catalog)
        ]
        self._discard(version, [held for _, held in obstacles], moment)
        self._catalog.drop(number for number, _ in obstacles)
        self._publication.lay_out(version, in_order(version, self._catalog), moment)

    def settle(self, version: Version) -> None:
        """Give up the other versions, and delete what they left where that is wished. Raises GuardTripped."""
        others = [other for other in self._catalog.versions() if other.serial != version.serial]
        if self._delete is None and not others:
            return
        self._guard(version)
        moment = stamp(self._run.clock.now())
        if self._delete is not None:
            self._catalog.drop(list(self._deleted(version, moment)))
        self._catalog.supersede(version)
        for other in others:
            self._publication.retire(other, moment)
            self._catalog.update(replace(other, retired=moment))

    def _deleted(self, version: Version, moment: str) -> Iterator[int]:
        """Delete what is left; the ids of all that is tilesync's no more: what someone changed since stays theirs."""
        keeps = keeper(version.globs)
        for number, held in left_by_others(version, self._catalog):
            if keeps(held.blob.name):
                if is_ours(version, held, self._files):
                    self._discard(version, [held], moment)
                yield number

    def _discard(self, version: Version, files: Iterable[Held], moment: str) -> None:
        for held in self._publication.discard(version, files, moment):
            self._run.tally.deleted += 1
            self._run.observe(Deleted(held.blob.name, held.blob.size))

    def _guard(self, version: Version) -> None:
        if self._delete is not None:
            count = sum(1 for _ in to_delete(version, self._catalog, self._files))
            guard_against_deleting(count, self._delete, of=self._catalog.totals(version).held_files + count)


def to_delete(version: Version, catalog: Catalog, files: HeldFiles) -> Iterator[Held]:
    """What other versions left, this one does not have, nobody changed since, and no filter protects."""
    keeps = keeper(version.globs)
    left = (held for _, held in left_by_others(version, catalog) if keeps(held.blob.name))
    return (held for held in left if is_ours(version, held, files))


def is_ours(version: Version, held: Held, files: HeldFiles) -> bool:
    """Whether a file lies in the shared place as it was left there, by its look, else by its bytes."""
    try:
        return files.unchanged(version, [held]) == [True] or bool(proven(version, [held], files))
    except DestinationError:
        return False  # there is no such folder any more


def in_the_way(version: Version, held: Held, catalog: Catalog) -> bool:
    """Whether it is a file where this version has a folder, or lies in a folder where this version has a file."""
    name = held.blob.name
    return catalog.holds_below(version, name) or bool(catalog.held_among(version, folders(name)))


def left_by_others(version: Version, catalog: Catalog) -> Iterator[tuple[int, Held]]:
    """What other versions hold under names that this one does not hold, each with its id in the catalog."""
    for other in catalog.versions(retired=True):
        after = ""
        while other.serial != version.serial and (batch := catalog.leftovers(version, other, after, limit=BATCH)):
            after = batch[-1][1].blob.name
            yield from batch
