"""List the versions of a destination from its manifests, and from its catalog if there is one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from tilesync.core.manifest import read_header, read_line
from tilesync.core.retention import find_next_deleted, sort_newest_first
from tilesync.errors import DestinationError
from tilesync.events import Warned
from tilesync.model import Export, Version
from tilesync.protocols import Observer, ReadOnlyPublication
from tilesync.values import dataclass

if TYPE_CHECKING:
    from tilesync.catalog.catalog import Catalog


@dataclass(frozen=True, slots=True)
class ListedVersion:
    """One version in a listing.

    `state`: held, damaged (some of its files are bad or gone), unfinished, or retired.
    `shared_bytes`: bytes of files that other versions hold too; None if unknown.
    """

    version: Version
    state: str
    shared_bytes: int | None
    is_current: bool
    is_pinned: bool


def list_versions(
    publication: ReadOnlyPublication, catalog: Catalog | None, observe: Observer, *, include_retired: bool = False
) -> list[ListedVersion]:
    """List the finished versions, newest first, then the unfinished ones.

    With `include_retired`, retired versions follow, and shared bytes are not computed.
    """
    latest = publication.latest() or {}
    known = {version.name: version for version in catalog.versions()} if catalog is not None else {}
    shared_by_name = catalog.compute_shared_bytes() if catalog is not None and not include_retired else None
    finished = [
        _with_known_details(version, known.get(version.name)) for version in list_finished(publication, observe)
    ]
    unfinished = [version for version in known.values() if not version.is_published]

    def make_entry(version: Version, state: str) -> ListedVersion:
        is_current = version.name == latest.get("version")
        shared_bytes = (
            None if shared_by_name is None or version.name not in known else shared_by_name.get(version.name, 0)
        )
        return ListedVersion(
            version, state, shared_bytes, is_current, is_pinned=is_current and bool(latest.get("pinned"))
        )

    damaged = {name for name, version in known.items() if version.damaged}
    return [
        *(
            make_entry(version, "damaged" if version.name in damaged else "held")
            for version in sort_newest_first(finished)
        ),
        *(make_entry(version, "unfinished") for version in unfinished),
        *(
            make_entry(version, "retired")
            for version in (_list_retired(catalog) if include_retired and catalog is not None else ())
        ),
    ]


def _with_known_details(listed: Version, known: Version | None) -> Version:
    """Return the version of a manifest, with newer details of its export from the catalog."""
    return listed if known is None else listed.with_facts(modified=known.facts.modified, record=known.facts.record)


def _list_retired(catalog: Catalog) -> list[Version]:
    return [v for v in catalog.versions(retired=True) if v.times.retired_at and v.is_published and not v.globs]


def list_finished(publication: ReadOnlyPublication, observe: Observer | None = None) -> Iterator[Version]:
    """Yield the version of each manifest; `observe` receives a warning for each that cannot be read."""
    for name in publication.manifest_names():
        try:
            yield read_header(next(publication.manifest(name)), name=name)
        except (DestinationError, StopIteration, KeyError, TypeError, ValueError) as error:
            if observe is not None:
                observe(Warned(f"the manifest of version {name} cannot be read: {error}"))


def classify_export(export: Export, versions: Sequence[ListedVersion]) -> str:
    """Return how an export is held: the first key of _STATE_PHRASES that applies; empty if it is not held."""
    found = [each for each in versions if each.version.export == export.id]
    up_to_date = [each for each in found if each.version.facts.modified in {"", export.modified}]
    states = {"partly" if each.state == "held" and each.version.globs else each.state for each in up_to_date}
    return next((state for state in _STATE_PHRASES if state in states), "older" if found else "")


_STATE_PHRASES = {
    "held": "held",
    "partly": "held in part, because of --include or --exclude",
    "damaged": "held but damaged",
    "unfinished": "held incompletely",
    "retired": "retired: not held any more",
    "older": "held in an older state, from before it changed",
    "": "not held",
}


def describe_endangered(exports: Sequence[Export], versions: Sequence[ListedVersion]) -> Iterator[str]:
    """Yield a sentence for each finished export that the service deletes next and that is not held."""
    for export in find_next_deleted(exports):
        state = classify_export(export, versions)
        if export.is_complete and state not in {"held", "retired"}:
            yield (
                f"export {export.id} is {_STATE_PHRASES[state]}, and the service deletes it when it makes the next one:"
                f" mirror it with --export-id {export.id} --no-publish, or all exports with --all-exports"
            )


def list_sha256sums(publication: ReadOnlyPublication, name: str) -> Iterator[str]:
    """Yield lines for `sha256sum -c` in the folder of a version: one for each file with a known SHA-256.

    Raises DestinationError if the manifest cannot be read.
    """
    lines = publication.manifest(name)
    try:
        read_header(next(lines), name=name)
        for line in lines:
            stored = read_line(line)
            if stored.sha256:
                yield f"{stored.sha256.hex()}  {stored.blob.name}"
    except (StopIteration, KeyError, TypeError, ValueError) as error:
        raise DestinationError(f"the manifest of version {name} cannot be read: {error}") from error
