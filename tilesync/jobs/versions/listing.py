"""What a destination holds, told by its manifests, and by its catalog where there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from tilesync.core.manifest import read_header, read_line
from tilesync.core.retention import find_next_deleted, sort_newest_first
from tilesync.errors import DestinationError
from tilesync.events import Warned
from tilesync.model import Export, Version
from tilesync.protocols import Catalog, Observer, ReadOnlyPublication


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """One version. `shared`: the bytes of files that other versions hold too, None where that is not known.

    `state`: held, damaged (files of it are bad or gone), unfinished, or retired.
    """

    version: Version
    state: str
    shared_bytes: int | None
    is_current: bool
    is_pinned: bool


def list_versions(
    publication: ReadOnlyPublication, catalog: Catalog | None, observe: Observer, *, include_retired: bool = False
) -> list[ListedVersion]:
    """The versions, the newest first, then those on their way in; with `retired` those that were here too, and then
    nothing of what is shared.
    """
    latest = publication.latest() or {}
    known = {version.name: version for version in catalog.versions()} if catalog is not None else {}
    shared = catalog.compute_shared_bytes() if catalog is not None and not include_retired else None
    finished = [
        _with_known_details(version, known.get(version.name)) for version in _list_finished(publication, observe)
    ]
    unfinished = [version for version in known.values() if version.published_at is None]

    def told(version: Version, state: str) -> ListedVersion:
        current = version.name == latest.get("version")
        there = None if shared is None or version.name not in known else shared.get(version.name, 0)
        return ListedVersion(version, state, there, current, is_pinned=current and bool(latest.get("pinned")))

    damaged = {name for name, version in known.items() if version.damaged}
    return [
        *(told(version, "damaged" if version.name in damaged else "held") for version in sort_newest_first(finished)),
        *(told(version, "unfinished") for version in unfinished),
        *(
            told(version, "retired")
            for version in (_list_retired(catalog) if include_retired and catalog is not None else ())
        ),
    ]


def _with_known_details(listed: Version, known: Version | None) -> Version:
    """The version of a manifest, with what the service said of its export since."""
    return listed if known is None else replace(listed, modified=known.modified, record=known.record)


def _list_retired(catalog: Catalog) -> list[Version]:
    return [v for v in catalog.versions(retired=True) if v.retired_at and v.published_at and not v.globs]


def _list_finished(publication: ReadOnlyPublication, observe: Observer) -> Iterator[Version]:
    for name in publication.manifest_names():
        try:
            yield read_header(next(publication.manifest(name)), name=name)
        except (DestinationError, StopIteration, KeyError, TypeError, ValueError) as error:
            observe(Warned(f"the manifest of version {name} cannot be read: {error}"))


def classify_export(export: Export, versions: Sequence[ListedVersion]) -> str:
    """How an export is held: one of _HELD, the best that is true; empty where it is not."""
    found = [each for each in versions if each.version.export == export.id]
    same = [each for each in found if each.version.modified == export.modified or not each.version.modified]
    states = {"partly" if each.state == "held" and each.version.globs else each.state for each in same}
    return next((state for state in _STATE_PHRASES if state in states), "older" if found else "")


_STATE_PHRASES = {
    "held": "held",
    "partly": "held in part, as --include or --exclude wanted it",
    "damaged": "held, and damaged",
    "unfinished": "not held whole",
    "retired": "held no more: it retired",
    "older": "held as it was before it changed",
    "": "not held",
}


def describe_endangered(exports: Sequence[Export], versions: Sequence[ListedVersion]) -> Iterator[str]:
    """A sentence for each finished export that the service deletes next and that is not held."""
    for export in find_next_deleted(exports):
        how = classify_export(export, versions)
        if export.is_complete and how not in {"held", "retired"}:
            yield (
                f"export {export.id} is {_STATE_PHRASES[how]}, and is deleted when the service makes the next one:"
                f" mirror it with --export-id {export.id} --no-publish, or all of them with --all-exports"
            )


def list_sha256sums(publication: ReadOnlyPublication, name: str) -> Iterator[str]:
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
