"""What a destination holds, told by its manifests, and by its catalog where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tilesync.core.manifest import read_header, read_line
from tilesync.core.retention import newest_first, next_to_go
from tilesync.errors import DestinationError
from tilesync.events import Warned
from tilesync.model import Export, Version
from tilesync.protocols import Catalog, Observer, Published


@dataclass(frozen=True, slots=True)
class Holding:
    """One version. `shared`: the bytes of files that other versions hold too, None where that is not known.

    `state`: held, damaged (files of it are bad or gone), unfinished, or retired.
    """

    version: Version
    state: str
    shared: int | None
    current: bool
    pinned: bool


def holdings(
    publication: Published, catalog: Catalog | None, observe: Observer, *, retired: bool = False
) -> list[Holding]:
    """The versions, the newest first, then those on their way in; with `retired` those that were here too, and then
    nothing of what is shared.
    """
    latest = publication.latest() or {}
    known = {version.name: version for version in catalog.versions()} if catalog is not None else {}
    shared = catalog.shared_bytes() if catalog is not None and not retired else None
    finished = [_as_known(version, known.get(version.name)) for version in _finished(publication, observe)]
    unfinished = [version for version in known.values() if version.published is None]

    def told(version: Version, state: str) -> Holding:
        current = version.name == latest.get("version")
        there = None if shared is None or version.name not in known else shared.get(version.name, 0)
        return Holding(version, state, there, current, pinned=current and bool(latest.get("pinned")))

    damaged = {name for name, version in known.items() if version.damaged}
    return [
        *(told(version, "damaged" if version.name in damaged else "held") for version in newest_first(finished)),
        *(told(version, "unfinished") for version in unfinished),
        *(told(version, "retired") for version in (_retired(catalog) if retired and catalog is not None else ())),
    ]


def _as_known(said: Version, known: Version | None) -> Version:
    """The version of a manifest, with what the service said of its export since."""
    return said if known is None else replace(said, modified=known.modified, record=known.record)


def _retired(catalog: Catalog) -> list[Version]:
    return [v for v in catalog.versions(retired=True) if v.retired and v.published and not v.globs]


def _finished(publication: Published, observe: Observer) -> Iterator[Version]:
    for name in publication.manifest_names():
        try:
            yield read_header(next(publication.manifest(name)), name=name)
        except (DestinationError, StopIteration, KeyError, TypeError, ValueError) as error:
            observe(Warned(f"the manifest of version {name} cannot be read: {error}"))


def held_as(export: Export, there: Sequence[Holding]) -> str:
    """How an export is held: one of _HELD, the best that is true; empty where it is not."""
    found = [each for each in there if each.version.export == export.id]
    same = [each for each in found if each.version.modified == export.modified or not each.version.modified]
    states = {"partly" if each.state == "held" and each.version.globs else each.state for each in same}
    return next((state for state in _HELD if state in states), "older" if found else "")


_HELD = {
    "held": "held",
    "partly": "held in part, as --include or --exclude wanted it",
    "damaged": "held, and damaged",
    "unfinished": "not held whole",
    "retired": "held no more: it retired",
    "older": "held as it was before it changed",
    "": "not held",
}


def endangered(exports: Sequence[Export], there: Sequence[Holding]) -> Iterator[str]:
    """A sentence for each finished export that the service deletes next and that is not held."""
    for export in next_to_go(exports):
        how = held_as(export, there)
        if export.complete and how not in {"held", "retired"}:
            yield (
                f"export {export.id} is {_HELD[how]}, and is deleted when the service makes the next one: mirror it"
                f" with --export-id {export.id} --no-publish, or all of them with --all-exports"
            )


def sha256sums(publication: Published, name: str) -> Iterator[str]:
    """What `sha256sum -c` reads in the folder of a version: a line a file whose SHA-256 is known. Raises
    DestinationError.
    """
    lines = publication.manifest(name)
    try:
        read_header(next(lines), name=name)
        for said in lines:
            held = read_line(said)
            if held.sha256:
                yield f"{held.sha256.hex()}  {held.blob.name}"
    except (StopIteration, KeyError, TypeError, ValueError) as error:
        raise DestinationError(f"the manifest of version {name} cannot be read: {error}") from error
